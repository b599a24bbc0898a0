"""Writing one store file: whole under its name, or not there at all."""

import contextlib
import os
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ser_embed.store.table import ClipRow, TableDigest, checksum, table_of, text_type

__all__ = ["Builder", "EncodedClip"]

ROWS_AT_ONCE = 4096  # rows of the table that wait for being written


class EncodedClip(NamedTuple):
    """A clip as a file takes it; one that failed has empty arrays.

    Attributes:
        row: What the table says of it.
        features: Its features in the stored type.
        extrema: What undoes the normalisation; may be empty.
        frames: How many frames are its own.
    """

    row: ClipRow
    features: np.ndarray
    extrema: np.ndarray
    frames: int

    def checked(self) -> "EncodedClip":
        """Return the clip with the checksum of its features in its row."""
        if not self.row.is_stored:
            return self
        return self._replace(row=replace(self.row, checksum=checksum(self.features, self.extrema)))


class _Disk:
    """The file under HDF5: it takes every write, and remembers the first one that failed.

    HDF5 can't close a file that it failed to write to (a full disk), and crashes the process for
    that on its way out. So it isn't raised here; `check` raises.
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


class Builder:
    """Writes one store file under a temporary name and renames it when whole.

    Args:
        path: The file to be.
        header: Its attributes.
        template: A stored clip, which gives shape and type; None if none can be used.
        n: How many clips it will hold.
        widths: How many bytes each text of the table needs.

    Raises:
        OSError: The disk takes no more; so does every method.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        template: EncodedClip | None,
        n: int,
        widths: Mapping[str, int],
    ) -> None:
        # Processes of several machines may write the same file, and have the same number.
        self.path = path
        self.temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        self.widths = widths
        self.frames = np.zeros(n, dtype=np.int32)
        self.count = 0
        self._waiting: list[ClipRow] = []  # rows that aren't in the file yet
        self.disk = _Disk(self.temporary)
        self.file = h5py.File(self.disk, "w", libver="v110")
        for name, value in header.items():
            self._set(name, value)
        self.digest = TableDigest(dict(self.file.attrs))
        # With no usable clip at all there is nothing to take the shape from.
        shape = template.features.shape if template else (0, 0)
        dtype = template.features.dtype if template else np.dtype("f2")
        self._features = self._create("features", n, shape, dtype)
        if template and template.extrema.size:
            self._range = self._create("range", n, template.extrema.shape, np.dtype("f4"))
        self._clips = self.file.create_dataset("clips", (n,), table_of([], widths).dtype)

    def _set(self, name: str, value: Any) -> None:
        if isinstance(value, str):
            encoded = value.encode("utf-8", "surrogateescape")
            self.file.attrs.create(name, encoded, dtype=text_type(len(encoded)))
        else:
            self.file.attrs[name] = value

    def _create(self, name: str, n: int, shape: tuple[int, ...], dtype: np.dtype) -> h5py.Dataset:
        # Time can grow when a longer clip comes; chunks never written take no space.
        chunk = tuple(max(1, size) for size in shape)
        limits = (None,) * (len(shape) + 1)
        return self.file.create_dataset(
            name, (n, *shape), dtype, chunks=(1, *chunk), maxshape=limits
        )

    def add(self, clip: EncodedClip) -> None:
        """Write the next clip."""
        index = self._add_row(clip.row, clip.frames)
        if not clip.row.is_stored:
            return
        _write(self._features, index, clip.features)
        if clip.extrema.size:
            _write(self._range, index, clip.extrema)
        self.disk.check()

    def _add_row(self, row: ClipRow, frames: int) -> int:
        """Add the next clip's row; return its line."""
        index, self.count = self.count, self.count + 1
        self._waiting.append(row)
        if len(self._waiting) == ROWS_AT_ONCE:
            self._write_rows()
        self.frames[index] = frames
        return index

    def _write_rows(self) -> None:
        rows, self._waiting = self._waiting, []
        self.digest.add(rows)
        if rows:
            block = slice(self.count - len(rows), self.count)
            self._clips[block] = table_of(rows, self.widths)

    def finish(self) -> None:
        """Write the rest and let the file appear under its name."""
        self._write_rows()
        self.file["frames"] = self.frames
        self._set("digest", self.digest.finish(self.frames))
        self.file.close()
        self.disk.check()
        os.fsync(self.disk.raw.fileno())  # by the handle that wrote: Windows refuses any other
        self.disk.raw.close()
        self.temporary.replace(self.path)
        if os.name == "posix":  # nowhere else can a folder be opened
            with contextlib.suppress(OSError):  # some file systems don't sync folders
                _sync_folder(self.path.parent)

    def discard(self) -> None:
        """Leave nothing behind."""
        # A close that fails must not hide the error that brought us here.
        with contextlib.suppress(OSError, RuntimeError):
            self.file.close()
        self.disk.raw.close()
        self.temporary.unlink(missing_ok=True)


def _write(target: h5py.Dataset, index: int, array: np.ndarray) -> None:
    if any(have < want for have, want in zip(target.shape[1:], array.shape, strict=True)):
        grown = np.maximum(target.shape[1:], array.shape)
        target.resize((target.shape[0], *(int(size) for size in grown)))
    where = (index, *(slice(size) for size in array.shape))
    target[where] = array


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
