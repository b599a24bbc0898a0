"""Each condition does what it says, measured on the signal and in the coded bytes."""

import io
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from ser_embed.audio.conditions import CONDITIONS, encode_mp3
from ser_embed.audio.cutting import SAMPLE_RATE, trim_silence
from ser_embed.audio.decoding import AudioFile, load_audio
from ser_embed.audio.resampling import resample
from ser_embed.bundled import DEMO_CORPUS

# Kilobits per second by index in the header of an MPEG-2 layer III frame (ISO/IEC 13818-3).
MPEG2_LAYER3 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return load_audio(AudioFile.find(DEMO_CORPUS)[0])


def disturb(name: str, samples: np.ndarray, seed: int = 0) -> tuple[np.ndarray, int]:
    return CONDITIONS[name].disturb(samples, np.random.default_rng(seed))


def decibels(ratio: float) -> float:
    return 10 * float(np.log10(ratio))


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_gives_finite_mono_and_depends_on_its_seed_alone(
    name: str, speech: np.ndarray
) -> None:
    before = speech.copy()
    samples, rate = disturb(name, speech)
    assert np.array_equal(speech, before)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert np.isfinite(samples).all()
    assert np.array_equal(samples, disturb(name, speech)[0])
    assert rate == (8000 if name == "telephone" else SAMPLE_RATE)
    if name == "clean":
        assert np.array_equal(samples, speech)
    else:
        assert not np.array_equal(samples, speech)


def test_there_is_what_was_asked_for() -> None:
    descriptions = " ".join(one.description for one in CONDITIONS.values())
    for words in ("20 dB", "10 dB", "0 dB", "300 to 3400 Hz, 8 kHz", "MP3, 32 kbit/s",
                  "reverberation", "gain", "1 s", "2 s"):  # fmt: skip
        assert words in descriptions
    assert next(iter(CONDITIONS)) == "clean"


@pytest.mark.parametrize("wanted", [20, 10, 0])
def test_noise_lies_so_far_below_the_speech(wanted: int, speech: np.ndarray) -> None:
    padded = np.concatenate([np.zeros(16_000, np.float32), speech])  # silence changes nothing
    for samples in (speech, padded):
        noise = disturb(f"noise{wanted}", samples)[0].astype(np.float64) - samples
        power = np.mean(trim_silence(samples).astype(np.float64) ** 2)
        assert decibels(power / np.mean(noise**2)) == pytest.approx(wanted, abs=0.3)
        spectrum = scipy.signal.welch(noise, SAMPLE_RATE)[1][2:-2]
        assert spectrum.max() / spectrum.min() < 4  # white


@pytest.mark.parametrize(
    ("hertz", "passes"), [(100, False), (180, False), (500, True), (1000, True), (3000, True),
                          (3800, False), (5000, False)],
)  # fmt: skip
def test_a_telephone_passes_its_band(hertz: float, passes: bool) -> None:
    time = np.arange(16_000) / SAMPLE_RATE
    tone = (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)
    output, rate = disturb("telephone", tone)
    assert len(output) == 8_000
    gain = decibels(np.mean(resample(output, rate)[2000:14000] ** 2) / np.mean(tone**2))
    assert gain > -1 if passes else gain < -12


@pytest.mark.parametrize("kilobits", [16, 32, 64])
def test_mp3_has_its_bit_rate_in_every_frames_header(kilobits: int, speech: np.ndarray) -> None:
    data = encode_mp3(speech, kilobits)
    place = data.index(b"\xff\xf3")  # MPEG-2, layer III, no checksum
    frames = 0
    while place + 4 <= len(data) and data[place] == 0xFF:
        rate = MPEG2_LAYER3[data[place + 2] >> 4]
        assert rate == kilobits
        assert (data[place + 2] >> 2) & 3 == 2  # 16 kHz
        place += 72 * rate * 1000 // SAMPLE_RATE + ((data[place + 2] >> 1) & 1)
        frames += 1
    assert frames == pytest.approx(len(speech) / 576, abs=5)


def test_mp3_still_holds_the_speech(speech: np.ndarray) -> None:
    output, _ = disturb("mp3", speech)
    whole = soundfile.read(io.BytesIO(encode_mp3(speech, 32)))[0]
    assert len(output) == len(whole)
    match = scipy.signal.correlate(output, speech, "full")
    norm = np.sqrt((output**2).sum() * (speech**2).sum())
    assert 0.8 < match.max() / norm < 0.9999


def test_reverberation_decays_by_60_db_in_its_time() -> None:
    click = np.zeros(16_000, np.float32)
    click[0] = 1.0
    response = disturb("reverberation", click)[0].astype(np.float64)
    response /= response[0]
    assert np.sum(response[1:] ** 2) == pytest.approx(1, abs=0.01)  # as strong as the direct sound
    left = np.cumsum(response[:0:-1] ** 2)[::-1]  # Schroeder's backward integration
    curve = 10 * np.log10(left / left[0])
    place = np.searchsorted(-curve, [5, 25])
    slope = 20 / (place[1] - place[0]) * SAMPLE_RATE  # dB per second
    assert 60 / slope == pytest.approx(0.6, rel=0.1)


def test_reverberation_keeps_the_level(speech: np.ndarray) -> None:
    output, _ = disturb("reverberation", speech)
    ratio = np.mean(output[: len(speech)] ** 2) / np.mean(speech**2)
    assert ratio == pytest.approx(1, rel=1e-3)
    assert not np.array_equal(output, disturb("reverberation", speech, seed=1)[0])  # another room


def test_gain_changes_the_level_and_clips(speech: np.ndarray) -> None:
    assert disturb("quiet", speech)[0] == pytest.approx(speech / 10, rel=1e-5)
    loud, _ = disturb("loud", speech)
    assert loud == pytest.approx(np.clip(10 * speech, -1, 1), rel=1e-5)


@pytest.mark.parametrize("seconds", [1, 2])
def test_short_clips_start_with_the_speech(seconds: int, speech: np.ndarray) -> None:
    late = np.concatenate([np.zeros(16_000, np.float32), speech, speech, speech])
    output, _ = disturb(f"first{seconds}", late)
    assert len(output) == seconds * SAMPLE_RATE
    windows = np.lib.stride_tricks.sliding_window_view(late, 1_600)
    start = int(np.flatnonzero((windows == output[:1_600]).all(1))[0])
    assert np.array_equal(late[start : start + len(output)], output)
    assert 16_000 - 1_600 < start < 16_000 + len(speech) // 2  # the second of silence is gone


def test_the_real_corpora_can_be_disturbed_too(shared: Path) -> None:
    for corpus in ("ravdess", "tess", "urdu"):
        samples = load_audio(AudioFile.find(shared / "corpora" / corpus)[0])
        for name in CONDITIONS:
            assert np.isfinite(disturb(name, samples)[0]).all()
