"""Adding clips to a feature store, so that a kill at any instant loses nothing reported as stored.

See `store.py` for the layout and the reason why there are parts.
"""

import contextlib
import glob
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from filelock import FileLock, Timeout

from ser_embed.errors import StoreError
from ser_embed.features import SCHEMA, FeatureSettings
from ser_embed.naming import Utterance
from ser_embed.store import (
    FAILED_CLIP,
    STORED,
    ClipRow,
    FeatureStore,
    checksum,
    digest,
    own_part,
    table_of,
    text_type,
)  # fmt: skip

__all__ = ["StoreWriter", "row_of"]

BLOCK_CLIPS = 256  # clips a part holds at most ...
BLOCK_SECONDS = 10.0  # ... and the longest that an encoded clip waits to be on disk


def row_of(
    utterance: Utterance, root: Path, sha256: str, seconds: float, reason: str = ""
) -> ClipRow:
    """Return the table's row for an utterance; with a reason it is a failed one."""
    path = utterance.path
    return ClipRow(
        path=(path.relative_to(root) if path.is_relative_to(root) else path).as_posix(),
        corpus=utterance.corpus, speaker=utterance.speaker, gender=utterance.gender,
        emotion=utterance.emotion, intensity=utterance.intensity, text_id=utterance.text_id,
        recording=utterance.recording, part=utterance.part, seconds=seconds, sha256=sha256,
        state=FAILED_CLIP if reason else STORED, reason=reason, checksum=0,
    )  # fmt: skip


@dataclass
class _Encoded:
    row: ClipRow
    features: np.ndarray
    extrema: np.ndarray
    frames: int


class _Disk:
    """The file under HDF5: it takes every write, and remembers the first one that failed.

    HDF5 can't close a file that it failed to write to (a full disk), and crashes the process for
    that on its way out. So it doesn't hear of it; `check` raises.
    """

    def __init__(self, path: Path) -> None:
        self.raw = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        while len(left) and self.error is None:
            try:
                left = left[self.raw.write(left) :]
            except OSError as error:
                self.error = error
        return len(data)

    def truncate(self, size: int | None = None) -> None:
        try:
            self.raw.truncate(size)
        except OSError as error:
            self.error = self.error or error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        return self.raw.tell()

    def read(self, size: int = -1) -> bytes:
        return self.raw.read(size) or b""

    def readinto(self, buffer: Any) -> int:
        return self.raw.readinto(buffer) or 0

    def flush(self) -> None:
        self.raw.flush()


class _Builder:
    """Writes one store file under a temporary name and renames it when whole."""

    def __init__(
        self, path: Path, header: dict[str, Any], template: _Encoded | None, n: int
    ) -> None:
        self.path, self.temporary = path, path.with_name(f"{path.name}.{os.getpid()}.tmp")
        self.rows: list[ClipRow] = []
        self.frames = np.zeros(n, dtype=np.int32)
        self.disk = _Disk(self.temporary)
        self.file = h5py.File(self.disk, "w", libver="v110")
        for name, value in header.items():
            self._tell(name, value)
        # With no usable clip at all there is nothing to take the shape from.
        shape = template.features.shape if template else (0, 0)
        dtype = template.features.dtype if template else np.dtype("f2")
        self._create("features", n, shape, dtype)
        if template and template.extrema.size:
            self._create("range", n, template.extrema.shape, np.dtype("f4"))

    def _tell(self, name: str, value: Any) -> None:
        if isinstance(value, str):
            (encoded,), kind = text_type([value])
            self.file.attrs.create(name, encoded, dtype=kind)
        else:
            self.file.attrs[name] = value

    def _create(self, name: str, n: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        # Time can grow when a longer clip comes; chunks never written take no space.
        chunk = tuple(max(1, size) for size in shape)
        limits = (None,) * (len(shape) + 1)
        self.file.create_dataset(name, (n, *shape), dtype, chunks=(1, *chunk), maxshape=limits)

    def add(self, clip: _Encoded) -> None:
        index = len(self.rows)
        self.rows.append(clip.row)
        self.frames[index] = clip.frames
        if clip.row.state != STORED:
            return
        self._write("features", index, clip.features)
        if clip.extrema.size:
            self._write("range", index, clip.extrema)
        self.disk.check()

    def _write(self, name: str, index: int, array: np.ndarray) -> None:
        target = self.file[name]
        if any(have < want for have, want in zip(target.shape[1:], array.shape, strict=True)):
            grown = np.maximum(target.shape[1:], array.shape)
            target.resize((target.shape[0], *(int(size) for size in grown)))
        where = (index, *(slice(size) for size in array.shape))
        target[where] = array

    def finish(self) -> None:
        self.file["clips"] = table_of(self.rows)
        self.file["frames"] = self.frames
        self._tell("digest", digest(dict(self.file.attrs), self.rows, self.frames))
        self.file.close()
        self.disk.check()
        self.disk.raw.close()
        _sync(self.temporary)
        self.temporary.replace(self.path)
        with contextlib.suppress(OSError):  # some file systems don't sync folders
            _sync(self.path.parent)

    def discard(self) -> None:
        # A close that fails must not hide the error that brought us here.
        with contextlib.suppress(OSError, RuntimeError):
            self.file.close()
        self.disk.raw.close()
        self.temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _interrupt_put_off() -> Iterator[list[bool]]:
    """Put Ctrl-C off to the end of the block; the list that it yields is empty until then.

    Raised within a call from HDF5 to `_Disk` it would look like a failed write.
    """
    caught: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread is interrupted
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(True))
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        signal.raise_signal(signal.SIGINT)


class StoreWriter:
    """Adds clips to a store; use `StoreWriter.open`.

    Attributes:
        path: The finished file, there or to be.
        known: Identity of every clip already encoded, in the finished file or in a part.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.parts, self.header = path, path.with_name(path.name + ".parts"), header
        self._clear_torn_files()
        self.dtype = np.dtype(json.loads(header["settings"])["dtype"])
        # Identity -> (store, row): what was encoded before.
        self.known: dict[tuple[str, str], tuple[FeatureStore, int]] = {}
        self.known_rows: dict[tuple[str, str], ClipRow] = {}
        self.old_rows: list[ClipRow] = []
        self._remembered: set[Path] = set()
        if path.is_file():
            finished = FeatureStore(path)
            self.old_rows = finished.rows
            self._remember(finished)
        self._remember_parts()
        self._open: FeatureStore | None = None
        self._waiting: list[_Encoded] = []
        self._last_flush = time.monotonic()

    @staticmethod
    @contextmanager
    def open(
        path: Path, settings: FeatureSettings, corpus: str, root: Path, *, trained: bool, demo: bool
    ) -> Iterator["StoreWriter"]:
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
        header = {
            "format": "ser_embed", "schema": SCHEMA, "settings": json.dumps(asdict(settings)),
            "corpus": corpus, "root": str(root.resolve()), "trained": trained, "demo": demo,
        }  # fmt: skip
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            yield StoreWriter(path, header)
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def _clear_torn_files(self) -> None:
        for torn in self.parts.glob("*.tmp"):
            torn.unlink()
        for torn in self.path.parent.glob(glob.escape(self.path.name) + ".*.tmp"):
            torn.unlink()

    def _remember(self, store: FeatureStore) -> None:
        for index, row in enumerate(store.rows):
            if row.state == STORED:
                self.known[row.identity] = (store, index)
                self.known_rows[row.identity] = row
        store.close()  # a long run has thousands of parts; a process may not open so many

    def _remember_parts(self) -> None:
        for part in sorted(set(self.parts.glob("*.h5")) - self._remembered):
            self._remember(FeatureStore(part))
            self._remembered.add(part)

    def add(self, row: ClipRow, features: np.ndarray, extrema: np.ndarray, frames: int) -> int:
        """Take one encoded clip; return how many clips this call put on disk."""
        stored = features.astype(self.dtype)
        row = replace(row, checksum=checksum(stored, extrema))
        self._waiting.append(_Encoded(row, stored, extrema, frames))
        waited = time.monotonic() - self._last_flush
        return self.flush() if len(self._waiting) >= BLOCK_CLIPS or waited > BLOCK_SECONDS else 0

    def flush(self) -> int:
        """Put what is waiting on disk as one part; return how many clips that was."""
        waiting = self._waiting
        if waiting:
            self.parts.mkdir(exist_ok=True)
            part = self.parts / f"{time.time_ns():020d}.h5"
            self._build(part, iter(waiting), waiting[0], len(waiting))
            self._waiting = []
        self._last_flush = time.monotonic()
        self._remember_parts()
        return len(waiting)

    def _build(
        self, path: Path, clips: Iterator[_Encoded], template: _Encoded | None, n: int
    ) -> None:
        builder = None
        with _interrupt_put_off() as interrupted:
            try:
                builder = _Builder(path, self.header, template, n)
                for clip in clips:
                    builder.add(clip)
                    if interrupted:
                        raise KeyboardInterrupt
                builder.finish()
            except BaseException as error:
                if builder:
                    builder.discard()
                if isinstance(error, OSError | RuntimeError) and not isinstance(error, StoreError):
                    raise self._cannot_write(path, error) from error
                raise

    def _cannot_write(self, path: Path, error: Exception) -> StoreError:
        free = shutil.disk_usage(self.path.parent).free
        return StoreError(
            f"{path}: can't be written ({str(error).splitlines()[0][:200]}; {free / 1e6:.0f} MB "
            f"free there). The {len(self.known)} clips stored so far are kept: free some space, or "
            f"move {self.path.parent} and name it with --features-dir, then run the same command "
            "again"
        )

    def finish(self, rows: Sequence[ClipRow], prune: bool = False) -> dict[str, int]:
        """Write the finished file from everything encoded.

        Args:
            rows: The rows of this run's clips, stored and failed.
            prune: Drop the clips of earlier runs that aren't among them. By default they stay,
                unless a file of the same path has other bytes now: one that can't be read
                doesn't cost what was encoded of it.

        Returns:
            How many clips the file holds (`clips`), and how many of them this run didn't meet
            (`kept`).
        """
        self.flush()
        final = {row.identity if row.state == STORED else (row.path, ""): row for row in rows}
        paths = {row.path for row in rows if row.sha256}
        newest = {row.path: row for row in self.known_rows.values()}
        kept = [
            row for row in newest.values() if row.identity not in final and row.path not in paths
        ]
        if not prune:
            final.update({row.identity: row for row in kept})
        table = sorted(final.values(), key=lambda row: (row.path, row.sha256))
        clips = [self._lookup(row) for row in table]
        if [clip[0] for clip in clips] != self.old_rows:
            template = next((self._load(c) for c in clips if c[0].state == STORED), None)
            self._build(self.path, (self._load(clip) for clip in clips), template, len(clips))
        if self._open is not None:
            self._open.close()
        if self.parts.is_dir():
            shutil.rmtree(self.parts)
        return {"clips": len(table), "kept": 0 if prune else len(kept)}

    def _lookup(self, row: ClipRow) -> tuple[ClipRow, FeatureStore | None, int]:
        """Return a row with the checksum of its stored bytes, and where these are."""
        if row.state != STORED:
            return row, None, -1
        store, index = self.known[row.identity]
        written = int(store.clips["checksum"].to_numpy()[index])
        return replace(row, checksum=written), store, index

    def _load(self, clip: tuple[ClipRow, FeatureStore | None, int]) -> _Encoded:
        row, store, index = clip
        if store is None:
            return _Encoded(row, np.empty(0), np.empty(0), 0)
        if self._open is not store:
            if self._open is not None:
                self._open.close()
            self._open = store
        frames = int(store.file["frames"][index])
        features, extrema = own_part(store, index, frames)
        return _Encoded(row, features, extrema, frames)
