"""What a folder or a CSV lists, and the CSV itself."""

import csv
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from ser_embed.corpora.labels import canonical_emotion
from ser_embed.corpora.naming import CORPORA, Utterance
from ser_embed.errors import CorpusError

__all__ = ["DEMO", "Listing", "read_csv"]

DEMO = "demo"  # the name that the synthetic clips go by


@dataclass(frozen=True)
class Listing:
    """What a folder or CSV holds.

    Attributes:
        corpus: Name of the corpus.
        root: Folder that paths are relative to.
        utterances: The clips, sorted by path.
        faults: Path and reason of each audio file that can't be placed.
    """

    corpus: str
    root: Path
    utterances: Sequence[Utterance]
    faults: tuple[tuple[Path, str], ...] = ()


class _CsvClips(Sequence[Utterance]):
    """The clips of a CSV, sorted by path, in a private file that is removed by itself.

    A CSV may have millions of lines; as objects they would take 600 bytes each.
    """

    def __init__(self, corpus: str) -> None:
        self.corpus = corpus
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(
            "CREATE TABLE clips (path BLOB PRIMARY KEY, speaker, gender, emotion, intensity, part)"
        )

    def fill(self, clips: Iterable[tuple[int, tuple[str, ...]]]) -> int:
        """Take in numbered lines; return the number of the first whose path came before, or 0."""
        self._database.execute("BEGIN")
        for line, (path, *rest) in clips:
            try:
                self._database.execute(
                    "INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?)", (_sortable(path), *rest)
                )
            except sqlite3.IntegrityError:
                return line
        # Numbered by path, so that any one is found at once.
        self._database.execute("CREATE TABLE sorted AS SELECT * FROM clips ORDER BY path")
        self._database.execute("DROP TABLE clips")
        return 0

    def _utterance(self, row: Any) -> Utterance:
        path, *rest = row
        # Each distinct word once in memory, however many lines have it.
        speaker, gender, emotion, intensity, part = map(sys.intern, rest)
        return Utterance(
            _path(path), self.corpus, speaker, gender, emotion, intensity,
            part=part,
        )  # fmt: skip

    def __len__(self) -> int:
        """Return how many clips there are."""
        return int(self._database.execute("SELECT count(*) FROM sorted").fetchone()[0])

    def __iter__(self) -> Iterator[Utterance]:
        """Yield the clips."""
        for row in self._database.execute("SELECT * FROM sorted ORDER BY rowid"):
            yield self._utterance(row)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Utterance]: ...
    def __getitem__(self, index: int | slice) -> Utterance | Sequence[Utterance]:
        """Return one clip, or some."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index] + 1  # raises as a list does
        row = self._database.execute("SELECT * FROM sorted WHERE rowid = ?", (place,)).fetchone()
        return self._utterance(row)

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has the same clips."""
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        """By what never changes."""
        return hash(self.corpus)


def _sortable(path: str) -> bytes:
    """Return a path as bytes that sort as paths do: folder by folder."""
    return path.replace(os.sep, "\0").encode("utf-8", "surrogateescape")


def _path(sortable: bytes) -> Path:
    return Path(sortable.decode("utf-8", "surrogateescape").replace("\0", os.sep))


def read_csv(file: Path | str) -> Listing:
    """List the clips of a CSV with the header `path,emotion[,speaker,gender,intensity,split]`.

    Relative paths are relative to the CSV's folder. Files that don't exist are listed all the
    same: extraction reports them as failed clips. The file is read line by line: one of a
    million lines needs no more memory than one of ten.

    Raises:
        CorpusError: No such file, no usable header, no row, or a row without path or emotion.
    """
    file = Path(file)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return _read_rows(file, csv.DictReader(_checked(file, lines), skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{file}: can't be read as CSV ({error})") from error
    except sqlite3.OperationalError as error:
        raise CorpusError(
            f"{file}: its lines don't fit into the system's temporary folder ({error}); name a "
            "larger one with the environment variable SQLITE_TMPDIR"
        ) from error


def _checked(file: Path, lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if "\0" in line:
            raise CorpusError(f"{file}: holds NUL bytes; save it as CSV in UTF-8")
        yield line


def _read_rows(file: Path, rows: "csv.DictReader[str]") -> Listing:
    header = [name.strip().lower() for name in rows.fieldnames or ()]
    if not {"path", "emotion"} <= set(header):
        raise CorpusError(
            f"{file}: the first line must be a header with path,emotion (and, if known, "
            f"speaker,gender,intensity,split); it is {','.join(rows.fieldnames or ()) or 'empty'!r}"
        )
    rows.fieldnames = header
    corpus = _corpus_of(file)
    clips = _CsvClips(corpus)
    last: list[str] = []

    def cells() -> Iterator[tuple[int, tuple[str, ...]]]:
        for line, row in enumerate(rows, start=2):
            values = _cells(file, line, row, corpus)
            last[:] = values[:1]
            yield line, values

    if line := clips.fill(cells()):
        raise CorpusError(f"{file}, line {line}: {last[0]} is listed twice")
    if not len(clips):
        raise CorpusError(f"{file}: no row after the header")
    return Listing(corpus, file.parent, clips)


def _corpus_of(file: Path) -> str:
    """Return a CSV's corpus name: its stem, kept apart from the known corpora's names."""
    return f"{file.stem}-csv" if file.stem in (*CORPORA, DEMO) else file.stem


_PARTS = {"": "", "train": "train", "val": "val", "valid": "val", "validation": "val",
          "dev": "val", "test": "test"}  # fmt: skip
_GENDERS = {"": "", "f": "female", "female": "female", "w": "female",
            "m": "male", "male": "male"}  # fmt: skip


def _cells(
    file: Path, line: int, row: Mapping[str, str | None], corpus: str
) -> tuple[str, str, str, str, str, str]:
    """Return path, speaker, gender, emotion, intensity and part of a line."""

    def cell(name: str) -> str:
        return (row.get(name) or "").strip()

    if not cell("path") or not cell("emotion"):
        raise CorpusError(f"{file}, line {line}: path and emotion must not be empty")
    part, gender = cell("split").lower(), cell("gender").lower()
    if part not in _PARTS:
        raise CorpusError(f"{file}, line {line}: split {part!r} is none of train, val, test")
    speaker = cell("speaker")
    return (
        str(file.parent / cell("path")), speaker and f"{corpus}:{speaker}",
        _GENDERS.get(gender, gender), canonical_emotion(cell("emotion")),
        cell("intensity").lower(), _PARTS[part],
    )  # fmt: skip
