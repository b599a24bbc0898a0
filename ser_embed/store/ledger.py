"""What is stored and what a run met, by clip, outside the process's memory.

A corpus may have millions of clips. Their rows are kept in a private SQLite database without a
name, which SQLite holds in a small cache, spills to the system's temporary folder
(`$SQLITE_TMPDIR`) and removes by itself, also after a kill.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ser_embed.store.table import STORED, ClipRow, Identity, values_of

__all__ = ["Known", "Ledger", "Place"]

_TABLES = """
PRAGMA journal_mode = OFF;
CREATE TABLE known (name BLOB, sha256 TEXT, place INTEGER, file INTEGER, line INTEGER,
                    path BLOB, row TEXT, PRIMARY KEY (name, sha256)) WITHOUT ROWID;
CREATE INDEX known_path ON known (path, place);
CREATE TABLE met (name BLOB, sha256 TEXT, path BLOB, bytes TEXT, row TEXT,
                  PRIMARY KEY (name, sha256)) WITHOUT ROWID;
CREATE INDEX met_path ON met (path, bytes);
CREATE TABLE seen (name BLOB, sha256 TEXT, PRIMARY KEY (name, sha256)) WITHOUT ROWID;
"""


class Place(NamedTuple):
    """Where a stored clip's features are."""

    file: Path
    line: int
    row: ClipRow


class Ledger:
    """The clips of one store while it is written.

    Attributes:
        known: Every clip that is in a file.
    """

    def __init__(self) -> None:
        # The writer's thread only builds files; all statements come from one thread.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(_TABLES)
        self._database.execute("BEGIN")
        self._files: list[Path] = []
        self._numbers: dict[Path, int] = {}
        self._places = 0
        self.known = Known(self._database, self._files)

    def remember(self, file: Path, rows: Iterable[ClipRow]) -> None:
        """Take in the rows of a file that is on disk."""
        self.remember_each((file, line, row) for line, row in enumerate(rows))

    def remember_each(self, places: Iterable[tuple[Path, int, ClipRow]]) -> None:
        """Take in rows with the file and line that each is in; of a clip the last counts."""
        for file, line, row in places:
            if row.state != STORED:
                continue
            if file not in self._numbers:
                self._numbers[file] = len(self._files)
                self._files.append(file)
            self._places += 1
            name, sha256 = _key(row.identity)
            self._database.execute(
                "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?, ?)",
                (name, sha256, self._places, self._numbers[file], line, _blob(row.path),
                 _written(row)),
            )  # fmt: skip

    def see(self, identity: Identity) -> bool:
        """Note that this run came across a clip; return whether it is the first time."""
        cursor = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", _key(identity))
        return cursor.rowcount == 1

    def meet(self, row: ClipRow) -> None:
        """Take a row into this run's table, stored or failed; of two of a kind the last counts."""
        name, sha256 = _key(row.identity) if row.state == STORED else (_blob(row.path), "")
        self._database.execute(
            "INSERT OR REPLACE INTO met VALUES (?, ?, ?, ?, ?)",
            (name, sha256, _blob(row.path), row.sha256, _written(row)),
        )

    def keep_the_rest(self) -> int:
        """Take known clips that this run didn't meet into its table; return how many.

        Of those of one path the newest counts, and only if this run didn't read that path: what
        can't be read now doesn't cost what was encoded of it.
        """
        self._database.execute(f"INSERT INTO met SELECT name, sha256, path, sha256, row {_REST}")
        return int(self._database.execute("SELECT changes()").fetchone()[0])

    def __len__(self) -> int:
        """Rows in this run's table."""
        return int(self._database.execute("SELECT count(*) FROM met").fetchone()[0])

    def table(self) -> Iterator[tuple[ClipRow, Path | None, int]]:
        """Yield this run's rows by path, with the file and line of the stored ones.

        A stored row has the checksum of its features as they were written, whatever else of it
        (its labels) is new.
        """
        cursor = self._database.execute(
            "SELECT met.row, known.file, known.line, known.row FROM met LEFT JOIN known "
            "ON met.name = known.name AND met.sha256 = known.sha256 ORDER BY met.path, met.bytes"
        )
        for text, file, line, known in cursor:
            row = _read(text)
            if row.state != STORED:
                yield row, None, -1
            else:
                yield replace(row, checksum=_read(known).checksum), self._files[file], line

    def close(self) -> None:
        """Forget everything."""
        self._database.close()


_REST = """
FROM known WHERE NOT EXISTS (SELECT 1 FROM known AS newer
                             WHERE newer.path = known.path AND newer.place > known.place)
AND NOT EXISTS (SELECT 1 FROM met WHERE met.name = known.name AND met.sha256 = known.sha256)
AND NOT EXISTS (SELECT 1 FROM met WHERE met.path = known.path AND met.bytes != '')
"""


class Known(Mapping[Identity, Place]):
    """The clips that are in a file, by identity."""

    def __init__(self, database: sqlite3.Connection, files: list[Path]) -> None:
        self._database, self._files = database, files

    def __getitem__(self, identity: Identity) -> Place:
        """Return where a clip is."""
        found = self._database.execute(
            "SELECT file, line, row FROM known WHERE name = ? AND sha256 = ?", _key(identity)
        ).fetchone()
        if found is None:
            raise KeyError(identity)
        return Place(self._files[found[0]], found[1], _read(found[2]))

    def __len__(self) -> int:
        """Return how many there are."""
        return int(self._database.execute("SELECT count(*) FROM known").fetchone()[0])

    def __iter__(self) -> Iterator[Identity]:
        """Yield the identities."""
        for name, sha256 in self._database.execute("SELECT name, sha256 FROM known"):
            yield name.decode("utf-8", "surrogateescape"), sha256


def _blob(text: str) -> bytes:
    """SQLite's own texts can't hold a file name that isn't UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _key(identity: Identity) -> tuple[bytes, str]:
    return _blob(identity[0]), identity[1]


def _written(row: ClipRow) -> str:
    return json.dumps(values_of(row))


def _read(text: str) -> ClipRow:
    values: list[Any] = json.loads(text)
    return ClipRow(*values)
