"""The speech that encoders are pre-trained on: what is drawn, and what must never be trained on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ser_embed.errors import EncoderError
from ser_embed.pretrain.descriptors import FRAME_NAMES, describe
from ser_embed.pretrain.options import PretrainConfig
from ser_embed.pretrain.speech import MASK_FRAMES, Speech, draw_batch

DRAW = PretrainConfig(roots=(), out=Path(), batch_size=16, seconds=1.0, label_weight=2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_tone: Callable[..., Path]) -> Path:
    """Four unlabelled clips, long and short, and four that nEMO's rule names."""
    root = tmp_path_factory.mktemp("speech")
    for k, seconds in enumerate((0.6, 1.5, 3.0, 5.0)):
        write_tone(root / "free" / f"clip{k}.wav", seconds=seconds, f0=110 + 20 * k, seed=k)
    for k, word in enumerate(("anger", "sadness", "neutral", "anger")):
        write_tone(root / "nemo" / f"AB1_{word}_{k}.wav", seconds=1.2, f0=200, seed=k)
    return root


def test_clips_and_labels(folder: Path) -> None:
    speech = Speech((folder,), ("nemo",), quiet=True)
    assert speech.emotions == ("angry", "neutral", "sad")
    assert sorted(speech.labels) == [-1] * 4 + [0, 0, 1, 2]
    assert speech.hours == pytest.approx((0.6 + 1.5 + 3 + 5 + 4 * 1.2) / 3600)
    assert speech.samples.dtype == np.int16
    assert Speech((folder / "free",), (), quiet=True).emotions == ()


def test_an_evaluation_corpus_is_refused_unless_named(folder: Path) -> None:
    with pytest.raises(EncoderError, match=r"a clip of nemo.*can't be judged.*--labelled nemo"):
        Speech((folder,), (), quiet=True)
    with pytest.raises(EncoderError, match="a clip of nemo"):
        Speech((folder,), ("ravdess",), quiet=True)


def test_the_real_corpora_are_refused(shared: Path) -> None:
    for corpus in ("ravdess", "tess", "urdu"):
        with pytest.raises(EncoderError, match=f"a clip of {corpus}"):
            Speech((shared / "corpora" / corpus,), ("nemo",), quiet=True)


def test_unusable_files_are_left_out_and_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    speech = Speech((folder / "free", tmp_path), (), quiet=True)
    assert len(speech.lengths) == 4
    assert "broken.wav" in caplog.text
    with pytest.raises(EncoderError, match="none of the audio files can be used"):
        Speech((tmp_path,), (), quiet=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match="no audio file in"):
        Speech((tmp_path / "empty",), (), quiet=True)


def test_a_batch_depends_on_seed_and_step_alone(folder: Path) -> None:
    speech = Speech((folder,), ("nemo",), quiet=True)
    first = draw_batch(speech, DRAW, 5)
    draw_batch(speech, DRAW, 6)
    again = draw_batch(speech, DRAW, 5)
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(again, name)), name
    assert not torch.equal(first.clean, draw_batch(speech, DRAW, 6).clean)
    assert not torch.equal(first.clean, draw_batch(speech, replace(DRAW, seed=1), 5).clean)


def test_what_a_batch_holds(folder: Path) -> None:
    speech = Speech((folder,), ("nemo",), quiet=True)
    changed = masked = unmasked = 0
    for step in range(10):
        batch = draw_batch(speech, DRAW, step)
        own = torch.arange(16_000) < batch.lengths[:, None]
        assert batch.clean.shape == batch.input.shape == (16, 16_000)
        assert (batch.lengths >= 0.6 * 0.84 * 16_000).all()
        for waves in (batch.clean, batch.input):
            assert not waves[~own].any()
            power = (waves.square().sum(1) / batch.lengths).numpy()
            np.testing.assert_allclose(power, 1, rtol=1e-2)
        same = (batch.clean - batch.input).abs().amax(1) < 1e-3
        changed += int((~same).sum())
        assert batch.masked.shape == (16, 49)
        masked += int(batch.masked.sum())
        unmasked += int((~batch.masked.any(1)).sum())
    assert 0.5 < changed / 160 < 0.85  # 1 - 0.7 * 0.8 * 0.6 = 0.66
    assert 0.2 < masked / (160 * 49) < 0.4
    assert 0.2 < unmasked / 160 < 0.5


def test_masked_spans(folder: Path) -> None:
    masked = draw_batch(Speech((folder,), ("nemo",), quiet=True), DRAW, 0).masked
    for row in masked:
        edges = np.diff(np.concatenate([[0], row.int().numpy(), [0]]))
        lengths = np.flatnonzero(edges < 0) - np.flatnonzero(edges > 0)
        # Only the clip's end cuts a span short.
        assert all(n >= MASK_FRAMES for n in lengths[:-1])


def test_labelled_clips_are_drawn_more_often(folder: Path) -> None:
    speech = Speech((folder,), ("nemo",), quiet=True)

    def share(weight: float) -> float:
        draw = replace(DRAW, label_weight=weight)
        labels = torch.cat([draw_batch(speech, draw, step).labels for step in range(25)])
        return float((labels >= 0).float().mean())

    assert share(8.0) > share(1.0) + 0.2


def test_a_faster_clip_has_a_higher_pitch(folder: Path, write_tone: Callable[..., Path]) -> None:
    write_tone(folder / "one" / "clip.wav", seconds=2.0, f0=150)
    speech = Speech((folder / "one",), (), quiet=True)
    batch = draw_batch(speech, replace(DRAW, batch_size=96), 0)
    found = describe(batch.clean, batch.lengths)
    column = FRAME_NAMES.index("log_f0")
    pitches = found.values[:, 5:-5, column].median(1).values.exp()
    factors = sorted({round(float(pitch) / 150, 2) for pitch in pitches})
    assert len(factors) >= 5
    assert 0.83 < factors[0] < 0.87
    assert 1.15 < factors[-1] < 1.2
