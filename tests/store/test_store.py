"""The store: what goes in comes out, in every process, and damage is found."""

import json
import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ser_embed.errors import StoreError
from ser_embed.store.__main__ import main
from ser_embed.store.checking import verify
from ser_embed.store.reader import FeatureStore
from ser_embed.store.settings import LAYOUT, FeatureSettings
from ser_embed.store.table import ClipRow, EncodedClip
from ser_embed.store.writer import StoreWriter

SETTINGS = FeatureSettings(
    encoder="facebook/wav2vec2-base", weights="a" * 64, layer=6, pool="none", norm="frame",
    trim=True,
    seconds=0.0, fill="none", dtype="float16", precision="fp32", seed=0,
)  # fmt: skip

Clip = tuple[ClipRow, np.ndarray, np.ndarray, int]


def row(i: int, **changes: Any) -> ClipRow:
    values: dict[str, Any] = {
        "path": f"Actor_{i % 3:02d}/clip-{i:03d}.wav", "corpus": "ravdess",
        "speaker": f"ravdess:{i % 3:02d}", "gender": "female", "emotion": "happy",
        "intensity": "strong", "text_id": "01", "recording": "", "part": "",
        "seconds": 1.5 + i, "sha256": f"{i:064x}", "state": "stored", "reason": "", "checksum": 0,
    }  # fmt: skip
    return ClipRow(**{**values, **changes})


def clip(i: int, frames: int = 5, lead: tuple[int, ...] = (), width: int = 8) -> Clip:
    """A clip whose content follows from its number."""
    rng = np.random.default_rng(i)
    features = rng.uniform(-1, 1, (*lead, frames, width)).astype(np.float32)
    return row(i), features, rng.normal(size=(*lead, frames, 2)).astype(np.float32), frames


def write(
    path: Path, clips: Sequence[Clip], settings: FeatureSettings = SETTINGS,
    failed: Sequence[ClipRow] = (),
) -> Path:  # fmt: skip
    with StoreWriter.open(
        path, settings, "ravdess", path.parent, trained=True, demo=False
    ) as writer:
        writer.add([EncodedClip(*one) for one in clips])
        for one in (*(one[0] for one in clips), *failed):
            writer.record(one)
        writer.finish()
    return path


FAILED = row(90, state="failed", sha256="", seconds=0.0, reason="digital silence")


# --- round trip ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_goes_in_comes_out(dtype: Any, tmp_path: Path) -> None:
    clips = [clip(i) for i in range(7)]
    settings = replace(SETTINGS, dtype=dtype)
    with FeatureStore(write(tmp_path / "s.h5", clips, settings, [FAILED])) as store:
        assert len(store) == 8
        assert store.shape == (5, 8)
        assert store.settings == settings
        assert (store.corpus, store.trained, store.demo) == ("ravdess", True, False)
        assert store.root == str(tmp_path.resolve())
        where = {one.path: i for i, one in enumerate(store.rows)}
        for wanted, features, extrema, frames in clips:
            i = where[wanted.path]
            assert replace(store.rows[i], checksum=0) == wanted
            assert store.read([i]).dtype == np.dtype(dtype)
            np.testing.assert_array_equal(store.read([i])[0], features.astype(dtype))
            np.testing.assert_array_equal(store.read_range([i])[0], extrema)
            assert store.read_range([i]).dtype == np.float32
            assert store.frames[i] == frames
        assert store.rows[where[FAILED.path]] == FAILED
    assert verify(tmp_path / "s.h5") == []


def test_the_table_is_sorted_by_path(tmp_path: Path) -> None:
    with FeatureStore(write(tmp_path / "s.h5", [clip(i) for i in (5, 2, 9, 0)])) as store:
        paths = store.clips["path"].tolist()
        assert paths == sorted(paths)
        assert list(store.clips.columns) == list(asdict(row(0)))
        assert store.clips["seconds"].dtype == np.float64


def test_all_layers(tmp_path: Path) -> None:
    clips = [clip(i, lead=(4,)) for i in range(3)]
    settings = replace(SETTINGS, layer="all")
    with FeatureStore(write(tmp_path / "s.h5", clips, settings)) as store:
        assert store.shape == (4, 5, 8)
        np.testing.assert_array_equal(store.read([1])[0], clips[1][1].astype(np.float16))
        np.testing.assert_array_equal(store.read_range([1])[0], clips[1][2])
        assert store.settings.layer == "all"
    assert verify(tmp_path / "s.h5") == []


def test_pooled(tmp_path: Path) -> None:
    nothing = np.empty(0, dtype=np.float32)
    clips = [(row(i), clip(i)[1], nothing, 149) for i in range(3)]  # (L, D), no range
    settings = replace(SETTINGS, layer="all", pool="mean")
    with FeatureStore(write(tmp_path / "s.h5", clips, settings)) as store:
        assert store.shape == (5, 8)
        np.testing.assert_array_equal(store.read([2])[0], clips[2][1].astype(np.float16))
        assert store.frames.tolist() == [149] * 3
        with pytest.raises(StoreError, match="holds no range"):
            store.read_range([0])
    assert verify(tmp_path / "s.h5") == []


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("lengths", [(3, 9, 1, 9, 5), (9, 3), (1, 2, 3, 4)])
def test_clips_of_different_lengths(
    lengths: tuple[int, ...], lead: tuple[int, ...], tmp_path: Path
) -> None:
    """Time grows with the longest clip; what a shorter one lacks is zeros."""
    clips = [(replace(row(i), path=f"{i}"), *clip(i, n, lead)[1:]) for i, n in enumerate(lengths)]
    with FeatureStore(write(tmp_path / "s.h5", clips)) as store:
        assert store.shape == (*lead, max(lengths), 8)
        assert store.frames.tolist() == list(lengths)
        features, extrema = store.read(range(len(clips))), store.read_range(range(len(clips)))
        for i, n in enumerate(lengths):
            np.testing.assert_array_equal(features[i, ..., :n, :], clips[i][1].astype(np.float16))
            np.testing.assert_array_equal(extrema[i, ..., :n, :], clips[i][2])
            assert not features[i, ..., n:, :].any()
            assert not extrema[i, ..., n:, :].any()
    assert verify(tmp_path / "s.h5") == []


def test_any_text_goes_through(tmp_path: Path) -> None:
    """Also a file name that isn't UTF-8, as a Linux disk may have it."""
    odd = b"caf\xe9/\xffclip.wav".decode("utf-8", "surrogateescape")
    texts = [odd, "感情/怒り.wav", "a b'c\"d\\e.wav", "x" * 900]
    clips = [(row(i, path=text, speaker=text), *clip(i)[1:]) for i, text in enumerate(texts)]
    with FeatureStore(write(tmp_path / "s.h5", clips)) as store:
        assert {one.path for one in store.rows} == set(texts)
        assert all(one.path == one.speaker for one in store.rows)
    assert verify(tmp_path / "s.h5") == []


@pytest.mark.parametrize("first", [1, 300])
@pytest.mark.parametrize("lead", [(), (4,)])
def test_a_file_is_as_large_as_its_frames(
    lead: tuple[int, ...], first: int, tmp_path: Path
) -> None:
    """Whatever the lengths, and whichever clip came first."""
    lengths = [first, *np.random.default_rng(0).integers(1, 300, 60).tolist()]
    clips = [clip(i, n, lead, width=128 - 2) for i, n in enumerate(lengths)]
    path = write(tmp_path / "s.h5", clips)
    held = sum(one[1].size * 2 + one[2].nbytes for one in clips)
    assert held > 2e6
    assert path.stat().st_size < 1.03 * held


def test_frames_lie_one_clip_behind_another(tmp_path: Path) -> None:
    """As a program finds them that knows HDF5 alone."""
    clips = [clip(i, 2 + i, lead=(3,)) for i in range(5)]
    write(tmp_path / "s.h5", clips, failed=[FAILED])
    with h5py.File(tmp_path / "s.h5", "r") as file:
        assert file["features"].shape == (3, 20, 8)
        assert file["range"].shape == (3, 20, 2)
        assert file["features"].compression is None
        for line in file["clips"][:]:
            if line["state"] != b"stored":
                continue
            part = slice(line["offset"], line["offset"] + line["frames"])
            number = int(line["path"][-7:-4])
            np.testing.assert_array_equal(
                file["features"][:, part], clips[number][1].astype(np.float16)
            )
            np.testing.assert_array_equal(file["range"][:, part], clips[number][2])


def test_rows_are_read_in_the_order_asked(tmp_path: Path) -> None:
    with FeatureStore(write(tmp_path / "s.h5", [clip(i) for i in range(9)])) as store:
        whole, extrema = store.read(range(9)), store.read_range(range(9))
        for order in ([8, 0, 3], [2, 2, 2], np.array([5, 1])):
            np.testing.assert_array_equal(store.read(order), whole[order])
            np.testing.assert_array_equal(store.read_range(order), extrema[order])
        assert store.read([]).shape == (0, 5, 8)


# --- processes -------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [
    {"chunks": (7, 4)}, {"chunks": (1, 8), "compression": "gzip"}, {"dtype": ">f2"}, {},
])  # fmt: skip
def test_features_of_another_layout_are_read_too(layout: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", [clip(i) for i in range(3)])
    with FeatureStore(path) as store:
        wanted = store.read([2, 0])
    with h5py.File(path, "a") as file:
        features = file["features"][:]
        del file["features"]
        file.create_dataset("features", data=features, **layout)
    with FeatureStore(path) as store:
        np.testing.assert_array_equal(store.read([2, 0]), wanted)


def test_a_store_travels_by_pickle(tmp_path: Path) -> None:
    store = FeatureStore(write(tmp_path / "s.h5", [clip(i) for i in range(3)]))
    store.read([0])
    other = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(other.read([2, 1]), store.read([2, 1]))
    assert other.settings == store.settings
    assert other.rows == store.rows


def test_a_closed_store_opens_again(tmp_path: Path) -> None:
    store = FeatureStore(write(tmp_path / "s.h5", [clip(i) for i in range(3)]))
    first = store.read([1])
    store.close()
    store.close()
    np.testing.assert_array_equal(store.read([1]), first)


# Forking a process that has threads is what DataLoader does on Linux by default.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_read_the_same(start: str, tmp_path: Path) -> None:
    one = FeatureStore(write(tmp_path / "a.h5", [clip(i) for i in range(12)]))
    two = FeatureStore(write(tmp_path / "b.h5", [clip(i, frames=3 + i % 3) for i in range(20, 26)]))
    wanted = [(one, two)[i % 2].read([i // 2]) for i in range(12)]  # opens the files before
    with multiprocessing.get_context(start).Pool(2) as pool:
        read = pool.starmap(
            FeatureStore.read, [((one, two)[i % 2], [i // 2]) for i in range(12)], chunksize=2
        )
    for given, own in zip(read, wanted, strict=True):
        assert given.dtype == own.dtype
        np.testing.assert_array_equal(given, own)


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "name"),
    [
        ("mini", "mini"),
        ("facebook/wav2vec2-base", "wav2vec2-base"),
        ("/data/My Encoder_v2.1/", "my-encoder-v2-1"),
    ],
)
def test_a_store_is_named_by_corpus_encoder_and_key(encoder: str, name: str) -> None:
    settings = replace(SETTINGS, encoder=encoder)
    path = settings.path(Path("features"), "tess")
    assert path == Path(f"features/tess-{name}-{settings.key}.h5")


def test_only_finished_stores_are_found(tmp_path: Path) -> None:
    assert FeatureStore.find(tmp_path) == []
    for name in ("b.h5", "a.h5"):
        write(tmp_path / name, [clip(0)])
    with StoreWriter.open(
        tmp_path / "c.h5", SETTINGS, "ravdess", tmp_path, trained=True, demo=False
    ) as writer:
        writer.add([EncodedClip(*clip(0))])
        writer.flush()
        (tmp_path / "c.h5.123.tmp").touch()
        assert FeatureStore.find(tmp_path) == [tmp_path / "a.h5", tmp_path / "b.h5"]
    assert FeatureStore.find(tmp_path / "absent") == []


# --- damage ----------------------------------------------------------------------------------


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"absent\.h5: no such feature store.*ser_embed\.extract"):
        FeatureStore(tmp_path / "absent.h5")


def spoil(path: Path, change: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_a_file_that_is_not_hdf5(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"s\.h5: damaged .*delete it and extract again"):
        FeatureStore(path)
    assert verify(path)


def test_a_truncated_store(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", [clip(i) for i in range(4)])
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(StoreError, match="damaged"):
            FeatureStore(path)


def test_hdf5_of_someone_else(tmp_path: Path) -> None:
    for attributes in ({}, {"format": "other"}, {"format": np.arange(3)}, {"format": b"\xff\xfe"}):
        with h5py.File(tmp_path / "s.h5", "w") as file:
            file["features"] = np.zeros((3, 4))
            file.attrs.update(attributes)
        with pytest.raises(StoreError, match="an HDF5 file, but not a feature store"):
            FeatureStore(tmp_path / "s.h5")


def test_a_store_of_a_newer_version(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", [clip(0)])
    spoil(path, lambda file: file.attrs.modify("schema", LAYOUT + 1))
    with pytest.raises(StoreError, match=rf"newer ser_embed \(schema {LAYOUT + 1}.*update"):
        FeatureStore(path)
    spoil(path, lambda file: file.attrs.modify("schema", 1))
    with pytest.raises(StoreError, match=r"older ser_embed \(schema 1\).*extract again"):
        FeatureStore(path)


def rename_a_setting(file: h5py.File) -> None:
    settings = json.loads(file.attrs["settings"])
    settings["flavour"] = settings.pop("layer")
    file.attrs["settings"] = json.dumps(settings)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.attrs.__delitem__("settings"),
        lambda file: file.attrs.__setitem__("settings", "{"),
        lambda file: file.attrs.__setitem__("schema", "one"),
        rename_a_setting,
        lambda file: file.__delitem__("features"),
        lambda file: file.__delitem__("clips"),
    ],
    ids=["no settings", "torn settings", "schema", "setting", "features", "clips"],
)
def test_a_store_with_something_missing(
    change: Callable[[h5py.File], None], tmp_path: Path
) -> None:
    path = spoil(write(tmp_path / "s.h5", [clip(0)]), change)
    with pytest.raises(StoreError, match=r"s\.h5: damaged"):
        FeatureStore(path)
    assert verify(path)


def test_a_table_of_another_shape(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        del file["clips"]
        file["clips"] = np.zeros(1)

    path = spoil(write(tmp_path / "s.h5", [clip(0)]), change)
    with pytest.raises(StoreError, match="damaged"):
        _ = FeatureStore(path).clips
    assert verify(path)


@pytest.mark.parametrize("column", [name for name in asdict(row(0)) if name != "seconds"])
def test_a_changed_cell_is_found(column: str, tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", [clip(i) for i in range(3)], failed=[FAILED])

    def change(file: h5py.File) -> None:
        table = file["clips"][:]
        table[column][1] = 7 if column in ("checksum", "start", "end") else b"x"
        file["clips"][:] = table

    assert verify(spoil(path, change))


def test_a_range_taken_away_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", [clip(0)])
    assert verify(spoil(path, lambda file: file.__delitem__("range")))


def content(path: Path) -> Any:
    """Everything that a reader gets from a store."""
    with FeatureStore(path) as store:
        every = range(len(store))
        return (
            {name: str(value) for name, value in store.attributes.items()}, store.settings,
            store.rows, store.frames.tolist(), store.shape, store.read(every).tobytes(),
            store.read_range(every).tobytes(),
        )  # fmt: skip


def data_offsets(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Where a store's frames and its table are in the file, and how many bytes they have."""
    places = {}
    with h5py.File(path, "r") as file:
        for name in ("features", "range", "clips"):
            source, width = file[name].id, file[name][:1].nbytes
            chunk = file[name].chunks[0]
            places[name] = [
                (info.byte_offset, min(chunk, len(file[name]) - info.chunk_offset[0]) * width)
                for info in map(source.get_chunk_info, range(source.get_num_chunks()))
            ]
    return places


def test_a_flipped_bit_never_passes(tmp_path: Path) -> None:
    """Wherever it is: either it changes nothing that is read, or `verify` finds it.

    A third of the bits lie in the features and the range, a third in the table, the others
    anywhere.
    """
    clips = [clip(i, frames=2 + i % 3) for i in range(5)]
    path = write(tmp_path / "s.h5", clips, failed=[FAILED])
    intact, original = content(path), path.read_bytes()
    assert verify(path) == []
    rng = np.random.default_rng(11)
    places = data_offsets(path)
    data = [*places["features"], *places["range"]]
    offsets = [start + int(rng.integers(size)) for start, size in data * 12]
    ((start, size),) = places["clips"]
    offsets += [start + int(n) for n in rng.integers(0, size, 25)]
    in_data = len(offsets)
    offsets += [int(n) for n in rng.integers(0, len(original), 40)]
    offsets += [int(n) for n in rng.integers(0, 3000, 40)]  # where most of the structure is
    found = 0
    damaged = tmp_path / "damaged.h5"
    for i, offset in enumerate(offsets):
        spoiled = bytearray(original)
        spoiled[offset] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(spoiled)
        try:
            same = content(damaged) == intact
        except StoreError:
            same = False
        faults = verify(damaged)
        assert same or faults, f"bit in byte {offset} of {len(original)} passes"
        assert i >= in_data or faults, f"bit in byte {offset}, within the data, passes"
        found += bool(faults)
    assert found > in_data


# --- the command -----------------------------------------------------------------------------


def test_the_command_says_what_is_inside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "s.h5", [clip(i) for i in range(4)], failed=[FAILED])
    assert main([str(path), "--verify"]) == 0
    text = capsys.readouterr().out
    for wanted in ("ravdess", "digital silence", "wav2vec2-base", "every clip is what was written"):
        assert wanted in text
    assert main([str(path), "--verify", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["clips"] == 4
    assert told["shape"] == [5, 8]
    assert told["speakers"] == 3
    assert told["emotions"] == {"happy": 4}
    assert told["failed"] == {FAILED.path: "digital silence"}
    assert told["faults"] == []
    assert told["key"] == SETTINGS.key


def test_the_command_finds_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "s.h5", [clip(i) for i in range(4)])
    ((start, size),) = data_offsets(path)["features"]
    spoiled = bytearray(path.read_bytes())
    spoiled[start + size // 2] ^= 1
    path.write_bytes(spoiled)
    assert main([str(path)]) == 0
    assert main([str(path), "--verify", "--json"]) == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    (fault,) = told["faults"]
    assert "clip-" in fault
    assert "not what was written" in fault
    assert main([str(tmp_path / "absent.h5")]) == 1
    assert "no such feature store" in capsys.readouterr().err
