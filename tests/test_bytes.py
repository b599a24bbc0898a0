"""Bytes that mean harm or were damaged: a result, or an error in words, and never anything else.

File names, tables, audio, stores and heads. `fuzz/` goes on where these end.
"""

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ser_embed.audio import AudioFile
from ser_embed.audio.cutting import SAMPLE_RATE
from ser_embed.bundled import BUNDLED_ENCODERS, BUNDLED_HEADS, changed_files
from ser_embed.corpora.labels import LabelScheme
from ser_embed.corpora.listing import Listing, read_corpus, read_csv
from ser_embed.corpora.naming import CORPORA, Utterance, recognise
from ser_embed.errors import AudioError, CorpusError, HeadError, LabelError, SplitError, StoreError
from ser_embed.heads.checkpoint import load_head, read_card
from ser_embed.splits.rules import make_splits
from ser_embed.store.checking import verify
from ser_embed.store.reader import FeatureStore

INPUTS = Path(__file__).resolve().parent.parent / "fuzz" / "inputs"
QUICK = settings(
    max_examples=200, derandomize=True, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

Flips = list[tuple[int, int]]
FLIPS = st.lists(st.tuples(st.integers(0, 2**31), st.integers(1, 255)), min_size=1, max_size=5)


def flipped(data: bytes, flips: Flips) -> bytes:
    """Change some bytes."""
    raw = bytearray(data)
    for place, mask in flips:
        raw[place % len(raw)] ^= mask
    return bytes(raw)


# --- file names ------------------------------------------------------------------------------

# Anything that a POSIX file name may be, as Python sees it: bytes that aren't text included.
RAW_NAMES = st.binary(max_size=60).filter(lambda raw: b"/" not in raw and b"\0" not in raw)
TRUE_NAMES = st.sampled_from([
    "03-01-05-02-02-01-12", "OAF_back_angry", "SM4_F2_A054", "1040_ITH_SAD_X", "03a01Fa", "JK_su15",
    "EB0_anger_10", "03-02-05-02-02-01-12",
])  # fmt: skip
NEAR_NAMES = st.builds(
    lambda name, flips: flipped(name.encode(), flips).replace(b"/", b"-").replace(b"\0", b"0"),
    TRUE_NAMES, FLIPS,
)  # fmt: skip


@QUICK
@given(st.one_of(RAW_NAMES, NEAR_NAMES, st.text(max_size=40).map(os.fsencode)))
@example("０３-01-05-02-02-01-12.wav".encode())  # digits of another script
@example(b"03-01-05-02-02-01-12 .wav")
@example(b"\xff\xfe.wav")
@example(b"..")
def test_any_name_is_of_a_corpus_or_of_none(raw: bytes) -> None:
    path = Path(os.fsdecode(raw) or ".")
    found = recognise(path)
    if found:
        rule = CORPORA[found.corpus]
        assert found == rule.parse(path)
        assert found.emotion in rule.emotions.values()
        people = "ravdess" if found.corpus == "ravdess-song" else found.corpus
        assert found.speaker.startswith(f"{people}:")
        assert found.path == path
    for corpus in CORPORA.values():
        with contextlib.suppress(CorpusError):
            parsed = corpus.parse(path)
            assert parsed is None or isinstance(parsed, Utterance)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text on this platform")
@settings(QUICK, max_examples=60)
@given(st.lists(st.one_of(RAW_NAMES, NEAR_NAMES), min_size=1, max_size=6))
def test_a_folder_of_any_names_is_listed(
    tmp_path_factory: pytest.TempPathFactory, raws: list[bytes]
) -> None:
    """Every audio file is a clip, a fault, or of another known corpus; none is lost."""
    root = tmp_path_factory.mktemp("names")
    for raw in raws:
        with contextlib.suppress(IsADirectoryError):  # "", "." and ".."
            (root / os.fsdecode(raw + b".wav")).touch()
    (root / "03-01-05-02-02-01-12.wav").touch()
    listing = read_corpus(root, "ravdess")
    paths = [u.path for u in listing.utterances] + [path for path, _ in listing.faults]
    others = [p for p in root.iterdir() if (found := recognise(p)) and found.corpus != "ravdess"]
    there = [p for p in root.iterdir() if p.suffix == ".wav" and not p.name.startswith("._")]
    assert sorted([*paths, *others]) == sorted(there)


# --- tables ----------------------------------------------------------------------------------

CELLS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["path", "emotion", "label", "file", "fold_1", "train", "test", "val", "happy",
                     "a.wav", "b.wav", "", " ", '"', "\0", "\ufeff", "../x", "/", "~", "=1+1"]),
)  # fmt: skip
HEADERS = st.sampled_from([
    ["path", "emotion"], ["path", "emotion", "speaker", "gender", "intensity", "split"],
    ["emotion", "label"], ["file", "fold_1"], ["file", "label", "fold_1", "fold_2"],
])  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Bytes that are nearly a table, or not at all."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(draw(HEADERS))
    writer.writerows(draw(st.lists(st.lists(CELLS, max_size=7), max_size=6)))
    data = stream.getvalue().encode("utf-8", "surrogatepass")
    return flipped(data, draw(FLIPS)) if draw(st.booleans()) else data


@QUICK
@given(tables())
@example(b"path,emotion\na.wav,happy\n")
@example(b"path,emotion\n" + b'"' * 200_000)
@example(b"path,path,emotion\na,b,c,d,e\n")
@example("path,emotion\n\ud800.wav,happy".encode("utf-8", "surrogatepass"))
@example(b"path,emotion,\npath,,")
def test_any_table_of_clips_gives_a_listing_or_a_corpus_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.mktemp("table") / "corpus.csv"
    file.write_bytes(data)
    try:
        listing = read_csv(file)
    except CorpusError:
        return
    assert isinstance(listing, Listing)
    assert listing.utterances
    assert all(u.emotion and u.part in ("", "train", "val", "test") for u in listing.utterances)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=4),
    max_leaves=8,
)


@QUICK
@given(st.one_of(tables(), JSONS.map(lambda told: json.dumps(told).encode())),
       st.sampled_from([".csv", ".json", ""]))  # fmt: skip
@example(b"[" * 100_000, ".json")
@example(b'{"happy": "a", "happy": "b"}', ".json")
@example(b"emotion,label\n/,a\nx,b\n", ".csv")
def test_any_mapping_file_gives_a_scheme_or_a_label_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, ending: str
) -> None:
    file = tmp_path_factory.mktemp("labels") / f"mapping{ending}"
    file.write_bytes(data)
    try:
        scheme = LabelScheme.load(str(file))
    except LabelError:
        return
    assert len(scheme.classes) >= 2
    assert {label for label in scheme.mapping.values() if label} == set(scheme.classes)


@QUICK
@given(tables())
@example(b"file,fold_1\na,train\nb,test\n")
@example(b"file,fold_1\na\nb,test\n")
def test_any_list_of_folds_gives_splits_or_a_split_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.mktemp("folds") / "folds.csv"
    file.write_bytes(data)
    clips = pd.DataFrame({
        "path": ["a.wav", "b.wav", "c.wav", "d.wav"], "label": [0, 1, 0, 1], "corpus": "x",
        "speaker": ["1", "2", "3", "4"], "gender": "", "sha256": list("abcd"), "recording": "",
        "part": "",
    })  # fmt: skip
    try:
        splits = make_splits(f"folds:{file}", clips, ("happy", "sad"), 0)
    except SplitError:
        return
    for split in splits:
        assert len(split.train)
        assert len(split.test)
        assert not set(split.train) & set(split.test)


# --- audio -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def originals(shared: Path) -> list[bytes]:
    """Official RAVDESS, TESS and URDU files, cut to what their first 30 kB say."""
    return [path.read_bytes() for path in sorted((shared / "corpora/originals").rglob("*.wav"))]


def audio_inputs() -> list[Path]:
    return sorted((INPUTS / "audio").iterdir())


def read_or_refuse(path: Path) -> None:
    for trim in (False, True):
        started = time.perf_counter()
        with contextlib.suppress(AudioError):
            clip = AudioFile(path).read(3.0, trim)
            assert 400 <= len(clip.samples) <= 3 * SAMPLE_RATE
            assert np.isfinite(clip.samples).all()
            assert clip.samples.dtype == np.float32
        assert time.perf_counter() - started < 5


@QUICK
@given(st.sampled_from(audio_inputs()), FLIPS, st.integers(0, 2**31))
def test_damaged_audio_gives_a_clip_or_an_audio_error(
    tmp_path_factory: pytest.TempPathFactory, file: Path, flips: Flips, end: int
) -> None:
    """Bytes of the first kilobyte, where the headers are, and then an end anywhere."""
    data = file.read_bytes()
    data = flipped(data[:1000], flips) + data[1000:]
    if end % 2:
        data = data[: end % len(data)]
    path = tmp_path_factory.mktemp("audio") / f"clip{file.suffix}"
    path.write_bytes(data)
    read_or_refuse(path)


def test_every_header_byte_of_real_files_may_be_anything(
    originals: list[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "clip.wav"
    for data in originals:
        for place in range(44):
            for mask in (0x01, 0x80):
                path.write_bytes(flipped(data, [(place, mask)]))
                read_or_refuse(path)


def header(rate: int, channels: int, n_bytes: int) -> bytes:
    """A WAV header of 16-bit samples that promises so much."""
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros((1, 1)), SAMPLE_RATE, "PCM_16", format="WAV")
    raw = bytearray(stream.getvalue()[:44])
    raw[22:24] = channels.to_bytes(2, "little")
    raw[24:28] = rate.to_bytes(4, "little")
    raw[28:32] = min(rate * channels * 2, 2**32 - 1).to_bytes(4, "little")
    raw[32:34] = (channels * 2 % 2**16).to_bytes(2, "little")
    raw[40:44] = n_bytes.to_bytes(4, "little")
    return bytes(raw)


READ_IN_A_PROCESS = """
import json, resource, sys, time
from pathlib import Path
import numpy as np, soundfile
from ser_embed.audio import AudioFile
from ser_embed.errors import AudioError
small = Path(sys.argv[1]).parent / "small.flac"
soundfile.write(small, np.ones(16000) / 9, 16000)
AudioFile(small).read(3.0, True)  # what a first clip takes for good is no part of the measurement
before, told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
for path in sys.argv[1:]:
    for seconds, trim in ((3.0, False), (3.0, True)) if "hours" in path else ((3.0, True), (0, 0)):
        started, result = time.perf_counter(), None
        try:
            clip = AudioFile(Path(path)).read(seconds, bool(trim))
            result = [len(clip.samples), clip.seconds]
        except AudioError:
            pass
        told.append([result, time.perf_counter() - started])
print(json.dumps([told, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))
"""

Read = tuple[list[int], float]


def read_apart(*paths: Path) -> tuple[list[Read], float]:
    """Read clips in a process of their own: what came and how long it took, and megabytes."""
    done = subprocess.run(
        [sys.executable, "-c", READ_IN_A_PROCESS, *map(str, paths)],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    told, megabytes = json.loads(done.stdout)
    return told, megabytes


def test_a_file_that_expands_to_hours_is_read_to_its_clip(tmp_path: Path) -> None:
    """Two hours of FLAC in 400 kB: a second of noise, then next to nothing."""
    path = tmp_path / "hours.flac"
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file:
        file.write(0.1 * rng.standard_normal(SAMPLE_RATE))
        for _ in range(120):
            file.write(np.full(60 * SAMPLE_RATE, 1 / 2**15))
    assert path.stat().st_size < 500_000
    told, megabytes = read_apart(path)
    for result, took in told:
        assert result[1] == 2 * 3600 + 1
        assert 400 <= result[0] <= 3 * SAMPLE_RATE
        assert took < 5
    assert megabytes < 50  # two hours are 461 MB of float32


PROMISES = {
    "2 GB of samples": header(16_000, 1, 2**31 - 100),
    "65,535 channels": header(16_000, 65_535, 2**31 - 100),
    "4 GHz": header(2**32 - 1, 1, 100_000),
    "8 MHz": header(8_388_795, 2, 54),
    "384 kHz": header(383_999, 1, 100_000),
    "1 Hz": header(1, 1, 100_000),
    "1 kHz": header(1001, 1, 100_000),
    "no rate": header(0, 1, 100_000),
}


def test_headers_that_promise_much_get_little_memory(tmp_path: Path) -> None:
    for kind, start in PROMISES.items():
        (tmp_path / kind).write_bytes(start + np.arange(50_000, dtype="<i2").tobytes())
    told, megabytes = read_apart(*(tmp_path / kind for kind in PROMISES))
    assert len(told) == 2 * len(PROMISES)
    assert max(took for _, took in told) < 10
    assert megabytes < 800


# --- stores ----------------------------------------------------------------------------------


def content(path: Path) -> object:
    """Everything that a reader gets from a store."""
    with FeatureStore(path) as store:
        every = range(len(store))
        return (
            {name: str(value) for name, value in store.attributes.items()}, store.settings,
            store.rows, store.frames.tolist(), store.shape, store.read(every).tobytes(),
            store.read_range(every).tobytes(),
        )  # fmt: skip


def places_of(path: Path) -> dict[str, set[int]]:
    """The bytes of a store that hold features, range and table."""
    places = {}
    with h5py.File(path, "r") as file:
        for name in ("features", "range", "clips"):
            (chunk,) = map(file[name].id.get_chunk_info, range(file[name].id.get_num_chunks()))
            places[name] = set(range(chunk.byte_offset, chunk.byte_offset + file[name][:].nbytes))
    return places


def test_a_flip_in_a_store_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """Every byte of features, range and table, and 400 bytes of the rest.

    Much of that are zeros that HDF5 keeps free, the rest of a chunk or room for more chunks in its
    index of them: a flip there is not found, and what is read stays the same to the last bit.
    """
    path = INPUTS / "store" / "store.h5"
    original, intact = path.read_bytes(), content(path)
    assert verify(path) == []
    data = set[int]().union(*places_of(path).values())
    rest = sorted(set(range(len(original))) - data)
    used = [n for n in rest if original[n]]
    rng = np.random.default_rng(7)
    some = {int(n) for n in rng.choice(rest, 200, replace=False)}
    some |= {int(n) for n in rng.choice(used, 200, replace=False)}
    damaged = tmp_path / "damaged.h5"
    outcomes = Counter[str]()
    for place in sorted(data | some):
        damaged.write_bytes(flipped(original, [(place, 1 << int(rng.integers(8)))]))
        try:
            same = content(damaged) == intact
        except StoreError:
            same = False
        found = bool(verify(damaged))
        free = same and place not in data
        assert found or free, f"the flip in byte {place} isn't found"
        outcomes["found" if found else "unused"] += 1
    assert outcomes["found"] >= len(data)


# --- heads and encoders ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def fold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of one head that ships."""
    folder = tmp_path_factory.mktemp("head") / "fold_1"
    return Path(shutil.copytree(BUNDLED_HEADS / "sentiment3" / "fold_1", folder))


def test_every_flipped_byte_of_a_card_is_refused(fold: Path) -> None:
    path = fold / "card.json"
    original = path.read_bytes()
    whole = read_card(fold)
    rng = np.random.default_rng(3)
    passed = 0
    for place in range(len(original)):
        path.write_bytes(flipped(original, [(place, 1 << int(rng.integers(8)))]))
        try:
            card = read_card(fold)
        except HeadError:
            continue
        card.pop("card_sha256", None)
        unknown = set(card) - set(whole)
        # What passes says the same: another kind of line end, or the seal's own name.
        assert {k: v for k, v in card.items() if k not in unknown} == whole, place
        passed += 1
    path.write_bytes(original)
    assert passed < 25
    load_head(fold)


@QUICK
@given(FLIPS)
def test_flipped_weights_are_refused(fold: Path, flips: Flips) -> None:
    path = fold / "head.safetensors"
    original = path.read_bytes()
    damaged = flipped(original, flips)
    path.write_bytes(damaged)
    try:
        if damaged != original:
            with pytest.raises(HeadError, match="not the weights"):
                load_head(fold)
    finally:
        path.write_bytes(original)


ENCODER_FILES = ["config.json", "preprocessor_config.json", "SHA256SUMS", "model.safetensors"]


@settings(QUICK, max_examples=60)
@given(st.sampled_from(ENCODER_FILES), st.integers(0, 2**31), st.integers(1, 255))
def test_a_flip_in_an_encoder_that_ships_is_named(
    tmp_path_factory: pytest.TempPathFactory, name: str, place: int, mask: int
) -> None:
    folder = tmp_path_factory.mktemp("encoder")
    for file in (BUNDLED_ENCODERS / "mini").iterdir():
        (folder / file.name).symlink_to(file)
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(flipped(data, [(place, mask)]))
    assert changed_files(folder)


# --- fuzzing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["names", "tables", "audio", "store", "card", "archive"])
def test_the_inputs_that_fuzzing_starts_from_pass(
    run: Callable[..., subprocess.CompletedProcess[str]], project: Path, target: str
) -> None:
    files = sorted((INPUTS / target).iterdir())
    assert files
    done = run(project / "fuzz/fuzz.py", target, "--replay", *files)
    assert done.returncode == 0, done.stderr


def test_the_kept_inputs_stay_small() -> None:
    assert sum(path.stat().st_size for path in INPUTS.rglob("*") if path.is_file()) < 200_000
