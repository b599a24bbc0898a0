"""The synthetic corpus: bounds, determinism, and the prosody that its classes stand on."""

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_embed import demo
from ser_embed.audio.cutting import SAMPLE_RATE
from ser_embed.corpora import synthesiser

SHIPPED = Path(__file__).parents[2] / "artifacts" / "demo"
KINDS = [("neutral", "normal")] + [
    (emotion, intensity)
    for emotion in synthesiser.EMOTIONS[1:]
    for intensity in synthesiser.INTENSITIES
]


@cache
def clip(emotion: str, intensity: str, statement: int, repetition: int, actor: int) -> np.ndarray:
    return synthesiser.synthesise(emotion, intensity, statement, repetition, actor)


def median_f0(samples: np.ndarray) -> float:
    """Median f0 in Hz over the voiced frames, by autocorrelation."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 800)[::160]
    frames = frames - frames.mean(axis=1, keepdims=True)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048)) ** 2)[:, :230]
    periodicity = correlation[:, 26:] / correlation[:, :1]
    loud = correlation[:, 0] > 0.05 * correlation[:, 0].max()
    voiced = loud & (periodicity.max(axis=1) > 0.5)
    assert voiced.sum() > 5
    return float(np.median(SAMPLE_RATE / (26 + periodicity[voiced].argmax(axis=1))))


def level(samples: np.ndarray) -> float:
    """RMS in dBFS."""
    return float(10 * np.log10(np.mean(samples.astype(np.float64) ** 2)))


def average(measure: Callable[[np.ndarray], float], emotion: str, actor: int) -> float:
    return float(np.mean([measure(clip(emotion, "normal", s, r, actor)) for s in (1, 2)
                          for r in (1, 2)]))  # fmt: skip


@pytest.mark.parametrize(("emotion", "intensity"), KINDS)
@pytest.mark.parametrize("actor", [1, 6])
def test_every_kind_of_clip_is_audio_within_bounds(
    emotion: str, intensity: str, actor: int
) -> None:
    samples = clip(emotion, intensity, 1, 1, actor)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert np.isfinite(samples).all()
    assert 1.5 * SAMPLE_RATE <= len(samples) <= 3.5 * SAMPLE_RATE
    assert np.abs(samples).max() <= 0.8 + 1e-6
    assert -45 < level(samples) < -12
    # The pauses at both ends hold noise, about -60 dBFS, never digital silence.
    for pause in (samples[:1600], samples[-1600:]):
        assert -66 < level(pause) < -54


def test_same_arguments_give_the_same_samples() -> None:
    first = synthesiser.synthesise("happy", "strong", 2, 1, 3, seed=7)
    np.testing.assert_array_equal(first, synthesiser.synthesise("happy", "strong", 2, 1, 3, seed=7))


@pytest.mark.parametrize(
    "other",
    [
        ("sad", "strong", 2, 1, 3, 7),
        ("happy", "normal", 2, 1, 3, 7),
        ("happy", "strong", 1, 1, 3, 7),
        ("happy", "strong", 2, 2, 3, 7),
        ("happy", "strong", 2, 1, 4, 7),
        ("happy", "strong", 2, 1, 3, 8),
    ],
    ids=["emotion", "intensity", "statement", "repetition", "actor", "seed"],
)
def test_every_argument_changes_the_clip(other: tuple[str, str, int, int, int, int]) -> None:
    assert not np.array_equal(
        synthesiser.synthesise("happy", "strong", 2, 1, 3, 7), synthesiser.synthesise(*other)
    )


@pytest.mark.parametrize("actor", synthesiser.ACTORS)
def test_aroused_emotions_are_higher_and_anger_louder_than_sadness(actor: int) -> None:
    sad = average(median_f0, "sad", actor)
    for emotion in ("happy", "angry", "surprised"):
        assert average(median_f0, emotion, actor) > sad * 1.1
    assert average(level, "angry", actor) > average(level, "sad", actor) + 5


def test_female_voices_are_higher_than_male_ones() -> None:
    f0 = {actor: average(median_f0, "neutral", actor) for actor in synthesiser.ACTORS}
    females, males = [f0[a] for a in f0 if a % 2 == 0], [f0[a] for a in f0 if a % 2]
    assert len(females) == len(males) == 3
    assert min(females) > max(males)


def final_rise(emotion: str, intensity: str, actor: int) -> float:
    """F0 of the last 125 ms of speech relative to what lies before the last 0.4 s."""
    samples = clip(emotion, intensity, 1, 1, actor)
    end = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max())[-1]
    return median_f0(samples[end - 2000 : end]) / median_f0(samples[: end - 6400])


def test_surprise_ends_on_a_rise_and_neutral_does_not() -> None:
    assert (
        np.mean([final_rise("surprised", "strong", actor) for actor in synthesiser.ACTORS]) > 1.03
    )
    assert np.mean([final_rise("neutral", "normal", actor) for actor in synthesiser.ACTORS]) < 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bored", "normal", 1, 1, 1), r"emotion 'bored' is none of neutral, calm, happy, sad"),
        (("neutral", "strong", 1, 1, 1), r"intensity of neutral 'strong' is none of normal$"),
        (("happy", "loud", 1, 1, 1), r"'loud' is none of normal, strong"),
        (("happy", "normal", 3, 1, 1), r"statement 3 is none of 1, 2"),
        (("happy", "normal", 1, 0, 1), r"repetition 0 is none of 1, 2"),
        (("happy", "normal", 1, 1, 7), r"actor 7 is none of 1, 2, 3, 4, 5, 6"),
        (("happy", "normal", 1, 1, 1, -1), r"seed -1 is negative"),
    ],
)
def test_bad_arguments_are_named_with_the_valid_ones(
    arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        synthesiser.synthesise(*arguments)


def test_main_writes_the_corpus_and_its_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # One short array in place of 360 syntheses: this is about names and files.
    made: list[tuple[Any, ...]] = []

    def synthesise(*arguments: Any) -> np.ndarray:
        made.append(arguments)
        return np.full(1600, 0.01, dtype=np.float32)

    monkeypatch.setattr(synthesiser, "synthesise", synthesise)
    assert demo.main([str(tmp_path / "new"), "--seed", "5"]) == 0
    names = sorted(path.stem for path in (tmp_path / "new").rglob("*.ogg"))
    assert len(names) == len(set(names)) == len(set(made)) == 360
    assert {arguments[-1] for arguments in made} == {5}
    readme = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert "--seed 5" in readme
    assert "CC0" in readme
    assert "360 clips" in capsys.readouterr().out


def test_main_reports_a_folder_that_can_not_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert demo.main([str(tmp_path / "file")]) == 1
    assert "error:" in capsys.readouterr().err


def test_the_shipped_corpus_is_whole() -> None:
    paths = sorted(SHIPPED.rglob("*.ogg"))
    assert len(paths) == 360
    assert sum(path.stat().st_size for path in paths) < 3_000_000
    kinds: Counter[tuple[str, str]] = Counter()
    for path in paths:
        match = re.fullmatch(r"03-01-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-6])", path.stem)
        assert match, path
        emotion, intensity, _, _, actor = match.groups()
        assert path.parent.name == f"Actor_{actor}"
        kinds[emotion, intensity] += 1
    assert kinds == {
        (
            f"{synthesiser.EMOTIONS.index(e) + 1:02d}",
            f"{synthesiser.INTENSITIES.index(i) + 1:02d}",
        ): 24
        for e, i in KINDS
    }


def test_every_shipped_clip_decodes_at_16_khz() -> None:
    for path in SHIPPED.rglob("*.ogg"):
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == SAMPLE_RATE
        assert samples.ndim == 1
        assert 1.5 * rate <= len(samples) <= 3.5 * rate
        assert np.isfinite(samples).all()
        assert 0.005 < np.abs(samples).max() < 1.0
