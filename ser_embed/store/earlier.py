"""Stores of the layout before this one (2): read as they are, until a writer rewrites them.

They have one clip a chunk, padded to the longest: `features` (N, T, D), (N, L, T, D) or (N, L, D),
`range` likewise, `frames` (N,). Killed runs left files of that layout in `<store>.parts/`. Runs on
a cluster left them in `<store>.shards/`, and `<store>` is then an index, whose `places` (N, 2) say
which of its `shards` and which line has a clip.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ser_embed.store.table import COLUMNS, ClipRow, text_of

__all__ = ["LAYOUT_BEFORE", "Padded", "digest_before", "padded_sources"]

LAYOUT_BEFORE = 2
OPEN_SHARDS = 32  # of an index, at once

_first_values = attrgetter(*(name for name in COLUMNS if name not in ("start", "end")))


class Padded:
    """A dataset of one padded clip a line.

    Args:
        whole: The dataset, or an index's view of all shards.
        find: From a clip's number to the dataset that holds it, and its line there.
        pool: The store's setting.
    """

    def __init__(
        self, whole: h5py.Dataset, find: Callable[[str, int], tuple[h5py.Dataset, int]], pool: str
    ) -> None:
        self.dtype, self._shape, self._pooled = whole.dtype, whole.shape[1:], pool != "none"
        self._find, self._name = find, whole.name.strip("/")

    def shape(self, n_frames: int) -> tuple[int, ...]:
        """Return the shape of a clip of so many frames."""
        return self._shape if self._pooled else (*self._shape[:-2], n_frames, self._shape[-1])

    def read(self, offset: int, n_frames: int, out: np.ndarray) -> None:
        """Copy clip number `offset` to the first frames of `out`."""
        dataset, line = self._find(self._name, offset)
        if self._pooled:
            out[...] = dataset[line]
        else:
            out[..., :n_frames, :] = dataset[line, ..., :n_frames, :]


class _Shards:
    """The shards of an index, a few of them open."""

    def __init__(self, path: Path, index: h5py.File) -> None:
        names = [text_of(name) for name in index["shards"]["name"].tolist()]
        self.paths = [path.parent / name for name in names]
        self.places: np.ndarray = index["places"][:]
        self._open: OrderedDict[int, h5py.File] = OrderedDict()

    def find(self, name: str, clip: int) -> tuple[h5py.Dataset, int]:
        """Return the dataset that holds a clip, and the clip's line in it.

        Raises:
            OSError: The shard is missing or damaged.
        """
        shard, line = map(int, self.places[clip])
        file = self._open.pop(shard, None) or h5py.File(self.paths[shard], "r", locking=False)
        self._open[shard] = file  # the one used last goes to the end
        if len(self._open) > OPEN_SHARDS:
            self._open.popitem(last=False)[1].close()
        return file[name], line

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


def padded_sources(
    path: Path, file: h5py.File, pool: str
) -> tuple[dict[str, Padded], np.ndarray, Callable[[], None]]:
    """Return what an open file's clips are read from.

    Returns:
        Sources by name, whether each clip's file is there (N,), and a call that closes shards.
    """
    n = len(file["frames"])
    if "places" in file:
        shards = _Shards(path, file)
        there = np.array([shard.is_file() for shard in shards.paths] + [True])
        found, find, close = there[shards.places[:, 0]], shards.find, shards.close
    else:
        found, close = np.ones(n, dtype=bool), lambda: None

        def find(name: str, clip: int) -> tuple[h5py.Dataset, int]:
            return file[name], clip

    sources = {
        name: Padded(file[name], find, pool) for name in ("features", "range") if name in file
    }
    return sources, found, close


def digest_before(
    attributes: Mapping[str, Any], rows: Iterable[ClipRow], frames: np.ndarray
) -> str:
    """Return the SHA-256 of everything in such a file but the features."""
    kept = {
        k: str(v.encode("utf-8", "surrogateescape") if isinstance(v, str) else v)
        for k, v in sorted(attributes.items()) if k != "digest"
    }  # fmt: skip
    # Of whole files as before there were ranges.
    values = [row.values if row.start or row.end else _first_values(row) for row in rows]
    parts = ", ".join(json.dumps(one) for one in values)
    text = f"[{json.dumps(kept)}, [{parts}], {json.dumps(frames.tolist())}]"
    return hashlib.sha256(text.encode()).hexdigest()
