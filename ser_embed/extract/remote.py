"""Stores behind a URL: fetched, added to on this machine, put back.

What is behind a URL can't be added to, so a store travels whole, and its working copy lies in the
features folder meanwhile. A run that is killed leaves it there; the next one goes on from it.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ser_embed.errors import MissingExtra, StoreError
from ser_embed.store import PARTIAL, FeatureSettings

__all__ = ["RemoteFolder"]


class RemoteFolder:
    """A folder behind a URL that fsspec opens.

    Args:
        url: Its address.

    Attributes:
        local: Folder of the working copies.
    """

    local: Path

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @contextlib.contextmanager
    def working_copy(
        self, features: Path, settings: FeatureSettings, corpus: str
    ) -> Iterator["RemoteFolder"]:
        """Fetch a corpus's store, also that of another corpus of its name, for the block.

        Args:
            features: Folder in which the working copy is made.
            settings: What the store's features depend on.
            corpus: Name of the corpus.

        Raises:
            StoreError: Another process of this machine works behind that URL, or there is none.
        """
        name = settings.path(Path(), corpus).name
        digest = hashlib.sha256(f"{self.url}/{name}".encode()).hexdigest()[:12]
        self.local = features / f".remote-{digest}"
        self.local.mkdir(parents=True, exist_ok=True)
        lock = FileLock(features / f".remote-{digest}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise StoreError(
                f"{self.url}: another process is extracting into {name}; wait for it, or stop it "
                "first"
            ) from None
        try:
            self._fetch(corpus, name.removeprefix(corpus))
            yield self
            shutil.rmtree(self.local)  # what a run that failed has stored stays
        finally:
            lock.release()

    def publish(self, path: Path) -> str:
        """Put a finished store in its place; return its URL."""
        with self._named_errors():
            system, place = self._system()
            target = f"{place}/{path.name}"
            system.makedirs(place, exist_ok=True)
            temporary = f"{target}.{os.urandom(6).hex()}.tmp"
            system.put_file(str(path), temporary)
            system.mv(temporary, target)
            if system.exists(f"{target}.shards"):  # of the layout before this one
                system.rm(f"{target}.shards", recursive=True)
        return f"{self.url}/{path.name}"

    def _fetch(self, corpus: str, rest: str) -> None:
        own = re.compile(rf"{re.escape(corpus)}(-[0-9a-f]{{8}})?{re.escape(rest)}(\.shards)?")
        with self._named_errors():
            system, place = self._system()
            system.invalidate_cache()
            for file in system.ls(place, detail=False) if system.exists(place) else []:
                path = self.local / str(file).rpartition("/")[2]
                if own.fullmatch(path.name) and path.suffix == ".shards":
                    path.mkdir(exist_ok=True)
                    for shard in system.ls(file, detail=False):
                        _get(system, str(shard), path / str(shard).rpartition("/")[2])
                elif own.fullmatch(path.name):
                    self._keep(path)
                    _get(system, str(file), path)

    def _keep(self, path: Path) -> None:
        """Put what a killed run left of a store where the writer takes it in."""
        for left in (path, path.with_name(path.name + PARTIAL)):
            if left.is_file():
                parts = path.with_name(f"{path.name}.parts")
                parts.mkdir(exist_ok=True)
                kept = parts / f"{os.urandom(6).hex()}.h5"
                journal = left.with_name(f"{left.name}.journal")
                if journal.is_file():
                    journal.replace(kept.with_name(f"{kept.name}.journal"))
                left.replace(kept)

    def _system(self) -> tuple[Any, str]:
        try:
            import fsspec
        except ImportError:
            raise MissingExtra("fsspec", "ray") from None
        system, place = fsspec.core.url_to_fs(self.url)
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
                f"{self.url}: {type(error).__name__}: {str(error).splitlines()[0][:200]}; look "
                "whether the address and the right to write there are as they should be. What is "
                "stored is kept"
            ) from error


def _get(system: Any, file: str, path: Path) -> None:
    temporary = path.with_name(f"{path.name}.fetched")
    system.get_file(file, str(temporary))
    temporary.replace(path)
