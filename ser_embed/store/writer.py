"""Adding clips to a feature store, so that a kill at any instant loses nothing reported as stored.

See `reader.py` for the layout and the reason why there are parts. Parts are written by a thread of
their own, so that the encoder doesn't wait for the disk; not more than one is on its way.
"""

import functools
import glob
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from operator import eq
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from ser_embed.errors import StoreError
from ser_embed.store.builder import Builder, EncodedClip
from ser_embed.store.ledger import Ledger, Place
from ser_embed.store.reader import FeatureStore, Shards, is_index
from ser_embed.store.settings import SCHEMA, FeatureSettings
from ser_embed.store.table import ClipRow, Identity, widths_of

__all__ = ["StoreWriter"]

BLOCK_CLIPS = 256  # clips a part holds at most ...
BLOCK_BYTES = 2**27  # ... and of features, of which some layers' are large ...
BLOCK_SECONDS = 10.0  # ... and the longest that an encoded clip waits to be on its way to disk
OPEN_FILES = 8  # parts that are open at once while the finished file is written


Writer = TypeVar("Writer", bound="StoreWriter")


@contextmanager
def _interrupt_put_off() -> Iterator[list[bool]]:
    """Put Ctrl-C off to the end of the block; the list that it yields is empty until it comes.

    Raised within a call from HDF5 to a file it would look like a failed write, and between two
    lines that belong together it would leave clips in neither place.
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
        known: Every clip already encoded, in the finished file or in a part, by identity.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.parts, self.header = path, path.with_name(path.name + ".parts"), header
        self.shards = path.with_name(path.name + ".shards")  # of runs on a cluster
        self._clear_torn_files()
        self.dtype = np.dtype(json.loads(header["settings"])["dtype"])
        self.known = Ledger()
        self._add_files()
        self._n_stored = len(self.known)
        self._open: OrderedDict[Path, FeatureStore] = OrderedDict()
        self._waiting: list[EncodedClip] = []
        self._waiting_bytes = 0
        self._last_flush = time.monotonic()
        self._thread = ThreadPoolExecutor(1, "store-writer")
        self._on_its_way: tuple[Path, list[EncodedClip], Future[None]] | None = None

    @classmethod
    @contextmanager
    def open(
        cls: type[Writer], path: Path, settings: FeatureSettings, corpus: str, root: Path, *,
        trained: bool, demo: bool, **more: Any,
    ) -> Iterator[Writer]:  # fmt: skip
        """Open a store for writing, alone; a subclass may take more.

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
            "format": "ser_embed", "schema": SCHEMA, "settings": json.dumps(asdict(settings)),
            "corpus": corpus, "root": str(root.resolve()), "trained": trained, "demo": demo,
        }  # fmt: skip
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            writer = cls(path, header, **more)
            try:
                yield writer
            finally:
                writer.close()
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def _add_files(self) -> None:
        """Add the clips that are stored already."""
        for file in self._earlier_files():
            with FeatureStore(file) as store:
                self._add_file(file, store.each_row())

    def _add_file(self, file: Path, rows: Iterable[ClipRow]) -> None:
        self.known.add_stored((file, line, row) for line, row in enumerate(rows))

    def _earlier_files(self) -> list[Path]:
        """Return the finished file and what killed runs left, as far as they are there."""
        finished = [self.path] if self.path.is_file() else []
        return finished + self._loose_shards() + sorted(self.parts.glob("*.h5"))

    def _loose_shards(self) -> list[Path]:
        """Return the shards, left by a run on a cluster, that the finished file doesn't name."""
        shards = sorted(self.shards.glob("*.h5"))
        if not shards or not self.path.is_file():
            return shards
        with FeatureStore(self.path) as store:
            named = Shards(self.path, store.file).names if is_index(store.file) else []
        taken = {Path(name).name for name in named}
        return [shard for shard in shards if shard.name not in taken]

    def _clear_torn_files(self) -> None:
        for torn in self.parts.glob("*.tmp"):
            torn.unlink()
        for torn in self.path.parent.glob(glob.escape(self.path.name) + ".*.tmp"):
            torn.unlink()

    def close(self) -> None:
        """Wait for the part on its way and close everything."""
        self._thread.shutdown()
        self._close_files()

    # --- clips ---------------------------------------------------------------------------------

    def add(self, row: ClipRow, features: np.ndarray, extrema: np.ndarray, frames: int) -> int:
        """Add an encoded clip; return how many have come to be on disk since the last call."""
        stored = features.astype(self.dtype, copy=False)
        self._waiting.append(EncodedClip(row, stored, extrema, frames).checked())
        self._waiting_bytes += stored.nbytes + extrema.nbytes
        waited = time.monotonic() - self._last_flush
        few = len(self._waiting) < BLOCK_CLIPS and self._waiting_bytes < BLOCK_BYTES
        if few and waited <= BLOCK_SECONDS:
            return 0
        arrived = self._arrived()
        self._send()
        return arrived

    def flush(self) -> int:
        """Put what is waiting on disk; return how many clips have come there by that."""
        arrived = self._arrived()
        self._send()
        return arrived + self._arrived()

    def _send(self) -> None:
        """Hand what is waiting to the thread that writes."""
        self._last_flush = time.monotonic()
        if not self._waiting:
            return
        with _interrupt_put_off():  # between two of these lines the clips would be nobody's
            clips, self._waiting, self._waiting_bytes = self._waiting, [], 0
            part = self.parts / f"{time.time_ns():020d}.h5"
            self._on_its_way = part, clips, self._thread.submit(self._write_part, part, clips)

    def _write_part(self, part: Path, clips: list[EncodedClip]) -> None:
        part.parent.mkdir(exist_ok=True)
        widths = widths_of(clip.row for clip in clips)
        start = functools.partial(Builder, part, self.header, clips[0], len(clips), widths)
        self._build(part, start, clips)

    def _arrived(self) -> int:
        """Wait for the part on its way; return how many clips it holds."""
        if self._on_its_way is None:
            return 0
        part, clips, future = self._on_its_way
        try:
            future.result()
        except StoreError:
            self._on_its_way, self._waiting = None, clips + self._waiting
            raise
        with _interrupt_put_off():
            self._add_file(part, (clip.row for clip in clips))
            self._n_stored = len(self.known)
            self._on_its_way = None
        return len(clips)

    def _build(self, path: Path, start: Callable[[], Builder], clips: Iterable[Any]) -> None:
        builder = None
        with _interrupt_put_off() as interrupted:
            try:
                builder = start()
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
        if isinstance(error, PermissionError) and error.filename2:  # of the renaming
            return StoreError(
                f"{path}: can't be replaced, as it is open in another program or in this one "
                f"({error.strerror}); close it there and run the same command again. The "
                f"{self._n_stored} clips stored so far are kept"
            )
        free = shutil.disk_usage(self.path.parent).free
        return StoreError(
            f"{path}: can't be written ({str(error).splitlines()[0][:200]}; {free / 1e6:.0f} MB "
            f"free there). The {self._n_stored} clips stored so far are kept: free some space, or "
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

    def finish(
        self, rows: Iterable[ClipRow] = (), prune: bool = False, partial: bool = False
    ) -> dict[str, int]:
        """Write the finished file from everything encoded.

        Args:
            rows: Rows of this run's clips besides those that were `record`ed.
            prune: Drop the clips of earlier runs that aren't among them. By default they stay,
                unless a file of the same path has other bytes now: one that can't be read
                doesn't cost what was encoded of it.
            partial: Whether these are only some of the corpus's clips.

        Returns:
            How many clips the file holds (`clips`), and how many of them this run didn't find
            (`kept`).
        """
        self.flush()
        for row in rows:
            self.record(row)
        kept = 0 if prune else self.known.keep_the_rest(partial)
        table = self.known.table()
        if not self._is_as_finished(table):
            self._write_finished(table, widths_of(place.row for place in table))
        self._close_files()
        self._clear_parts()
        return {"clips": len(table), "kept": kept}

    def _write_finished(self, table: list[Place], widths: Mapping[str, int]) -> None:
        """Write this run's table, and the features of its clips, into the finished file."""
        first = next((place for place in table if place.file is not None), None)
        template = None if first is None else self._load(first)
        start = functools.partial(Builder, self.path, self.header, template, len(table), widths)
        self._build(self.path, start, self._loaded(table))

    def _loaded(self, table: list[Place]) -> Iterator[EncodedClip]:
        """Yield clips, then close the files: Windows replaces none that is open."""
        yield from map(self._load, table)
        self._close_files()

    def _clear_parts(self) -> None:
        """Remove what the finished file has taken in."""
        if self.parts.is_dir():
            shutil.rmtree(self.parts)
        if self.shards.is_dir() and not self._needs_shards():
            shutil.rmtree(self.shards)

    def _needs_shards(self) -> bool:
        """Return whether the finished file is an index."""
        with FeatureStore(self.path) as store:
            return is_index(store.file)

    def _is_as_finished(self, table: list[Place]) -> bool:
        """Return whether the finished file has this run's table already."""
        if not self.path.is_file():
            return False
        with FeatureStore(self.path) as store:
            rows = (place.row for place in table)
            return len(store) == len(table) and all(map(eq, store.each_row(), rows))

    def _load(self, place: Place) -> EncodedClip:
        file, line, row = place
        if file is None:
            return EncodedClip(row, np.empty(0), np.empty(0), 0)
        store = self._open.pop(file, None) or FeatureStore(file)
        self._open[file] = store  # the one used last goes to the end
        if len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        frames = int(store.file["frames"][line])
        features, extrema = store.own_part(line, frames)
        return EncodedClip(row, features, extrema, frames)

    def _close_files(self) -> None:
        while self._open:
            self._open.popitem()[1].close()
