"""Reading a feature store: what it held when it was opened, whoever adds to it meanwhile.

One HDF5 file holds `clips`, the table, a row a clip in the order in which they came, with `offset`
and `frames`, which say where its frames are; `features` and `range` (see `frames.py`); and, as
attributes, the settings, a digest of all but the frames, and how many of the rows the last
`finished` run listed. Rows behind those are of a run that goes on or was killed, which the next
one goes on from (`writer.py`). `python -m ser_embed.store FILE` says what a file holds.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ser_embed.errors import StoreError
from ser_embed.store.earlier import LAYOUT_BEFORE, Padded, padded_sources
from ser_embed.store.frames import Frames
from ser_embed.store.journal import JournaledFile, journal_of
from ser_embed.store.settings import LAYOUT, FeatureSettings
from ser_embed.store.table import (
    COLUMNS,
    LATER,
    STORED,
    ClipRow,
    EncodedClip,
    columns_of,
    rows_of,
    sorted_lines,
    text_of,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PARTIAL", "FeatureStore", "attributes_of", "table_digest"]

PARTIAL = ".partial"  # at the end of the name of a store that was never finished
TRIES = 100  # to read a file between two changes of it
_DAMAGE = (KeyError, IndexError, ValueError, TypeError, OSError, RuntimeError, AttributeError)


def attributes_of(file: h5py.File) -> dict[str, Any]:
    """Return a file's attributes, texts as `str`."""
    return {
        name: text_of(value) if isinstance(value, bytes) else value
        for name, value in file.attrs.items()
    }


def table_digest(attributes: dict[str, Any], table: Any) -> str:
    """Return the SHA-256 of everything in a file but its frames.

    Args:
        attributes: The file's.
        table: A `hashlib.sha256` of the bytes of the rows.
    """
    kept = {k: str(v) for k, v in sorted(attributes.items()) if k != "digest"}
    digest = table.copy()
    digest.update(json.dumps(kept).encode())
    return str(digest.hexdigest())


def _state(path: Path) -> list[tuple[int, ...] | None]:
    """Return what tells two states of a file apart."""
    found: list[tuple[int, ...] | None] = []
    for file in (path, journal_of(path)):
        try:
            stat = file.stat()
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append(None)
    return found


def _check_version(path: Path, attributes: dict[str, Any]) -> None:
    if str(attributes.get("format")) != "ser_embed":
        raise StoreError(f"{path}: an HDF5 file, but not a feature store")
    schema = int(attributes["schema"])
    if schema > LAYOUT:
        raise StoreError(
            f"{path}: written by a newer ser_embed (schema {schema}, this one reads up to "
            f"{LAYOUT}); update ser_embed, or extract again"
        )
    if schema < LAYOUT_BEFORE:
        raise StoreError(
            f"{path}: written by an older ser_embed (schema {schema}), which didn't trim silence; "
            "delete it and extract again"
        )


class FeatureStore:
    """A store, open for reading, as it was when it was opened.

    It can be sent to other processes, which open the file again.

    Args:
        path: The file.
        everything: Show all rows in the file's own order, those of an unfinished run as well.

    Attributes:
        path: The file.
        attributes: All attributes of the file, texts as `str`.
        settings: What the features depend on besides the audio.
        corpus: Name of the corpus.
        root: Folder that the table's paths are relative to.
        trained: False if the encoder's weights were seeded, not trained.
        demo: Whether the clips are the synthetic demo corpus.
        table: The rows as they are in the file, a structured array (N,).
        frames: How many frames of each clip are its own, int32 (N,).
        offsets: Where each clip's frames begin in the file, int64 (N,).

    Raises:
        StoreError: The file isn't there, isn't a store, is of another version, or damaged.
    """

    frames: np.ndarray
    offsets: np.ndarray
    table: np.ndarray

    def __init__(self, path: Path | str, everything: bool = False) -> None:
        self.path, self._everything = Path(path), everything
        self._clips: pd.DataFrame | None = None
        self._close: Callable[[], None] | None = None
        self._open()

    def _open(self) -> None:
        """Read the table, and where frames are, at one moment between two changes of the file."""
        for _ in range(TRIES):
            before = _state(self.path)
            if not self.path.is_file():
                begun = self.path.with_name(self.path.name + PARTIAL).is_file()
                raise StoreError(
                    f"{self.path}: its extraction isn't finished; run the same command again"
                    if begun else f"{self.path}: no such feature store; make one with python -m "
                    "ser_embed.extract"
                )  # fmt: skip
            try:
                self._read_file()
                return
            except (StoreError, *_DAMAGE) as caught:
                error = caught
            if _state(self.path) == before:
                break
            time.sleep(0.01)  # a writer changed it while it was read
        raise error if isinstance(error, StoreError) else self._damaged(error) from error

    def _damaged(self, error: Exception) -> StoreError:
        return StoreError(f"{self.path}: damaged ({error}); delete it and extract again")

    def _read_file(self) -> None:
        with ExitStack() as opened:
            disk = JournaledFile(self.path)
            opened.callback(disk.close)
            # By HDF5 itself where it can: no lock is needed, and none works on some NFS.
            file = h5py.File(disk if disk.is_patched else self.path, "r", locking=False)
            opened.callback(file.close)
            if not disk.is_at(self.path):
                raise OSError("replaced while it was read")
            self._read_attributes(file)
            if int(self.attributes["schema"]) == LAYOUT_BEFORE:
                sources, self._there, close = padded_sources(self.path, file, self.settings.pool)
                opened.callback(close)
                self.offsets, self.frames = np.arange(len(self.table)), file["frames"][:]
                self._sources: dict[str, Frames | Padded] = {**sources}
            else:
                self._read_layout(disk, file)
            if all(isinstance(one, Frames) and one.is_direct for one in self._sources.values()):
                file.close()  # all that is needed of it is known
            self._pid, self._close = os.getpid(), opened.pop_all().close

    def _read_attributes(self, file: h5py.File) -> None:
        attributes = attributes_of(file)
        _check_version(self.path, attributes)
        self.settings = FeatureSettings(**json.loads(attributes["settings"]))
        self.corpus, self.root = str(attributes["corpus"]), str(attributes["root"])
        self.trained, self.demo = bool(attributes["trained"]), bool(attributes["demo"])
        self.attributes, self.table = attributes, file["clips"][:]
        _ = self.table[[name for name in COLUMNS if name not in LATER]]  # raises if one is missing

    def _read_layout(self, disk: JournaledFile, file: h5py.File) -> None:
        whole = sha256(self.table.tobytes())
        if self.attributes["digest"] != table_digest(self.attributes, whole):
            raise ValueError("the table or the settings are not what was written")
        if "features" not in file and (self.table["state"] == STORED.encode()).any():
            raise KeyError("no features")
        self._sources = {
            name: Frames(disk, file[name], self.settings.pool)
            for name in ("features", "range") if name in file
        }  # fmt: skip
        finished = int(self.attributes["finished"])
        if not self._everything:
            self.table = self.table[: finished if finished >= 0 else None]
            self.table = self.table[sorted_lines(self.table)]
        self.offsets, self.frames = self.table["offset"], self.table["frames"]
        self._there = np.ones(len(self.table), dtype=bool)

    @staticmethod
    def find(folder: Path) -> list[Path]:
        """Return the finished stores in a folder, sorted."""
        return sorted(folder.glob("*.h5"))

    def _source(self, name: str) -> Frames | Padded | None:
        """Return what clips are read from, opened in every process that the store is sent to."""
        if self._close is None or self._pid != os.getpid():
            rows = self.table
            self._open()
            if not np.array_equal(rows, self.table):
                raise StoreError(f"{self.path}: changed since it was opened; open it again")
        return self._sources.get(name)

    @property
    def clips(self) -> "pd.DataFrame":
        """The table: one row a clip, in the order of the features; see `ClipRow`."""
        import pandas as pd  # takes a moment that most readers need not wait

        if self._clips is None:
            # As objects: with pyarrow installed pandas would refuse names that aren't UTF-8.
            self._clips = pd.DataFrame(
                {n: pd.Series(v, dtype=object if v.dtype == object else None)
                 for n, v in columns_of(self.table).items()}
            )  # fmt: skip
        return self._clips

    @property
    def stored_clips(self) -> "pd.DataFrame":
        """The rows of `clips` that have features, and `row`, which of the clips each is."""
        table = self.clips.assign(row=np.arange(len(self)))
        return table[table["state"] == STORED]

    @property
    def rows(self) -> list[ClipRow]:
        """The table as objects."""
        return list(rows_of(self.table))

    def each_row(self) -> Iterator[ClipRow]:
        """Yield the table's rows."""
        return rows_of(self.table)

    @property
    def dtype(self) -> np.dtype:
        """Type of the features."""
        return np.dtype(self.settings.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of the longest clip."""
        return self._shape("features")

    def _shape(self, name: str) -> tuple[int, ...]:
        source = self._source(name)
        return (0, 0) if source is None else source.shape(int(self.frames.max(initial=0)))

    @property
    def has_range(self) -> bool:
        """Whether each frame's minimum and maximum are kept."""
        return self._source("range") is not None

    def __len__(self) -> int:
        """Number of clips, failed ones included."""
        return len(self.table)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the features of some clips, (n, ...) in the stored type, in the order asked.

        A shorter clip than the store's longest ends in zeros.
        """
        return self._read("features", indices)

    def read_range(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return each frame's minimum and maximum of some clips, (n, ..., 2) float32."""
        if not self.has_range:
            raise StoreError(f"{self.path}: holds no range (pooled, or not normalised)")
        return self._read("range", indices)

    def _read(self, name: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        shape, source = self._shape(name), self._source(name)
        out = np.empty((len(indices), *shape), self.dtype if source is None else source.dtype)
        try:
            for clip, index in zip(out, indices, strict=True):
                n = int(self.frames[index])
                if source is None or self.table["state"][index] != STORED.encode():
                    clip[...] = 0
                    continue
                if self.settings.pool == "none":
                    clip[..., n:, :] = 0
                source.read(int(self.offsets[index]), n, clip)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        return out

    def clip(self, index: int) -> EncodedClip:
        """Return a clip without the zeros that `read` may end it with."""
        (row,) = rows_of(self.table[index : index + 1])
        nothing, n = np.empty(0, np.float32), int(self.frames[index])
        if not row.is_stored:
            return EncodedClip(row, nothing, nothing, 0)
        arrays = {"features": nothing, "range": nothing}
        try:
            for name in arrays:
                source = self._source(name)
                if source is None:
                    continue
                arrays[name] = np.empty(source.shape(n), source.dtype)
                source.read(int(self.offsets[index]), n, arrays[name])
        except _DAMAGE as error:
            raise self._damaged(error) from error
        return EncodedClip(row, arrays["features"], arrays["range"], n)

    def readable_clips(self) -> Iterator[EncodedClip]:
        """Yield every clip but those whose shard is lost."""
        return (self.clip(index) for index in range(len(self)) if self._there[index])

    def close(self) -> None:
        """Close the file; it opens again when needed."""
        if self._close is not None and self._pid == os.getpid():
            self._close()
        self._close, self._sources = None, {}

    def __enter__(self) -> "FeatureStore":
        """Return the store."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind."""
        return {**self.__dict__, "_close": None, "_sources": {}}
