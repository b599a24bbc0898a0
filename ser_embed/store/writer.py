"""Adding clips to a feature store, so that a kill at any instant loses nothing reported as stored.

Clips are added to the file in blocks, each a commit (`journal.py`), by a thread of their own, so
that the encoder waits for neither checksums nor the disk. A store that was never finished has
another name, `<store>.partial`, so that nobody takes it for one. In a finished store the rows of a
run that isn't finished are behind those that readers see.
"""

import contextlib
import gc
import glob
import json
import os
import shutil
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from filelock import FileLock, Timeout

from ser_embed.errors import StoreError
from ser_embed.store.frames import append_frames, time_axis
from ser_embed.store.journal import JournaledFile, journal_of, sync_folder
from ser_embed.store.ledger import Ledger, Place
from ser_embed.store.reader import PARTIAL, FeatureStore, attributes_of, table_digest
from ser_embed.store.settings import LAYOUT, FeatureSettings
from ser_embed.store.table import (
    ClipRow,
    EncodedClip,
    Identity,
    checksum,
    table_of,
    text_type,
    widths_of,
)

__all__ = ["StoreWriter"]

BLOCK_BYTES = 2**26  # of features that are committed together at most ...
BLOCK_SECONDS = 2.0  # ... and the longest that an encoded clip waits for that
BYTES_AHEAD = 2**27  # of features that wait for the thread
TABLE_BYTES = 2**15  # of a chunk of the table
WASTE = 0.02  # of a file, and at least ...
WASTE_BYTES = 2**18  # ... so much that nothing refers to, before it is written anew


@dataclass
class _Table:
    """The rows of a file, in its order.

    Attributes:
        rows: They.
        places: Where each one's frames begin, and how many there are.
        widths: Bytes of each column of texts in the file.
        hash: SHA-256 of the rows' bytes in the file, to go on from.
        finished: How many of them readers see; -1 while the store was never finished.
    """

    rows: list[ClipRow] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    widths: dict[str, int] = field(default_factory=dict)
    hash: Any = field(default_factory=sha256)
    finished: int = -1

    def copy(self) -> "_Table":
        return replace(
            self, rows=self.rows.copy(), places=self.places.copy(), hash=self.hash.copy()
        )


class StoreWriter:
    """Adds clips to a store; use `StoreWriter.open`.

    Attributes:
        path: The finished file, there or to be.
        known: Every clip that is stored, by identity.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.header = path, header
        self._settings = FeatureSettings(**json.loads(header["settings"]))
        self.known = Ledger()
        self._table = _Table()
        self._waiting: list[EncodedClip] = []
        self._waiting_bytes = 0
        self._last_commit = time.monotonic()
        self._arrived: deque[tuple[int, ClipRow]] = deque()  # committed, and not yet known
        self._pending: deque[tuple[Future[None], int]] = deque()
        self._thread = ThreadPoolExecutor(1, "store-writer")

    @classmethod
    @contextmanager
    def open(
        cls, path: Path, settings: FeatureSettings, corpus: str, root: Path, *,
        trained: bool, demo: bool,
    ) -> Iterator["StoreWriter"]:  # fmt: skip
        """Open a store for writing, alone.

        Raises:
            StoreError: Another process holds it; the message says which.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        holder = path.with_name(f".{path.name}.holder")
        try:
            lock.acquire()
        except Timeout:
            who = holder.read_text() if holder.is_file() else "another process"
            raise StoreError(
                f"{path}: {who} is extracting into this store; wait for it, or stop it first"
            ) from None
        except OSError as error:  # no locks on that mount, or the folder may not be written to
            raise StoreError(
                f"{path}: can't be locked ({error.strerror or error}), without which two processes "
                "could write it at once; write to a local disk with --features-dir FOLDER (the "
                "finished file can be copied back), or have the file system mounted with locks"
            ) from error
        header = {
            "format": "ser_embed", "schema": LAYOUT, "settings": json.dumps(asdict(settings)),
            "corpus": corpus, "root": str(root.resolve()), "trained": trained, "demo": demo,
        }  # fmt: skip
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            writer = cls(path, header)
            try:
                writer._start()
                yield writer
            finally:
                writer.close()
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def close(self) -> None:
        """Wait for what the thread is at; what `flush` didn't store is lost."""
        self._thread.shutdown()

    # --- what is there already -----------------------------------------------------------------

    def _start(self) -> None:
        """Take in what is stored."""
        for torn in self.path.parent.glob(glob.escape(self.path.name) + ".*.tmp"):
            torn.unlink()
        self._partial = self.path.with_name(self.path.name + PARTIAL)
        self._earlier = [self.path.with_name(self.path.name + end) for end in (".shards", ".parts")]
        self._file, files = self._partial, []  # what clips are added to, and what they come from
        if self.path.is_file():
            with FeatureStore(self.path) as store:
                is_present = int(store.attributes["schema"]) == LAYOUT
            self._file = self.path if is_present else self._partial
            files.append(self._partial if is_present else self.path)
        if self._file.is_file():
            self._read_file()
        files += [file for folder in self._earlier for file in sorted(folder.glob("*.h5"))]
        for file in files:
            if file.is_file():
                self._take_in(file)

    def _read_file(self) -> None:
        with FeatureStore(self._file, everything=True) as store, _no_collector():
            types = store.table.dtype
            self._table = _Table(
                store.rows, list(zip(store.offsets.tolist(), store.frames.tolist(), strict=True)),
                {n: types[n].itemsize for n in types.names or () if types[n].kind == "S"},
                sha256(store.table.tobytes()), int(store.attributes["finished"]),
            )  # fmt: skip
            self.known.add_stored(enumerate(self._table.rows))
        with self._errors(self._file):
            _settle(self._file)

    def _take_in(self, file: Path) -> None:
        """Add the clips of a file of the layout before this one, as far as they aren't known."""
        with FeatureStore(file) as store:
            for clip in store.readable_clips():
                if clip.row.is_stored and clip.row.identity not in self.known:
                    self.add([clip])
        self.flush()

    # --- clips ---------------------------------------------------------------------------------

    def add(self, clips: Sequence[EncodedClip]) -> None:
        """Add encoded clips, which are stored at the next `flush` at the latest.

        Waits while much is on its way to the disk.

        Raises:
            StoreError: The disk takes no more; what is stored is kept, and so are these clips
                until the writer is closed.
        """
        n_bytes = sum(clip.features.nbytes + clip.extrema.nbytes for clip in clips)
        self._pending.append((self._thread.submit(self._gather, clips, n_bytes), n_bytes))
        while self._pending[0][0].done() or sum(n for _, n in self._pending) > BYTES_AHEAD:
            self._wait_for_first()
            if not self._pending:
                break
        self._drain()

    def flush(self) -> int:
        """Store everything that was added; return how many clips that made known."""
        self._pending.append((self._thread.submit(self._commit_waiting), 0))
        while self._pending:
            self._wait_for_first()
        return self._drain()

    def _wait_for_first(self) -> None:
        self._pending[0][0].exception()  # an interrupt here leaves it to be waited for again
        self._pending.popleft()[0].result()

    def _drain(self) -> int:
        """Make known what was stored since the last call; return how much it is."""
        n = 0
        while self._arrived:
            self.known.add_stored([self._arrived.popleft()])
            n += 1
        return n

    def _gather(self, clips: Sequence[EncodedClip], n_bytes: int) -> None:
        """Take clips, in the thread; commit them when a block is full or old."""
        for clip in clips:
            stored = clip.features.astype(self._settings.dtype, copy=False)
            row = replace(clip.row, checksum=checksum(stored, clip.extrema))
            self._waiting.append(clip._replace(row=row, features=stored))
        self._waiting_bytes += n_bytes
        waited = time.monotonic() - self._last_commit
        if self._waiting_bytes >= BLOCK_BYTES or waited > BLOCK_SECONDS:
            self._commit_waiting()

    def _commit_waiting(self) -> None:
        self._last_commit = time.monotonic()
        if not self._waiting:
            return
        first = len(self._table.rows)
        with self._changed(self._file) as file:
            self._append(file, self._waiting)
        self._arrived.extend(zip(count(first), self._table.rows[first:]))
        self._waiting, self._waiting_bytes = [], 0

    # --- changes of the file -------------------------------------------------------------------

    @contextmanager
    def _changed(self, path: Path, anew: bool = False) -> Iterator[h5py.File]:
        """Change a file, or write it `anew` as one that isn't there: as a whole or not at all."""
        anew = anew or not path.is_file()
        target = path.with_name(f"{path.name}.{os.urandom(6).hex()}.tmp") if anew else path
        before = self._table.copy()
        if anew:
            self._table = _Table(finished=before.finished)
        with self._errors(path):
            try:
                disk = JournaledFile(target, "x" if anew else "w")
                try:
                    with h5py.File(disk, "w" if anew else "r+", libver="v110") as file:
                        yield file
                        self._seal(file)
                    disk.commit()
                except BaseException:
                    disk.abort()
                    raise
                finally:
                    disk.close()
                if anew:
                    _rename(target, path)
            except BaseException:
                self._table = before
                if anew:
                    with contextlib.suppress(OSError):
                        target.unlink(missing_ok=True)
                raise

    def _append(self, file: h5py.File, clips: Sequence[EncodedClip]) -> None:
        """Add clips to an open file, failed ones among them."""
        stored, pool = [clip for clip in clips if clip.row.is_stored], self._settings.pool
        start = 0
        if stored:
            start = append_frames(file, "features", [clip.features for clip in stored], pool)
        if stored and stored[0].extrema.size:
            append_frames(file, "range", [clip.extrema for clip in stored], pool)
        first = len(self._table.rows)
        for clip in clips:
            self._table.rows.append(clip.row)
            self._table.places.append((start, clip.frames) if clip.row.is_stored else _NOWHERE)
            start += _span(clip.frames, pool) if clip.row.is_stored else 0
        self._write_table(file, first)

    def _write_table(self, file: h5py.File, first: int) -> None:
        """Write the table's rows from one on; all of them where their texts have grown."""
        table = self._table
        widths = widths_of(table.rows[first:], table.widths)
        if widths != table.widths:
            table.widths, table.hash, first = widths, sha256(), 0
        lines = table_of(table.rows[first:], widths, table.places[first:])
        table.hash.update(lines.tobytes())
        if first:
            file["clips"].resize(len(table.rows), 0)
            file["clips"][first:] = lines
            return
        if "clips" in file:
            del file["clips"]
        chunk = max(1, min(TABLE_BYTES // lines.itemsize, 4 * len(lines)))
        file.create_dataset("clips", data=lines, maxshape=(None,), chunks=(chunk,))

    def _seal(self, file: h5py.File) -> None:
        """Write the attributes."""
        there = attributes_of(file)
        for name, value in {**self.header, "finished": self._table.finished}.items():
            if there.get(name) != value:
                _set(file, name, value)
        _set(file, "digest", table_digest(attributes_of(file), self._table.hash))

    def _rewrite(self) -> None:
        """Write the finished file anew, in the order of its table."""
        # The store is closed by the time of the rename: Windows replaces no open file.
        with self._changed(self.path, anew=True) as file, FeatureStore(self.path) as store:
            for block in _blocks(store.readable_clips()):
                self._append(file, block)

    @contextmanager
    def _errors(self, path: Path) -> Iterator[None]:
        """Turn what a disk raises into a sentence."""
        try:
            yield
        except StoreError:
            raise
        except PermissionError as error:
            if not error.filename2:  # of a rename
                raise self._cannot_write(path, error) from error
            raise StoreError(
                f"{path}: can't be replaced, as it is open in another program or in this one "
                f"({error.strerror}); close it there and run the same command again. The "
                f"{len(self.known)} clips stored so far are kept"
            ) from error
        except (OSError, RuntimeError) as error:
            raise self._cannot_write(path, error) from error

    def _cannot_write(self, path: Path, error: Exception) -> StoreError:
        free = shutil.disk_usage(self.path.parent).free
        n = len(self.known) + len(self._arrived)
        return StoreError(
            f"{path}: can't be written ({str(error).splitlines()[0][:200]}; {free / 1e6:.0f} MB "
            f"free there). The {n} clips stored so far are kept: free some space, or "
            f"move {self.path.parent} and name it with --features-dir, then run the same command "
            "again"
        )

    # --- this run's table ----------------------------------------------------------------------

    def is_new(self, identity: Identity) -> bool:
        """Note that this run came across a clip; return whether for the first time."""
        return self.known.is_new(identity)

    def record(self, row: ClipRow) -> None:
        """Add the row of a clip, stored or failed, to the finished file's table."""
        self.known.record(row)

    def finish(self, prune: bool = False, partial: bool = False) -> dict[str, int]:
        """Let readers see what this run recorded of what is stored.

        Args:
            prune: Drop the clips of earlier runs that aren't among them. By default they stay,
                unless a file of the same path has other bytes now: one that can't be read
                doesn't cost what was encoded of it.
            partial: Whether these are only some of the corpus's clips.

        Returns:
            How many clips the file holds (`clips`), and how many of them this run didn't find
            (`kept`).
        """
        self.flush()
        with _no_collector():
            kept = 0 if prune else self.known.keep_the_rest(partial)
            table = self.known.table()
        self._thread.submit(self._finish, table).result()
        return {"clips": len(table), "kept": kept}

    def _finish(self, table: list[Place]) -> None:
        rows = self._table.rows
        added = [EncodedClip(p.row, _NOTHING, _NOTHING, 0) for p in table if p.line < 0]
        same = sum(place.line >= 0 and place.row is rows[place.line] for place in table)
        intact = same == len(rows) == len(table) - len(added)
        if not intact or added or self._table.finished != len(rows) or self._file != self.path:
            with self._changed(self._file) as file:
                if not intact:
                    self._replace_table(file, table)
                elif added or not rows:
                    self._append(file, added)
                self._table.finished = len(table)
        if self._file != self.path:
            with self._errors(self.path):
                _settle(self._partial)
                _rename(self._partial, self.path)
            self._file = self.path
        for folder in self._earlier:
            shutil.rmtree(folder, ignore_errors=True)
        self._partial.unlink(missing_ok=True)
        if self._is_wasteful():
            with contextlib.suppress(StoreError):  # open elsewhere, or no room for a second one
                self._rewrite()

    def _replace_table(self, file: h5py.File, table: list[Place]) -> None:
        places = [self._table.places[line] if line >= 0 else _NOWHERE for line, _ in table]
        self._table = _Table([row for _, row in table], places)
        self._write_table(file, 0)

    def _is_wasteful(self) -> bool:
        """Return whether much of the file is what nothing refers to."""
        pool, size, used = self._settings.pool, self.path.stat().st_size, 0
        pairs = zip(self._table.rows, self._table.places, strict=True)
        live = sum(_span(frames, pool) for row, (_, frames) in pairs if row.is_stored)
        with h5py.File(self.path, "r", locking=False) as file:
            for name, dataset in file.items():
                n = 1 if name == "clips" else dataset.shape[time_axis(pool, dataset.ndim)]
                share = 1 if name == "clips" else live / max(1, n)
                used += dataset.id.get_storage_size() * share
        return size - used > max(WASTE_BYTES, WASTE * size)


_NOWHERE = (0, 0)  # the frames of a clip that has none
_NOTHING = np.empty(0, np.float32)


def _set(file: h5py.File, name: str, value: Any) -> None:
    if isinstance(value, str):
        encoded = value.encode("utf-8", "surrogateescape")
        file.attrs.create(name, encoded, dtype=text_type(len(encoded)))
    else:
        file.attrs[name] = value


def _blocks(clips: Iterable[EncodedClip]) -> Iterator[list[EncodedClip]]:
    """Yield clips in blocks of about `BLOCK_BYTES`."""
    block, n_bytes = [], 0
    for clip in clips:
        block.append(clip)
        n_bytes += clip.features.nbytes + clip.extrema.nbytes
        if n_bytes >= BLOCK_BYTES:
            yield block
            block, n_bytes = [], 0
    yield block


def _span(frames: int, pool: str) -> int:
    """Return how many rows of `features` a clip takes."""
    return frames if pool == "none" else 1


@contextmanager
def _no_collector() -> Iterator[None]:
    """Put the garbage collector off: it would look through all that is made, to find none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _settle(path: Path) -> None:
    """End what a killed run began to commit."""
    if journal_of(path).is_file():
        JournaledFile(path, "w").close()


def _rename(path: Path, target: Path) -> None:
    """Let a whole file take another's place; a journal there is none of its own."""
    if target.is_file():
        _settle(target)
    else:
        journal_of(target).unlink(missing_ok=True)
    path.replace(target)
    sync_folder(path.parent)
