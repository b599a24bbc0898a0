"""Shards and the index over them: whole, movable, of any number, and loud where one is missing."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ser_embed.errors import StoreError
from ser_embed.store.builder import EncodedClip
from ser_embed.store.checking import verify
from ser_embed.store.index import IndexWriter
from ser_embed.store.reader import FeatureStore
from ser_embed.store.settings import FeatureSettings
from ser_embed.store.sharding import ShardFolder
from ser_embed.store.table import ClipRow
from ser_embed.store.writer import StoreWriter

SETTINGS = FeatureSettings(
    encoder="mini", weights="a" * 64, layer=4, pool="none", norm="frame", trim=True, seconds=0.0,
    fill="none", dtype="float16", precision="fp32", seed=0,
)  # fmt: skip


def clip(i: int) -> EncodedClip:
    """A clip whose content and length follow from its number."""
    rng = np.random.default_rng(i)
    row = ClipRow(
        f"{i % 3}/clip-{i:04d}.wav", "tess", "tess:oaf", "female", "sad", "", "", "", "",
        1.0 + i, f"{i:064x}", "stored", "", 0,
    )  # fmt: skip
    frames = 2 + i % 5
    features = rng.uniform(-1, 1, (frames, 8)).astype(np.float16)
    return EncodedClip(row, features, rng.normal(size=(frames, 2)).astype(np.float32), frames)


def failed(i: int) -> EncodedClip:
    row = replace(clip(i).row, state="failed", reason="silent", seconds=0.0)
    return EncodedClip(row, np.empty(0), np.empty(0), 0)


def folder_of(path: Path) -> ShardFolder:
    return ShardFolder(str(path.absolute()))


@contextmanager
def opened(path: Path, folder: ShardFolder | None = None) -> Iterator[IndexWriter]:
    with IndexWriter.open(
        path, SETTINGS, "tess", path.parent, trained=True, demo=False,
        folder=folder or folder_of(path),
    ) as writer:  # fmt: skip
        yield writer


def put(writer: IndexWriter, clips: list[EncodedClip]) -> str:
    """Write a shard, as a machine of a cluster does, and add it, as the driver does."""
    name = ShardFolder.name_of(SETTINGS, [one.row.identity for one in clips])
    writer.folder.write(writer.header, name, clips)
    rows, shard = writer.folder.read(name)
    writer.add_shard(name, rows, *shard)
    return name


def fill(path: Path, blocks: list[list[int]], **options: Any) -> dict[str, int]:
    with opened(path) as writer:
        for block in blocks:
            put(writer, [clip(i) for i in block])
        rows = [clip(i).row for block in blocks for i in block]
        totals: dict[str, int] = writer.finish(rows, **options)
        return totals


def fill_whole(path: Path, numbers: list[int]) -> None:
    with StoreWriter.open(path, SETTINGS, "tess", path.parent, trained=True, demo=False) as writer:
        for i in numbers:
            writer.add(*clip(i))
        writer.finish([clip(i).row for i in numbers])


def content(path: Path) -> Any:
    with FeatureStore(path) as store:
        every = range(len(store))
        return (
            store.rows, store.frames.tolist(), store.read(every).tobytes(),
            store.read_range(every).tobytes(), dict(store.file.attrs),
        )  # fmt: skip


def test_an_index_is_the_store_that_one_process_would_have_written(tmp_path: Path) -> None:
    """Its clips differ in length from shard to shard, and its order from theirs."""
    index, whole = tmp_path / "a" / "s.h5", tmp_path / "b" / "s.h5"
    assert fill(index, [[0, 3, 6, 9], [5, 10, 15], [1, 2]]) == {"clips": 9, "kept": 0}
    fill_whole(whole, [0, 1, 2, 3, 5, 6, 9, 10, 15])
    one, other = content(index), content(whole)
    assert one[:4] == other[:4]
    del one[4]["root"], other[4]["root"], one[4]["digest"], other[4]["digest"]
    assert one[4] == other[4]
    assert verify(index) == []
    assert FeatureStore.find(index.parent) == [index]


def test_a_reader_that_knows_only_hdf5_finds_the_same(tmp_path: Path) -> None:
    fill(tmp_path / "s.h5", [[0, 3, 6, 9], [5, 10, 15], [1, 2]])
    with FeatureStore(tmp_path / "s.h5") as store:
        features, ranges = store.read(range(9)), store.read_range(range(9))
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["features"].is_virtual
        np.testing.assert_array_equal(file["features"][:], features)
        np.testing.assert_array_equal(file["range"][:], ranges)


def test_the_folder_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "here" / "s.h5", [[0, 1], [2]])
    before = content(tmp_path / "here" / "s.h5")
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    assert content(Path("s.h5")) == before
    assert verify(Path("s.h5")) == []


def test_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    """HDF5's own view of them gives zeros there, without a word."""
    path = tmp_path / "s.h5"
    fill(path, [[i] for i in range(120)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 50, hard))
    try:
        assert verify(path) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_lost_shard_is_an_error_and_its_clips_are_encoded_again(how: str, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    fill(path, [[0, 1], [2, 3]])
    before = content(path)
    lost = Path(folder_of(path).place) / ShardFolder.name_of(
        SETTINGS, [clip(i).row.identity for i in (2, 3)]
    )
    if how == "cut":
        lost.write_bytes(lost.read_bytes()[:600])
        with pytest.raises(StoreError, match=r"s\.h5: damaged"), FeatureStore(path) as store:
            store.read(range(4))
        assert verify(path) != []
        return
    lost.unlink()
    with pytest.raises(StoreError, match=lost.name), FeatureStore(path) as store:
        store.read(range(4))
    with opened(path) as writer:
        assert set(writer.known) == {clip(i).row.identity for i in (0, 1)}
        put(writer, [clip(3)])
        put(writer, [clip(2)])
        writer.finish([clip(i).row for i in range(4)])
    assert content(path) == before
    assert verify(path) == []


def test_work_done_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    fill(path, [[0, 1], [2]])
    files = sorted((tmp_path / "s.h5.shards").iterdir())
    before = [(file.stat().st_ino, file.stat().st_mtime_ns) for file in [path, *files]]
    assert fill(path, [[0, 1], [2]]) == {"clips": 3, "kept": 0}
    assert before == [(f.stat().st_ino, f.stat().st_mtime_ns) for f in [path, *files]]


def test_what_a_killed_run_left_is_known(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with opened(path) as writer:
        put(writer, [clip(0), failed(1), clip(2)])
        (tmp_path / "s.h5.shards" / "x.h5.1.tmp").write_bytes(b"half")
    with opened(path) as writer:
        assert set(writer.known) == {clip(i).row.identity for i in (0, 2)}
        assert len(list((tmp_path / "s.h5.shards").iterdir())) == 1
        writer.finish([clip(0).row, failed(1).row, clip(2).row])
    with FeatureStore(path) as store:
        assert [row.state for row in store.rows] == ["stored", "failed", "stored"]
        assert not store.read([1]).any()
    assert verify(path) == []


def test_kept_and_pruned_as_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    fill(path, [[0, 1], [2, 3]])
    assert fill(path, [[4]]) == {"clips": 5, "kept": 4}
    assert verify(path) == []
    with opened(path) as writer:
        assert writer.finish([clip(0).row, clip(4).row], prune=True) == {"clips": 2, "kept": 0}
    assert len(list((tmp_path / "s.h5.shards").iterdir())) == 2  # one had nothing any more
    assert verify(path) == []


def test_a_store_of_one_process_goes_on_as_shards_and_back(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    fill_whole(path, [0, 1, 2])
    with StoreWriter.open(path, SETTINGS, "tess", tmp_path, trained=True, demo=False) as writer:
        writer.add(*clip(3))  # killed: a part is left
        writer.flush()
    with opened(path) as index:
        assert len(index.known) == 4
        put(index, [clip(4)])
        index.finish([clip(i).row for i in range(5)])
    assert not (tmp_path / "s.h5.parts").exists()
    assert len(list((tmp_path / "s.h5.shards").iterdir())) == 3
    assert verify(path) == []
    before = content(path)
    fill_whole(path, [0, 1, 2, 3, 4])  # nothing is new: the index stays
    assert content(path) == before
    fill_whole(path, [0, 1, 2, 3, 4, 5])
    assert len(content(path)[0]) == 6
    assert verify(path) == []
    assert not (tmp_path / "s.h5.shards").exists()


def test_item_20_a_local_run_takes_in_what_a_cluster_left_and_leaves_no_orphan(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.h5"
    with opened(path) as index:  # killed: shards, and no index
        put(index, [clip(0), clip(1)])
    with StoreWriter.open(path, SETTINGS, "tess", tmp_path, trained=True, demo=False) as writer:
        assert len(writer.known) == 2
        writer.add(*clip(2))
        writer.finish([clip(i).row for i in range(3)])
    assert len(content(path)[0]) == 3
    assert verify(path) == []
    assert not (tmp_path / "s.h5.shards").exists()
    with opened(path) as index:  # an index, and one more shard of a run that was killed
        put(index, [clip(3)])
        index.finish([clip(i).row for i in range(4)])
        put(index, [clip(4)])
    with StoreWriter.open(path, SETTINGS, "tess", tmp_path, trained=True, demo=False) as writer:
        assert len(writer.known) == 5
        writer.finish([clip(i).row for i in range(3)], prune=True)
    assert len(content(path)[0]) == 3
    assert not (tmp_path / "s.h5.shards").exists()


def test_two_that_write_one_shard(tmp_path: Path) -> None:
    """The first stays, as its checksums may have been taken in."""
    folder = folder_of(tmp_path / "s.h5")
    with opened(tmp_path / "s.h5") as writer:
        name = put(writer, [clip(0)])
        other = clip(0)._replace(features=clip(1).features, extrema=clip(1).extrema)
        folder.write(writer.header, name, [other])
        writer.finish([clip(0).row])
    assert verify(tmp_path / "s.h5") == []
    assert len(list(Path(folder.place).iterdir())) == 1


def test_shards_behind_a_url(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    remote = tmp_path / "bucket"
    folder = ShardFolder(f"file://{remote}/s.h5", is_url=True)
    for turn, numbers in enumerate(([0, 1], [1, 2])):
        (tmp_path / f"{turn}").mkdir()
        with opened(tmp_path / f"{turn}" / "s.h5", folder) as writer:
            assert len(writer.known) == 2 * turn
            for i in numbers:
                if clip(i).row.identity not in writer.known:
                    put(writer, [clip(i)])
            writer.finish([clip(i).row for i in numbers])
    assert verify(remote / "s.h5") == []
    assert len(FeatureStore(remote / "s.h5")) == 3
    assert sorted(p.name for p in remote.iterdir()) == ["s.h5", "s.h5.shards"]


def test_a_url_that_leads_nowhere(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    (tmp_path / "taken").write_text("a file where the folder should be")
    folder = ShardFolder(f"file://{tmp_path}/taken/s.h5", is_url=True)
    with pytest.raises(StoreError, match=r"taken/s\.h5: .*right to write there"):
        folder.write({"settings": str(asdict(SETTINGS))}, "x.h5", [clip(0)])
