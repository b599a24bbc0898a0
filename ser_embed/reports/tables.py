"""Tables and facts in a run's folder, and the audio files that their rows are about."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ser_embed.audio import AudioFile
from ser_embed.corpora import Utterance
from ser_embed.errors import AudioError, HeadError

__all__ = ["find_originals", "read_table", "with_ranges", "write_json"]

_TEXT_COLUMNS = (
    "path", "corpus", "speaker", "gender", "emotion", "intensity", "label", "predicted", "sha256",
    "recording", "part",
)  # fmt: skip


def read_table(path: Path) -> pd.DataFrame:
    """Read a run's predictions.csv or clips.csv; a class or a speaker may be called `1` or `NA`.

    Raises:
        HeadError: It can't be read.
    """
    try:
        table = pd.read_csv(
            path, dtype=dict.fromkeys(_TEXT_COLUMNS, object), keep_default_na=False,
            encoding_errors="surrogateescape",
        )  # fmt: skip
        if not {"path", "corpus", "speaker", "label"} <= set(table):
            raise ValueError("its columns are others")
        table["speaker"] = table["speaker"].map(Utterance.person)
        return with_ranges(table)
    except (OSError, ValueError) as error:
        raise HeadError(f"{path}: can't be read ({error}); train again") from error


def with_ranges(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of clips with `start` and `end`, float64, in seconds of the file.

    0 is the file's beginning, and its end; so it is where a table, written before there were
    ranges, doesn't say.
    """
    texts = {name: table.get(name, pd.Series(0.0, table.index)) for name in ("start", "end")}
    return table.assign(
        **{
            name: pd.to_numeric(column, errors="coerce").fillna(0.0)
            for name, column in texts.items()
        }
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is there whole or, killed or on a full disk, not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def find_originals(clips: pd.DataFrame, roots: Sequence[Path]) -> list[Path | None]:
    """Find the audio file of each clip; one whose bytes have changed is not it.

    Args:
        clips: With `path`, relative to the folder its corpus was in, and `sha256`.
        roots: Folders to look in: the corpora's own, or folders above them.

    Returns:
        A path for each row, None where there is no such file.
    """
    named: dict[str, list[Path]] = {}
    found: list[Path | None] = []
    for path, sha256 in clips[["path", "sha256"]].itertuples(index=False, name=None):
        file = _first([root / path for root in roots], sha256)
        if file is None:
            if not named:
                for one in (one for root in roots if root.is_dir() for one in AudioFile.find(root)):
                    named.setdefault(one.name, []).append(one)
            file = _first(named.get(Path(path).name, []), sha256)
        found.append(file)
    return found


def _first(candidates: Sequence[Path], sha256: str) -> Path | None:
    for path in candidates:
        try:
            if AudioFile(path).sha256() == sha256:
                return path
        except AudioError:  # not there, or not to be read
            continue
    return None
