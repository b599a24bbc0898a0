"""A store's table: one row a clip, and how it lies in the file."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import starmap
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ser_embed.corpora import Utterance

__all__ = [
    "COLUMNS", "FAILED_CLIP", "LATER", "LEFT_OUT", "STORED", "ClipRow", "EncodedClip",
    "Identity", "Place", "checksum", "columns_of", "rows_of", "sorted_lines", "table_of",
    "text_of", "text_type", "widths_of",
]  # fmt: skip

STORED, FAILED_CLIP, LEFT_OUT = "stored", "failed", "left out"

TEXT = "text"
Identity = tuple[str, str]  # a file's own name, with the range of it, and its bytes' SHA-256
Place = tuple[str, float, float]  # path and range


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One row of a store's table; the columns of the file, in order."""

    path: str  # relative to the corpus's root
    corpus: str
    speaker: str
    gender: str
    emotion: str
    intensity: str
    text_id: str
    recording: str
    part: str
    seconds: float
    sha256: str
    state: str  # stored, failed, or left out as what another file has
    reason: str  # why it failed or was left out
    checksum: int  # CRC-32 of the stored bytes, features then range
    start: float = 0.0  # where in the file the clip begins, in seconds
    end: float = 0.0  # where it ends; 0 for the file's end

    @classmethod
    def of(
        cls, utterance: Utterance, root: Path, sha256: str, seconds: float, reason: str = "",
        state: str = "",
    ) -> "ClipRow":  # fmt: skip
        """Return the row for an utterance; without a state it is failed if it has a reason."""
        path = utterance.path
        return cls(
            path=(path.relative_to(root) if path.is_relative_to(root) else path).as_posix(),
            corpus=utterance.corpus, speaker=utterance.speaker, gender=utterance.gender,
            emotion=utterance.emotion, intensity=utterance.intensity, text_id=utterance.text_id,
            recording=utterance.recording, part=utterance.part, seconds=seconds, sha256=sha256,
            state=state or (FAILED_CLIP if reason else STORED), reason=reason, checksum=0,
            start=float(utterance.start or 0), end=float(utterance.end or 0),
        )  # fmt: skip

    @property
    def is_stored(self) -> bool:
        """Whether the clip's features are in the file."""
        return self.state == STORED

    @property
    def values(self) -> tuple[Any, ...]:
        """The row in the order of the columns."""
        return _values(self)

    @property
    def identity(self) -> Identity:
        """What makes two rows the same clip: the file's own name, its bytes, and the range.

        Not the folder: the same corpus seen from another root is the same clips.
        """
        return _identity(self.path.rpartition("/")[2], self.sha256, self.start, self.end)

    @property
    def place(self) -> Place:
        """Where the clip is: path and range."""
        return self.path, self.start, self.end

    @staticmethod
    def identity_of(utterance: Utterance, sha256: str) -> Identity:
        """Return the identity that the row of an utterance has."""
        start, end = float(utterance.start or 0), float(utterance.end or 0)
        return _identity(utterance.path.name, sha256, start, end)


class EncodedClip(NamedTuple):
    """A clip as a store takes it; one that failed has empty arrays.

    Attributes:
        row: What the table says of it.
        features: Its features in the stored type, (T, D), (L, T, D) or pooled (L, D).
        extrema: What undoes the normalisation, (T, 2) or (L, T, 2) float32; may be empty.
        frames: How many frames are its own.
    """

    row: ClipRow
    features: np.ndarray
    extrema: np.ndarray
    frames: int


def _identity(name: str, sha256: str, start: float, end: float) -> Identity:
    return (f"{name}\0{start}\0{end}" if start or end else name), sha256


COLUMNS = {
    field.name: {str: TEXT, float: "f8", int: "u4"}[field.type]  # type: ignore[index]
    for field in fields(ClipRow)
}

LATER = ("start", "end")
"""Columns that files made before there were ranges don't have."""

_PLACE = (("offset", "i8"), ("frames", "i4"))
"""Where a clip's frames are: columns of the file, not of `ClipRow`."""

_values = attrgetter(*COLUMNS)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # any file name


def text_of(value: bytes) -> str:
    """Return a text from its bytes in a file."""
    return value.decode("utf-8", "surrogateescape")


def text_type(width: int) -> np.dtype:
    """Return the type of texts of up to so many bytes.

    HDF5 keeps texts of variable length in a heap that has no checksum, and a single damaged byte
    there can make it read for ever; so their length is fixed.
    """
    return h5py.string_dtype("utf-8", max(1, width))


def widths_of(rows: Iterable[ClipRow], least: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return how many bytes each column of texts needs: multiples of eight, `least` or more."""
    names = [name for name, kind in COLUMNS.items() if kind == TEXT]
    widths = {name: (least or {}).get(name, 1) for name in names}
    for row in rows:
        for name in names:
            value = getattr(row, name)
            if len(value) > widths[name] or not value.isascii():
                widths[name] = max(widths[name], len(_bytes(value)))
    return {name: -(-width // 8) * 8 for name, width in widths.items()}


def table_of(
    rows: Sequence[ClipRow], widths: Mapping[str, int], places: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Return rows, and where their frames begin and how many there are, as a file holds them."""
    types = {n: text_type(widths[n]) if kind == TEXT else kind for n, kind in COLUMNS.items()}
    table = np.zeros(len(rows), dtype=[*types.items(), *_PLACE])
    for name, kind in COLUMNS.items():
        values = [getattr(row, name) for row in rows]
        table[name] = [_bytes(value) for value in values] if kind == TEXT else values
    if rows:
        table["offset"], table["frames"] = zip(*places, strict=True)
    return table


def sorted_lines(table: np.ndarray) -> np.ndarray:
    """Return the lines of a table by path, then hash and range, int64 (N,)."""
    paths = table["path"]
    if (paths[1:] > paths[:-1]).all():
        return np.arange(len(table))
    return np.lexsort((table["end"], table["start"], table["sha256"], paths))


def columns_of(table: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of what `table_of` gave, texts as objects."""
    return {
        name: np.array(values, dtype=object if COLUMNS[name] == TEXT else COLUMNS[name])
        for name, values in _values_of(table).items()
    }


def rows_of(table: np.ndarray) -> Iterator[ClipRow]:
    """Yield the rows of what `table_of` gave."""
    return starmap(ClipRow, zip(*_values_of(table).values(), strict=True))


def _values_of(table: np.ndarray) -> dict[str, list[Any]]:
    values = {
        name: table[name].tolist() if name in (table.dtype.names or ()) else [0.0] * len(table)
        for name in COLUMNS
    }
    for name, kind in COLUMNS.items():
        if kind == TEXT:
            # Most texts but the path are those of other rows too: one object each.
            texts = {value: text_of(value) for value in set(values[name])}
            values[name] = [texts[value] for value in values[name]]
    return values


def checksum(features: np.ndarray, extrema: np.ndarray) -> int:
    """Return the CRC-32 of a clip's bytes."""
    return zlib.crc32(extrema.tobytes(), zlib.crc32(features.tobytes()))
