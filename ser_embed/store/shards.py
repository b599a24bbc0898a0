"""Finding a clip of an index in its shard.

An index is a store whose features lie in other files of the same layout, the shards. It says of
each clip which shard and which line has it (`places`), and of each shard its name relative to
the index and its shape (`shards`). Its `features` are also an HDF5 virtual dataset, for programs
that don't know of this; ser_embed itself never reads through that: HDF5 gives zeros, without a
word, for a shard that is missing, and for every shard beyond the number of files that a process
may hold open.
"""

from collections import OrderedDict
from pathlib import Path

import h5py
import numpy as np

from ser_embed.store.table import text_of, text_type

__all__ = ["Shards", "is_index", "shards_table"]

OPEN_SHARDS = 32


def is_index(file: h5py.File) -> bool:
    """Return whether a store's features lie in shards."""
    return "places" in file


def shards_table(names: list[str], shapes: list[tuple[int, ...]], n_axes: int) -> np.ndarray:
    """Return what an index holds of its shards: names, and shapes of `n_axes` numbers each."""
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    width = max(map(len, encoded), default=1)
    table = np.zeros(len(names), dtype=[("name", text_type(width)), ("shape", "i8", (n_axes,))])
    table["name"] = encoded
    if shapes:
        table["shape"] = shapes
    return table


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
