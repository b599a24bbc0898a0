"""From a file or a microphone's block to mono float32 samples at 16 kHz of the clip length.

This is the only preprocessing there is: extraction, the classifier, the microphone and every
export go through `to_mono`, `resample`, and `cutting.py`'s `cut_clip` and `fit_length`. soundfile
decodes (torchaudio needs FFmpeg for that since 2.9), torchaudio resamples.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import torch
import torchaudio.functional

from ser_embed.audio.cutting import (
    FILL_RULES,
    LEAD_SECONDS,
    SAMPLE_RATE,
    FillRule,
    cut_clip,
    fill_generator,
    fit_length,
    n_samples,
    trim_silence,
)
from ser_embed.errors import AudioError

__all__ = [
    "AUDIO_ENDINGS", "CLIP_SECONDS", "FILL_RULES", "RESAMPLER", "SAMPLE_RATE", "Clip", "FillRule",
    "Resampler", "audio_seconds", "cut_clip", "find_audio", "fit_clip", "fit_length", "hash_file",
    "load_audio", "n_samples", "read_clip", "resample", "stream_audio", "to_mono", "trim_silence",
]  # fmt: skip

CLIP_SECONDS = 3.0  # 3 s * 16,000 samples/s = 48,000 samples, the paper's clip
MIN_SAMPLES = 400  # receptive field of wav2vec2's convolutions: 25 ms; shorter input raises
RESAMPLER = "torchaudio.sinc_interp_hann.v1"  # part of a store's key

AUDIO_ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".opus")

_MAX_DENOMINATOR = 1000  # of the ratio between two sampling rates, see `resample`
_RATES = (1_000, 384_000)  # samples per second that a file may have: any other is a broken header
_LFS_MARK = b"version https://git-lfs"
_CUT_SECONDS = 0.1  # some programs' headers promise a little more than they write
_UNKNOWN_LENGTH = 2**40  # samples; libsndfile's word for a length that the header leaves out
_EXTRA_SECONDS = 0.05  # read beyond the clip, so that the resampler's filter has its right side


@dataclass(frozen=True)
class Clip:
    """One decoded clip.

    Attributes:
        samples: Mono float32 at 16 kHz, shape (n_samples,).
        sha256: Hash of the file's bytes, which is what keys it in a store.
        seconds: Length of the whole file, before anything was cut.
        rate: Samples per second in the file.
        channels: Channels in the file.
    """

    samples: np.ndarray
    sha256: str
    seconds: float
    rate: int = SAMPLE_RATE
    channels: int = 1


def find_audio(root: Path) -> list[Path]:
    """Return the audio files under `root`, in any nesting and case of ending, sorted.

    Hidden folders are passed over: what lies there is in the making, or thrown away.

    Raises:
        AudioError: `root` doesn't exist.
    """
    if root.is_file():
        return [root] if root.suffix.lower() in AUDIO_ENDINGS else []
    if not root.is_dir():
        raise AudioError(f"{root}: no such folder or file")
    return sorted(
        path for path in root.rglob("*")
        if path.suffix.lower() in AUDIO_ENDINGS
        and not path.name.startswith("._")
        and not any(part.startswith(".") for part in path.relative_to(root).parts[:-1])
        and not path.is_dir()
    )  # fmt: skip


def load_audio(path: Path | str, seconds: float = 0.0) -> np.ndarray:
    """Decode a file to mono float32 at 16 kHz.

    Args:
        path: Any file that soundfile decodes.
        seconds: Decode only what the first so many seconds need; 0 for the whole file.

    Returns:
        Samples of shape (n_samples,), float32.

    Raises:
        AudioError: The file can't be used; the message says why.
    """
    return read_clip(Path(path), seconds).samples


def read_clip(path: Path, seconds: float = 0.0, trim: bool = False) -> Clip:
    """Read a file once: hash its bytes and decode the first `seconds` of it (0: all).

    With `trim` these are the first after leading silence, which may last 10 s.

    Raises:
        AudioError: Missing, unreadable, not audio, cut short, under 400 samples, silent or not
            finite.
    """
    try:
        with path.open("rb") as file:
            sha256 = _hash(file)
            lead = LEAD_SECONDS if trim and seconds > 0 else 0.0
            samples, rate, total = _decode(path, file, seconds + lead)
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror or error}") from error
    mono = to_mono(samples)
    if not np.isfinite(mono).all():
        raise AudioError(f"{path}: has samples that are not finite (NaN or infinite)")
    mono = cut_clip(resample(mono, rate), seconds, trim)
    if len(mono) < MIN_SAMPLES:
        raise AudioError(
            f"{path}: {len(mono)} samples at 16 kHz; an encoder needs at least {MIN_SAMPLES}"
        )
    if not mono.any():
        raise AudioError(f"{path}: digital silence, every sample is zero")
    return Clip(mono, sha256, total / rate, rate, samples.shape[1])


def stream_audio(path: Path, seconds: float = 20.0) -> Iterator[np.ndarray]:
    """Decode a file of any length in blocks that, one after the other, are `load_audio`'s samples.

    Args:
        path: Any file that soundfile decodes.
        seconds: Length of a block, within 0.05 s.

    Yields:
        Mono float32 at 16 kHz, shape (n_samples,).

    Raises:
        AudioError: Missing, unreadable, not audio, cut short or not finite.
    """
    try:
        with path.open("rb") as file, _open_sound(path, file) as (sound, total):
            rate, found = sound.samplerate, 0
            resampler = Resampler(rate)
            while len(block := sound.read(round(seconds * rate), "float32", always_2d=True)):
                if not np.isfinite(block).all():
                    raise AudioError(f"{path}: has samples that are not finite (NaN or infinite)")
                found += len(block)
                yield resampler.push(to_mono(block))
            _check_length(path, found, total, total, rate)
            yield resampler.finish()
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror or error}") from error


def audio_seconds(path: Path) -> float:
    """Return a file's length by its header, without decoding it.

    Raises:
        AudioError: Missing, unreadable or not audio.
    """
    try:
        with path.open("rb") as file, _open_sound(path, file) as (sound, total):
            return total / sound.samplerate
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror or error}") from error


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        AudioError: The file can't be read.
    """
    try:
        with path.open("rb") as file:
            return _hash(file)
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror or error}") from error


def _hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):  # a file of hours never stands in memory whole
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()


def _decode(path: Path, file: BinaryIO, seconds: float) -> tuple[np.ndarray, int, int]:
    """Return samples (n, channels), rate and the file's whole length in samples."""
    with _open_sound(path, file) as (sound, total):
        rate = sound.samplerate
        wanted = total if seconds <= 0 else int((seconds + _EXTRA_SECONDS) * rate) + 1
        samples = sound.read(wanted, dtype="float32", always_2d=True)
    _check_length(path, len(samples), min(total, wanted), total, rate)
    return samples, rate, total


@contextlib.contextmanager
def _open_sound(path: Path, file: BinaryIO) -> Iterator[tuple[soundfile.SoundFile, int]]:
    """Open a file for decoding and tell the length in samples that its header promises."""
    start = file.read(len(_LFS_MARK))
    file.seek(0)
    if not start:
        raise AudioError(f"{path}: the file is empty")
    if start == _LFS_MARK:
        raise AudioError(
            f"{path}: a git-lfs pointer, not audio; run 'git lfs pull' where the corpus was cloned"
        )
    try:
        with soundfile.SoundFile(file) as sound:
            total, rate = _promised_samples(sound), sound.samplerate
            if not _RATES[0] <= rate <= _RATES[1]:
                raise AudioError(f"{path}: the header says {rate} Hz, which no recording has")
            if total >= _UNKNOWN_LENGTH:
                raise AudioError(
                    f"{path}: the header doesn't say how long it is, as in a stream that was "
                    "saved; convert it once, for instance with ffmpeg or sox"
                )
            yield sound, total
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
        raise AudioError(f"{path}: can't be decoded ({reason}); is it really audio?") from error


def _check_length(path: Path, found: int, wanted: int, total: int, rate: int) -> None:
    if not found:
        raise AudioError(f"{path}: holds no samples")
    if found < wanted - _CUT_SECONDS * rate:
        raise AudioError(
            f"{path}: cut short: the header promises {total / rate:.2f} s and "
            f"{found / rate:.2f} s are there; copy or download it again"
        )


def _promised_samples(sound: soundfile.SoundFile) -> int:
    """Return the length in samples that the header states.

    libsndfile gives a wav that was cut short the length of what is left, and tells the stated
    one in its log alone.
    """
    cut = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    # A program that writes into a pipe can't know the length: it states about 2 or 4 GB.
    if cut is None or int(cut[1]) >= 2**31 - 2**16 or cut[2] == "0":
        return sound.frames
    return sound.frames * int(cut[1]) // int(cut[2])


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Average the channels: (n_samples,) or (n_samples, n_channels) -> (n_samples,) float32."""
    if samples.ndim == 1:
        return np.ascontiguousarray(samples, dtype=np.float32)
    return samples.mean(axis=1, dtype=np.float64).astype(np.float32)


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Resample mono float32 samples of shape (n_samples,) from `rate` to 16 kHz.

    Windowed-sinc interpolation with a Hann window (torchaudio), which filters before it
    decimates. The same function serves files and microphones.

    Returns:
        float32 of shape (ceil(n_samples * 16000 / rate),), at most 0.05 % shorter for a rate
        whose ratio to 16 kHz is rounded.
    """
    if rate == SAMPLE_RATE:
        return samples
    ratio = _ratio(rate)
    resampled = torchaudio.functional.resample(
        torch.from_numpy(samples), ratio.numerator, ratio.denominator
    )
    return resampled.numpy()[: -(-len(samples) * SAMPLE_RATE // rate)]


def _ratio(rate: int) -> Fraction:
    # The filter is a table of as many rows as the ratio's denominator: TESS's 24,414 Hz is
    # 12207/8000, 2 GB and 5 s a clip. 1091/715 is within 1e-6 of it, the usual rates are exact.
    return Fraction(rate, SAMPLE_RATE).limit_denominator(_MAX_DENOMINATOR)


class Resampler:
    """`resample` for a stream: blocks of any length give together what the whole would.

    It holds a few milliseconds back, because the filter looks to both sides of a sample.
    """

    def __init__(self, rate: int) -> None:
        self.rate, self.ratio = rate, _ratio(rate)
        # A cycle is the time after which a sample of the stream and one at 16 kHz coincide.
        reach = 8 / min(rate, SAMPLE_RATE)  # seconds; the filter has six zero crossings a side
        self.margin = ceil(reach * rate / self.ratio.numerator)  # in cycles
        self._held = np.empty(0, dtype=np.float32)
        self._given = 0  # cycles at the start of what is held that have been handed out

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take mono float32 samples (n,) and return what they complete at 16 kHz."""
        self._held = np.concatenate([self._held, samples])
        ready = len(self._held) // self.ratio.numerator - self.margin
        if ready <= self._given:
            return np.empty(0, dtype=np.float32)
        resampled = resample(self._held, self.rate)
        resampled = resampled[self._given * self.ratio.denominator :]
        resampled = resampled[: (ready - self._given) * self.ratio.denominator]
        forget = max(0, ready - self.margin)
        self._held = self._held[forget * self.ratio.numerator :]
        self._given = ready - forget
        return resampled

    def finish(self) -> np.ndarray:
        """Return what is left."""
        if not len(self._held):  # the resampler takes no empty clip
            return self._held
        return resample(self._held, self.rate)[self._given * self.ratio.denominator :]


def fit_clip(clip: Clip, seconds: float, fill: FillRule, seed: int) -> np.ndarray:
    """Cut or fill a clip, see `fit_length`, with random samples seeded by its own bytes.

    So a clip's features don't depend on its place in the corpus, the batch or a resume.
    """
    return fit_length(clip.samples, seconds, fill, fill_generator(clip.sha256, seed))
