"""The rows of a user's own CSV: one clip each, a whole file or a time range of one."""

import logging
import math
import os
import re
import sys
from array import array
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ser_embed.corpora.naming import CORPORA, Utterance
from ser_embed.csvfile import PARTS, CsvFile, file_on_disk, says_nothing
from ser_embed.errors import CorpusError

__all__ = ["read_rows"]

log = logging.getLogger(__name__)

_PATH = "path|file|filename|file_name|file_path|filepath|audio|audio_path|audio_file|wav"
_EMOTION = "emotion|label|emotion_label|emotions|class|category"
_ALSO = (
    "speaker|speaker_id|speakerid|speaker_name|spk|spk_id|actor|actor_id|subject|subject_id",
    "gender|sex", "intensity", "split",
    "start|start_time|start_s|start_sec|begin|begin_time|onset",
    "end|end_time|end_s|end_sec|stop|stop_time", "duration",
)  # fmt: skip
_GENDERS = {"f": "female", "female": "female", "w": "female", "woman": "female",
            "m": "male", "male": "male", "man": "male"}  # fmt: skip
_EMPTY = frozenset({"", "nan", "n/a", "#n/a", "null", "nat", "<na>", "-", "--", "?"})
_CLOCK = re.compile(r"(?:(?P<days>\d+) days? )?(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+(?:\.\d+)?)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

Faults = dict[Path, list[str]]
_Range = tuple[float | None, float | None]


def read_rows(file: Path, corpus: str) -> tuple[list[Utterance], list[tuple[Path, str]]]:
    """Read a CSV with the header `path,emotion` and what else of it is known.

    Args:
        file: The table. Relative paths are relative to its folder.
        corpus: Name of the corpus, which speakers and recordings get as a prefix.

    Returns:
        The clips by path and start, and the path and reason of each row that isn't one of them.

    Raises:
        CorpusError: Not such a table, a `split` that means nothing, or no row that can be used.
        OSError: It can't be read.
    """
    try:
        table = CsvFile(file, (_PATH, _EMOTION), _ALSO)
        if table.unused:
            log.info("%s: not used are its columns %s", file, ", ".join(table.unused))
        clips, faults = _clips(table, corpus)
    except ValueError as error:
        raise CorpusError(
            f"{file}: can't be read as CSV ({error}). The first line must be a header with "
            "path,emotion and, if known, speaker,gender,intensity,split,start,end"
        ) from error
    reasons = [(path, "; ".join(texts)) for path, texts in faults.items()]
    if not clips and not reasons:
        raise CorpusError(f"{file}: no row after the header")
    if not clips:
        path, reason = reasons[0]
        raise CorpusError(f"{file}: none of its rows can be used; the first, {path}: {reason}")
    return clips, reasons


def _clips(table: CsvFile, corpus: str) -> tuple[list[Utterance], Faults]:
    folder, faults = table.file.parent, Faults()
    clips: list[Utterance] = []
    lines = array("q")
    at: dict[tuple[str, float | None, float | None], int] = {}
    conflicts: dict[int, list[tuple[int, Utterance]]] = {}
    ranged: set[Path] = set()
    for line, row in table.rows():
        path = _path(row["path"], folder) if row["path"] else table.file
        try:
            clip = _clip(row, path, corpus)
        except _RowError as error:
            faults.setdefault(path, []).append(f"line {line}: {error}")
            continue
        number = at.setdefault((os.path.normpath(path), clip.start, clip.end), len(clips))
        if number == len(clips):
            clips.append(clip)
            lines.append(line)
            if clip.start is not None or clip.end is not None:
                ranged.add(path)
        elif replace(clip, path=clips[number].path) == clips[number]:
            first = f"first in line {lines[number]}"
            faults.setdefault(path, []).append(f"line {line}: listed twice, {first}; kept once")
        else:
            conflicts.setdefault(number, []).append((line, clip))
    for number, others in conflicts.items():
        faults.setdefault(clips[number].path, []).append(
            _conflict([(lines[number], clips[number]), *others])
        )
    kept = [
        clip if clip.path not in ranged else replace(clip, recording=_recording(clip, folder))
        for number, clip in enumerate(clips) if number not in conflicts
    ]  # fmt: skip
    # Folder by folder.
    kept.sort(key=lambda clip: (str(clip.path).replace(os.sep, "\0"), clip.start or 0.0,
                                math.inf if clip.end is None else clip.end))  # fmt: skip
    return kept, faults


def _path(cell: str, folder: Path) -> Path:
    """Return the file that a cell names: a path, absolute or from a folder, `~/...` or `file:`."""
    if cell.lower().startswith("file:") and _URL.match(cell):
        cell = url2pathname(urlsplit(cell).path)
    path = file_on_disk(folder / cell)
    if cell.startswith("~") and not os.path.lexists(path):
        return file_on_disk(_at_home(Path(cell.replace("\\", "/"))))
    return path


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # no such user
        return path


class _RowError(Exception):
    """Why a row is no clip."""


def _clip(row: Mapping[str, str], path: Path, corpus: str) -> Utterance:
    def cell(name: str) -> str:
        text = row.get(name, "")
        return "" if says_nothing(text) else sys.intern(text)  # each word once in memory

    if not row["path"]:
        raise _RowError("it has no path")
    if _URL.match(row["path"]) and not row["path"].lower().startswith("file:"):
        raise _RowError(f"{row['path']} is an address; download the file and write its path")
    if "+" in row:
        raise _RowError(
            f"it has more cells than the header ({row['+'][:60]!r}); put a path or word that "
            "holds the delimiter in quotation marks"
        )
    if row["emotion"].lower() in _EMPTY:
        raise _RowError("it has no emotion")
    part, gender = cell("split").lower(), cell("gender").lower()
    if part and part not in PARTS:
        raise ValueError(
            f"{row['path']}: split {part!r} is none of train, val (dev, valid, validation), test"
        )
    start, end = _range(row)
    return Utterance(
        path, corpus, _speaker(cell("speaker"), corpus), _GENDERS.get(gender, gender),
        sys.intern(" ".join(row["emotion"].split())), sys.intern(cell("intensity").lower()),
        part=PARTS.get(part, ""), start=start, end=end,
    )  # fmt: skip


def _speaker(name: str, corpus: str) -> str:
    """Return the speaker's name over all corpora; `ravdess:07` is that corpus's own person."""
    if not name:
        return ""
    known = name.partition(":")[0] in CORPORA and not name.endswith(":")
    return sys.intern(Utterance.person(name if known else f"{corpus}:{name}"))


def _range(row: Mapping[str, str]) -> _Range:
    """Return start and end in seconds; the file's own beginning and end are None."""
    start, end = (_seconds(name, row.get(name, "")) for name in ("start", "end"))
    if "start" in row and "end" not in row and "duration" in row:
        length = _seconds("duration", row["duration"])
        end = None if length is None else round((start or 0.0) + length, 6)
    if end is not None and end <= (start or 0.0):
        raise _RowError(f"it ends at {end:g} s and starts at {start or 0.0:g} s")
    return start or None, end


def _seconds(name: str, text: str) -> float | None:
    """Read `1.5`, `1,5`, `0:01.5` or `0 days 00:00:01.500000`."""
    if text.lower() in _EMPTY:
        return None
    plain = text.replace(",", ".").removesuffix("s").strip()
    match = _CLOCK.fullmatch(plain)
    try:
        if match:
            days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
            value = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        else:
            value = float(plain)
    except ValueError:
        raise _RowError(f"its {name} {text!r} is no number of seconds") from None
    if not 0 <= value < math.inf:
        raise _RowError(f"its {name} {text!r} is no time in a file")
    return round(value, 6)  # below a sample, two times are one


def _recording(clip: Utterance, folder: Path) -> str:
    """Name the file that several clips are cut from."""
    path = clip.path
    inside = path.relative_to(folder) if path.is_relative_to(folder) else path
    return sys.intern(f"{clip.corpus}:{inside.as_posix()}")


_WORDS: Mapping[str, Callable[[Utterance], str]] = {
    "emotions": lambda clip: clip.emotion,
    "speakers": lambda clip: clip.speaker.partition(":")[2],
    "intensities": lambda clip: clip.intensity,
    "genders": lambda clip: clip.gender,
    "splits": lambda clip: clip.part,
}


def _conflict(rows: list[tuple[int, Utterance]]) -> str:
    """Return in words what rows of one clip disagree in."""
    lines = " and ".join(str(line) for line, _ in rows)
    texts = []
    for what, word in _WORDS.items():
        words = sorted({word(clip) for _, clip in rows})
        if len(words) > 1:
            texts.append(f"{len(words)} {what}, {' and '.join(w or 'none' for w in words)}")
    return f"label conflict: lines {lines} give it {'; '.join(texts)}"
