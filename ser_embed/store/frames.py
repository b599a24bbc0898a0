"""The datasets of a store that hold frames: one clip behind another, added to and read.

`features` has the shape (sum of T, D) or (L, sum of T, D), pooled (N, L, D); `range` likewise with
two columns. Chunks run along time alone, so that only the last one is partly empty; they hold a
hundredth of what a store began with, within `CHUNK_BYTES`. They are read straight from the file to
where they are wanted, which takes a quarter of the time that HDF5 takes for a selection.
"""

from collections.abc import Sequence

import h5py
import numpy as np

from ser_embed.store.journal import JournaledFile

__all__ = ["Frames", "append_frames", "time_axis"]

CHUNK_BYTES = (2**14, 2**21)  # over all layers, at least and at most


def time_axis(pool: str, n_axes: int) -> int:
    """Return the axis along which a dataset of so many axes grows."""
    return n_axes - 2 if pool == "none" else 0


def append_frames(file: h5py.File, name: str, arrays: Sequence[np.ndarray], pool: str) -> int:
    """Add clips' arrays to a dataset, which is made if need be; return where they begin."""
    if pool == "none":
        block = np.concatenate(arrays, axis=-2)
    else:
        block = np.stack(arrays)
    axis = time_axis(pool, block.ndim)
    if name not in file:
        _create(file, name, block, axis)
        start = 0
    else:
        start = int(file[name].shape[axis])
        file[name].resize(start + block.shape[axis], axis)
    where = (*[slice(None)] * axis, slice(start, start + block.shape[axis]))
    file[name][where] = block
    return start


def _create(file: h5py.File, name: str, block: np.ndarray, axis: int) -> None:
    frame = max(1, block.nbytes // max(1, block.shape[axis]))  # bytes of a frame in all layers
    n = min(int(np.clip(block.nbytes // 100, *CHUNK_BYTES)), block.nbytes) // frame
    chunk = [max(1, size) for size in block.shape]
    chunk[:axis] = [1] * axis
    chunk[axis] = max(1, n)
    # The index of chunks along one growing axis, where that isn't the first, HDF5 can't list.
    limits = [None] * (axis + 1) + list(block.shape[axis + 1 :])
    file.create_dataset(name, block.shape, block.dtype, chunks=tuple(chunk), maxshape=limits)


class Frames:
    """A dataset of frames to be read.

    Args:
        disk: The file.
        dataset: The dataset, whose HDF5 file may be closed afterwards if `is_direct`.
        pool: The store's setting.

    Attributes:
        is_direct: Whether frames lie in the file as they are in memory; another tool may have
            compressed them.

    Raises:
        OSError: Chunks are missing.
    """

    def __init__(self, disk: JournaledFile, dataset: h5py.Dataset, pool: str) -> None:
        self._disk, self.dtype, self._pooled = disk, dataset.dtype, pool != "none"
        self._axis = axis = time_axis(pool, dataset.ndim)
        self._before, self._after = dataset.shape[:axis], dataset.shape[axis + 1 :]
        self._size = int(dataset.shape[axis])
        chunks = dataset.chunks or ()
        whole = (*[1] * axis, chunks[axis] if chunks else 0, *self._after)
        self.is_direct = (
            chunks == whole and dataset.dtype.isnative
            and not dataset.id.get_create_plist().get_nfilters()
        )  # fmt: skip
        self._dataset = None if self.is_direct else dataset
        if self.is_direct:
            self._row_bytes = int(np.prod(self._after)) * self.dtype.itemsize
            self._chunk = int(chunks[axis])
            self._find_chunks(dataset)

    def _find_chunks(self, dataset: h5py.Dataset) -> None:
        """Note where each layer's chunks are in the file, and how far they follow each other."""
        n = -(-self._size // self._chunk)
        addresses = np.full((*self._before, n), -1, dtype=np.int64)
        axis, chunk = self._axis, self._chunk

        def note(info: h5py.h5d.StoreInfo) -> None:
            place = info.chunk_offset
            if place[axis] < self._size:
                where = (*place[:axis], place[axis] // chunk)
                addresses[where] = info.byte_offset

        dataset.id.chunk_iter(note)
        if (addresses < 0).any():
            raise OSError(f"chunks of {dataset.name} are missing")
        self._addresses = addresses.reshape(-1, n)  # (layers, chunks)
        last = np.zeros_like(self._addresses) + np.arange(n)
        if n > 1:
            follows = np.diff(self._addresses, axis=1) == chunk * self._row_bytes
            breaks = np.where(follows, n - 1, np.arange(n - 1))
            last[:, :-1] = np.minimum.accumulate(breaks[:, ::-1], axis=1)[:, ::-1]
            last[:, -1] = n - 1
        self._last = last  # of the chunks that lie behind each in one piece

    def shape(self, n_frames: int) -> tuple[int, ...]:
        """Return the shape of a clip of so many frames."""
        if self._pooled:
            return self._after
        return *self._before, n_frames, *self._after

    def read(self, offset: int, n_frames: int, out: np.ndarray) -> None:
        """Copy a clip to the first frames of `out`, which is contiguous and may have more."""
        n = 1 if self._pooled else n_frames
        if not 0 <= offset <= offset + n <= self._size:
            raise OSError(f"frames {offset} to {offset + n} of {self._size}")
        if self._dataset is not None:
            where = (*[slice(None)] * self._axis, slice(offset, offset + n))
            values = self._dataset[where]
            if self._pooled:
                out[...] = values[0]
            else:
                out[..., :n, :] = values
            return
        layers = out.reshape(len(self._addresses), -1).view(np.uint8)
        for layer, row in enumerate(layers):
            self._read_layer(layer, offset, n, row.data)

    def _read_layer(self, layer: int, offset: int, n: int, out: memoryview) -> None:
        done, addresses, last = 0, self._addresses[layer], self._last[layer]
        while done < n:
            number, skipped = divmod(offset + done, self._chunk)
            many = min(n - done, (int(last[number]) + 1 - number) * self._chunk - skipped)
            at = int(addresses[number]) + skipped * self._row_bytes
            start = done * self._row_bytes
            self._disk.read_into(at, out[start : start + many * self._row_bytes])
            done += many
