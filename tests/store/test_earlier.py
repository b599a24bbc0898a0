"""Stores of the layout before this one: read as they are, rewritten by the next run."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from earlier_stores import failed, write_index, write_padded
from test_writer import SETTINGS, clip, finish, left_over, opened

from ser_embed.errors import StoreError
from ser_embed.store.checking import verify
from ser_embed.store.reader import FeatureStore
from ser_embed.store.table import EncodedClip

BAD = failed(replace(clip(99).row, state="failed", reason="silent", sha256="", seconds=0.0))


def some(numbers: Any) -> list[EncodedClip]:
    """Clips that differ in length."""
    return sorted((clip(i, 2 + i % 4) for i in numbers), key=lambda one: one.row.path)


def assert_holds(path: Path, numbers: Any, n_failed: int = 0) -> None:
    assert verify(path) == []
    with FeatureStore(path) as store:
        stored = [i for i, row in enumerate(store.rows) if row.is_stored]
        assert len(stored) == len(list(numbers))
        assert len(store) - len(stored) == n_failed
        assert store.shape == (max(store.frames), 8)
        for i in stored:
            number = int(store.rows[i].path[-8:-4])
            features, n = clip(number, 2 + number % 4).features, 2 + number % 4
            assert number in numbers
            assert store.frames[i] == n
            np.testing.assert_array_equal(store.read([i])[0, :n], features.astype(np.float16))
            assert not store.read([i])[0, n:].any()
            extrema = clip(number, n).extrema
            np.testing.assert_array_equal(store.read_range([i])[0, :n], extrema)
            np.testing.assert_array_equal(store.clip(i).features, features.astype(np.float16))


def schema(path: Path) -> int:
    with FeatureStore(path) as store:
        return int(store.attributes["schema"])


@pytest.mark.parametrize("kind", ["file", "file without ranges", "index"])
def test_it_is_read_and_the_next_run_rewrites_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    if kind == "index":
        write_index(path, SETTINGS, "tess", [[*some(range(4)), BAD], some(range(4, 9))])
    else:
        write_padded(path, SETTINGS, "tess", [*some(range(9)), BAD], ranges=kind == "file")
    assert schema(path) == 2
    assert_holds(path, range(9), n_failed=1)
    before = [row.checksum for row in FeatureStore(path).rows]
    with opened(path) as writer:
        assert len(writer.known) == 9
        assert_holds(path, range(9), n_failed=1)  # meanwhile the old one stands
        writer.add(some([9]))
        assert finish(writer, [one.row for one in some([8, 9])]) == {"clips": 10, "kept": 8}
    assert schema(path) == 3
    assert_holds(path, range(10))
    with FeatureStore(path) as store:
        assert {row.checksum for row in store.rows} > {*before} - {0}
    assert left_over(tmp_path) == ["s.h5"]


def test_layers_and_pooled_clips(tmp_path: Path) -> None:
    nothing = np.empty(0, np.float32)
    for name, pool, shape in (("a", "none", (3, 5, 4)), ("b", "mean", (3, 4))):
        settings = replace(SETTINGS, layer="all", pool=pool, norm="none")  # type: ignore[arg-type]
        rng = np.random.default_rng(0)
        clips = [
            EncodedClip(clip(i).row, rng.normal(size=shape).astype("f2"), nothing, 5)
            for i in range(4)
        ]
        path = write_padded(tmp_path / f"{name}.h5", settings, "tess", clips)
        assert verify(path) == []
        with FeatureStore(path) as store:
            assert store.shape == shape
            assert not store.has_range
            np.testing.assert_array_equal(store.read([2])[0], clips[2].features)


def test_a_damaged_one_is_found(tmp_path: Path) -> None:
    path = write_padded(tmp_path / "s.h5", SETTINGS, "tess", some(range(5)))
    whole = path.read_bytes()
    with FeatureStore(path) as store:
        bits = store.read([3])[0].tobytes()[:16]
    for place in (whole.index(bits), whole.index(b"clip-0002"), whole.index(b"female")):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert verify(path)
    path.write_bytes(whole[:5000])
    with pytest.raises(StoreError, match=r"s\.h5: damaged"):
        FeatureStore(path)


def test_clips_of_a_lost_shard_are_encoded_again(tmp_path: Path) -> None:
    path = write_index(tmp_path / "s.h5", SETTINGS, "tess", [some(range(4)), some(range(4, 9))])
    (tmp_path / "s.h5.shards" / f"{1:032x}.h5").unlink()
    with pytest.raises(StoreError, match=r"damaged .*1\.h5"), FeatureStore(path) as store:
        store.read(range(9))
    with opened(path) as writer:
        assert len(writer.known) == 4
        writer.add(some(range(4, 9)))
        finish(writer, [one.row for one in some(range(9))])
    assert_holds(path, range(9))


def test_what_killed_runs_left_is_taken_in(tmp_path: Path) -> None:
    """Parts of the local engine and shards of a cluster, with a finished file or without."""
    for name, finished in (("a.h5", 0), ("b.h5", 2)):
        path = tmp_path / name
        if finished:
            write_padded(path, SETTINGS, "tess", some(range(finished)))
        for ending, numbers in ((".parts", range(1, 4)), (".shards", range(4, 6))):
            folder = path.with_name(name + ending)
            folder.mkdir()
            write_padded(folder / "0.h5", SETTINGS, "tess", [*some(numbers), BAD])
            (folder / "1.h5.99.tmp").write_bytes(b"half")
        with opened(path) as writer:
            assert len(writer.known) == (6 if finished else 5)
        with opened(path) as writer:  # killed before it was finished
            writer.add(some([6]))
            finish(writer, [])
        assert_holds(path, range(0 if finished else 1, 7))
        assert sorted(p.name for p in tmp_path.glob(f"{name}*")) == [name]


def test_a_disk_too_small_for_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_padded(tmp_path / "s.h5", SETTINGS, "tess", some(range(5)))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"can't be written .*free some space"), opened(path):
            pass
    assert_holds(path, range(5))
    assert left_over(tmp_path) == ["s.h5"]
