"""Stage 1 as its users run it: what is encoded, what is reused, what is said of bad clips."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import tiny_checkpoint
from earlier_stores import write_padded

from ser_embed.audio import AudioFile
from ser_embed.audio.cutting import SAMPLE_RATE
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.command import Outcome
from ser_embed.corpora import Listing, Utterance
from ser_embed.encoders.frozen import load_encoder
from ser_embed.errors import CorpusError, EncoderError, StoreError
from ser_embed.extract.__main__ import main
from ser_embed.extract.corpus import extract, extract_listing
from ser_embed.extract.options import ExtractConfig
from ser_embed.extract.reading import Readers
from ser_embed.store.checking import verify
from ser_embed.store.reader import FeatureStore
from ser_embed.store.writer import StoreWriter

Run = Callable[..., subprocess.CompletedProcess[str]]
WriteTone = Callable[..., Path]

FIELDS = {"store", "clips", "stored", "reused", "failed", "seconds", "clips_per_second"}
DEMO_CLIPS = sorted(DEMO_CORPUS.rglob("*.ogg"))


def copy_clips(root: Path, numbers: range | list[int] = range(6)) -> list[Path]:
    """Copy every 60th demo clip and so on, so that each is of another actor."""
    copies = []
    for i in numbers:
        source = DEMO_CLIPS[i % 6 * 60 + i // 6]
        copy = root / source.parent.name / source.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copies.append(Path(shutil.copy(source, copy)))
    return copies


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A corpus of six clips, one by each of six actors."""
    copy_clips(tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.fixture
def go(tmp_path: Path, tiny: str) -> Callable[..., Outcome]:
    """Return a function that extracts in this process, into `features` unless told."""

    def _go(root: Path | None, **options: Any) -> Outcome:
        if "csv" not in options:
            options.setdefault("corpus", "ravdess")
        values: dict[str, Any] = {
            "encoder": tiny, "backend": "torch", "workers": 0, "quiet": True,
            "features_dir": tmp_path / "features", **options,
        }  # fmt: skip
        return extract(ExtractConfig(root=root, **values))

    return _go


Go = Callable[..., Outcome]


def by_name(path: str | Path) -> dict[str, bytes]:
    """The stored bytes of every usable clip, features and range."""
    with FeatureStore(path) as store:
        ranged = store.has_range
        return {
            Path(row.path).name: store.read([i]).tobytes()
            + (store.read_range([i]).tobytes() if ranged else b"")
            for i, row in enumerate(store.rows)
            if row.state == "stored"
        }


def arrays(path: str | Path) -> dict[str, np.ndarray]:
    with FeatureStore(path) as store:
        return {
            Path(row.path).name: store.read([i])[0].astype(np.float64)
            for i, row in enumerate(store.rows)
            if row.state == "stored"
        }


def counts(outcome: Outcome) -> tuple[int, int, int, int]:
    result = outcome.result
    return result["clips"], result["stored"], result["reused"], result["failed"]


# --- what it does ------------------------------------------------------------------------------


def test_the_command(root: Path, tmp_path: Path, run: Run) -> None:
    command = (
        "-m", "ser_embed.extract", root, "--corpus", "ravdess", "--backend", "torch",
        "--encoder", "mini", "--workers", "2", "--features-dir", tmp_path / "f", "--json",
    )  # fmt: skip
    done = run(*command)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told) == FIELDS
    assert (told["clips"], told["stored"], told["reused"], told["failed"]) == (6, 6, 0, 0)
    assert told["seconds"] > 0
    assert told["clips_per_second"] == pytest.approx(6 / told["seconds"], rel=0.1)
    store = Path(told["store"])
    assert re.fullmatch(r"ravdess-mini-[0-9a-f]{12}\.h5", store.name)
    assert store.parent == tmp_path / "f"
    assert verify(store) == []
    assert "6 clips encoded" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


def test_what_a_store_holds(root: Path, go: Go) -> None:
    outcome = go(root, encoder="mini")
    assert outcome.status == 0
    encoder = load_encoder("mini", backend="torch")
    with FeatureStore(outcome.result["store"]) as store:
        assert store.shape == (store.frames.max(), 256)
        assert all(store.frames <= 149)
        assert store.read([0]).dtype == np.float16
        settings = store.settings
        assert (settings.encoder, settings.layer, settings.seed) == ("mini", encoder.layer, 0)
        assert (settings.seconds, settings.fill, settings.norm) == (3.0, "none", "none")
        assert settings.trim
        assert settings.weights == encoder.weights
        assert store.trained == encoder.trained
        assert (store.corpus, store.demo, store.root) == ("ravdess", False, str(root.resolve()))
        for row in store.rows:
            path = root / row.path
            clip = AudioFile(path).read()
            assert (row.sha256, row.seconds) == (clip.sha256, clip.seconds)
            actor = path.parent.name[-2:]
            assert row.speaker == f"ravdess:{actor}"
            assert row.gender == ("male" if int(actor) % 2 else "female")


def test_frames_by_their_own_extrema(root: Path, go: Go) -> None:
    """The paper's normalisation, and a fill, so that every clip has all frames."""
    with FeatureStore(go(root, norm="frame", fill="sample").result["store"]) as store:
        assert store.frames.tolist() == [149] * 6
        features, extrema = store.read(range(6)), store.read_range(range(6))
    assert (features.min(axis=2) == -1).all()
    assert (features.max(axis=2) == 1).all()
    assert (extrema[..., 0] < extrema[..., 1]).all()


def test_features_are_the_encoders_own(root: Path, go: Go) -> None:
    """Whole clips, not normalised, in float32: nothing but decoding stands before the encoder."""
    outcome = go(root, encoder="mini", seconds=0.0, trim=False, dtype="float32")
    encoder = load_encoder("mini", backend="torch")
    with FeatureStore(outcome.result["store"]) as store:
        for i, row in enumerate(store.rows):
            samples, rate = soundfile.read(root / row.path, dtype="float32")
            assert rate == SAMPLE_RATE
            (wanted,) = encoder.encode([samples])
            n = int(store.frames[i])
            assert n == encoder.n_frames(len(samples)) == wanted.shape[1]
            given = store.read([i])[0]
            assert np.linalg.norm(given[:n] - wanted[0]) < 1e-5 * np.linalg.norm(wanted)
            assert not given[n:].any()
        assert store.shape[0] == store.frames.max()


def test_real_clips(shared: Path, tmp_path: Path, go: Go) -> None:
    """Originals at 48, 24.4, 96 and 44.1 kHz, mono and stereo, each under its corpus's name."""
    originals = shared / "corpora" / "originals"
    for corpus, clips, speakers in (
        ("ravdess", 4, {"ravdess:01", "ravdess:02"}),
        ("tess", 3, {"tess:OAF", "tess:YAF"}),
        ("urdu", 1, {"urdu:SM4"}),
    ):
        outcome = go(originals / corpus, corpus=corpus, fill="sample")
        assert counts(outcome) == (clips, clips, 0, 0)
        with FeatureStore(outcome.result["store"]) as store:
            assert set(store.clips["speaker"]) == speakers
            assert store.shape == (149, 32)
        assert verify(Path(outcome.result["store"])) == []


# --- running it again --------------------------------------------------------------------------


def test_a_second_run_reuses_everything(root: Path, go: Go) -> None:
    first = go(root)
    path = Path(first.result["store"])
    before = (path.stat().st_ino, path.stat().st_mtime_ns)
    second = go(root)
    assert counts(second) == (6, 0, 6, 0)
    assert second.status == 0
    assert second.result["store"] == first.result["store"]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before


def test_changed_and_new_clips_are_encoded_and_no_others(root: Path, go: Go) -> None:
    path = go(root).result["store"]
    before = by_name(path)
    changed = sorted(root.rglob("*.ogg"))[2]
    shutil.copy(DEMO_CLIPS[30], changed)
    (new,) = copy_clips(root, [6])
    outcome = go(root)
    assert counts(outcome) == (7, 2, 5, 0)
    after = by_name(path)
    assert set(after) - set(before) == {new.name}
    assert after[changed.name] != before[changed.name]
    for name in set(before) - {changed.name}:
        assert after[name] == before[name]
    with FeatureStore(path) as store:
        assert len(store) == 7
        (sha256,) = [row.sha256 for row in store.rows if row.path.endswith(changed.name)]
        assert sha256 == AudioFile(changed).read().sha256
    assert verify(Path(path)) == []


def test_a_deleted_clip_is_kept_unless_pruned(
    root: Path, go: Go, caplog: pytest.LogCaptureFixture
) -> None:
    path = go(root, fill="sample").result["store"]
    before = by_name(path)
    deleted = sorted(root.rglob("*.ogg"))[0]
    deleted.unlink()
    caplog.set_level("INFO")
    assert counts(go(root, fill="sample")) == (5, 0, 5, 0)
    assert by_name(path) == before
    assert "1 clips of earlier runs are not in" in caplog.text
    assert "--prune" in caplog.text
    assert counts(go(root, fill="sample", prune=True)) == (5, 0, 5, 0)
    del before[deleted.name]
    assert by_name(path) == before


def test_a_listed_clip_that_vanished_keeps_its_features(root: Path, go: Go) -> None:
    clips = sorted(root.rglob("*.ogg"))
    table = root / "mine.csv"
    table.write_text("path,emotion\n" + "".join(f"{clip},happy\n" for clip in clips))
    path = go(None, corpus="", csv=table).result["store"]
    before = by_name(path)
    clips[0].unlink()
    clips[1].write_bytes(b"not audio any more")
    outcome = go(None, corpus="", csv=table)
    assert outcome.status == 3
    assert counts(outcome) == (6, 0, 4, 2)
    del before[clips[1].name]  # other bytes than those that were encoded
    assert by_name(path) == before


def test_a_limit_takes_clips_from_all_over(tmp_path: Path, go: Go) -> None:
    root = tmp_path / "corpus"
    copy_clips(root, range(12))  # two by each of six actors
    outcome = go(root, limit=6)
    assert counts(outcome) == (6, 6, 0, 0)
    path = outcome.result["store"]
    first = by_name(path)
    with FeatureStore(path) as store:
        assert store.clips["speaker"].nunique() == 6
    assert counts(go(root)) == (12, 6, 6, 0)
    assert first.items() <= by_name(path).items()
    assert counts(go(root, limit=3)) == (3, 0, 3, 0)  # the others stay
    assert len(by_name(path)) == 12


def test_a_folder_that_is_there_twice_counts_once(root: Path, go: Go) -> None:
    plain = by_name(go(root).result["store"])
    shutil.copytree(root, root / "audio_speech_actors_01-24")
    outcome = go(root)
    assert counts(outcome) == (6, 0, 6, 0)
    assert by_name(outcome.result["store"]) == plain
    again = go(root, features_dir=root.parent / "other")
    assert counts(again) == (6, 6, 0, 0)
    assert by_name(again.result["store"]) == plain


def test_the_same_clips_from_another_root(root: Path, tmp_path: Path, go: Go) -> None:
    path = go(root).result["store"]
    before = by_name(path)
    outcome = go(root / "Actor_03")
    assert counts(outcome) == (1, 0, 1, 0)
    assert outcome.result["store"] == path
    assert by_name(path) == before
    moved = tmp_path / "elsewhere" / "RAVDESS"
    shutil.copytree(root, moved)
    assert counts(go(moved)) == (6, 0, 6, 0)
    assert by_name(path) == before
    assert counts(go(tmp_path / "elsewhere")) == (6, 0, 6, 0)
    with FeatureStore(path) as store:
        assert len(store) == 6


def two_tables(tmp_path: Path) -> tuple[Path, Path]:
    """Two tables of one file name and the same relative paths, of other audio."""
    tables = []
    for number, folder in enumerate((tmp_path / "A", tmp_path / "B")):
        for i, source in enumerate(DEMO_CLIPS[number * 3 : number * 3 + 3]):
            (folder / "wav").mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / "wav" / f"{i}.ogg")
        rows = [f"wav/{i}.ogg,sad,s{i}" for i in range(3)]
        tables.append(folder / "metadata.csv")
        tables[-1].write_text("\n".join(["path,emotion,speaker", *rows]))
    return tables[0], tables[1]


def test_item_2_two_tables_of_one_name_have_stores_of_their_own(tmp_path: Path, go: Go) -> None:
    one, two = two_tables(tmp_path)
    first = go(None, csv=one).result["store"]
    before = by_name(first)
    outcome = go(None, csv=two)
    assert counts(outcome) == (3, 3, 0, 0)
    second = outcome.result["store"]
    assert second != first
    assert by_name(first) == before
    assert not set(before.values()) & set(by_name(second).values())
    for table, store in ((one, first), (two, second)):  # each is found again and continued
        again = go(None, csv=table)
        assert again.result["store"] == store
        assert counts(again) == (3, 0, 3, 0)


def test_item_2_a_killed_run_of_another_root_keeps_what_it_stored(tmp_path: Path, go: Go) -> None:
    one, two = two_tables(tmp_path)
    path = Path(go(None, csv=one).result["store"])
    path.rename(path.with_name(f"{path.name}.partial"))
    assert go(None, csv=two).result["store"] != str(path)
    assert counts(go(None, csv=one)) == (3, 0, 3, 0)


def test_item_2_a_table_that_was_moved_keeps_its_store(tmp_path: Path, go: Go) -> None:
    one, _ = two_tables(tmp_path)
    store = go(None, csv=one).result["store"]
    (tmp_path / "A").rename(tmp_path / "moved")
    outcome = go(None, csv=tmp_path / "moved" / "metadata.csv")
    assert outcome.result["store"] == store
    assert counts(outcome) == (3, 0, 3, 0)


def test_item_2_other_clips_under_the_names_of_a_known_corpus(
    root: Path, tmp_path: Path, go: Go, write_tone: WriteTone
) -> None:
    first = go(root).result["store"]
    before = by_name(first)
    for path in root.rglob("*.ogg"):
        other = tmp_path / "other" / path.relative_to(root)
        write_tone(other, f0=300)
    second = go(tmp_path / "other").result["store"]
    assert second != first
    assert by_name(first) == before


def test_item_17_do_normalize_and_the_configuration_belong_to_the_key(
    root: Path, tmp_path: Path, go: Go
) -> None:
    folder = tiny_checkpoint(tmp_path / "encoder")
    stores = [go(root, encoder=str(folder)).result["store"]]
    for file, name, value in (
        ("preprocessor_config.json", "do_normalize", False),
        ("config.json", "hidden_act", "relu"),
        ("config.json", "layer_norm_eps", 0.1),
    ):
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**settings, name: value}))
        outcome = go(root, encoder=str(folder))
        assert counts(outcome) == (6, 6, 0, 0), name
        assert outcome.result["store"] not in stores, name
        stores.append(outcome.result["store"])
    settings = json.loads((folder / "config.json").read_text())
    same = {**settings, "transformers_version": "4.0", "attention_dropout": 0.5}
    (folder / "config.json").write_text(json.dumps(same))
    assert counts(go(root, encoder=str(folder))) == (6, 0, 6, 0)  # they change no feature


def test_item_17_a_store_made_before_is_named_and_left(
    root: Path, go: Go, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(go(root).result["store"])
    old = path.with_name("ravdess-tiny-0123456789ab.h5")
    with FeatureStore(path) as store:
        settings = replace(store.settings, configuration="")
        write_padded(old, settings, "ravdess", [store.clip(i) for i in range(len(store))])
    path.unlink()
    with caplog.at_level("INFO"):
        assert counts(go(root)) == (6, 6, 0, 0)
    assert f"{old.name} was made before" in caplog.text
    with FeatureStore(old) as before, FeatureStore(path) as now:
        assert before.settings.differences(now.settings) == []


def test_a_file_name_that_is_not_utf8(root: Path, go: Go) -> None:
    odd = root / b"caf\xe9".decode("utf-8", "surrogateescape")
    try:
        (root / "Actor_01").rename(odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    path = go(root).result["store"]
    assert len(by_name(path)) == 6
    assert counts(go(root)) == (6, 0, 6, 0)
    assert verify(Path(path)) == []


# --- what features depend on -------------------------------------------------------------------


@pytest.fixture
def reference(root: Path, go: Go, tmp_path: Path) -> dict[str, np.ndarray]:
    outcome = go(root, dtype="float32", features_dir=tmp_path / "reference")
    return arrays(outcome.result["store"])


def assert_same(path: str, reference: dict[str, np.ndarray]) -> None:
    given = arrays(path)
    assert set(given) == set(reference)
    for name, features in given.items():
        wanted = reference[name]
        assert np.linalg.norm(features - wanted) <= 1e-5 * np.linalg.norm(wanted)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 4}, {"workers": 2}], ids=str)
def test_features_do_not_depend_on_how_they_are_made(
    options: dict[str, int], root: Path, go: Go, reference: dict[str, np.ndarray]
) -> None:
    assert_same(go(root, dtype="float32", **options).result["store"], reference)


def test_features_do_not_depend_on_order(
    root: Path, tmp_path: Path, go: Go, reference: dict[str, np.ndarray]
) -> None:
    """The last are first, once by folder and once by a second run."""
    other = tmp_path / "reversed"
    for i, path in enumerate(sorted(root.rglob("*.ogg"), reverse=True)):
        (other / f"{i}").mkdir(parents=True)
        shutil.copy(path, other / f"{i}")
    outcome = go(other, dtype="float32")
    assert_same(outcome.result["store"], reference)
    late = tmp_path / "late"
    go(root / "Actor_05", dtype="float32", features_dir=late)
    assert_same(go(root, dtype="float32", features_dir=late).result["store"], reference)


def test_whole_clips_do_not_depend_on_their_batch(root: Path, go: Go) -> None:
    """Where lengths differ, clips share padded batches."""
    options = {"encoder": "mini", "dtype": "float32", "seconds": 0.0}
    single = arrays(go(root, batch_size=1, **options).result["store"])
    assert len({len(features) for features in single.values()}) == 1  # padded to the longest
    shutil.rmtree(root.parent / "features")
    assert_same(go(root, batch_size=6, **options).result["store"], single)


def test_the_same_run_gives_the_same_bytes(root: Path, tmp_path: Path, go: Go) -> None:
    one, two = (go(root, features_dir=tmp_path / name).result["store"] for name in "ab")
    assert by_name(one) == by_name(two)


# --- options -----------------------------------------------------------------------------------


def test_whole_clips(root: Path, go: Go, tiny: str) -> None:
    encoder = load_encoder(tiny, backend="torch")
    with FeatureStore(go(root, seconds=0.0, trim=False).result["store"]) as store:
        for row, frames in zip(store.rows, store.frames, strict=True):
            assert frames == encoder.n_frames(round(row.seconds * SAMPLE_RATE))
        assert len(set(store.frames.tolist())) > 1
        assert store.shape[0] == max(store.frames)
    assert verify(store.path) == []


def test_filling_or_not(root: Path, go: Go) -> None:
    stores = {
        fill: go(root, fill=fill).result["store"] for fill in ("sample", "repeat", "zero", "none")
    }
    assert len(set(stores.values())) == 4
    with FeatureStore(stores["none"]) as store:
        short = [i for i, row in enumerate(store.rows) if row.seconds < 2.9]
        assert len(short) > 1
        assert all(store.frames[i] < 149 for i in short)
    filled = [arrays(stores[fill]) for fill in ("sample", "repeat", "zero")]
    name = Path(store.rows[short[0]].path).name
    assert not np.allclose(filled[0][name], filled[1][name])
    assert not np.allclose(filled[1][name], filled[2][name])
    store.close()


def test_the_seed_draws_the_filling(root: Path, go: Go) -> None:
    one, two = (go(root, seed=seed, fill="sample") for seed in (0, 1))
    assert one.result["store"] != two.result["store"]
    first, second = by_name(one.result["store"]), by_name(two.result["store"])
    assert set(first) == set(second)
    assert any(first[name] != second[name] for name in first)


def test_layers_and_pooling(root: Path, go: Go) -> None:
    whole = {"norm": "frame", "fill": "sample", "limit": 2}
    every = go(root, layer="all", **whole).result["store"]
    pooled = go(root, layer="all", pool="mean", **whole).result["store"]
    logits = go(root, layer="logits", encoder="random-mini", **whole).result["store"]
    first = go(root, layer=1, **whole).result["store"]
    with FeatureStore(every) as store:
        assert store.shape == (3, 149, 32)
        assert store.read_range([0]).shape == (1, 3, 149, 2)
    with FeatureStore(pooled) as store:
        assert store.shape == (3, 32)
    with FeatureStore(logits) as store:
        assert store.shape == (149, 32)
    all_layers, means, one = arrays(every), arrays(pooled), arrays(first)
    assert len(all_layers) == 2
    for name, features in all_layers.items():
        np.testing.assert_allclose(means[name], features.mean(axis=1), atol=2e-3)
        np.testing.assert_allclose(one[name], features[1], atol=2e-3)
    for path in (every, pooled, logits, first):
        assert verify(Path(path)) == []


def test_a_clip_by_its_own_extrema(root: Path, go: Go) -> None:
    with FeatureStore(go(root, norm="clip", limit=2).result["store"]) as store:
        assert store.read([0]).min() == -1
        assert store.read([0]).max() == 1
        assert len(np.unique(store.read_range([0])[0], axis=0)) == 1


# --- a corpus of one's own ---------------------------------------------------------------------


def write_csv(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_csv(root: Path, tmp_path: Path, go: Go) -> None:
    clips = sorted(root.rglob("*.ogg"))
    table = write_csv(tmp_path / "mine.csv", [
        "path,emotion,speaker,gender,split",
        f"{clips[0]},joy,ann,f,train",
        f"{clips[1].relative_to(tmp_path)},Anger,bob,m,test",
        f"{clips[2].relative_to(tmp_path)},bewildered,,,",
    ])  # fmt: skip
    outcome = go(None, csv=table)
    assert counts(outcome) == (3, 3, 0, 0)
    assert Path(outcome.result["store"]).name.startswith("mine-tiny-")
    with FeatureStore(outcome.result["store"]) as store:
        rows = {Path(row.path).name: row for row in store.rows}
    first, second, third = (rows[clip.name] for clip in clips[:3])
    assert (first.emotion, first.speaker, first.gender, first.part) == (
        "joy", "mine:ann", "female", "train",  # the table's own word: a scheme knows what it means
    )  # fmt: skip
    assert (second.emotion, second.part) == ("Anger", "test")
    assert (third.emotion, third.speaker, third.gender) == ("bewildered", "", "")


def test_new_labels_are_taken_over_without_encoding(root: Path, tmp_path: Path, go: Go) -> None:
    clips = [str(path.relative_to(tmp_path)) for path in sorted(root.rglob("*.ogg"))]
    table = tmp_path / "mine.csv"
    write_csv(table, ["path,emotion", *(f"{clip},happy" for clip in clips)])
    path = go(None, csv=table).result["store"]
    before = by_name(path)
    write_csv(
        table, ["path,emotion,speaker", *(f"{clip},sad,s{i}" for i, clip in enumerate(clips))]
    )
    assert counts(go(None, csv=table)) == (6, 0, 6, 0)
    with FeatureStore(path) as store:
        assert store.clips["emotion"].tolist() == ["sad"] * 6
        assert store.clips["speaker"].nunique() == 6
    assert by_name(path) == before
    assert verify(Path(path)) == []


# --- bad clips ---------------------------------------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 96078\n"


def spoil(folder: Path) -> dict[str, str]:
    """Write one clip of every kind that can't be used, and return what must be said of each."""
    folder.mkdir(parents=True)
    name = "03-01-{:02d}-01-01-01-07.wav".format
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    (folder / name(1)).write_text("this is not audio\n" * 50)
    (folder / name(2)).write_bytes(LFS)
    soundfile.write(folder / name(3), np.zeros(16_000), 16_000)
    soundfile.write(folder / name(4), noise[:300], 16_000)
    (folder / name(5)).touch()
    noise[700] = np.nan
    soundfile.write(folder / name(6), noise, 16_000, subtype="FLOAT")
    soundfile.write(folder / name(7), np.zeros(0), 16_000)
    (folder / "notes.wav").write_text("a name that no rule places")
    (folder / "03-01-09-01-01-01-07.wav").write_text("an emotion that RAVDESS doesn't have")
    reasons = (
        "can't be decoded", "git-lfs pointer", "silence", "at least 400", "empty",
        "not finite", "no samples",
    )  # fmt: skip
    said = {name(i): reason for i, reason in enumerate(reasons, start=1)}
    return {**said, "notes.wav": "doesn't follow", "03-01-09-01-01-01-07.wav": "no emotion code"}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_clips_are_listed_and_recorded(
    workers: int, root: Path, go: Go, capsys: pytest.CaptureFixture[str]
) -> None:
    said = spoil(root / "Actor_07")
    outcome = go(root, workers=workers)
    assert outcome.status == 3
    assert counts(outcome) == (6 + len(said), 6, 0, len(said))
    listed = capsys.readouterr().err.splitlines()
    with FeatureStore(outcome.result["store"]) as store:
        rows = {Path(row.path).name: row for row in store.rows}
        assert (store.clips["state"] == "stored").sum() == 6
        frames = dict(zip(rows, store.frames.tolist(), strict=True))
    for name, reason in said.items():
        (line,) = [line for line in listed if name in line]
        assert line.startswith("failed: ")
        assert reason in line
        assert rows[name].state == "failed"
        assert reason in rows[name].reason
        assert str(root) not in rows[name].reason
        assert frames[name] == 0
    assert verify(Path(outcome.result["store"])) == []


def test_a_clip_that_was_mended_is_taken(root: Path, go: Go) -> None:
    said = spoil(root / "Actor_07")
    path = go(root).result["store"]
    mended = root / "Actor_07" / "03-01-03-01-01-01-07.wav"
    samples, rate = soundfile.read(DEMO_CLIPS[0])
    soundfile.write(mended, samples, rate)
    outcome = go(root)
    assert outcome.status == 3
    assert counts(outcome) == (6 + len(said), 1, 6, len(said) - 1)
    assert mended.name in by_name(path)
    with FeatureStore(path) as store:
        assert len(store) == 6 + len(said)


def test_a_clip_that_went_bad_is_no_longer_there(root: Path, go: Go) -> None:
    path = go(root).result["store"]
    spoiled = sorted(root.rglob("*.ogg"))[0]
    spoiled.write_text("overwritten by accident")
    outcome = go(root)
    assert outcome.status == 3
    assert counts(outcome) == (6, 0, 5, 1)
    assert spoiled.name not in by_name(path)
    with FeatureStore(path) as store:
        assert len(store) == 6


def test_a_clip_of_a_csv_that_is_not_there(root: Path, tmp_path: Path, go: Go) -> None:
    clips = [str(path) for path in sorted(root.rglob("*.ogg"))[:2]]
    lines = ["path,emotion", *(f"{clip},happy" for clip in clips), "gone.wav,sad"]
    outcome = go(None, csv=write_csv(tmp_path / "mine.csv", lines))
    assert outcome.status == 3
    assert counts(outcome) == (3, 2, 0, 1)
    with FeatureStore(outcome.result["store"]) as store:
        (gone,) = [row for row in store.rows if row.state == "failed"]
    assert gone.path == "gone.wav"
    assert "No such file" in gone.reason


def test_many_bad_clips_are_counted(root: Path, go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(30):
        (root / f"noise-{i:02d}.wav").write_text("text")
    assert counts(go(root)) == (36, 6, 0, 30)
    listed = capsys.readouterr().err.splitlines()
    assert len([line for line in listed if line.startswith("failed: ")]) == 20
    assert "... and 10 more; python -m ser_embed.store" in listed[-1]


def test_nothing_but_bad_clips(tmp_path: Path, go: Go) -> None:
    said = spoil(tmp_path / "bad")
    with pytest.raises(CorpusError, match=f"none of its {len(said)} clips can be used; the first"):
        go(tmp_path / "bad")
    assert not list((tmp_path / "features").glob("ravdess*"))


@pytest.mark.parametrize("norm", ["frame", "none"])
def test_an_encoder_that_gives_nonsense(norm: str, root: Path, tmp_path: Path, go: Go) -> None:
    encoder = str(tiny_checkpoint(tmp_path / "nan", gain=float("nan")))
    with pytest.raises(CorpusError, match=r"none of its 6 clips.*output is not finite"):
        go(root, encoder=encoder, layer=2, norm=norm)


def test_states_beyond_float16(root: Path, tmp_path: Path, go: Go) -> None:
    encoder = str(tiny_checkpoint(tmp_path / "loud", gain=1e6))
    with pytest.raises(CorpusError, match="beyond float16; store it with --dtype float32"):
        go(root, encoder=encoder, layer=2, norm="none")
    assert go(root, encoder=encoder, layer=2, norm="none", dtype="float32").status == 0
    outcome = go(root, encoder=encoder, layer=2, norm="frame")  # normalised they fit
    assert outcome.status == 0
    with FeatureStore(outcome.result["store"]) as store:
        assert np.abs(store.read_range([0])).max() > 65504


# --- finding corpora ---------------------------------------------------------------------------


def test_without_a_corpus_the_demo_is_taken_and_said(tmp_path: Path, run: Run) -> None:
    (tmp_path / "data").mkdir()
    done = run(
        "-m", "ser_embed.extract", "--limit", "8", "--features-dir", "f", "--json",
        "--backend", "torch", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "synthetic demo corpus" in done.stderr
    assert "say nothing about real speech" in done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["stored"] == 8
    assert Path(told["store"]).name.startswith("demo-mini-")
    with FeatureStore(tmp_path / told["store"]) as store:
        assert store.demo
        assert store.corpus == "demo"
        assert set(store.clips["corpus"]) == {"demo"}


def test_demo_clips_are_never_taken_for_real_ones(go: Go) -> None:
    outcome = go(DEMO_CORPUS / "Actor_02", limit=2)
    assert Path(outcome.result["store"]).name.startswith("demo-")
    with FeatureStore(outcome.result["store"]) as store:
        assert store.demo
        assert set(store.clips["speaker"]) == {"demo:02"}


def test_every_corpus_found_has_its_store(
    tmp_path: Path, go: Go, write_tone: WriteTone, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    copy_clips(data / "ravdess")
    write_tone(data / "urdu" / "Angry" / "SM1_F1_A01.wav")
    write_tone(data / "urdu" / "Sad" / "SF2_F1_S01.wav", seed=1)
    monkeypatch.setenv("SER_EMBED_DATA", str(data))
    outcome = go(None, corpus="")
    assert counts(outcome) == (8, 8, 0, 0)
    ravdess, urdu = outcome.result["store"]
    assert Path(ravdess).name.startswith("ravdess-")
    assert Path(urdu).name.startswith("urdu-")
    assert (len(by_name(ravdess)), len(by_name(urdu))) == (6, 2)
    assert counts(go(None, corpus="")) == (8, 0, 8, 0)


def test_a_data_folder_without_a_corpus(
    tmp_path: Path, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        monkeypatch.setenv("SER_EMBED_DATA", str(folder))
        with pytest.raises(CorpusError, match=r"SER_EMBED_DATA=.*no known corpus"):
            go(None, corpus="")


# --- wrong use ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["--fill", "noise"], ["--layer", "last"], ["--batch-size", "many"], ["--frobnicate"],
     ["--backend", "tpu"], ["--seconds"], ["one", "two"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_item_2_two_tables_of_one_name_have_stores_and_speakers_of_their_own(
    tmp_path: Path, go: Go, write_tone: Callable[..., Path]
) -> None:
    stores = []
    for seed, folder in enumerate("ABA"):
        write_tone(tmp_path / folder / "one.wav", seed=seed % 2)
        table = write_csv(
            tmp_path / folder / "metadata.csv", ["path,emotion,speaker", "one.wav,sad,anna"]
        )
        stores.append(go(None, csv=table).result["store"])
    assert stores[0] == stores[2] != stores[1]
    speakers = set()
    for path in stores[:2]:
        with FeatureStore(path) as store:
            (row,) = store.rows
            speakers.add(row.speaker)
            assert row.speaker == f"{row.corpus}:anna"
    assert len(speakers) == 2


def test_item_9_a_clip_whose_label_is_in_conflict_now_is_not_kept_with_the_old_one(
    tmp_path: Path, go: Go, write_tone: Callable[..., Path]
) -> None:
    for seed, name in enumerate("abc"):
        write_tone(tmp_path / f"{name}.wav", seed=seed)
    rows = ["path,emotion", "a.wav,sad", "b.wav,sad", "c.wav,happy"]
    go(None, csv=write_csv(tmp_path / "mine.csv", rows))
    outcome = go(None, csv=write_csv(tmp_path / "mine.csv", [*rows, "a.wav,happy"]))
    assert counts(outcome) == (3, 0, 2, 1)
    with FeatureStore(outcome.result["store"]) as store:
        found = {row.path: row.reason for row in store.rows}
    assert found == {
        "a.wav": "label conflict: lines 2 and 5 give it 2 emotions, happy and sad",
        "b.wav": "", "c.wav": "",
    }  # fmt: skip


def test_item_16_a_clip_far_longer_than_its_corpus_is_in_the_report(
    tmp_path: Path, go: Go, write_tone: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        write_tone(
            tmp_path / f"SM1_F1_A00{number}.wav", seconds=60 if number == 3 else 2, seed=number
        )
    go(tmp_path, corpus="urdu")
    assert "SM1_F1_A003.wav: 60.0 s, far longer than the others of urdu" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": -1.0}, "--seconds -1.0: give 0 for whole clips"),
        ({"seconds": 0.02}, "--seconds 0.02"),
        ({"seconds": float("nan")}, "--seconds nan"),
        ({"seconds": float("inf")}, "--seconds inf"),
        ({"batch_size": 0}, "--batch-size 0: at least 1"),
        ({"workers": -1}, "--workers -1"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**70}, "--seed"),
        ({"corpus": "ravdes"}, "no corpus 'ravdes'; known are ravdess"),
        ({"corpus": "tess"}, "none of its 6 audio files is named as tess"),
    ],
    ids=str,
)
def test_options_that_make_no_sense(
    options: dict[str, Any], message: str, root: Path, go: Go
) -> None:
    with pytest.raises(CorpusError, match=re.escape(message)):
        go(root, **options)


def test_folders_that_hold_nothing(tmp_path: Path, go: Go) -> None:
    with pytest.raises(CorpusError, match="no such folder"):
        go(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="no audio file in it"):
        go(tmp_path / "empty")


def test_encoders_and_layers_that_are_not_there(root: Path, go: Go) -> None:
    with pytest.raises(EncoderError, match="no encoder 'whisper'"):
        go(root, encoder="whisper")
    with pytest.raises(EncoderError, match="no layer 99"):
        go(root, layer=99)


def test_errors_are_sentences(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1, one line, and an object for --json."""
    (tmp_path / "file").touch()
    arguments = [str(root), "--corpus", "ravdess", "--backend", "torch", "--workers", "0", "--json"]
    for wrong, message in (
        (["--encoder", "whisper"], "no encoder 'whisper'"),
        (["--features-dir", str(tmp_path / "file")], "File exists"),
        (["--features-dir", str(tmp_path / "file" / "below")], "Not a directory"),
        (["--batch-size", "0"], "at least 1"),
    ):
        assert main([*arguments, *wrong]) == 1
        out, err = capsys.readouterr()
        assert message in json.loads(out.splitlines()[-1])["error"]
        assert message in err
        assert "Traceback" not in err


def test_a_damaged_store_is_not_written_over(root: Path, go: Go) -> None:
    path = Path(go(root).result["store"])
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StoreError, match=f"{path}: damaged .*delete it and extract again"):
        go(root)
    path.unlink()
    assert counts(go(root)) == (6, 6, 0, 0)


# --- other processes ---------------------------------------------------------------------------


def test_two_at_once(root: Path, tmp_path: Path, go: Go, run: Run) -> None:
    path = Path(go(root, encoder="mini", limit=2).result["store"])
    with FeatureStore(path) as store:
        settings = store.settings
    command = (
        "-m", "ser_embed.extract", root, "--corpus", "ravdess", "--backend", "torch",
        "--workers", "0", "--features-dir", path.parent, "--json",
    )  # fmt: skip
    with StoreWriter.open(path, settings, "ravdess", root, trained=False, demo=False):
        done = run(*command)
    assert done.returncode == 1
    message = json.loads(done.stdout.splitlines()[-1])["error"]
    assert f"process {os.getpid()} on" in message
    assert "is extracting into this store; wait for it" in message
    assert "Traceback" not in done.stderr
    assert counts(go(root, encoder="mini")) == (6, 4, 2, 0)


OFTEN = """
import sys
from ser_embed.extract.__main__ import main
from ser_embed.store import writer
writer.BLOCK_SECONDS = 0.1
sys.exit(main())
"""


@pytest.fixture
def start(tmp_path: Path, project: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Return a function that starts extracting the demo corpus and returns the process."""
    running: list[subprocess.Popen[str]] = []

    def _start(*options: object) -> "subprocess.Popen[str]":
        command = (
            sys.executable, "-c", OFTEN, DEMO_CORPUS, "--corpus", "demo",
            "--backend", "torch", "--features-dir", tmp_path / "features", *options,
        )  # fmt: skip
        running.append(subprocess.Popen(
            [str(part) for part in command], cwd=project, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(project)},
        ))  # fmt: skip
        return running[-1]

    yield _start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(folder: Path, pattern: str, process: "subprocess.Popen[str]") -> Path:
    """Wait until a file is there while the process runs."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := list(folder.glob(pattern)):
            return found[0]
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    raise AssertionError(f"no {pattern} in {folder}")


def known_in(path: Path, settings: Any) -> set[str]:
    with StoreWriter.open(path, settings, "demo", DEMO_CORPUS, trained=False, demo=True) as writer:
        return {name for name, _ in writer.known}


def test_interrupted_and_gone_on(
    tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"], go: Go, tiny: str
) -> None:
    """Ctrl-C reaches the workers as well, as in a terminal."""
    process = start("--workers", "1", "--encoder", tiny, "--seconds", "0.5")
    part = wait_for(tmp_path / "features", "*.partial", process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "interrupted" in err
    assert "the same command goes on from there" in err
    path = part.with_suffix("")
    assert not path.exists()
    with FeatureStore(part) as store:
        stored = known_in(path, store.settings)
    assert 0 < len(stored) < 360
    assert f"demo: {len(stored)} clips are stored" in err
    outcome = go(None, corpus="demo", seconds=0.5, limit=40)
    chosen = {DEMO_CLIPS[i * 360 // 40].name for i in range(40)}
    again = chosen & stored
    assert counts(outcome) == (40, 40 - len(again), len(again), 0)
    assert set(by_name(path)) == stored | chosen
    assert verify(path) == []


def test_killed_and_gone_on(
    tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"], go: Go, tiny: str
) -> None:
    process = start("--workers", "0", "--encoder", tiny, "--seconds", "0.5")
    part = wait_for(tmp_path / "features", "*.partial", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    path = part.with_suffix("")
    before = by_name(part)
    assert 0 < len(before) < 360
    outcome = go(None, corpus="demo", seconds=0.5)
    assert outcome.result["store"] == str(path)
    clips, _, reused, failed = counts(outcome)
    assert (clips, failed) == (360, 0)
    assert reused >= len(before)
    after = by_name(path)
    assert len(after) == 360
    assert before.items() <= after.items()
    assert verify(path) == []
    # The same as without the kill, up to the rounding that other batches bring.
    some = go(None, corpus="demo", seconds=0.5, limit=30, features_dir=tmp_path / "some")
    resumed = arrays(path)
    for name, features in arrays(some.result["store"]).items():
        assert np.abs(features - resumed[name]).max() <= 2e-3


# --- scripts without a guard -------------------------------------------------------------------


def test_item_18_a_script_without_a_main_guard_extracts(
    root: Path, tmp_path: Path, tiny: str, run: Run
) -> None:
    """With processes spawned, as macOS and Windows do: readers don't import the script."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\nmultiprocessing.set_start_method('spawn')\n"
        "from pathlib import Path\nfrom ser_embed.extract import ExtractConfig, extract\n"
        f"done = extract(ExtractConfig(root=Path({str(root)!r}), corpus='ravdess', workers=2,\n"
        f"    encoder={tiny!r}, backend='torch', features_dir=Path({str(tmp_path / 'f')!r})))\n"
        "print(done.result['stored'], done.result['failed'])\n"
    )
    done = run(script)
    assert done.stdout.splitlines() == ["6 0"], done.stderr


# --- one utterance in several formats ----------------------------------------------------------


@pytest.fixture
def both_formats(tmp_path: Path) -> Path:
    """A corpus as CREMA-D's repository has it: each clip as AudioWAV/X.wav and AudioMP3/X.mp3."""
    for i, source in enumerate(DEMO_CLIPS[:6]):
        name = f"10{i + 10}_IEO_{'SAD' if i % 2 else 'ANG'}_XX"
        samples = AudioFile(source).read().samples
        for folder, ending in (("AudioMP3", "mp3"), ("AudioWAV", "wav")):
            path = tmp_path / "crema" / folder / f"{name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, SAMPLE_RATE)
    return tmp_path / "crema"


def test_item_3_the_lossless_file_of_an_utterance_stays_and_the_other_is_reported(
    both_formats: Path, go: Go, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    outcome = go(both_formats, corpus="crema-d")
    assert counts(outcome) == (6, 6, 0, 0)
    assert outcome.status == 0
    assert "6 files hold an utterance that another file has" in caplog.text
    path = Path(outcome.result["store"])
    with FeatureStore(path) as store:
        assert {Path(p).suffix for p in store.stored_clips["path"]} == {".wav"}
        left = [row for row in store.rows if row.state == "left out"]
    assert [Path(row.path).suffix for row in left] == [".mp3"] * 6
    assert all(f"as AudioWAV/{Path(row.path).stem}.wav" in row.reason for row in left)
    assert verify(path) == []
    before = path.stat().st_mtime_ns
    assert counts(go(both_formats, corpus="crema-d")) == (6, 0, 6, 0)
    assert path.stat().st_mtime_ns == before


def test_item_3_what_stands_in_for_a_file_that_can_not_be_used(both_formats: Path, go: Go) -> None:
    damaged = sorted(both_formats.rglob("*.wav"))[2]
    damaged.write_bytes(b"no audio at all")
    outcome = go(both_formats, corpus="crema-d")
    assert counts(outcome) == (7, 6, 0, 1)
    with FeatureStore(outcome.result["store"]) as store:
        stored = {Path(p).name for p in store.stored_clips["path"]}
    assert {name for name in stored if name.endswith(".mp3")} == {f"{damaged.stem}.mp3"}


def test_item_3_a_store_that_has_both_formats_loses_the_second(
    both_formats: Path, go: Go, tmp_path: Path
) -> None:
    wav = both_formats / "AudioWAV"
    wav.rename(tmp_path / "away")
    assert counts(go(both_formats, corpus="crema-d")) == (6, 6, 0, 0)  # all as MP3
    (tmp_path / "away").rename(wav)
    outcome = go(both_formats, corpus="crema-d")
    assert counts(outcome) == (6, 6, 0, 0)
    with FeatureStore(outcome.result["store"]) as store:
        assert {Path(p).suffix for p in store.stored_clips["path"]} == {".wav"}


def test_item_3_in_a_table_the_sound_decides(both_formats: Path, go: Go) -> None:
    """Names like 1.wav say nothing: what sounds otherwise is another clip."""
    wavs = sorted(both_formats.rglob("*.wav"))
    other = AudioFile(wavs[4]).read().samples
    length = len(AudioFile(wavs[0]).read().samples)
    soundfile.write(
        both_formats / "AudioMP3" / f"{wavs[0].stem}.mp3", np.resize(other, length), SAMPLE_RATE
    )
    files = sorted(path.relative_to(both_formats) for path in both_formats.rglob("*.*"))
    table = both_formats / "mine.csv"
    table.write_text("\n".join(["path,emotion", *(f"{path},sad" for path in files)]))
    outcome = go(None, csv=table)
    assert counts(outcome) == (7, 7, 0, 0)
    with FeatureStore(outcome.result["store"]) as store:
        stored = [Path(p) for p in store.stored_clips["path"]]
    assert [p.stem for p in stored if p.suffix == ".mp3"] == [wavs[0].stem]


# --- ranges of a file --------------------------------------------------------------------------


def test_item_5_ranges_of_a_file_have_the_features_of_files_of_their_own(
    tmp_path: Path, tiny: str
) -> None:
    samples = np.concatenate([AudioFile(path).read().samples for path in DEMO_CLIPS[:4]])
    (tmp_path / "c").mkdir()
    whole = tmp_path / "c" / "dialogue.wav"
    soundfile.write(whole, samples, SAMPLE_RATE, subtype="FLOAT")
    edges = [(None, 1.0), (1.0, 2.5), (2.5, None)]
    cut = []
    for number, (start, end) in enumerate(edges):
        part = slice(round((start or 0) * SAMPLE_RATE), end and round(end * SAMPLE_RATE))
        cut.append(tmp_path / "c" / f"{number}.wav")
        soundfile.write(cut[-1], samples[part], SAMPLE_RATE, subtype="FLOAT")
    clips = [Utterance(whole, "x", "", "", "sad", start=a, end=b) for a, b in edges]
    clips += [Utterance(path, "x", "", "", "sad") for path in cut]
    config = ExtractConfig(features_dir=tmp_path / "f", fill="none", dtype="float32", quiet=True)
    encoder = load_encoder(tiny, backend="torch")
    for wanted in ((6, 6, 0, 0), (6, 0, 6, 0)):
        with Readers(1) as readers:
            listing = Listing("x", tmp_path / "c", tuple(clips))
            result = extract_listing(listing, encoder, config, readers)
        assert counts(Outcome(result)) == wanted
    with FeatureStore(result["store"]) as store:
        rows = store.rows
        order = sorted(
            range(6), key=lambda i: (rows[i].path[0] == "d", rows[i].path, rows[i].start)
        )
        features = store.read(order)
        assert [rows[i].end for i in order] == [0, 0, 0, 1.0, 2.5, 0]
    np.testing.assert_allclose(features[3:], features[:3], rtol=1e-5, atol=1e-5)


# --- not enough memory -------------------------------------------------------------------------

LIMITED = """
import json, logging, resource, sys
from pathlib import Path
import torch
from ser_embed.extract import ExtractConfig, extract
from ser_embed.extract import corpus as module
torch.set_num_threads(1)
logging.basicConfig(level=logging.INFO)
load = module._load

def load_and_limit(config, backend):
    encoder = load(config, backend)
    encoder.encode([torch.randn(16_000).numpy()])  # what it loads late is loaded
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[4]) * 2**20,) * 2)
    return encoder

module._load = load_and_limit
outcome = extract(ExtractConfig(
    csv=Path(sys.argv[1]), encoder=sys.argv[2], features_dir=Path(sys.argv[3]), seconds=0,
    fill="none", backend="torch", workers=0, batch_size=128, quiet=False, trim=False,
))
print(json.dumps(outcome.result))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by its address space")
def test_item_12_out_of_memory_halves_the_batch_and_fails_the_long_clip_alone(
    tmp_path: Path, tiny: str, run: Run, write_tone: WriteTone
) -> None:
    paths = [write_tone(tmp_path / "c" / f"{i:02d}.wav", 10.0, seed=i) for i in range(64)]
    paths.append(write_tone(tmp_path / "c" / "long.wav", 900.0))
    table = tmp_path / "c" / "table.csv"
    table.write_text("\n".join(["path,emotion", *(f"{path.name},sad" for path in paths)]))
    (tmp_path / "limited.py").write_text(LIMITED)
    done = run(
        tmp_path / "limited.py", table, tiny, tmp_path / "f", "160", env={"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["stored"], result["failed"]) == (64, 1), done.stderr
    with FeatureStore(result["store"]) as store:
        reasons = {row.path: row.reason for row in store.rows if row.reason}
    assert set(reasons) == {"long.wav"}
    assert "memory" in reasons["long.wav"]  # its samples, or what the encoder makes of them
    assert "a batch of 64 clips: halved" in done.stderr
