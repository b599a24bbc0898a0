"""The feature store: one HDF5 file per corpus and settings, that survives being killed.

A finished file is never written to. Extraction puts blocks of clips into small files of the same
layout under `<store>.parts/`, each of which appears by an atomic rename, and in the end copies
the finished file (if any) and the parts into a new file that replaces the old one by another
rename. So at every instant there are only whole files, and whatever was reported as stored is in
one of them. `python -m ser_embed.store FILE` says what a file holds.

Layout: `features` (N, T, D), (N, L, T, D) or (N, L, D), one clip a chunk, uncompressed (a read
is one copy of what is asked for; compression saves little on floats); `range` with each frame's
minimum and maximum; `frames` (N,), how many of a clip's frames are its own; `clips` (N,), the
table.

An index is a store whose features lie in other files of this layout, the shards. It says of each
clip which shard and which line has it (`places`), and of each shard its name relative to the
index and its shape (`shards`). Its `features` are also an HDF5 virtual dataset, for programs that
don't know of this; ser_embed itself never reads through that: HDF5 gives zeros, without a word,
for a shard that is missing, and for every shard beyond the number of files that a process may
hold open.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ser_embed.errors import StoreError
from ser_embed.store.settings import SCHEMA, FeatureSettings
from ser_embed.store.table import (
    COLUMNS,
    LATER,
    STORED,
    ClipRow,
    columns_of,
    rows_of,
    text_of,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FeatureStore", "Shards", "is_index"]


_ROWS_AT_ONCE = 4096
OPEN_SHARDS = 32  # of an index, at once


class FeatureStore:
    """A finished store, or a part, open for reading.

    The file is opened on first use and again in every process that the object is sent to,
    since HDF5 handles don't survive a fork.

    Attributes:
        path: The file.
        settings: What the features depend on besides the audio.
        corpus: Name of the corpus.
        trained: False if the encoder's weights were seeded, not trained.
        demo: Whether the clips are the synthetic demo corpus.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._shards: Shards | None = None
        self._pid = 0
        if not self.path.is_file():
            raise StoreError(
                f"{self.path}: no such feature store; make one with python -m ser_embed.extract"
            )
        attributes = self._attributes()
        self.settings = attributes["settings"]
        self.corpus, self.root = attributes["corpus"], attributes["root"]
        self.trained, self.demo = attributes["trained"], attributes["demo"]
        self._table: pd.DataFrame | None = None

    @staticmethod
    def find(folder: Path) -> list[Path]:
        """Return the finished stores in a folder, sorted."""
        return sorted(folder.glob("*.h5"))

    def _attributes(self) -> dict[str, Any]:
        try:
            raw = {
                name: text_of(value) if isinstance(value, bytes) else value
                for name, value in self.file.attrs.items()
            }
            if str(raw.get("format")) != "ser_embed":
                raise StoreError(f"{self.path}: an HDF5 file, but not a feature store")
            if int(raw["schema"]) > SCHEMA:
                raise StoreError(
                    f"{self.path}: written by a newer ser_embed (schema {raw['schema']}, this one "
                    f"reads up to {SCHEMA}); update ser_embed, or extract again"
                )
            if int(raw["schema"]) < SCHEMA:
                raise StoreError(
                    f"{self.path}: written by an older ser_embed (schema {raw['schema']}), which "
                    "didn't trim silence; delete it and extract again"
                )
            for name in ("features", "frames", "clips"):
                self.file[name]  # raises if it can't be opened
            return {
                "settings": FeatureSettings(**json.loads(raw["settings"])),
                "corpus": str(raw["corpus"]), "root": str(raw["root"]),
                "trained": bool(raw["trained"]), "demo": bool(raw["demo"]),
            }  # fmt: skip
        except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
            self.close()
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> StoreError:
        return StoreError(f"{self.path}: damaged ({error}); delete it and extract again")

    @property
    def file(self) -> h5py.File:
        """The open HDF5 file of this process."""
        if self._file is None or self._pid != os.getpid():
            try:
                # Finished files never change, so no lock is needed, and none works on some NFS.
                self._file = h5py.File(self.path, "r", locking=False)
                self._shards = Shards(self.path, self._file) if is_index(self._file) else None
            except (OSError, KeyError, ValueError, RuntimeError) as error:
                raise self._damaged(error) from error
            self._pid = os.getpid()
        return self._file

    @property
    def clips(self) -> "pd.DataFrame":
        """The table: one row a clip, in the order of the features; see `ClipRow`."""
        import pandas as pd  # takes a moment that most readers need not wait

        if self._table is None:
            columns = columns_of(self._read_table(0, None))
            # As objects: with pyarrow installed pandas would refuse names that aren't UTF-8.
            self._table = pd.DataFrame(
                {n: pd.Series(v, dtype=object if v.dtype == object else None)
                 for n, v in columns.items()}
            )  # fmt: skip
        return self._table

    def _read_table(self, start: int, stop: int | None) -> np.ndarray:
        try:
            table = self.file["clips"][start:stop]
            _ = table[[name for name in COLUMNS if name not in LATER]]  # raises if one is missing
        except (KeyError, IndexError, OSError, ValueError, RuntimeError) as error:
            raise self._damaged(error) from error
        return table

    @property
    def stored_clips(self) -> "pd.DataFrame":
        """The rows of `clips` that have features, and `row`, where in the file each is."""
        table = self.clips.assign(row=np.arange(len(self)))
        return table[table["state"] == STORED]

    @property
    def rows(self) -> list[ClipRow]:
        """The table as objects."""
        return list(self.each_row())

    def each_row(self) -> Iterator[ClipRow]:
        """Yield the table's rows; only a few thousand at a time are in memory."""
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield from rows_of(self._read_table(start, start + _ROWS_AT_ONCE))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one clip's features."""
        return tuple(self.file["features"].shape[1:])

    @property
    def frames(self) -> np.ndarray:
        """How many frames of each clip are its own, int32 of shape (N,)."""
        try:
            return self.file["frames"][:]
        except (OSError, RuntimeError) as error:
            raise self._damaged(error) from error

    def __len__(self) -> int:
        """Number of clips, failed ones included."""
        return int(self.file["features"].shape[0])

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the features of some clips, (n, ...) in the stored type, in the order asked."""
        whole = self.file["features"]
        out = np.empty((len(indices), *whole.shape[1:]), dtype=whole.dtype)
        try:
            for place, index in enumerate(indices):
                source, line = self._find("features", int(index), whole)
                if source is None or source.shape[1:] != whole.shape[1:]:
                    _read_padded(source, line, out[place])
                elif not _read_chunk(source, line, out[place]):
                    source.read_direct(out, np.s_[line], np.s_[place])
        except (OSError, RuntimeError) as error:
            raise self._damaged(error) from error
        return out

    def read_range(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return each frame's minimum and maximum of some clips, (n, ..., 2) float32."""
        if "range" not in self.file:
            raise StoreError(f"{self.path}: holds no range (pooled, or not normalised)")
        try:
            whole = self.file["range"]
            out = np.empty((len(indices), *whole.shape[1:]), dtype=whole.dtype)
            for place, index in enumerate(indices):
                _read_padded(*self._find("range", int(index), whole), out[place])
        except (KeyError, OSError, RuntimeError) as error:
            raise self._damaged(error) from error
        return out

    def own_part(self, index: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a clip's features and range without the padding of shorter clips."""
        features = self.read([index])[0]
        ranged = "range" in self.file
        extrema = self.read_range([index])[0] if ranged else np.empty(0, np.float32)
        if self.settings.pool == "none":
            features = features[..., :frames, :]
            extrema = extrema[..., :frames, :] if extrema.size else extrema
        return features, extrema

    def _find(self, name: str, index: int, whole: h5py.Dataset) -> tuple[h5py.Dataset | None, int]:
        """Return the dataset that holds a clip, None if the clip failed, and the line in it."""
        return (whole, index) if self._shards is None else self._shards.find(name, index)

    def close(self) -> None:
        """Close the file; it opens again when needed."""
        if self._file is not None and self._pid == os.getpid():
            if self._shards is not None:
                self._shards.close()
            self._file.close()
        self._file = self._shards = None

    def __enter__(self) -> "FeatureStore":
        """Return the store."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the handle behind."""
        return {**self.__dict__, "_file": None, "_shards": None}


def _read_padded(source: h5py.Dataset | None, line: int, out: np.ndarray) -> None:
    """Copy one clip to `out`, whose time may be longer."""
    if source is None:
        out[...] = 0
        return
    clip = source[line]
    if clip.shape != out.shape:
        out[...] = 0
    out[tuple(slice(size) for size in clip.shape)] = clip


def _read_chunk(source: h5py.Dataset, index: int, out: np.ndarray) -> bool:
    """Copy one clip's chunk from the file to `out`; return whether that could be done.

    Four times quicker than HDF5's way for any selection, which is left with the rest: a clip
    that was never written, a time axis that grew, another machine's byte order.
    """
    if source.chunks != (1, *source.shape[1:]) or not source.dtype.isnative or index < 0:
        return False
    if source.id.get_create_plist().get_nfilters():  # what another tool compressed
        return False
    try:
        skipped, copied = source.id.read_direct_chunk(
            (index, *(0 for _ in out.shape)), out=out.reshape(-1).view(np.uint8)
        )
    except (OSError, RuntimeError, ValueError, TypeError):
        return False
    return int(skipped) == 0 and len(copied) == out.nbytes


# --- features in other files -----------------------------------------------------------------


def is_index(file: h5py.File) -> bool:
    """Return whether a store's features lie in shards."""
    return "places" in file


class Shards:
    """The shards of an index, a few of them open.

    Args:
        path: The index's path; the shards' names are relative to its folder.
        index: The index, open.

    Attributes:
        names: Names of the shards.
        shapes: Shape of each shard's features, int64 (n_shards, n_axes).
        places: Shard and line of each clip, int32 (N, 2); -1 where a clip failed.
    """

    def __init__(self, path: Path, index: h5py.File) -> None:
        self.path = path
        table = index["shards"][:]
        self.names = [text_of(name) for name in table["name"].tolist()]
        self.shapes: np.ndarray = table["shape"]
        self.places: np.ndarray = index["places"][:]
        self._open: OrderedDict[int, h5py.File] = OrderedDict()

    def find(self, name: str, index: int) -> tuple[h5py.Dataset | None, int]:
        """Return the dataset of that name which holds a clip, and the clip's line in it.

        The dataset is None if the clip failed.

        Raises:
            OSError: The shard is missing or damaged.
        """
        shard, line = map(int, self.places[index])
        if shard < 0:
            return None, line
        file = self._open.pop(shard, None)
        if file is None:
            file = h5py.File(self.path.parent / self.names[shard], "r", locking=False)
        self._open[shard] = file  # the one used last goes to the end
        if len(self._open) > OPEN_SHARDS:
            self._open.popitem(last=False)[1].close()
        return file[name], line

    def close(self) -> None:
        """Close the shards."""
        while self._open:
            self._open.popitem()[1].close()
