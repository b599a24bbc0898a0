"""Disturbances: within their ranges, from the seed alone, and on training clips alone."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_endtoend import CLASSES, tiny_encoder

from ser_embed.audio import AudioFile
from ser_embed.corpora.labels import LabelScheme
from ser_embed.corpora.listing import read_demo
from ser_embed.errors import CorpusError, LabelError, MissingExtra, SerEmbedError, StoreError
from ser_embed.extract.encoding import spread
from ser_embed.finetune.network import build_network
from ser_embed.finetune.recipes import RECIPES, Augmentation, fill_in
from ser_embed.finetune.recordings import (
    Collator,
    Recordings,
    Waveforms,
    make_augment,
    training_data,
)
from ser_embed.store.settings import FeatureSettings

ALL = ("noise", "pitch", "stretch", "mask")


def tone(seconds: float = 2.0, pitch: float = 200.0) -> np.ndarray:
    time = np.arange(round(16_000 * seconds)) / 16_000
    return (0.3 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def drawn(kind: Any, n: int = 40, **more: Any) -> list[np.ndarray]:
    """Disturb one tone n times."""
    augment = make_augment(Augmentation((kind,), **more))
    return [augment(tone(), [0, i]) for i in range(n)]


def test_noise_has_the_published_amplitudes() -> None:
    spreads = np.array([np.std(told - tone()) for told in drawn("noise", probability=1.0)])
    assert (spreads > 0.0009).all()
    assert (spreads < 0.0155).all()
    assert np.ptp(spreads) > 0.008


def test_speech_is_stretched_within_the_published_rates() -> None:
    rates = np.array([len(tone()) / len(told) for told in drawn("stretch", probability=1.0)])
    assert rates.min() > 0.79
    assert rates.max() < 1.26
    assert np.ptp(rates) > 0.25


def loudest(samples: np.ndarray) -> float:
    """Frequency in Hz of the highest peak, to about 2 Hz."""
    inner = samples[4000:-4000]
    spectrum = np.abs(np.fft.rfft(inner * np.hanning(len(inner)), 16_000))
    return float(np.argmax(spectrum))


def test_pitch_is_shifted_within_four_semitones() -> None:
    shifts = np.array([
        12 * np.log2(loudest(told) / 200) for told in drawn("pitch", probability=1.0)
    ])  # fmt: skip
    assert (np.abs(shifts) < 4.2).all()
    assert shifts.min() < -2
    assert shifts.max() > 2


def test_each_happens_half_of_the_time() -> None:
    for kind in ALL:
        changed = sum(not np.array_equal(told, tone()) for told in drawn(kind, 100))
        assert 32 <= changed <= 68, kind


def test_the_same_seed_disturbs_alike_and_nothing_else_is_drawn_from() -> None:
    augment = make_augment(Augmentation(ALL, probability=0.9))
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = augment(tone(), [1, 2, 3])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    random.seed(5)
    np.testing.assert_array_equal(augment(tone(), [1, 2, 3]), first)
    other = augment(tone(), [1, 3, 3])
    assert len(other) != len(first) or not np.array_equal(other, first)


def test_a_range_that_makes_no_sense_is_an_error() -> None:
    with pytest.raises(SerEmbedError, match=r"augmentation: .*rate"):
        make_augment(Augmentation(("stretch",), stretch=(1.3, 0.8)))


def test_a_clip_of_a_moment_survives() -> None:
    augment = make_augment(Augmentation(ALL, probability=1.0))
    for i in range(20):
        assert len(augment(tone(0.025), [i])) >= 400


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "audiomentations", None)
    with pytest.raises(MissingExtra, match=r"pip install 'ser_embed\[finetune\]'"):
        make_augment(Augmentation(("noise",)))


# --- recordings ------------------------------------------------------------------------------

SETTINGS = FeatureSettings(
    encoder="tiny", weights="0", layer=2, pool="mean", norm="none", trim=True, seconds=1.5,
    fill="none", dtype="float32", precision="fp32", seed=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def clips() -> Recordings:
    listing = read_demo()
    few = spread(listing.utterances, 40)
    return Recordings.read(
        type(listing)(listing.corpus, listing.root, few), LabelScheme.load("emotion8"), SETTINGS,
        trained=True, workers=0, quiet=True,
    )  # fmt: skip


def test_an_undisturbed_waveform_is_what_extraction_reads(clips: Recordings) -> None:
    assert len(clips.table) == 40
    assert clips.demo
    for row in (0, 17, 39):
        path = clips.root / clips.table["path"][row]
        expected = AudioFile(path).read(1.5, True).fit(1.5, "none", 0)
        np.testing.assert_array_equal(clips.waveform(row), expected)


def test_a_disturbance_depends_on_clip_seed_and_epoch(clips: Recordings) -> None:
    augment = make_augment(Augmentation(("noise", "stretch"), probability=1.0))
    first = clips.waveform(3, augment, epoch=1)
    np.testing.assert_array_equal(clips.waveform(3, augment, epoch=1), first)
    for other in (clips.waveform(3, augment, epoch=2), clips.waveform(4, augment, epoch=1)):
        assert len(other) != len(first) or not np.array_equal(other, first)
    assert len(first) <= 24_000  # cut after it was stretched


@pytest.mark.parametrize("workers", [0, 1])
def test_training_data_by_batch(clips: Recordings, workers: int, tmp_path: Path) -> None:
    network = build_network("mlp", str(tiny_encoder(tmp_path)), CLASSES, 0.0, seed=0)
    augment = make_augment(Augmentation(("noise",), probability=1.0))
    rows = np.array([5, 2, 30, 7])
    for reader, epoch in ((Waveforms(clips, None), 0), (Waveforms(clips, augment), 3)):
        data = training_data(clips, rows, reader)
        reader.epoch = epoch  # set after the dataset was made, as the Trainer's callback does
        loader = torch.utils.data.DataLoader(
            data, batch_size=2, collate_fn=Collator(network), num_workers=workers
        )
        batches = list(loader)
        labels = torch.cat([batch["labels"] for batch in batches])
        assert labels.tolist() == clips.table["label"].to_numpy()[rows].tolist()
        for number, row in enumerate(rows):
            expected = clips.waveform(int(row), reader.augment, epoch)
            expected = (expected - expected.mean()) / np.sqrt(expected.var() + 1e-7)
            got = batches[number // 2]["input_values"][number % 2].numpy()
            np.testing.assert_allclose(got[: len(expected)], expected, atol=1e-6)
            assert not got[len(expected) :].any()


def test_clips_that_cannot_be_used_are_told(
    tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    from ser_embed.corpora.listing import read_corpus

    write_tone(tmp_path / "03-01-01-01-01-01-01.wav")
    (tmp_path / "03-01-02-01-01-01-01.wav").write_bytes(b"")
    write_tone(tmp_path / "copy/03-01-01-01-01-01-01.wav")
    write_tone(tmp_path / "03-01-03-01-01-01-01.wav", f0=300)
    listing = read_corpus(tmp_path, "ravdess")
    scheme = LabelScheme.load("emotion8")
    told = Recordings.read(listing, scheme, SETTINGS, trained=True, workers=0, quiet=True)
    assert len(told.table) == 2  # the copy is the same clip
    assert [(path.name, reason) for path, reason in told.faults] == [
        ("03-01-02-01-01-01-01.wav", "the file is empty")
    ]
    (tmp_path / "03-01-01-01-01-01-01.wav").write_bytes(b"")
    (tmp_path / "03-01-03-01-01-01-01.wav").write_bytes(b"")
    (tmp_path / "copy/03-01-01-01-01-01-01.wav").unlink()
    with pytest.raises(CorpusError, match="none of its 4 clips can be used"):
        Recordings.read(listing, scheme, SETTINGS, trained=True, workers=0, quiet=True)


# --- recipes ---------------------------------------------------------------------------------


def test_the_published_values() -> None:
    """As the sources print them."""
    crema, ravdess, mlp = RECIPES["crema21"], RECIPES["ravdess8"], RECIPES["mlp4"]
    assert (crema.lr, crema.batch_size, crema.epochs, crema.weight_decay) == (1e-5, 4, 15, 0.01)
    assert (crema.seconds, crema.eval_steps, crema.precision) == (5.0, 500, "fp32")
    assert crema.augment == ("noise", "pitch", "stretch")
    told = Augmentation(crema.augment)
    assert (told.noise, told.pitch, told.stretch) == ((0.001, 0.015), 4.0, (0.8, 1.25))
    assert told.probability == 0.5
    assert (ravdess.lr, ravdess.batch_size, ravdess.accumulate) == (1e-4, 4, 2)
    assert (ravdess.epochs, ravdess.schedule, ravdess.seed) == (3, "linear", 42)
    assert (ravdess.eval_steps, ravdess.precision) == (30, "auto")
    assert (mlp.seconds, mlp.network, mlp.labels) == (6.0, "mlp", "emotion4")
    assert (mlp.lr, mlp.batch_size, mlp.epochs, mlp.weight_decay) == (1e-4, 32, 30, 0.01)
    assert mlp.dropout == 0.3


def test_what_is_given_takes_the_place_of_the_recipe() -> None:
    recipe = fill_in(RECIPES["crema21"], {"lr": 2e-5, "epochs": None, "split": "random"})
    assert recipe.lr == 2e-5
    assert recipe.epochs == 15


def test_an_emotion_without_a_name_is_an_error(tmp_path: Path) -> None:
    from ser_embed.corpora.listing import read_csv

    (tmp_path / "x.csv").write_text("path,emotion\na.wav,gloomy\n")
    (tmp_path / "labels.csv").write_text("emotion,label\nsad,sad\nangry,angry\n")
    for scheme, error in (("emotion8", StoreError), (str(tmp_path / "labels.csv"), LabelError)):
        with pytest.raises(error, match="gloomy"):
            Recordings.read(read_csv(tmp_path / "x.csv"), LabelScheme.load(scheme), SETTINGS,
                            trained=True, workers=0, quiet=True)  # fmt: skip


def test_a_file_name_that_is_no_text(tmp_path: Path, write_tone: Callable[..., Path]) -> None:
    """Hugging Face datasets, and pandas beside them, hold text that is UTF-8 alone."""
    import os

    from ser_embed.corpora.listing import read_corpus

    for emotion in ("01", "03"):
        write_tone(tmp_path / f"made/03-01-{emotion}-01-01-01-01.wav")
    (tmp_path / "made").rename(tmp_path / os.fsdecode(b"\xe9t\xe9"))
    listing = read_corpus(tmp_path, "ravdess")
    told = Recordings.read(
        listing, LabelScheme.load("emotion8"), SETTINGS, trained=True, workers=0, quiet=True
    )
    data = training_data(told, np.array([1]), Waveforms(told, None))
    assert len(data[0]["waveform"]) == 16_000


def test_importing_the_extras_waits_until_they_are_needed() -> None:
    code = "import sys, ser_embed.finetune; " + "; ".join(
        f"assert {name!r} not in sys.modules" for name in ("audiomentations", "datasets")
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
