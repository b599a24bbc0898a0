"""Writing a store in shards by many processes, each whole under its name.

A shard is a small store file, whole under a name made from what is in it: whoever writes the
same clips by the same settings writes the same name, so that work done twice changes nothing.
The shards lie in `<store>.shards/`, in a folder or behind a URL; the index stands where the store
would (see `reader.py`).
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ser_embed.errors import MissingExtra, StoreError
from ser_embed.store.builder import Builder, EncodedClip
from ser_embed.store.reader import FeatureStore
from ser_embed.store.settings import FeatureSettings
from ser_embed.store.table import ClipRow, Identity, rows_of, widths_of

__all__ = ["Shard", "ShardFolder"]


class Shard(NamedTuple):
    """What an index needs to know of a shard.

    Attributes:
        shape: Shape of its features, (n, ...).
        frames: How many frames of each clip are its own, int32 (n,).
    """

    shape: tuple[int, ...]
    frames: np.ndarray

    @classmethod
    def of(cls, file: h5py.File) -> "Shard":
        """Return what an open shard is."""
        return cls(tuple(int(n) for n in file["features"].shape), file["frames"][:])


@dataclass(frozen=True)
class ShardFolder:
    """The shards of a store, in a folder that every machine sees or behind an fsspec URL.

    Attributes:
        index: Absolute path or URL of the index.
        is_url: Whether it is a URL.
    """

    index: str
    is_url: bool = False

    @property
    def place(self) -> str:
        """Folder of the shards."""
        return f"{self.index}.shards"

    @staticmethod
    def name_of(settings: FeatureSettings, identities: Iterable[Identity]) -> str:
        """Return a shard's file name, which follows from the settings and the clips in it."""
        digest = hashlib.sha256(settings.key.encode())
        for name, sha256 in identities:
            digest.update(f"\n{sha256} {name}".encode("utf-8", "surrogateescape"))
        return f"{digest.hexdigest()[:32]}.h5"

    def path(self, name: str) -> Path:
        """Return a shard's path; of one behind a URL what messages call it."""
        return Path(self.place) / name

    def names(self) -> list[str]:
        """Return the names of the shards that are there, sorted."""
        if not self.is_url:
            return sorted(path.name for path in Path(self.place).glob("*.h5"))
        with self._named_errors():
            system, place = self._system()
            system.invalidate_cache()
            found = system.ls(place, detail=False) if system.exists(place) else []
            return sorted(Path(name).name for name in found if str(name).endswith(".h5"))

    def exists(self, name: str) -> bool:
        """Return whether there is a shard of that name."""
        if not self.is_url:
            return self.path(name).is_file()
        with self._named_errors():
            system, place = self._system()
            return bool(system.exists(f"{place}/{name}"))

    def read(self, name: str) -> tuple[list[ClipRow], Shard]:
        """Return the rows of a shard that is there, and what an index needs to know of it."""
        with self._open(name) as file:
            return list(rows_of(file["clips"][:])), Shard.of(file)

    def write(self, header: Mapping[str, Any], name: str, clips: Sequence[EncodedClip]) -> None:
        """Write a shard; at least one clip must be a stored one.

        Raises:
            StoreError: It can't be written.
        """
        clips = [clip.checked() for clip in clips]
        template = next(clip for clip in clips if clip.row.is_stored)
        builder = None
        try:
            with self._put(name) as path:
                widths = widths_of(clip.row for clip in clips)
                builder = Builder(path, header, template, len(clips), widths)
                for clip in clips:
                    builder.add(clip)
                builder.finish()
        except BaseException as error:
            if builder:
                builder.discard()
            if isinstance(error, OSError | RuntimeError):
                raise StoreError(
                    f"{self.path(name)}: can't be written ({str(error).splitlines()[0][:200]}). "
                    "What is stored is kept: free some space there, then run the same command again"
                ) from error
            raise

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[h5py.File]:
        """Open a shard; behind a URL only what is asked of it is read."""
        if not self.is_url:
            with FeatureStore(self.path(name)) as store:  # its errors name the file
                yield store.file
            return
        with self._named_errors():
            system, place = self._system()
            with system.open(f"{place}/{name}", "rb") as raw, h5py.File(raw, "r") as file:
                yield file

    @contextlib.contextmanager
    def _put(self, name: str) -> Iterator[Path]:
        """Yield the path to write a shard to, which appears in the folder when it is whole.

        If there is one of that name by then, that one stays: somebody may have read it.
        """
        if not self.is_url:
            Path(self.place).mkdir(parents=True, exist_ok=True)
            written = self.path(f"{name}.{os.urandom(6).hex()}.tmp")
            yield written
            try:
                with contextlib.suppress(FileExistsError):
                    os.link(written, self.path(name))
            except OSError:  # a file system without links
                written.replace(self.path(name))
            written.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory(prefix="ser_embed-") as folder:
            yield Path(folder) / name
            self._upload(Path(folder) / name, f".shards/{name}")

    def put_index(self, path: Path) -> None:
        """Let the index that was written to a local path appear in its place."""
        if self.is_url:
            self._upload(path, "")

    def get_index(self, path: Path) -> None:
        """Bring an index that is there already to a local path."""
        if self.is_url:
            with self._named_errors():
                system, place = self._system()
                index = place.removesuffix(".shards")
                if system.exists(index):
                    system.get_file(index, str(path))

    def remove(self, name: str) -> None:
        """Remove a shard."""
        if not self.is_url:
            self.path(name).unlink(missing_ok=True)
            return
        with self._named_errors():
            system, place = self._system()
            system.rm_file(f"{place}/{name}")

    def adopt(self, path: Path, name: str) -> None:
        """Let a whole store on disk be a shard as well."""
        with self._put(name) as target:
            try:
                os.link(path, target)
            except OSError:  # another file system, or one without links
                shutil.copyfile(path, target)

    @contextlib.contextmanager
    def plan(self, write: Callable[[Path], list[str]]) -> Iterator[tuple[list[str], Any]]:
        """Let `write` fill a folder that every machine can read, for as long as the block lasts.

        Args:
            write: From a folder to the names of the files that it wrote there.

        Yields:
            The files' paths, and their file system if they aren't on disk.
        """
        place = f"{self.index}.plan"
        if not self.is_url:
            shutil.rmtree(place, ignore_errors=True)  # of a run that was killed
            Path(place).mkdir(parents=True)
            try:
                yield [f"{place}/{name}" for name in write(Path(place))], None
            finally:
                shutil.rmtree(place, ignore_errors=True)
            return
        with tempfile.TemporaryDirectory(prefix="ser_embed-") as folder:
            names = write(Path(folder))
            with self._named_errors():
                system, shards = self._system()
                place = shards.removesuffix(".shards") + ".plan"
                if system.exists(place):
                    system.rm(place, recursive=True)
                system.makedirs(place, exist_ok=True)
                for name in names:
                    system.put_file(f"{folder}/{name}", f"{place}/{name}")
        try:
            yield [f"{place}/{name}" for name in names], system
        finally:
            with self._named_errors():
                system.rm(place, recursive=True)

    def _upload(self, path: Path, ending: str) -> None:
        with self._named_errors():
            system, place = self._system()
            target = place.removesuffix(".shards") + ending
            system.makedirs(place, exist_ok=True)
            temporary = f"{target}.{os.urandom(6).hex()}.tmp"
            system.put_file(str(path), temporary)
            system.mv(temporary, target)

    def _system(self) -> tuple[Any, str]:
        try:
            import fsspec
        except ImportError:
            raise MissingExtra("fsspec", "ray") from None
        system, place = fsspec.core.url_to_fs(self.place)
        return system, str(place)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn whatever a file system raises into an error that names the URL."""
        try:
            yield
        except (StoreError, MissingExtra):
            raise
        except Exception as error:
            raise StoreError(
                f"{self.index}: {type(error).__name__}: {str(error).splitlines()[0][:200]}; look "
                "whether the address and the right to write there are as they should be. What is "
                "stored is kept"
            ) from error
