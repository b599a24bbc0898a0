"""The index that opens shards as one store, and what it is written from.

See `reader.py` for what an index holds.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ser_embed.store.builder import Builder
from ser_embed.store.ledger import Place
from ser_embed.store.reader import FeatureStore, Shards, is_index
from ser_embed.store.settings import FeatureSettings
from ser_embed.store.sharding import Shard, ShardFolder
from ser_embed.store.table import ClipRow, text_type
from ser_embed.store.writer import StoreWriter

__all__ = ["IndexWriter"]


class _PlacedClip(NamedTuple):
    row: ClipRow
    frames: int
    shard: int
    line: int


class _IndexBuilder(Builder):
    """Writes an index as its `Builder` writes a store.

    Args:
        path, header, n, widths: See `Builder`.
        names: The shards, relative to the index.
        shards: What is known of each.
        ranged: Whether they have a `range`.
        settings: Their settings.
    """

    def __init__(
        self, path: Path, header: Mapping[str, Any], n: int, widths: Mapping[str, int],
        names: list[str], shards: list[Shard], settings: FeatureSettings,
    ) -> None:  # fmt: skip
        self.places = np.full((n, 2), -1, dtype=np.int32)
        self.names, self.shards, self.settings = names, shards, settings
        super().__init__(path, header, None, n, widths)

    def _create(self, name: str, n: int, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return None  # virtual datasets are made when all is known

    def add(self, clip: Any) -> None:
        """Add the next clip, a `_PlacedClip`."""
        self.places[self._add_row(clip.row, clip.frames)] = clip.shard, clip.line
        self.disk.check()

    def finish(self) -> None:
        """Write the rest and let the index appear under its name."""
        shapes = [shard.shape for shard in self.shards]
        self.file["shards"] = _shards_table(self.names, shapes, len(shapes[0]) if shapes else 3)
        self.file["places"] = self.places
        self._lay_out("features", shapes, np.dtype(self.settings.dtype))
        if self.settings.norm != "none" and self.settings.pool == "none":
            self._lay_out("range", [(*shape[:-1], 2) for shape in shapes], np.dtype("f4"))
        super().finish()

    def _lay_out(self, name: str, shapes: list[tuple[int, ...]], dtype: np.dtype) -> None:
        """Map each run of clips that follow each other in a shard."""
        longest = np.max([shape[1:] for shape in shapes], axis=0) if shapes else (0, 0)
        layout = h5py.VirtualLayout((len(self.places), *map(int, longest)), dtype)
        follows = (np.diff(self.places, axis=0) == (0, 1)).all(axis=1)
        starts = np.flatnonzero(np.r_[True, ~follows][: len(self.places)])
        for start, stop in zip(starts, [*starts[1:], len(self.places)], strict=True):
            number, line = map(int, self.places[start])
            if number < 0:
                continue
            shape = shapes[number]
            source = h5py.VirtualSource(self.names[number], name, shape, dtype)
            own = tuple(slice(size) for size in shape[1:])
            where = (slice(start, stop), *own)
            layout[where] = source[line : line + int(stop - start)]
        self.file.create_virtual_dataset(name, layout, fillvalue=0)


class IndexWriter(StoreWriter):
    """Adds shards to a store that is an index; use `IndexWriter.open` with a `folder`.

    Clips of a store that the local engine wrote stay: its file becomes a shard.
    """

    def __init__(self, path: Path, header: dict[str, Any], folder: ShardFolder) -> None:
        self.folder = folder
        self.settings = FeatureSettings(**json.loads(header["settings"]))
        self._shards: dict[str, Shard] = {}
        self._lost = False  # whether the index names a shard that isn't there
        super().__init__(path, header)

    def add_shard(
        self, name: str, rows: Iterable[ClipRow], shape: tuple[int, ...], frames: np.ndarray
    ) -> None:
        """Add the clips of a shard that is there; see `Shard`."""
        self._shards[name] = Shard(shape, frames)
        path = self.folder.path(name)
        self.known.add_stored((path, line, row) for line, row in enumerate(rows))

    def _clear_torn_files(self) -> None:
        super()._clear_torn_files()
        if not self.folder.is_url:
            for torn in Path(self.folder.place).glob("*.tmp"):
                torn.unlink()

    def _add_files(self) -> None:
        """Add the clips of the index and its shards, then of shards that a killed run left."""
        self.folder.get_index(self.path)
        there = set(self.folder.names())
        for file in self._earlier_files():
            with FeatureStore(file) as store:
                if is_index(store.file):
                    self._add_index(store, there)
                else:
                    self._add_file(file, store.each_row())
        for name in sorted(there - set(self._shards)):
            rows, shard = self.folder.read(name)
            self.add_shard(name, rows, *shard)

    def _add_index(self, store: FeatureStore, there: set[str]) -> None:
        index = Shards(store.path, store.file)
        names = [Path(name).name for name in index.names]
        self._lost = not there.issuperset(names)
        sizes = index.shapes[:, 0] if names else np.zeros(0, dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        stored = index.places[:, 0] >= 0
        number, line = index.places[stored].T
        frames = np.zeros(int(sizes.sum()), dtype=np.int32)
        frames[starts[number] + line] = store.frames[stored]
        for name, shape, start in zip(names, index.shapes.tolist(), starts.tolist(), strict=True):
            if name in there:
                self._shards[name] = Shard(tuple(shape), frames[start : start + shape[0]])
        self.known.add_stored(
            (self.folder.path(names[number]), int(line), row)
            for (number, line), row in zip(index.places, store.each_row(), strict=True)
            if number >= 0 and names[number] in there
        )

    def _is_as_finished(self, table: list[Place]) -> bool:
        return not self._lost and super()._is_as_finished(table)

    def _write_finished(self, table: list[Place], widths: Mapping[str, int]) -> None:
        """Write the index over the shards that this run's table needs."""
        files = dict.fromkeys(place.file for place in table if place.file is not None)
        named = {file: self._as_shard(file) for file in files}
        numbers = {name: number for number, name in enumerate(dict.fromkeys(named.values()))}
        prefix = Path(self.folder.place).name
        start = partial(
            _IndexBuilder, self.path, self.header, len(table), widths,
            [f"{prefix}/{name}" for name in numbers], [self._shards[name] for name in numbers],
            self.settings,
        )  # fmt: skip

        def placed() -> Iterator[_PlacedClip]:
            for file, line, row in table:
                if file is None:
                    yield _PlacedClip(row, 0, -1, -1)
                else:
                    name = named[file]
                    frames = int(self._shards[name].frames[line])
                    yield _PlacedClip(row, frames, numbers[name], line)

        self._build(self.path, start, placed())
        self.folder.put_index(self.path)
        for name in set(self._shards) - set(numbers):
            self.folder.remove(name)

    def _loose_shards(self) -> list[Path]:
        return []  # they are read with what the index needs to know of them

    def _as_shard(self, file: Path) -> str:
        """Return the name of the shard that a file is, or becomes."""
        if file.parent == self.folder.path(""):
            return file.name
        with FeatureStore(file) as store:
            identities = [row.identity for row in store.each_row() if row.is_stored]
            name = ShardFolder.name_of(self.settings, identities)
            self._shards[name] = Shard.of(store.file)
        self.folder.adopt(file, name)
        return name


def _shards_table(names: list[str], shapes: list[tuple[int, ...]], n_axes: int) -> np.ndarray:
    """Return what an index holds of its shards: names, and shapes of `n_axes` numbers each."""
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    width = max(map(len, encoded), default=1)
    table = np.zeros(len(names), dtype=[("name", text_type(width)), ("shape", "i8", (n_axes,))])
    table["name"] = encoded
    if shapes:
        table["shape"] = shapes
    return table
