"""Published fold lists: which row of a list means which clip, and what its words mean."""

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ser_embed.audio import AudioFile
from ser_embed.csvfile import PARTS, CsvFile
from ser_embed.errors import SplitError

__all__ = ["read_folds"]

log = logging.getLogger(__name__)

_LEFT_OUT = ("", "-", "nan", "none", "n/a", "<na>", "null")  # in lower case
Row = dict[str, str]


def read_folds(file: Path, clips: pd.DataFrame) -> dict[str, np.ndarray]:
    """Read a CSV with a `file` column and one column a fold, each cell `train`, `val` or `test`.

    A row means the clip of its relative path, before which the corpus's name may stand; a list
    that has other folders, or none, goes by the file's name as far as that is one clip's alone.
    Case and the ending don't matter.

    Returns:
        The part of each clip, "" where it is left out, (n_clips,) by the fold's name.

    Raises:
        SplitError: Not such a list, a word that means no part, a name that could mean several
            clips, two rows of one clip that differ, or no clip that is listed.
    """
    try:
        table = CsvFile(file, ("file|path|filename|name",))
        names = [name for name in table.header if re.match("fold(?!er)", name)]
        rows = [(line, _parts(row, names)) for line, row in table.rows()]
    except (OSError, ValueError) as error:
        raise SplitError(
            f"{file}: can't be read ({error}); it needs the header file,...,fold_1[,fold_2...]"
        ) from error
    if not names or not rows:
        raise SplitError(f"{file}: needs the header file,...,fold_1[,fold_2...] and rows under it")
    found = _rows_of_clips(file, rows, clips)
    missing = found.count(None)
    if missing == len(clips):
        raise SplitError(
            f"{file}: names none of the {len(clips)} clips, such as {clips['path'].iat[0]}"
        )
    if missing:
        log.warning("%d clips are not in %s and are left out", missing, file)
    return {name: np.array([row[name] if row else "" for row in found]) for name in names}


def _parts(cells: Mapping[str, str], names: list[str]) -> Row:
    if "+" in cells:
        raise ValueError(
            f"{cells['file']}: the row has more cells than the header ({cells['+'][:60]!r}); put "
            "a name that holds the delimiter in quotation marks"
        )
    parts = {"file": cells["file"]}
    for name in names:
        word = cells[name].lower()
        if word not in PARTS and word not in _LEFT_OUT:
            raise ValueError(
                f"{cells['file']}: {name} is {cells[name]!r}, which is none of train, val (dev, "
                "valid, validation) and test, nor empty to leave the clip out"
            )
        parts[name] = PARTS.get(word, "")
    return parts


def _rows_of_clips(
    file: Path, rows: list[tuple[int, Row]], clips: pd.DataFrame
) -> list[Row | None]:
    """Return the row of each clip, None where it isn't listed."""
    by_stem: dict[str, list[tuple[int, Row]]] = defaultdict(list)
    for line, row in rows:
        by_stem[_key(row["file"])[-1]].append((line, row))
    # A list of several corpora may have the corpus as its outermost folder.
    paths = [
        f"{corpus}/{path}" for corpus, path in zip(clips["corpus"], clips["path"], strict=True)
    ]
    sounds = clips["sha256"].tolist()
    found: list[tuple[int, int, Row] | None] = []  # the folders in common, the line and the row
    for path in paths:
        candidates = [
            (_in_common(row["file"], path), line, row)
            for line, row in by_stem.get(_key(path)[-1], ())
        ]
        most = max((common for common, _, _ in candidates), default=0)
        best = [one for one in candidates if one[0] == most]
        if len({tuple(row.items())[1:] for _, _, row in best}) > 1:
            lines = " and ".join(str(line) for _, line, _ in best[:5])
            raise SplitError(
                f"{file}: {path} is ambiguous: lines {lines} are named alike and are in different "
                "parts; write it with all its folders, the corpus as the first"
            )
        found.append(best[0] if best else None)
    # Of several clips that a row could mean, the one whose folders are the row's.
    claims: dict[int, list[int]] = defaultdict(list)
    for number, one in enumerate(found):
        if one:
            claims[one[1]].append(number)
    for line, numbers in claims.items():
        most = max(one[0] for n in numbers if (one := found[n]))
        best_clips = [n for n in numbers if (one := found[n]) and one[0] == most]
        if len({sounds[n] for n in best_clips}) > 1:
            several = ", ".join(paths[n] for n in best_clips[:3])
            raise SplitError(
                f"{file}, line {line}: the name is ambiguous: it could mean {several}; write it "
                "with all its folders, the corpus as the first"
            )
        for n in set(numbers) - set(best_clips):
            found[n] = None
    unused = len(rows) - len({one[1] for one in found if one})
    if unused:
        log.info("%d rows of %s name no clip, or one that another row names", unused, file)
    return [one[2] if one else None for one in found]


def _key(name: str) -> tuple[str, ...]:
    """Return a path's parts in lower case, without an audio file's ending."""
    plain = unicodedata.normalize("NFC", name.replace("\\", "/"))
    path = PurePosixPath(plain.lower())
    parts = [part for part in path.parts if part not in (".", "/")] or [""]
    if path.suffix in AudioFile.ENDINGS:
        parts[-1] = path.stem
    return tuple(parts)


def _in_common(name: str, path: str) -> int:
    """Return how many folders before the file's name two paths have in common; the very same
    ending is a little more than that.
    """
    first, second = _key(name)[-2::-1], _key(path)[-2::-1]
    pairs = zip(first, second, strict=False)
    common = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
    return 2 * common + (Path(name).suffix.lower() == Path(path).suffix.lower())
