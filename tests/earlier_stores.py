"""Stores as they were written before frames lay one clip behind another (schema 2).

One clip a chunk, padded to the longest; a cluster wrote shards of that layout and an index.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ser_embed.store.settings import FeatureSettings
from ser_embed.store.table import ClipRow, EncodedClip, checksum, table_of, text_type, widths_of

__all__ = ["write_index", "write_padded"]


def write_padded(
    path: Path, settings: FeatureSettings, corpus: str, clips: Sequence[EncodedClip],
    ranges: bool = True,
) -> Path:  # fmt: skip
    """Write clips, failed ones among them, in the order given.

    Args:
        path, settings, corpus, clips: As of a store.
        ranges: Whether the table has the columns that came with ranges of a file.
    """
    clips = [as_stored(clip, settings) for clip in clips]
    with h5py.File(path, "w", libver="v110") as file:
        start(file, settings, corpus, path.parent)
        stored = [clip for clip in clips if clip.row.is_stored]
        for name, arrays in (
            ("features", [clip.features for clip in clips]), ("range", [c.extrema for c in clips])
        ):  # fmt: skip
            own = [one.features if name == "features" else one.extrema for one in stored]
            if not own[0].size:
                continue
            shape = np.max([one.shape for one in own], axis=0)
            data = file.create_dataset(
                name, (len(clips), *shape), own[0].dtype, chunks=(1, *own[0].shape),
                maxshape=(None,) * (1 + len(shape)),
            )  # fmt: skip
            for line, array in enumerate(arrays):
                if array.size:
                    data[(line, *(slice(size) for size in array.shape))] = array
        end(file, clips, ranges)
    return path


def write_index(
    path: Path, settings: FeatureSettings, corpus: str, blocks: Sequence[Sequence[EncodedClip]]
) -> Path:
    """Write a shard of each block, and the index that opens them as one, by path."""
    folder = path.with_name(f"{path.name}.shards")
    folder.mkdir(exist_ok=True)
    shards, places = [], []
    for number, block in enumerate(blocks):
        name = f"{number:032x}.h5"
        write_padded(folder / name, settings, corpus, block)
        with h5py.File(folder / name) as file:
            shards.append((f"{folder.name}/{name}".encode(), file["features"].shape))
        places += [(number, line, as_stored(clip, settings)) for line, clip in enumerate(block)]
    places.sort(key=lambda place: place[2].row.path)
    with h5py.File(path, "w", libver="v110") as file:
        start(file, settings, corpus, path.parent)
        n_axes = len(shards[0][1])
        file["shards"] = np.array(
            shards, dtype=[("name", text_type(64)), ("shape", "i8", (n_axes,))]
        )  # fmt: skip
        file["places"] = np.array(
            [(n, line) if c.row.is_stored else (-1, -1) for n, line, c in places], dtype=np.int32
        )
        longest = np.max([shape[1:] for _, shape in shards], axis=0)
        for name, width in (("features", longest[-1]), ("range", 2)):
            shape = (len(places), *map(int, longest[:-1]), int(width))
            kind = np.dtype(settings.dtype if name == "features" else "f4")
            layout = h5py.VirtualLayout(shape, kind)
            for line, (number, where, clip) in enumerate(places):
                if clip.row.is_stored:
                    own = (*shards[number][1][:-1], int(width))
                    source = h5py.VirtualSource(shards[number][0].decode(), name, own, kind)
                    layout[(line, *(slice(size) for size in own[1:]))] = source[where]
            file.create_virtual_dataset(name, layout, fillvalue=0)
        end(file, [clip for *_, clip in places], True)
    return path


def as_stored(clip: EncodedClip, settings: FeatureSettings) -> EncodedClip:
    """Return a clip in the stored type, with its checksum."""
    features = clip.features.astype(settings.dtype)
    mark = checksum(features, clip.extrema) if clip.row.is_stored else 0
    return clip._replace(features=features, row=replace(clip.row, checksum=mark))


def start(file: h5py.File, settings: FeatureSettings, corpus: str, root: Path) -> None:
    """Write the attributes."""
    header: dict[str, Any] = {
        "format": "ser_embed", "schema": 2, "settings": json.dumps(asdict(settings)),
        "corpus": corpus, "root": str(root.resolve()), "trained": True, "demo": False,
    }  # fmt: skip
    for name, value in header.items():
        if isinstance(value, str):
            text = os.fsencode(value)
            file.attrs.create(name, text, dtype=text_type(len(text)))
        else:
            file.attrs[name] = value


def end(file: h5py.File, clips: Sequence[EncodedClip], ranges: bool) -> None:
    """Write the table, the number of frames, and the digest of all that."""
    rows = [clip.row for clip in clips]
    table = table_of(rows, widths_of(rows), [(0, 0)] * len(rows))
    left = ("offset", "frames") if ranges else ("offset", "frames", "start", "end")
    file["clips"] = table[[name for name in table.dtype.names or () if name not in left]]
    frames = np.array([clip.frames for clip in clips], dtype=np.int32)
    file["frames"] = frames
    kept = {k: str(v) for k, v in sorted(file.attrs.items())}
    values = [row.values if row.start or row.end else row.values[:-2] for row in rows]
    content = json.dumps([kept, values, frames.tolist()])
    file.attrs.create(
        "digest", hashlib.sha256(content.encode()).hexdigest().encode(), dtype=text_type(64)
    )


def failed(row: ClipRow) -> EncodedClip:
    """Return a clip that has no features."""
    return EncodedClip(row, np.empty(0), np.empty(0), 0)
