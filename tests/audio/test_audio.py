"""Audio against independent oracles: scipy, analytic sines, hashlib, the official files."""

import hashlib
import os
import re
import shutil
import struct
import time
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from math import ceil, gcd
from pathlib import Path
from subprocess import CompletedProcess
from typing import get_args

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
import torchaudio.functional
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_embed.audio.constants import AUDIO_ENDINGS, CLIP_SECONDS, FillRule
from ser_embed.audio.cutting import SAMPLE_RATE, Clip, fit_length, frame_power, trim_silence
from ser_embed.audio.decoding import AudioFile, load_audio
from ser_embed.audio.resampling import Resampler, resample, to_mono
from ser_embed.corpora import __main__ as corpora
from ser_embed.errors import AudioError

RATES = [8_000, 11_025, 22_050, 24_414, 32_000, 44_100, 48_000, 96_000, 192_000]
FILL_RULES = get_args(FillRule)
DRIFTING = {24_414}  # its ratio is rounded, by less than 1e-6


def sine(frequency: float, rate: int, seconds: float = 3.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


# --- resampling ------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
def test_a_sine_is_the_same_sine_at_16_khz(rate: int) -> None:
    resampled = resample(sine(440, rate).astype(np.float32), rate)
    assert resampled.dtype == np.float32
    assert resampled.shape == (48_000,)
    inner = slice(200, -200)
    error = np.abs(resampled - sine(440, SAMPLE_RATE))[inner].max()
    assert error < (6e-3 if rate in DRIFTING else 1e-3)


@pytest.mark.parametrize("rate", RATES)
def test_resampling_agrees_with_scipys(rate: int) -> None:
    noise = np.random.default_rng(rate).standard_normal(2 * rate)
    speech_band = scipy.signal.butter(8, 3000, fs=rate, output="sos")
    samples = scipy.signal.sosfiltfilt(speech_band, noise).astype(np.float32)
    common = gcd(rate, SAMPLE_RATE)
    reference = scipy.signal.resample_poly(
        samples.astype(np.float64), SAMPLE_RATE // common, rate // common
    )
    resampled = resample(samples, rate)
    assert resampled.shape == reference.shape
    inner = slice(500, -500)
    error = np.linalg.norm((resampled - reference)[inner]) / np.linalg.norm(reference[inner])
    assert error < (0.01 if rate in DRIFTING else 0.005)


@pytest.mark.parametrize("rate", [*RATES, 5_512, 47_999])
def test_resampling_is_torchaudios_within_float32_rounding(rate: int) -> None:
    """Stores made with torchaudio's name the same method."""
    samples = np.random.default_rng(rate).uniform(-1, 1, 3 * rate + 17).astype(np.float32)
    ratio = Fraction(rate, SAMPLE_RATE).limit_denominator(1000)
    expected = torchaudio.functional.resample(
        torch.from_numpy(samples), ratio.numerator, ratio.denominator
    ).numpy()
    resampled = resample(samples, rate)
    np.testing.assert_allclose(resampled, expected[: len(resampled)], rtol=0, atol=1e-6)
    assert len(expected) * (1 - 6e-4) <= len(resampled) <= len(expected)


@pytest.mark.parametrize("rate", [rate for rate in RATES if rate > 2 * SAMPLE_RATE // 1.4])
def test_what_lies_above_8_khz_is_filtered_out_before_decimation(rate: int) -> None:
    resampled = resample(sine(11_000, rate, 1.0).astype(np.float32), rate)
    assert np.abs(resampled[200:-200]).max() < 0.006  # -44 dB


def test_16_khz_is_left_as_it_is() -> None:
    samples = sine(440, SAMPLE_RATE).astype(np.float32)
    np.testing.assert_array_equal(resample(samples, SAMPLE_RATE), samples)


@settings(database=None, deadline=None, derandomize=True, max_examples=30)
@given(rate=st.integers(4_000, 192_000), n=st.integers(400, 4_000))
def test_any_rate_gives_the_length_it_should(rate: int, n: int) -> None:
    resampled = resample(np.ones(n, dtype=np.float32), rate)
    ideal = n * SAMPLE_RATE / rate
    assert ideal * (1 - 6e-4) - 1 <= len(resampled) <= ceil(ideal)


def test_tess_own_rate_costs_milliseconds() -> None:
    # Its exact ratio, 12207/8000, takes a filter of 8000 x 12225 taps: seconds and 2 GB.
    samples = sine(440, 24_414).astype(np.float32)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        resample(samples, 24_414)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.5


# --- channels --------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(channels)
    samples = rng.uniform(-0.5, 0.5, (8_000, channels)).astype(np.float32)
    path = tmp_path / "clip.wav"
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    clip = AudioFile(path).read()
    assert clip.samples.shape == (8_000,)
    assert clip.samples.dtype == np.float32
    assert (clip.rate, clip.channels) == (SAMPLE_RATE, channels)
    np.testing.assert_allclose(clip.samples, samples.astype(np.float64).mean(axis=1), atol=1e-7)
    np.testing.assert_array_equal(clip.samples, to_mono(samples))


def test_one_channel_may_come_without_an_axis() -> None:
    samples = np.linspace(-1, 1, 500)
    mono = to_mono(samples)
    assert mono.dtype == np.float32
    np.testing.assert_array_equal(mono, samples.astype(np.float32))


def test_8_channels_at_96_khz_are_a_clip_like_any_other(
    tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    clip = AudioFile(write_tone(tmp_path / "clip.wav", seconds=3.5, rate=96_000, channels=8)).read(
        3.0
    )
    assert clip.samples.shape == (48_000,)
    assert (clip.rate, clip.channels, clip.seconds) == (96_000, 8, 3.5)


# --- the first three seconds -----------------------------------------------------------------


def test_the_papers_clip_is_48_000_samples() -> None:
    assert CLIP_SECONDS * SAMPLE_RATE == 48_000


SOUNDFILE_KINDS = {
    ".opus": {"format": "OGG", "subtype": "OPUS"}, ".oga": {"format": "OGG"},
    ".aif": {"format": "AIFF"}, ".aifc": {"format": "AIFF"}, ".snd": {"format": "AU"},
    ".sph": {"format": "NIST"},
}  # fmt: skip
MEDIA_KINDS = {  # container, codec, rate (0: any) and bits per second, as FFmpeg names them
    ".3gp": ("3gp", "aac", 0, 64_000), ".3g2": ("3g2", "aac", 0, 64_000),
    ".aac": ("adts", "aac", 0, 64_000), ".ac3": ("ac3", "ac3", 48_000, 96_000),
    ".amr": ("amr", "libopencore_amrnb", 8_000, 12_200),
    ".awb": ("amr", "libopencore_amrnb", 8_000, 12_200), ".avi": ("avi", "pcm_s16le", 0, 0),
    ".flv": ("flv", "aac", 44_100, 64_000), ".m4a": ("ipod", "aac", 0, 64_000),
    ".m4b": ("ipod", "alac", 0, 0), ".m4v": ("mp4", "aac", 0, 64_000),
    ".mka": ("matroska", "flac", 0, 0), ".mkv": ("matroska", "libopus", 48_000, 64_000),
    ".mov": ("mov", "aac", 0, 64_000), ".mp4": ("mp4", "aac", 0, 64_000),
    ".mp2": ("mp2", "mp2", 0, 64_000),
    ".mpeg": ("mpeg", "mp2", 48_000, 128_000), ".mpg": ("mpeg", "mp2", 48_000, 128_000),
    ".tta": ("tta", "tta", 0, 0), ".weba": ("webm", "libopus", 48_000, 64_000),
    ".webm": ("webm", "libopus", 48_000, 64_000), ".wma": ("asf", "wmav2", 44_100, 96_000),
    ".wmv": ("asf", "wmav2", 44_100, 96_000), ".wv": ("wv", "wavpack", 0, 0),
}  # fmt: skip


def write_media(path: Path, samples: np.ndarray, rate: int, kind: str = "") -> Path:
    """Write mono samples as phones and cameras do, with FFmpeg's encoders."""
    av = pytest.importorskip("av")
    container, codec, its_rate, bits = MEDIA_KINDS[kind or path.suffix]
    with av.open(str(path), "w", format=container) as file:
        track = file.add_stream(codec, rate=its_rate or rate, layout="mono")
        if bits:
            track.bit_rate = bits
        track.open()
        size = track.codec_context.frame_size or 1024
        convert = av.AudioResampler(track.format, "mono", its_rate or rate, size)
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "flt", "mono")
        frame.sample_rate, frame.pts = rate, 0
        for converted in [*convert.resample(frame), *convert.resample(None)]:
            file.mux(track.encode(converted))
        file.mux(track.encode(None))
    return path


def write_kind(path: Path, samples: np.ndarray, rate: int) -> Path:
    if path.suffix in MEDIA_KINDS:
        return write_media(path, samples, rate)
    soundfile.write(path, samples, rate, **SOUNDFILE_KINDS.get(path.suffix, {}))
    return path


@pytest.mark.parametrize("ending", sorted({*AUDIO_ENDINGS} - {".ape"}))  # nothing writes .ape
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_the_first_part_is_kept(
    tmp_path: Path, write_tone: Callable[..., Path], ending: str, rate: int
) -> None:
    samples, _ = soundfile.read(write_tone(tmp_path / "tone.wav", seconds=5, rate=rate))
    path = write_kind(tmp_path / f"clip{ending}", samples, rate)
    first = load_audio(path, 3.0)
    assert first.shape == (48_000,)
    assert first.dtype == np.float32
    # Lossy decoders carry state, but the same bytes decode to the same samples.
    np.testing.assert_allclose(first, load_audio(str(path))[:48_000], atol=1e-6)
    clip = AudioFile(path).read(3.0)
    assert clip.seconds == pytest.approx(5, abs=0.15)
    assert clip.seconds == AudioFile(path).read().seconds == AudioFile(path).duration()
    np.testing.assert_array_equal(clip.samples, first)


# --- phones and films (item 6) ---------------------------------------------------------------


def speechlike(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """Noise of speech's band whose loudness goes up and down like syllables."""
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    band = scipy.signal.butter(4, (200, 2500), "bandpass", fs=rate, output="sos")
    swell = 0.2 + np.abs(np.sin(2 * np.pi * 1.7 * np.arange(len(noise)) / rate))
    return (0.2 * swell * scipy.signal.sosfilt(band, noise)).astype(np.float32)


@pytest.mark.parametrize("ending", sorted({*AUDIO_ENDINGS} - {".ape"}))
def test_item_6_every_kind_of_file_holds_what_was_said(tmp_path: Path, ending: str) -> None:
    said = speechlike(4.0, 16_000)
    path = write_kind(tmp_path / f"clip{ending}", said, 16_000)
    assert AudioFile.find(tmp_path) == [path]
    read = load_audio(path)
    lags = scipy.signal.correlate(read, said)
    n = min(len(read), len(said))
    best = np.abs(lags).max() / np.sqrt(np.sum(read[:n] ** 2) * np.sum(said[:n] ** 2))
    assert best > 0.8  # noise is what codecs of speech and music are worst at
    assert abs(np.abs(lags).argmax() - (len(said) - 1)) <= 0.08 * 16_000  # an encoder's delay


@pytest.mark.parametrize("kind", [".m4a", ".webm", ".amr", ".wma", ".flv", ".aac"])
def test_item_6_a_film_by_another_ending_is_known_by_its_bytes(tmp_path: Path, kind: str) -> None:
    path = write_media(tmp_path / "renamed.wav", speechlike(2.0, 16_000), 16_000, kind)
    assert AudioFile(path).read().seconds == pytest.approx(2, abs=0.15)


WITHOUT_PYAV = """
import sys
sys.modules["av"] = None
from ser_embed.audio import AudioFile
from ser_embed.errors import AudioError
try:
    AudioFile(sys.argv[1]).read()
except AudioError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", [".m4a", ".webm", ".amr"])
def test_item_6_without_pyav_the_remedy_is_named(
    tmp_path: Path, run: Callable[..., CompletedProcess[str]], kind: str
) -> None:
    path = write_media(tmp_path / f"clip{kind}", speechlike(2.0, 16_000), 16_000)
    done = run("-c", WITHOUT_PYAV, path)
    assert done.stdout.startswith(f"{path}: "), done.stderr
    assert "pip install 'ser_embed[media]'" in done.stdout


def test_item_6_a_film_without_sound_says_so(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as file:
        track = file.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        for _ in range(5):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            file.mux(track.encode(picture))
        file.mux(track.encode(None))
    with pytest.raises(AudioError, match=r"silent\.mp4: has no sound track"):
        load_audio(path)


@pytest.mark.parametrize("kind", [".m4a", ".mp4", ".webm", ".wma", ".amr", ".aac", ".tta", ".wv"])
def test_item_6_what_is_no_film_or_half_a_film_is_reported(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"clip{kind}"
    path.write_text("I am no film\n" * 50)
    with pytest.raises(AudioError, match=r"can't be decoded \(.*is it really audio"):
        load_audio(path)
    write_media(path, speechlike(20.0, 16_000), 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"cut short|can't be decoded"):
        load_audio(path)


def test_item_6_a_list_of_addresses_opens_nothing(tmp_path: Path) -> None:
    secret = write_media(tmp_path / "secret.aac", speechlike(2.0, 16_000), 16_000)
    path = tmp_path / "list.m4a"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{secret}\n#EXT-X-ENDLIST\n")
    with pytest.raises(AudioError, match="can't be decoded"):
        load_audio(path)


# --- ranges (item 5) -------------------------------------------------------------------------


RANGED = [".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm", ".aac", ".amr", ".mkv"]


@pytest.mark.parametrize("ending", RANGED)
@pytest.mark.parametrize(("start", "end"), [(None, 2.5), (7.25, 9.5), (14.75, None), (3.0, 3.5)])
def test_item_5_a_range_is_that_part_of_the_whole(
    tmp_path: Path, ending: str, start: float | None, end: float | None
) -> None:
    path = write_kind(tmp_path / f"clip{ending}", speechlike(20.0, 16_000), 16_000)
    whole, clip = AudioFile(path).read(), AudioFile(path).read(start=start, end=end)
    first = round((start or 0) * 16_000)
    expected = whole.samples[first : None if end is None else round(end * 16_000)]
    # A last cycle of the resampler, and time stamps of whole milliseconds (Matroska).
    assert abs(len(clip.samples) - len(expected)) <= 16
    assert clip.seconds == pytest.approx(len(expected) / 16_000, abs=0.01)
    assert clip.sha256 == whole.sha256
    n = min(len(clip.samples), len(expected)) - 100
    shifts = range(-16, 17) if ending in (".webm", ".mkv") else [0]
    errors = [
        np.abs(clip.samples[50:n] - whole.samples[first + 50 + i : first + n + i]).max()
        for i in shifts
    ]
    assert min(errors) < 2e-3


@pytest.mark.parametrize("rate", [16_000, 24_414, 44_100, 48_000])
@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("seconds", [0.0, 1.0, 3.0])
def test_item_5_a_range_is_read_like_a_file_of_its_own(
    tmp_path: Path, rate: int, trim: bool, seconds: float
) -> None:
    samples = speechlike(30.0, rate)
    samples[12 * rate : 13 * rate] *= 1e-4
    soundfile.write(tmp_path / "long.wav", samples, rate, subtype="FLOAT")
    first, last = round(12.1 * rate), round(20.3 * rate)
    soundfile.write(tmp_path / "cut.wav", samples[first:last], rate, subtype="FLOAT")
    ranged = AudioFile(tmp_path / "long.wav").read(seconds, trim, start=12.1, end=20.3)
    own = AudioFile(tmp_path / "cut.wav").read(seconds, trim)
    np.testing.assert_allclose(ranged.samples, own.samples, atol=1e-6)
    assert ranged.seconds == own.seconds


def test_item_5_a_range_outside_the_file_is_named(
    tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    clip = AudioFile(write_tone(tmp_path / "clip.wav", seconds=10))
    assert clip.read(start=8, end=10.4).seconds == 2  # times in tables are rounded
    with pytest.raises(AudioError, match=r"8 s to 12 s exceeds .*, which ends at 10\.00 s"):
        clip.read(start=8, end=12)
    with pytest.raises(AudioError, match=r"11 s to its end exceeds .* at 10\.00 s"):
        clip.read(start=11)
    for start, end in ((3, 3), (5, 2), (-1, 2), (float("nan"), 2)):
        with pytest.raises(AudioError, match="is no range of time"):
            clip.read(start=start, end=end)
    media = AudioFile(write_media(tmp_path / "a.aac", speechlike(10, 16_000), 16_000))
    with pytest.raises(AudioError, match=r"to 12 s exceeds the file, which ends at 10\.\d\d s"):
        media.read(start=8, end=12)
    with pytest.raises(AudioError, match=r"14 s to 16 s exceeds .* at 10\.\d\d s"):
        media.read(start=14, end=16)


def test_item_5_what_lies_outside_a_range_is_not_looked_at(tmp_path: Path) -> None:
    samples = 0.1 * sine(220, 16_000, 9.0)
    samples[:48_000] = samples[96_000:] = np.nan
    soundfile.write(tmp_path / "clip.wav", samples, 16_000, subtype="FLOAT")
    assert AudioFile(tmp_path / "clip.wav").read(start=3, end=6).samples.shape == (48_000,)


@pytest.mark.parametrize("rate", [24_414, 44_100, 96_000])
def test_reading_a_part_changes_nothing_in_it(
    tmp_path: Path, write_tone: Callable[..., Path], rate: int
) -> None:
    path = write_tone(tmp_path / "clip.flac", seconds=4, rate=rate)
    np.testing.assert_allclose(load_audio(path, 3.0), load_audio(path)[:48_000], atol=1e-6)


def test_nothing_beyond_what_is_needed_is_looked_at(tmp_path: Path) -> None:
    samples = np.concatenate([0.1 * sine(220, 16_000, 4.0), np.full(16_000, np.nan)])
    path = tmp_path / "clip.wav"
    soundfile.write(path, samples.astype(np.float32), 16_000, subtype="FLOAT")
    assert load_audio(path, 3.0).shape == (48_000,)
    with pytest.raises(AudioError, match="not finite"):
        load_audio(path)


def test_ten_minutes_never_stand_in_memory_for_three_seconds(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    block = (0.1 * sine(220, 16_000, 60.0)).astype(np.float32)
    with soundfile.SoundFile(path, "w", 16_000, 1, subtype="PCM_16") as file:
        for _ in range(10):
            file.write(block)
    load_audio(path, 3.0)
    tracemalloc.start()
    try:
        clip = AudioFile(path).read(3.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert clip.seconds == 600
    assert clip.samples.shape == (48_000,)
    assert peak < 4 * 2**20 < path.stat().st_size


@settings(deadline=None)
@given(st.sampled_from(RATES), st.lists(st.integers(0, 30_000), max_size=20), st.integers(0, 9))
def test_a_stream_is_resampled_like_the_whole(rate: int, lengths: list[int], seed: int) -> None:
    stream = np.random.default_rng(seed).standard_normal(sum(lengths)).astype(np.float32)
    resampler, blocks, at = Resampler(rate), [], 0
    for n in lengths:
        blocks.append(resampler.push(stream[at : at + n]))
        at += n
    found = np.concatenate([*blocks, resampler.finish()])
    expected = resample(stream, rate) if len(stream) else stream
    assert abs(len(found) - len(expected)) <= (2 if rate in DRIFTING else 0)
    n = min(len(found), len(expected))
    np.testing.assert_allclose(found[:n], expected[:n], atol=2e-5)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seconds", [0.3, 1.0, 60.0])
def test_blocks_are_the_whole_file(
    tmp_path: Path, write_tone: Callable[..., Path], rate: int, seconds: float
) -> None:
    path = write_tone(tmp_path / "tone.wav", seconds=3.21, rate=rate, channels=2)
    blocks = list(AudioFile(path).blocks(seconds))
    assert len(blocks) >= min(4, 4 / seconds)
    whole, streamed = load_audio(path), np.concatenate(blocks)
    assert streamed.dtype == np.float32
    assert abs(len(streamed) - len(whole)) <= (2 if rate in DRIFTING else 0)
    n = min(len(whole), len(streamed))
    np.testing.assert_allclose(streamed[:n], whole[:n], atol=2e-6)
    assert AudioFile(path).duration() == pytest.approx(3.21, abs=1e-4)


def test_an_hour_never_stands_in_memory_whole(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(60):
            file.write(np.full(60 * 16_000, 0.1, dtype=np.float32))
    tracemalloc.start()
    n = sum(len(block) for block in AudioFile(path).blocks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 3600 * 16_000
    assert peak < 10e6, "20 s are 1.3 MB of float32, an hour would be 230 MB"


def test_a_shorter_clip_comes_as_long_as_it_is(
    tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    path = write_tone(tmp_path / "clip.wav", seconds=1.25)
    assert load_audio(path, 3.0).shape == load_audio(path).shape == (20_000,)


# --- the hash --------------------------------------------------------------------------------


def test_the_hash_is_hashlibs(tmp_path: Path, write_tone: Callable[..., Path]) -> None:
    path = write_tone(tmp_path / "clip.wav", seconds=40)  # more than one block of 1 MiB
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert AudioFile(path).sha256() == AudioFile(path).read(3.0).sha256 == expected


def test_hashing_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav: No such file"):
        AudioFile(tmp_path / "gone.wav").sha256()


# --- clip length -----------------------------------------------------------------------------


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


SHORT = np.random.default_rng(1).standard_normal(20_000).astype(np.float32)


@pytest.mark.parametrize("fill", FILL_RULES)
def test_a_long_clip_keeps_its_first_part(fill: FillRule) -> None:
    samples = np.arange(60_000, dtype=np.float32)
    np.testing.assert_array_equal(fit_length(samples, 3.0, fill, rng()), samples[:48_000])
    np.testing.assert_array_equal(fit_length(samples[:48_000], 3.0, fill, rng()), samples[:48_000])
    np.testing.assert_array_equal(fit_length(samples, 0.0, fill, rng()), samples)


@pytest.mark.parametrize("fill", FILL_RULES)
@settings(database=None, deadline=None, derandomize=True, max_examples=40)
@given(n=st.integers(1, 3_000), seconds=st.sampled_from([0.01, 0.1, 0.125]))
def test_every_rule_gives_the_length_and_begins_with_the_clip(
    fill: FillRule, n: int, seconds: float
) -> None:
    samples = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    fitted, wanted = fit_length(samples, seconds, fill, rng()), round(seconds * SAMPLE_RATE)
    assert fitted.dtype == np.float32
    assert len(fitted) == (min(n, wanted) if fill == "none" else wanted)
    kept = min(n, wanted)
    np.testing.assert_array_equal(fitted[:kept], samples[:kept])


def test_sample_fills_with_samples_of_the_clip_at_random() -> None:
    fitted = fit_length(SHORT, 3.0, "sample", rng())
    tail = fitted[len(SHORT) :]
    assert np.isin(tail, SHORT).all()
    # Drawn evenly and independently: 28,000 draws from 20,000 reach 1 - exp(-1.4) of them.
    assert len(np.unique(tail)) / len(SHORT) == pytest.approx(1 - np.exp(-1.4), abs=0.02)
    assert abs(np.corrcoef(tail[1:], tail[:-1])[0, 1]) < 0.03
    assert tail.std() == pytest.approx(SHORT.std(), rel=0.03)


def test_repeat_fills_with_the_clip_again() -> None:
    expected = np.concatenate([SHORT, SHORT, SHORT])[:48_000]
    np.testing.assert_array_equal(fit_length(SHORT, 3.0, "repeat", rng()), expected)


def test_zero_fills_with_zeros_and_none_with_nothing() -> None:
    padded = fit_length(SHORT, 3.0, "zero", rng())
    np.testing.assert_array_equal(padded, np.pad(SHORT, (0, 28_000)))
    np.testing.assert_array_equal(fit_length(SHORT, 3.0, "none", rng()), SHORT)


def test_an_unknown_rule_lists_the_known_ones() -> None:
    with pytest.raises(AudioError, match="'mirror' is none of sample, repeat, zero, none"):
        fit_length(SHORT, 3.0, "mirror", rng())  # type: ignore[arg-type]


def test_random_fill_depends_on_the_bytes_and_the_seed_alone() -> None:
    clip = Clip(SHORT, hashlib.sha256(b"one").hexdigest(), 1.25)
    other = Clip(SHORT, hashlib.sha256(b"two").hexdigest(), 1.25)
    fitted = clip.fit(3.0, "sample", seed=0)
    np.testing.assert_array_equal(fitted, clip.fit(3.0, "sample", seed=0))
    assert not np.array_equal(fitted, other.fit(3.0, "sample", seed=0))
    assert not np.array_equal(fitted, clip.fit(3.0, "sample", seed=1))
    # Stores rely on this formula: it may not change without a new key.
    drawn = np.random.default_rng([0, int(clip.sha256[:16], 16)]).integers(0, 20_000, 28_000)
    np.testing.assert_array_equal(fitted[20_000:], SHORT[drawn])


# --- silence ---------------------------------------------------------------------------------


def with_silence(before: float, after: float, noise: float = 1e-4) -> np.ndarray:
    """One second of tone between two silences that are not quite digital."""
    tone = 0.3 * np.sin(2 * np.pi * 200 * np.arange(16_000) / 16_000)
    parts = np.zeros(round(before * 16_000)), tone, np.zeros(round(after * 16_000))
    samples = np.concatenate(parts)
    return (samples + noise * rng().standard_normal(len(samples))).astype(np.float32)


def test_silence_around_speech_is_cut() -> None:
    samples = with_silence(0.8, 0.5)
    trimmed = trim_silence(samples)
    # 60 ms stay on either side, and a 20 ms frame that the tone only touches.
    assert 16_000 + 2 * 960 - 320 <= len(trimmed) <= 16_000 + 2 * 1280
    assert np.shares_memory(trimmed, samples)
    start = (trimmed.ctypes.data - samples.ctypes.data) // 4
    assert 0.8 * 16_000 - 1280 <= start <= 0.8 * 16_000 - 640


def test_pauses_inside_and_sound_to_the_edges_stay() -> None:
    pause = np.concatenate([with_silence(0.5, 0.4), with_silence(0.4, 0.5)])
    assert len(trim_silence(pause)) == pytest.approx(2.8 * 16_000, abs=3 * 1280)
    full = with_silence(0, 0)[:15_999]  # not a whole number of frames
    np.testing.assert_array_equal(trim_silence(full), full)
    for n in (0, 1, 319, 320):
        assert len(trim_silence(full[:n])) == n
    np.testing.assert_array_equal(trim_silence(np.zeros(1000, np.float32)), np.zeros(1000))


@given(
    st.integers(400, 4000), st.integers(0, 2**32 - 1), st.floats(0.001, 1000),
)  # fmt: skip
def test_trimming_twice_or_louder_is_trimming_once(n: int, seed: int, gain: float) -> None:
    generator = np.random.default_rng(seed)
    envelope = 10.0 ** generator.uniform(-4, 0, -(-n // 200)).repeat(200)[:n]
    samples = (generator.standard_normal(n) * envelope).astype(np.float32)
    once = trim_silence(samples)
    assert len(once) >= min(n, 320)
    assert len(trim_silence(samples * np.float32(gain))) == len(once)


def test_a_trimmed_clip_starts_where_speech_does(tmp_path: Path) -> None:
    """The first three seconds are counted from there, and only as much is decoded as needed."""
    path = tmp_path / "late.wav"
    soundfile.write(path, with_silence(4.0, 1.0), 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"no speech in the first 3 s: sound begins at 3\.9 s"):
        AudioFile(path).read(3.0)
    clip = AudioFile(path).read(3.0, trim=True)
    assert np.abs(clip.samples[1600:15_000]).max() > 0.2
    assert len(clip.samples) < 1.2 * 16_000
    assert clip.seconds == 6.0
    np.testing.assert_array_equal(clip.samples, AudioFile(path).read(0.0, trim=True).samples)
    half = AudioFile(path).read(0.5, trim=True)
    np.testing.assert_array_equal(half.samples, clip.samples[:8000])


@pytest.mark.parametrize("gap", [0.0, 1.0, 8.0, 20.0])
@pytest.mark.parametrize("seconds", [0.0, 3.0])
@pytest.mark.parametrize("n_clicks", [1, 3])
def test_item_15_a_click_before_quiet_speech_cuts_nothing_away(
    tmp_path: Path, gap: float, seconds: float, n_clicks: int
) -> None:
    speech = speechlike(2.5, 16_000)
    speech *= 10 ** (-44 / 20) / np.sqrt(frame_power(speech).max())
    click = np.sign(rng().standard_normal(400)).astype(np.float32)  # 25 ms at full scale
    clicks = np.concatenate([np.r_[click, np.zeros(1_600)] for _ in range(n_clicks)])
    noise = 1e-5 * rng().standard_normal(round(gap * 16_000) + 8_000)
    samples = np.concatenate([clicks, noise, speech, noise[:8_000]]).astype(np.float32)
    start = len(clicks) + len(noise)
    assert start <= len(samples) - len(trim_silence(samples[start:])) <= len(samples)
    path = tmp_path / "click.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    for clip in (AudioFile(path).read(seconds, trim=True), Clip.of(samples, seconds, trim=True)):
        # What trimming leaves of the same speech without a click is all there.
        alone = AudioFile.read(write_wav(tmp_path / "alone.wav", samples[start - 8_000 :]), 3, True)
        at = scipy.signal.correlate(clip.samples, alone.samples, "valid").argmax()
        n = len(alone.samples)
        np.testing.assert_allclose(clip.samples[at : at + n], alone.samples[:n], atol=1e-6)


def write_wav(path: Path, samples: np.ndarray) -> AudioFile:
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    return AudioFile(path)


def test_item_15_a_knock_as_loud_as_the_speech_is_no_clip_of_its_own(tmp_path: Path) -> None:
    knock = 0.3 * np.hanning(800) * rng().standard_normal(800)
    samples = np.concatenate([knock, np.zeros(5 * 16_000), speechlike(2.5, 16_000)])
    samples = samples.astype(np.float32)
    clip = write_wav(tmp_path / "knock.wav", samples).read(3.0, trim=True)
    at = np.flatnonzero(clip.samples)[0]
    assert 960 <= at <= 1_280
    np.testing.assert_array_equal(clip.samples[at:40_000], samples[80_800:][: 40_000 - at])


def test_item_15_speech_of_a_tenth_of_a_second_is_no_click() -> None:
    word = 0.5 * sine(200, 16_000, 0.1)
    for noise in (0.0, 1e-5):
        samples = np.concatenate([np.zeros(16_000), word, np.zeros(16_000)])
        samples = (samples + noise * rng().standard_normal(len(samples))).astype(np.float32)
        assert np.abs(trim_silence(samples)).max() > 0.49
        assert len(trim_silence(samples)) < 5_000


@pytest.mark.parametrize("noise", [0.0, 1e-5, 1e-4])
@pytest.mark.parametrize("silence", [12.0, 15.0, 100.0])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_item_14_speech_after_any_silence_is_found(
    tmp_path: Path, silence: float, noise: float, rate: int
) -> None:
    said = speechlike(4.0, rate)
    samples = np.concatenate([np.zeros(round(silence * rate)), said])
    samples = (samples + noise * rng().standard_normal(len(samples))).astype(np.float32)
    path = tmp_path / "late.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    expected = resample(said, rate)
    for clip in (AudioFile(path).read(3.0, True), Clip.of(resample(samples, rate), 3.0, True)):
        assert len(clip.samples) == 48_000
        lags = scipy.signal.correlate(clip.samples[:16_000], expected[:16_000])
        assert 0 <= lags.argmax() - 15_999 <= 1_300  # 60 ms, and a frame that it only touches
        assert (
            np.corrcoef(clip.samples[1_280:], expected[1_280 - lags.argmax() + 15_999 :][:46_720])[
                0, 1
            ]
            > 0.99
        )
    with pytest.raises(AudioError, match=r"no speech in the first 3 s: sound begins at \d+\.\d s"):
        AudioFile(path).read(3.0)
    assert AudioFile(path).read(3.0, True).seconds == pytest.approx(silence + 4)
    assert AudioFile(path).read(silence + 3).samples.any()


def test_item_14_a_click_in_the_silence_isnt_the_speech(tmp_path: Path) -> None:
    samples = np.concatenate([np.zeros(15 * 16_000), speechlike(4.0, 16_000)])
    samples[32_000:32_400] = 0.9
    clip = write_wav(tmp_path / "late.wav", samples.astype(np.float32)).read(3.0, trim=True)
    np.testing.assert_allclose(clip.samples[960:], samples[240_000:287_040], atol=1e-6)


def test_item_14_a_quiet_recording_is_no_silence(tmp_path: Path) -> None:
    """Nothing louder comes later, so that it is what there is."""
    samples = 1e-3 * speechlike(30.0, 16_000)
    clip = write_wav(tmp_path / "quiet.wav", samples)
    for trim in (False, True):
        np.testing.assert_allclose(clip.read(3.0, trim).samples, samples[:48_000], atol=1e-9)
    silent = write_wav(tmp_path / "silent.wav", np.zeros(30 * 16_000, dtype=np.float32))
    for trim in (False, True):
        with pytest.raises(AudioError, match="digital silence"):
            silent.read(3.0, trim)


def test_item_14_an_hour_of_silence_never_stands_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(60):
            file.write(np.zeros(60 * 16_000, dtype=np.float32))
        file.write(speechlike(3.0, 16_000))
    tracemalloc.start()
    try:
        clip = AudioFile(path).read(3.0, trim=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.abs(clip.samples).max() > 0.1
    assert peak < 25e6, "an hour would be 230 MB"


# --- channels that cancel (item 14) ----------------------------------------------------------

CANCELLING = {  # what the channels are of a sound x and noise n that is 50 dB below
    "reversed": lambda x, n: [x, -x],
    "nearly": lambda x, n: [x, -0.98 * x + n],
    "with noise": lambda x, n: [x + n, -x + np.roll(n, 7)],
    "with an offset": lambda x, n: [x + 0.05, -x + 0.05],
    "three": lambda x, n: [x, -0.5 * x, -0.5 * x],
    "two pairs": lambda x, n: [x, -x, n, -n],
}


@pytest.mark.parametrize("kind", CANCELLING)
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_item_14_of_channels_that_cancel_one_is_taken(tmp_path: Path, kind: str, rate: int) -> None:
    said = speechlike(60.0, rate)
    noise = 10 ** (-50 / 20) * said.std() * rng().standard_normal(len(said))
    channels = np.stack(CANCELLING[kind](said, noise), axis=1).astype(np.float32)
    soundfile.write(tmp_path / "clip.wav", channels, rate, subtype="FLOAT")
    for seconds in (0.0, 3.0):
        clip = AudioFile(tmp_path / "clip.wav").read(seconds)
        expected = resample(channels[:, 0].copy(), rate)[: len(clip.samples)]
        np.testing.assert_allclose(clip.samples[:-50], expected[:-50], atol=1e-5)
    blocks = np.concatenate(list(AudioFile(tmp_path / "clip.wav").blocks(0.5)))
    np.testing.assert_allclose(blocks, resample(channels[:, 0].copy(), rate), atol=1e-5)


def test_item_14_channels_that_dont_cancel_are_averaged() -> None:
    generator = rng()
    x, y = speechlike(5.0, 16_000), speechlike(5.0, 16_000, seed=1)
    for channels in (
        [x, y],
        [x, 0 * x],
        [x, -0.4 * x],
        [x, -0.5 * x + y],
        [x, x],
        [x] * 3 + [y] * 5,
    ):
        stereo = np.stack(channels, axis=1).astype(np.float32)
        np.testing.assert_allclose(to_mono(stereo), stereo.mean(axis=1), atol=1e-6)
    many = generator.standard_normal((16_000, 8)).astype(np.float32)
    np.testing.assert_allclose(to_mono(many), many.mean(axis=1), atol=1e-6)


# --- folders ---------------------------------------------------------------------------------


def test_audio_is_found_in_any_nesting_and_case(tmp_path: Path) -> None:
    names = ["b.WAV", "a/deep/c.Flac", "a/d.mp3", "a.ogg", "z z/é.OPUS"]
    for name in [*names, "a/notes.txt", "wav", "a/._d.mp3", "b.wav.part", ".new/e.wav"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    found = AudioFile.find(tmp_path)
    assert found == sorted(tmp_path / name for name in names)
    assert AudioFile.find(tmp_path / "b.WAV") == [tmp_path / "b.WAV"]
    assert AudioFile.find(tmp_path / "wav") == []
    with pytest.raises(AudioError, match="nowhere: no such folder or file"):
        AudioFile.find(tmp_path / "nowhere")


# --- bad input -------------------------------------------------------------------------------

LFS_POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    f"oid sha256:{hashlib.sha256(b'').hexdigest()}\nsize 72862\n"
)


def write_samples(path: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    soundfile.write(path, samples.astype(np.float32), rate, subtype="FLOAT")


def with_a_bad_sample(value: float) -> np.ndarray:
    samples = 0.1 * sine(220, 16_000, 1.0)
    samples[8_000] = value
    return samples


def write_cut(path: Path, ending: str, fraction: float) -> None:
    whole = path.with_name(f"whole{ending}")
    soundfile.write(whole, 0.1 * sine(220, 16_000, 3.0), 16_000)
    content = whole.read_bytes()
    path.write_bytes(content[: round(fraction * len(content))])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("I am not audio\n" * 50), "is it really audio"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 40), "is it really audio"),
    "lfs pointer": (lambda path: path.write_text(LFS_POINTER), "git-lfs pointer.*'git lfs pull'"),
    "zero length": (lambda path: path.write_bytes(b""), "the file is empty"),
    "header alone": (lambda path: write_samples(path, np.zeros(0)), "holds no samples"),
    "half a header": (lambda path: write_cut(path, ".wav", 0.0002), "is it really audio"),
    "wav cut short": (
        lambda path: write_cut(path, ".wav", 0.5),
        r"cut short: the header promises 3\.00 s and 1\.50 s are there; copy or download it again",
    ),
    "flac cut short": (lambda path: write_cut(path, ".flac", 0.5), "is it really audio"),
    "mp3 cut short": (
        lambda path: write_cut(path, ".mp3", 0.5),
        r"promises 3\.00 s and \d\.\d\d s",
    ),
    "ogg cut short": (lambda path: write_cut(path, ".ogg", 0.5), "is it really audio"),
    "399 samples": (
        lambda path: write_samples(path, 0.1 * sine(220, 16_000)[: Clip.MIN_SAMPLES - 1]),
        "399 samples at 16 kHz; an encoder needs at least 400",
    ),
    "1190 samples at 48 kHz": (
        lambda path: write_samples(path, 0.1 * sine(220, 48_000)[:1190], 48_000),
        "397 samples at 16 kHz",
    ),
    "silence": (lambda path: write_samples(path, np.zeros(16_000)), "digital silence"),
    "nan": (lambda path: write_samples(path, with_a_bad_sample(np.nan)), "not finite"),
    "infinity": (lambda path: write_samples(path, with_a_bad_sample(np.inf)), "not finite"),
    "a rate of 1 Hz": (lambda path: write_samples(path, sine(1, 4000), 1), "1 Hz, which no"),
    "a rate of 8 MHz": (
        lambda path: write_samples(path, sine(1, 4000), 8_388_795),
        "8388795 Hz, which no recording",
    ),
    "vanished": (lambda path: None, "No such file or directory"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
}


@pytest.mark.parametrize("seconds", [0.0, 3.0])
@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_named_with_its_reason(tmp_path: Path, kind: str, seconds: float) -> None:
    make, reason = BAD[kind]
    path = tmp_path / "03-01-01-01-01-01-01.wav"
    make(path)
    with pytest.raises(AudioError, match=reason) as caught:
        load_audio(path, seconds)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


@pytest.mark.parametrize("kind", [kind for kind in BAD if "samples" not in kind])
def test_blocks_of_bad_input_end_with_the_same_reason(tmp_path: Path, kind: str) -> None:
    make, reason = BAD[kind]
    path = tmp_path / "bad.wav"
    make(path)
    if kind == "silence":  # a long recording may well be silent for the length of a block
        assert not np.concatenate(list(AudioFile(path).blocks(0.5))).any()
        return
    with pytest.raises(AudioError, match=reason) as caught:
        list(AudioFile(path).blocks(0.5))
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("kind", [kind for kind in BAD if kind not in ("vanished", "a folder")])
def test_the_command_lists_every_bad_clip_and_keeps_the_good_one(
    tmp_path: Path, write_tone: Callable[..., Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    BAD[kind][0](tmp_path / "SM1_F1_A001.wav")
    for left_over in tmp_path.glob("whole*"):
        left_over.unlink()
    write_tone(tmp_path / "SM1_F1_A002.wav")
    assert corpora.main([str(tmp_path), "--corpus", "urdu"]) == 3
    table = capsys.readouterr().out
    assert "clips        1" in table
    assert re.search(rf"SM1_F1_A001\.wav: .*{BAD[kind][1]}", table)


def test_the_real_lfs_pointer_is_recognised(shared: Path) -> None:
    with pytest.raises(AudioError, match="git lfs pull"):
        load_audio(shared / "corpora" / "cremad" / "lfs_pointer_example.wav")


def test_400_samples_are_enough(tmp_path: Path) -> None:
    write_samples(tmp_path / "clip.wav", 0.1 * sine(220, 16_000)[: Clip.MIN_SAMPLES])
    assert load_audio(tmp_path / "clip.wav").shape == (400,)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_wav_from_a_pipe_is_as_long_as_it_is(
    tmp_path: Path, write_tone: Callable[..., Path], size: int
) -> None:
    # The writer couldn't know the length and couldn't come back to state it.
    path = write_tone(tmp_path / "clip.wav")
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"data") + 4, size)
    struct.pack_into("<I", content, 4, 0xFFFFFFFF)
    path.write_bytes(content)
    for seconds in (0.0, 3.0):
        clip = AudioFile(path).read(seconds)
        assert (len(clip.samples), clip.seconds) == (16_000, 1.0)


def test_a_header_that_promises_a_little_too_much_is_forgiven(
    tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    path = write_tone(tmp_path / "clip.wav")
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"data") + 4, 32_000 + 44)
    path.write_bytes(content)
    assert AudioFile(path).read().samples.shape == (16_000,)


def test_a_cut_beyond_what_is_needed_does_no_harm(
    tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    path = write_tone(tmp_path / "clip.wav", seconds=8)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 16_000 * 5])
    assert AudioFile(path).read(3.0).samples.shape == (48_000,)
    with pytest.raises(AudioError, match=r"promises 8\.00 s and 5\.00 s are there"):
        AudioFile(path).read()


def test_a_flac_that_does_not_state_its_length_is_read_to_its_end(
    tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    path = write_tone(tmp_path / "clip.flac", seconds=20)
    stated = AudioFile(path).read()
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    content[22:26] = bytes(4)
    path.write_bytes(content)
    clip = AudioFile(path).read()
    np.testing.assert_array_equal(clip.samples, stated.samples)
    assert clip.seconds == AudioFile(path).read(3.0).seconds == AudioFile(path).duration() == 20
    part = AudioFile(path).read(start=5, end=6.5)
    np.testing.assert_array_equal(part.samples, stated.samples[80_000:104_000])


# --- bounded decoding (item 12) --------------------------------------------------------------


@pytest.mark.parametrize("claim", [2**36 - 1, 2**35, 2**31])
@pytest.mark.parametrize("seconds", [0.0, 3.0])
@pytest.mark.parametrize("trim", [False, True])
def test_item_12_a_flac_that_claims_days_takes_no_memory(
    tmp_path: Path, write_tone: Callable[..., Path], claim: int, seconds: float, trim: bool
) -> None:
    path = write_tone(tmp_path / "clip.flac", seconds=5)
    content = bytearray(path.read_bytes())
    content[21] = content[21] & 0xF0 | claim >> 32
    content[22:26] = (claim & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(AudioError, match=r"the header promises .* (can't hold|are there)"):
            AudioFile(path).read(seconds, trim)
        with pytest.raises(AudioError, match="the header promises"):
            list(AudioFile(path).blocks())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6


def test_item_12_25_minutes_whole_take_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    minute = np.repeat(speechlike(60.0, 48_000)[:, None], 2, axis=1)
    with soundfile.SoundFile(path, "w", 48_000, 2, subtype="PCM_16") as file:
        for _ in range(25):
            file.write(minute)
    tracemalloc.start()
    try:
        clip = AudioFile(path).read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert clip.seconds == 1500
    assert clip.samples.nbytes == 1500 * 16_000 * 4
    assert peak < 1.3 * clip.samples.nbytes + 40e6, "decoded at once it was 576 MB and more"


LIMITED = """
import resource, sys
from ser_embed.audio import AudioFile
from ser_embed.errors import AudioError
import soundfile, numpy
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]), -1))
try:
    print(len(AudioFile(sys.argv[1]).read().samples))
except AudioError as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
@pytest.mark.parametrize(("limit", "expected"), [(2**28, "24000000"), (2**26, "more memory than")])
def test_item_12_25_minutes_under_a_memory_limit(
    tmp_path: Path, run: Callable[..., CompletedProcess[str]], limit: int, expected: str
) -> None:
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 16_000, 1, subtype="PCM_16") as file:
        for _ in range(25):
            file.write(speechlike(60.0, 16_000))
    done = run("-c", LIMITED, path, limit)
    assert expected in done.stdout, done.stderr


# --- headers that lie (item 13) --------------------------------------------------------------


def variable_mp3(path: Path, rate: int, loud_first: bool, tag: bool = False) -> Path:
    """Write 30 s as MP3 of variable bit rate, without the frame that counts the others."""
    halves = [0.3 * rng().standard_normal(20 * rate), np.zeros(10 * rate)]
    samples = np.concatenate(halves if loud_first else halves[::-1]).clip(-1, 1)
    soundfile.write(path, samples, rate, bitrate_mode="VARIABLE", compression_level=0.3)
    if not tag:
        content = path.read_bytes()
        path.write_bytes(content[content.index(content[:2], 60) :])
    return path


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("loud_first", [False, True])
@pytest.mark.parametrize("before", [b"", b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)])
def test_item_13_an_mp3_that_doesnt_count_is_read_to_its_end(
    tmp_path: Path, rate: int, loud_first: bool, before: bytes
) -> None:
    tagged = variable_mp3(tmp_path / "tagged.mp3", rate, loud_first, tag=True)
    path = variable_mp3(tmp_path / "plain.mp3", rate, loud_first)
    path.write_bytes(before + path.read_bytes() + b"TAG" + bytes(125))
    whole, expected = AudioFile(path).read(), AudioFile(tagged).read().samples
    assert whole.seconds == pytest.approx(30, abs=0.11)  # a codec's delay isn't known either
    assert AudioFile(path).duration() == whole.seconds
    delay = scipy.signal.correlate(whole.samples, expected, method="fft").argmax()
    delay -= len(expected) - 1
    n = len(expected) - 2_000
    found = whole.samples[delay : delay + n]
    assert np.corrcoef(found, expected[:n])[0, 1] > 0.99
    part = AudioFile(path).read(start=20.5, end=21.5) if not loud_first else None
    if part:
        np.testing.assert_allclose(part.samples[50:-50], whole.samples[328_050:343_950], atol=1e-3)


def test_item_13_two_mp3s_in_one_are_both_read(tmp_path: Path) -> None:
    one = variable_mp3(tmp_path / "one.mp3", 16_000, True, tag=True).read_bytes()
    (tmp_path / "two.mp3").write_bytes(one + one)
    assert AudioFile(tmp_path / "two.mp3").read().seconds == pytest.approx(60, abs=0.3)


@pytest.mark.parametrize("ending", [".ogg", ".opus", ".oga"])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_item_13_a_truncated_ogg_is_refused(
    tmp_path: Path, ending: str, fraction: float, seconds: float
) -> None:
    path = write_kind(tmp_path / f"clip{ending}", speechlike(30.0, 16_000), 16_000)
    content = path.read_bytes()
    assert AudioFile(path).read().seconds == 30
    path.write_bytes(content[: round(fraction * len(content))])
    with pytest.raises(AudioError, match=r"cut short: .* copy or download it again"):
        AudioFile(path).read(seconds)
    path.write_bytes(content[: content.rindex(b"OggS")])  # whole pages, but not the last
    with pytest.raises(AudioError, match="cut short"):
        AudioFile(path).read(seconds)


@pytest.mark.parametrize("ending", [".aiff", ".au", ".w64", ".rf64", ".caf", ".flac", ".mp3"])
def test_item_13_a_truncated_file_of_any_kind_is_refused(tmp_path: Path, ending: str) -> None:
    path = write_kind(tmp_path / f"clip{ending}", speechlike(30.0, 16_000), 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"cut short|can't be decoded"):
        AudioFile(path).read()


@pytest.mark.parametrize("riff", [0, 36, 8, 0xFFFFFFFF])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_item_13_a_wav_that_was_never_finished_is_read(
    tmp_path: Path, write_tone: Callable[..., Path], riff: int, rate: int
) -> None:
    path = write_tone(tmp_path / "clip.wav", seconds=5, rate=rate)
    expected = AudioFile(path).read()
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"data") + 4, 0)
    struct.pack_into("<I", content, 4, riff)
    path.write_bytes(content)
    for seconds in (0.0, 3.0):
        clip = AudioFile(path).read(seconds)
        n = len(clip.samples)
        np.testing.assert_allclose(clip.samples[:-50], expected.samples[: n - 50], atol=1e-6)
        assert clip.seconds == 5
    np.testing.assert_array_equal(
        AudioFile(path).read(start=2, end=3).samples, expected_range(tmp_path, content, rate)
    )


def expected_range(folder: Path, content: bytes, rate: int) -> np.ndarray:
    samples = np.frombuffer(bytes(content[content.index(b"data") + 8 :]), np.int16)
    soundfile.write(folder / "range.wav", samples[2 * rate : 3 * rate], rate)
    return load_audio(folder / "range.wav")


def test_item_13_an_empty_wav_with_a_remark_behind_stays_empty(tmp_path: Path) -> None:
    write_samples(tmp_path / "empty.wav", np.zeros(0))
    content = (tmp_path / "empty.wav").read_bytes()
    remark = b"LIST" + struct.pack("<I", 18) + b"INFOISFT" + struct.pack("<I", 6) + b"writer"
    (tmp_path / "empty.wav").write_bytes(content + remark)
    with pytest.raises(AudioError, match="holds no samples"):
        load_audio(tmp_path / "empty.wav")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits to take away")
def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, write_tone: Callable[..., Path], run: Callable[..., CompletedProcess[str]]
) -> None:
    write_tone(tmp_path / "open.wav")
    write_tone(tmp_path / "locked.wav").chmod(0)
    tmp_path.chmod(0o755)
    # Root reads everything, so the check is made as nobody. Paths are relative because nobody
    # may not walk through the folders above.
    script = """
import os, sys
from pathlib import Path
from ser_embed import load_audio
from ser_embed.errors import AudioError
os.chdir(sys.argv[1])
if os.getuid() == 0:
    os.setuid(65534)
print(len(load_audio(Path("open.wav"))))
try:
    load_audio(Path("locked.wav"))
except AudioError as error:
    print(error)
"""
    done = run("-c", script, tmp_path)
    assert done.stdout.splitlines() == ["16000", "locked.wav: Permission denied"], done.stderr


# --- the official files ----------------------------------------------------------------------

ORIGINALS = {  # rate and channels of the official wav, and how near our own 16 kHz copy is
    "ravdess/Actor_01/03-01-01-01-01-01-01.wav": (48_000, 1, 0.999),
    "ravdess/Actor_01/03-01-02-01-01-02-01.wav": (48_000, 2, 0.999),
    "ravdess/Actor_02/03-01-05-02-02-02-02.wav": (48_000, 1, 0.999),
    "ravdess/Actor_02/03-01-08-01-01-01-02.wav": (48_000, 1, 0.999),
    "tess/OAF_Fear/OAF_back_fear.wav": (24_414, 1, 0.99),  # the copy is lossy
    "tess/OAF_Fear/OAF_food_fear.wav": (96_000, 1, 0.99),
    "tess/YAF_happy/YAF_ring_happy.wav": (24_414, 1, 0.99),
    "urdu/Angry/SM4_F2_A054.wav": (44_100, 1, 0.999),
}


def test_the_list_of_originals_is_whole(shared: Path) -> None:
    folder = shared / "corpora" / "originals"
    assert {path.relative_to(folder).as_posix() for path in AudioFile.find(folder)} == set(
        ORIGINALS
    )


@pytest.mark.parametrize("name", ORIGINALS)
def test_an_official_file_is_nearly_its_16_khz_copy(shared: Path, name: str) -> None:
    rate, channels, correlation = ORIGINALS[name]
    original = AudioFile(shared / "corpora" / "originals" / name).read()
    (copy,) = (shared / "corpora" / name).parent.glob(f"{Path(name).stem}.*")
    resampled = load_audio(copy)
    assert (original.rate, original.channels) == (rate, channels)
    assert abs(len(original.samples) - len(resampled)) <= 2
    n = min(len(original.samples), len(resampled))
    assert np.corrcoef(original.samples[:n], resampled[:n])[0, 1] > correlation
    assert original.samples.std() == pytest.approx(resampled.std(), rel=0.02)
    assert original.seconds == pytest.approx(len(resampled) / SAMPLE_RATE, abs=1e-3)


def test_a_clip_that_is_renamed_is_the_same_clip(shared: Path, tmp_path: Path) -> None:
    source = shared / "corpora" / "originals" / "urdu" / "Angry" / "SM4_F2_A054.wav"
    copy = tmp_path / "renamed.WAV"
    shutil.copyfile(source, copy)
    first, second = AudioFile(source).read(4.0), AudioFile(copy).read(4.0)
    assert first.sha256 == second.sha256
    np.testing.assert_array_equal(first.fit(4.0, "sample", 3), second.fit(4.0, "sample", 3))


LIGHT = """
import sys
from pathlib import Path
from ser_embed.audio import AudioFile
AudioFile(Path(sys.argv[1])).read(3.0, trim=True).fit(3.0, "sample", 0)
print(*sorted({"torch", "torchaudio", "pandas", "scipy"} & set(sys.modules)))
"""


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_reading_imports_neither_torch_nor_pandas(
    tmp_path: Path, write_tone: Callable[..., Path], run: Callable[..., CompletedProcess[str]],
    rate: int,
) -> None:  # fmt: skip
    done = run("-c", LIGHT, write_tone(tmp_path / "clip.wav", rate=rate))
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split()


# --- a part of a file ------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".wav", ".flac", ".mp3", ".ogg"])
@pytest.mark.parametrize(("start", "end"), [(0.5, 1.25), (None, 0.75), (1.5, None), (0.0, 2.0)])
def test_item_5_a_part_is_what_the_whole_has_there(
    write_tone: Callable[..., Path], tmp_path: Path, ending: str, start: float | None,
    end: float | None,
) -> None:  # fmt: skip
    path = write_tone(tmp_path / f"tone{ending}", 2.0)
    whole, rate = AudioFile(path).read(), 16_000
    part = AudioFile(path).read(start=start, end=end)
    first, last = round((start or 0) * rate), None if end is None else round(end * rate)
    np.testing.assert_allclose(part.samples, whole.samples[first:last], rtol=0, atol=1e-6)
    assert part.sha256 == whole.sha256
    assert part.seconds == pytest.approx(len(part.samples) / rate)


@pytest.mark.parametrize(("start", "end", "words"), [
    (1.0, 1.0, "from 1 to 1 s is no range of time"), (-1.0, None, "from -1 to 0 s is no range"),
    (float("nan"), None, "is no range of time"), (2.5, None, "from 2.5 s to its end exceeds"),
    (0.5, 9.0, r"from 0.5 s to 9 s exceeds the file, which ends at 2\.00 s"),
])  # fmt: skip
def test_item_5_a_part_that_is_not_there_is_named(
    write_tone: Callable[..., Path], tmp_path: Path, start: float, end: float | None, words: str
) -> None:
    with pytest.raises(AudioError, match=words):
        AudioFile(write_tone(tmp_path / "tone.wav", 2.0)).read(start=start, end=end)


def test_item_5_a_clip_of_a_part_does_not_reach_beyond_it(
    write_tone: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_tone(tmp_path / "tone.wav", 3.0)
    assert len(AudioFile(path).read(3.0, trim=True, start=1.0, end=1.5).samples) <= 8_000
