"""A file that HDF5 changes as a whole or not at all, whatever kills the process.

HDF5 writes new data behind the end of a file and changes its structure before it in place; killed
between, it leaves a file that can't be opened. Here bytes behind the end of the last commit go to
disk as they come, where nothing refers to them yet. Changes of earlier bytes wait in memory, by
pages. A commit writes those pages to a journal beside the file; once that is whole under its name,
which is one rename, they are copied to their places and the journal is removed. A writer that
finds a journal copies it first, a reader lays it over what it reads.
"""

import contextlib
import hashlib
import os
import struct
import threading
from pathlib import Path
from typing import Any

__all__ = ["JournaledFile", "journal_of", "sync_folder"]

PAGE = 4096
_MAGIC = b"ser_embed journal 1\n"
_HDF5 = b"\x89HDF\r\n\x1a\n"


def journal_of(path: Path) -> Path:
    """Return where a file's journal lies while there is one."""
    return path.with_name(path.name + ".journal")


class JournaledFile:
    """A file as h5py takes it.

    Close the HDF5 file on it, then `commit` or `abort`. A write that fails is remembered and not
    raised: HDF5 can't close a file that it failed to write to, and crashes the process for that.

    Args:
        path: The file; its name is a new one's in mode `x`.
        mode: `r` to read, `w` to change, `x` to make.

    Raises:
        OSError: It can't be opened; or its journal is damaged, or can't be copied.
    """

    def __init__(self, path: Path, mode: str = "r") -> None:
        self.path = path
        self.error: OSError | None = None
        self._position = 0
        self._lock = threading.Lock()
        self._raw: Any = path.open({"r": "rb", "w": "r+b", "x": "x+b"}[mode], buffering=0)
        self._end = 0  # of the last commit
        try:
            self._pages: dict[int, bytearray] = {} if mode == "x" else _read_journal(path)
            if mode == "w":
                self._copy_pages()
                self._end = self._committed_size()
                self._raw.truncate(self._end)  # what a killed writer had not committed
        except BaseException:
            self._raw.close()
            raise

    @property
    def is_patched(self) -> bool:
        """Whether bytes of the file are other than on disk."""
        return bool(self._pages)

    def is_at(self, path: Path) -> bool:
        """Whether this is the file that a path leads to now."""
        return os.path.samestat(os.fstat(self._raw.fileno()), path.stat())

    def commit(self) -> None:
        """Make everything written since the last commit part of the file, or raise `OSError`."""
        if self.error is not None:
            raise self.error
        os.fsync(self._raw.fileno())  # by the handle that wrote: Windows refuses any other
        if self._pages:
            _write_journal(self.path, self._pages)
            # What can't be copied now is copied by whoever opens the file next.
            with contextlib.suppress(OSError):
                self._copy_pages()

    def abort(self) -> None:
        """Drop everything written since the last commit."""
        self._pages, self.error = {}, None
        with contextlib.suppress(OSError):
            self._raw.truncate(self._end)

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def __del__(self) -> None:
        """Close the file of a reader that nobody closed."""
        with contextlib.suppress(AttributeError):  # it was never opened
            self._raw.close()

    def _committed_size(self) -> int:
        """Return the end of the file as HDF5 knows it, by the superblock of versions 2 and 3."""
        start = bytearray(36)
        self.read_into(0, memoryview(start))
        size = os.fstat(self._raw.fileno()).st_size
        if start[:8] != _HDF5 or start[8] not in (2, 3):
            return size
        return min(size, struct.unpack_from("<Q", start, 28)[0])

    def _copy_pages(self) -> None:
        if not self._pages:
            return
        for number, page in self._pages.items():
            _write_at(self._raw, number * PAGE, memoryview(page))
        os.fsync(self._raw.fileno())
        journal_of(self.path).unlink(missing_ok=True)
        self._pages = {}

    # --- reading and writing -------------------------------------------------------------------

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes at an offset, zeros after the end of the file."""
        done = 0
        while done < len(out):
            n = self._pread(offset + done, out[done:])
            if n == 0:
                out[done:] = bytes(len(out) - done)
                break
            done += n
        if self._pages:
            for number in range(offset // PAGE, -(-(offset + len(out)) // PAGE)):
                page = self._pages.get(number)
                if page is not None:
                    start = number * PAGE
                    first, last = max(start, offset), min(start + len(page), offset + len(out))
                    if first < last:
                        out[first - offset : last - offset] = page[first - start : last - start]

    def _pread(self, offset: int, out: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._raw.fileno(), [out], offset)
        with self._lock:
            self._raw.seek(offset)
            return self._raw.readinto(out) or 0

    def write(self, data: Any) -> int:
        """Write at the position; earlier bytes than the last commit's end only in memory."""
        view = memoryview(data).cast("B")
        offset, self._position = self._position, self._position + len(view)
        before = max(0, min(len(view), self._end - offset))
        for start in range(offset // PAGE * PAGE, offset + before if before else 0, PAGE):
            self._change_page(start, offset, view[:before])
        if before < len(view) and self.error is None:
            try:
                _write_at(self._raw, offset + before, view[before:])
            except OSError as error:
                self.error = error
        return len(view)

    def _change_page(self, start: int, offset: int, view: memoryview) -> None:
        page = self._pages.get(start // PAGE)
        if page is None:
            page = bytearray(min(PAGE, self._end - start))
            self.read_into(start, memoryview(page))
            self._pages[start // PAGE] = page
        first, last = max(start, offset), min(start + len(page), offset + len(view))
        page[first - start : last - start] = view[first - offset : last - offset]

    def truncate(self, size: int | None = None) -> None:
        """Set the file's size, not to less than the last commit's."""
        try:
            self._raw.truncate(max(self._end, self._position if size is None else size))
        except OSError as error:
            self.error = self.error or error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        if origin is None:
            origin = os.fstat(self._raw.fileno()).st_size
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, out: Any) -> int:
        """Fill a buffer from the position on."""
        view = memoryview(out).cast("B")
        self.read_into(self._position, view)
        self._position += len(view)
        return len(view)

    def read(self, size: int) -> bytes:
        """Return bytes from the position on."""
        out = bytearray(size)
        self.readinto(out)
        return bytes(out)

    def flush(self) -> None:
        """Do nothing: nothing is kept back."""


def _write_at(raw: Any, offset: int, data: memoryview) -> None:
    raw.seek(offset)
    while len(data):
        data = data[raw.write(data) :]


def _write_journal(path: Path, pages: dict[int, bytearray]) -> None:
    """Write a journal; it counts from the rename on."""
    body = bytearray(struct.pack("<Q", len(pages)))
    for number, page in pages.items():
        body += struct.pack("<QQ", number, len(page))
    for page in pages.values():
        body += page
    journal = journal_of(path)
    temporary = journal.with_name(journal.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(_MAGIC + hashlib.sha256(body).digest() + body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(journal)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _read_journal(path: Path) -> dict[int, bytearray]:
    """Return the pages of a file's journal, none if there is no journal."""
    try:
        data = journal_of(path).read_bytes()
    except FileNotFoundError:
        return {}
    start = len(_MAGIC) + 32
    body = memoryview(data)[start:]
    if data[:start] != _MAGIC + hashlib.sha256(body).digest():
        raise OSError(f"its journal {journal_of(path).name} is not what was written")
    (count,) = struct.unpack_from("<Q", body)
    pages, offset = {}, 8 + 16 * count
    for number, size in struct.iter_unpack("<QQ", body[8:offset]):
        pages[number] = bytearray(body[offset : offset + size])
        offset += size
    return pages


def sync_folder(path: Path) -> None:
    """Let a rename in a folder reach the disk, where a folder can be opened and synced."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
