"""From an audio file to mono float32 samples at 16 kHz; soundfile decodes.

(torchaudio needs FFmpeg for that since 2.9.)
"""

import contextlib
import hashlib
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np
import soundfile

from ser_embed.audio.constants import AUDIO_ENDINGS
from ser_embed.audio.cutting import LEAD_SECONDS, Clip, cut_clip
from ser_embed.audio.finding import Found
from ser_embed.audio.resampling import Resampler, resample, to_mono
from ser_embed.errors import AudioError

__all__ = ["AudioFile", "load_audio"]

log = logging.getLogger(__name__)

_RATES = (1_000, 384_000)  # samples per second that a file may have: any other is a broken header
_LFS_MARK = b"version https://git-lfs"
_CUT_SECONDS = 0.1  # some programs' headers promise a little more than they write
_UNKNOWN_LENGTH = 2**40  # samples; libsndfile's value for a length that the header leaves out
_BEYOND_SECONDS = 0.5  # that a range may end after its file: tables round times
_EXTRA_SECONDS = 0.05  # read beyond the clip, so that the resampler's filter has its right side


class AudioFile:
    """An audio file on disk; nothing of it is read before a method asks for it.

    Every method raises AudioError if the file is missing, unreadable or, but for `sha256`, not
    audio; the message names the file and the reason.

    Args:
        path: Any file that soundfile decodes.
    """

    ENDINGS: ClassVar[tuple[str, ...]] = AUDIO_ENDINGS

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @staticmethod
    def find(root: Path) -> list[Path]:
        """Return the audio files under `root`, in any nesting and case of ending, sorted.

        Links are followed. Folders that can't be read are named in a warning.

        Raises:
            AudioError: `root` doesn't exist or can't be read.
        """
        found = AudioFile.search(root)
        for path, reason in found.faults:
            log.warning("%s: %s", path, reason)
        return found.files

    @staticmethod
    def search(root: Path) -> Found:
        """Return the audio files under `root`, what can't be looked into, and what else is there.

        Raises:
            AudioError: `root` doesn't exist or can't be read.
        """
        return Found.under(root)

    def read(
        self,
        seconds: float = 0.0,
        trim: bool = False,
        start: float | None = None,
        end: float | None = None,
    ) -> Clip:
        """Read the file once: hash its bytes and decode the first `seconds` of it (0: all).

        With `trim` these are the first after leading silence, which may last 10 s.

        Args:
            seconds: Clip length; 0 for all.
            trim: Whether silence before and after the sound is cut first.
            start: Where the clip's part of the file begins, in seconds; None: the beginning.
            end: Where it ends, in seconds; None: the end. But for `sha256` the result is that of
                a file of this part alone.

        Raises:
            AudioError: Also if it is cut short, under 400 samples, silent or not finite, or if
                the file ends before the part.
        """
        lead = LEAD_SECONDS if trim and seconds > 0 else 0.0
        with self._bytes() as file:
            sha256 = _hash(file)
            with self._sound(file) as (sound, total):
                rate = sound.samplerate
                first, total = self._part(start or 0.0, end, total, rate)
                while first > 0 and (skipped := len(sound.read(min(first, rate), "float32"))):
                    first -= skipped  # not by a seek, which ends elsewhere in lossy formats
                wanted = int((seconds + lead + _EXTRA_SECONDS) * rate) + 1 if seconds > 0 else total
                samples = sound.read(min(total, wanted), dtype="float32", always_2d=True)
            self._check_length(len(samples), min(total, wanted), total, rate)
        self._check_finite(samples)
        mono = cut_clip(resample(to_mono(samples), rate), seconds, trim)
        if len(mono) < Clip.MIN_SAMPLES:
            raise AudioError(
                f"{self.path}: {len(mono)} samples at 16 kHz; an encoder needs at least "
                f"{Clip.MIN_SAMPLES}"
            )
        if not mono.any():
            raise AudioError(f"{self.path}: digital silence, every sample is zero")
        return Clip(mono, sha256, total / rate, rate, samples.shape[1])

    def blocks(self, seconds: float = 20.0) -> Iterator[np.ndarray]:
        """Decode the file in blocks that, one after the other, are the samples of the whole.

        Args:
            seconds: Length of a block, within 0.05 s.

        Yields:
            Mono float32 at 16 kHz, shape (n_samples,).

        Raises:
            AudioError: Also if it is cut short or not finite.
        """
        with self._bytes() as file, self._sound(file) as (sound, total):
            rate, found = sound.samplerate, 0
            resampler = Resampler(rate)
            while len(block := sound.read(round(seconds * rate), "float32", always_2d=True)):
                self._check_finite(block)
                found += len(block)
                yield resampler.push(block)
            self._check_length(found, total, total, rate)
            yield resampler.finish()

    def duration(self) -> float:
        """Return the seconds that the header states, without decoding."""
        with self._bytes() as file, self._sound(file) as (sound, total):
            return total / sound.samplerate

    def sha256(self) -> str:
        """Return the hash of the file's bytes, in hexadecimal."""
        with self._bytes() as file:
            return _hash(file)

    @contextlib.contextmanager
    def _bytes(self) -> Iterator[BinaryIO]:
        try:
            with self.path.open("rb") as file:
                yield file
        except OSError as error:
            raise AudioError(f"{self.path}: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _sound(self, file: BinaryIO) -> Iterator[tuple[soundfile.SoundFile, int]]:
        """Open the file for decoding; also yield the length in samples that its header states."""
        start = file.read(len(_LFS_MARK))
        file.seek(0)
        if not start:
            raise AudioError(f"{self.path}: the file is empty")
        if start == _LFS_MARK:
            raise AudioError(
                f"{self.path}: a git-lfs pointer, not audio; run 'git lfs pull' where the corpus "
                "was cloned"
            )
        try:
            with soundfile.SoundFile(file) as sound:
                total, rate = _stated_samples(sound), sound.samplerate
                if not _RATES[0] <= rate <= _RATES[1]:
                    raise AudioError(
                        f"{self.path}: the header says {rate} Hz, which no recording has"
                    )
                if total >= _UNKNOWN_LENGTH:
                    raise AudioError(
                        f"{self.path}: the header doesn't say how long it is, as in a stream that "
                        "was saved; convert it once, for instance with ffmpeg or sox"
                    )
                yield sound, total
        except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
            reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
            raise AudioError(
                f"{self.path}: can't be decoded ({reason}); is it really audio?"
            ) from error

    def _part(self, start: float, end: float | None, total: int, rate: int) -> tuple[int, int]:
        """Return the first sample of a part, and how many it has."""
        length = total / rate
        if not (0 <= start < math.inf) or (end is not None and not start < end < math.inf):
            raise AudioError(f"{self.path}: from {start:g} to {end or 0:g} s is no range of time")
        if (start and start >= length) or (end is not None and end > length + _BEYOND_SECONDS):
            until = "its end" if end is None else f"{end:g} s"
            raise AudioError(
                f"{self.path}: the range from {start:g} s to {until} exceeds the file, which ends "
                f"at {length:.2f} s"
            )
        first = round(start * rate)
        return first, (total if end is None else min(total, round(end * rate))) - first

    def _check_length(self, found: int, wanted: int, total: int, rate: int) -> None:
        if not found:
            raise AudioError(f"{self.path}: holds no samples")
        if found < wanted - _CUT_SECONDS * rate:
            raise AudioError(
                f"{self.path}: cut short: the header promises {total / rate:.2f} s and "
                f"{found / rate:.2f} s are there; copy or download it again"
            )

    def _check_finite(self, samples: np.ndarray) -> None:
        if not np.isfinite(samples).all():
            raise AudioError(f"{self.path}: has samples that are not finite (NaN or infinite)")


def load_audio(path: Path | str, seconds: float = 0.0) -> np.ndarray:
    """Decode a file to mono float32 at 16 kHz, shape (n_samples,).

    Args:
        path: Any file that soundfile decodes.
        seconds: Decode only what the first so many seconds need; 0 for the whole file.

    Raises:
        AudioError: The file can't be used; the message says why.
    """
    return AudioFile(path).read(seconds).samples


def _hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):  # a file of hours is never in memory whole
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()


def _stated_samples(sound: soundfile.SoundFile) -> int:
    """Return the length in samples that the header states.

    libsndfile gives a wav that was cut short the length of what is left, and states the header's
    in its log alone.
    """
    cut = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    # A program that writes into a pipe can't know the length: it states about 2 or 4 GB.
    if cut is None or int(cut[1]) >= 2**31 - 2**16 or cut[2] == "0":
        return sound.frames
    return sound.frames * int(cut[1]) // int(cut[2])
