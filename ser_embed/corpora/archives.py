"""Unpacking zip and tar archives that may be hostile.

Only plain files and folders are unpacked, each by copying its bytes into a new file of a new
folder: no link, device, owner or mode of an archive ever reaches the disk. The folder appears
under its name only when it is whole.
"""

import bz2
import errno
import gzip
import lzma
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, NoReturn

from ser_embed.errors import DownloadError

__all__ = ["Limits", "member_path", "unpack"]

_BLOCK = 1 << 20
_MAX_PART = 255  # bytes in a file's name, and
_MAX_PATH = 1000  # in a whole path, that every common system can write
_MAX_DEPTH = 20  # folders in folders
_TAR_OVERHEAD = 4096  # bytes of headers and padding that a member of a tar may have
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE | re.ASCII)
_ENCRYPTED = 0x1  # flag of a zip's member
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error,
           EOFError, ValueError, LookupError, RuntimeError)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most: bytes when unpacked, and members."""

    bytes: int
    members: int


class _Member(NamedTuple):
    """One member as its archive declares it; `fault` says why it can't be unpacked."""

    name: str
    folder: bool
    size: int
    fault: str
    open: Callable[[], IO[bytes] | None]


def member_path(name: str) -> PurePosixPath | None:
    """Return where a member goes, relative to the folder, or None for the folder itself.

    A name is refused unless it means the same place inside the folder on every system.

    Raises:
        DownloadError: It is absolute, leads out, or isn't a name that every system can write.
    """

    def refuse(reason: str) -> NoReturn:
        raise DownloadError(f"its member {name[:200]!r} {reason}")

    slashed = name.replace("\\", "/")  # some programs on Windows write these into archives
    if slashed.startswith("/") or re.match(r"[A-Za-z]:", slashed):
        refuse("has an absolute name")
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    for part in parts:
        if part == "..":
            refuse("leads out of its folder")
        if any(unicodedata.category(c) in ("Cc", "Cs") for c in part):
            refuse("has control characters or bytes that aren't text in its name")
        if set(part) & set('<>:"|?*') or part[-1] in ". " or _RESERVED.fullmatch(part):
            refuse("has a name that means something else on some systems")
        if len(part.encode()) > _MAX_PART:
            refuse("has too long a name")
    path = PurePosixPath(*parts)
    if len(str(path).encode()) > _MAX_PATH or len(parts) > _MAX_DEPTH:
        refuse("has too long a name")
    return path if parts else None


class _Names:
    """The names so far: no two members may be one file on any system's disk."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: dict[str, str] = {}  # as written, by the folded name

    def add(self, path: PurePosixPath, folder: bool) -> None:
        """Add a file or folder.

        Raises:
            DownloadError: Its name is another's, or differs only in case or composition.
        """
        folders = [p for p in (*([path] if folder else []), *path.parents) if p.parts]
        clash = any(
            _folded(p) in self._files or self._folders.setdefault(_folded(p), str(p)) != str(p)
            for p in folders
        )
        if not folder:
            key = _folded(path)
            clash = clash or key in self._files or key in self._folders
            self._files.add(key)
        if clash:
            raise DownloadError(f"its member {str(path)!r} collides with another by name")


def _folded(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


def unpack(archive: Path, folder: Path, limits: Limits) -> int:
    """Unpack a zip or tar archive into a folder that doesn't exist yet or is empty.

    Whatever goes wrong, `folder` is left as it was. A run that was killed leaves a hidden folder
    next to it, which the next run removes.

    Args:
        archive: zip, or tar that may be compressed by gzip, bzip2 or xz.
        folder: Where it goes.
        limits: What it may hold at most.

    Returns:
        Number of files.

    Raises:
        DownloadError: Not an archive, damaged, or one that holds what it shouldn't.
        OSError: The disk can't be written.
    """
    hidden = folder.with_name(f".unpacking-{folder.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir(parents=True)
    try:
        n_files = _unpack_into(archive, hidden, limits)
        hidden.replace(folder)
    except DownloadError as error:
        raise DownloadError(f"{archive}: not unpacked: {error}") from error
    except (*_BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's, not the archive's
        raise DownloadError(f"{archive}: damaged, or not a zip or tar archive ({error})") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return n_files


def _unpack_into(archive: Path, folder: Path, limits: Limits) -> int:
    is_zip = zipfile.is_zipfile(archive)
    names, n_files, left = _Names(), 0, limits.bytes
    members = _zip_members(archive) if is_zip else _tar_members(archive, limits)
    for number, member in enumerate(members, start=1):
        if number > limits.members:
            raise DownloadError(f"it has more than the {limits.members} members expected at most")
        path = member_path(member.name)
        if member.fault:
            raise DownloadError(f"its member {member.name[:200]!r} is {member.fault}")
        if path is None:
            continue
        names.add(path, member.folder)
        target = folder / path
        if member.folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        if not 0 <= member.size <= left:
            raise _too_large(limits)
        left -= member.size
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(member, target)
        n_files += 1
    return n_files


def _too_large(limits: Limits) -> DownloadError:
    return DownloadError(
        f"it unpacks to more than the {limits.bytes / 1e6:.0f} MB expected at most"
    )


def _copy(member: _Member, target: Path) -> None:
    stream = member.open()
    assert stream is not None  # a plain file always has one
    size = 0
    with stream, target.open("xb") as file:
        while size <= member.size and (block := stream.read(_BLOCK)):
            size += len(block)
            file.write(block)
    if size != member.size:
        raise DownloadError(f"its member {member.name!r} isn't of the size that it declares")


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            fault = "encrypted" if info.flag_bits & _ENCRYPTED else ""
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                fault = "a link or a device, not a file"
            # `filename` ends at a NUL of the name that the archive has, `orig_filename` doesn't.
            name, open_member = info.orig_filename, partial(packed.open, info)
            yield _Member(name, info.is_dir(), info.file_size, fault, open_member)


class _Bounded:
    """A stream that ends in an error once more was read than a tar within the limits can have.

    A few bytes of compressed zeros can declare headers of gigabytes.
    """

    def __init__(self, stream: IO[bytes], limits: Limits) -> None:
        self.stream, self.limits = stream, limits
        self.left = limits.bytes + limits.members * _TAR_OVERHEAD + _BLOCK

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        block = self.stream.read(size)
        self.left -= len(block)
        if self.left < 0:
            raise _too_large(self.limits)
        return block


def _tar_members(archive: Path, limits: Limits) -> Iterator[_Member]:
    with archive.open("rb") as file:
        start = file.read(6)
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
    opener = next((o for magic, o in openers.items() if start.startswith(magic)), open)
    with (
        opener(archive, "rb") as stream,
        tarfile.open(fileobj=_Bounded(stream, limits), mode="r|") as packed,  # type: ignore[call-overload]
    ):
        for info in packed:
            fault = "" if info.isreg() or info.isdir() else "a link or a device, not a file"
            if info.issparse():
                fault = "a sparse file"
            open_member = partial(packed.extractfile, info)
            yield _Member(info.name, info.isdir(), info.size, fault, open_member)
            packed.members = []  # or every header stays in memory
