"""From an audio file to mono float32 samples at 16 kHz, decoded forwards in bounded blocks."""

import contextlib
import hashlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from ser_embed.audio.constants import AUDIO_ENDINGS
from ser_embed.audio.cutting import (
    FRAME_SAMPLES,
    LEAD_SECONDS,
    SAMPLE_RATE,
    Clip,
    cut_clip,
    frame_power,
    late_start,
)
from ser_embed.audio.finding import Found
from ser_embed.audio.opening import open_sound
from ser_embed.audio.resampling import Resampler
from ser_embed.audio.sounds import Sound
from ser_embed.errors import AudioError

__all__ = ["AudioFile", "load_audio"]

log = logging.getLogger(__name__)

_CUT_SECONDS = 0.1  # some programs' headers promise a little more than they write
_BEYOND_SECONDS = 0.5  # that a table's range may end after its file: times are rounded
_EXTRA_SECONDS = 0.15  # read beyond the clip, so that the resampler's filter has its right side
_BLOCK_VALUES = 1 << 19  # decoded at a time, over all channels: 2 MB


class _Stretch:
    """A part of a sound that is being decoded to mono float32 at 16 kHz.

    Args:
        path: The file, for messages.
        sound: The open file.
        start: Where the part begins, in seconds.
        end: Where it ends, in seconds; None for the file's end.
    """

    def __init__(self, path: Path, sound: Sound, start: float, end: float | None) -> None:
        self.path, self.rate, self.channels = path, sound.rate, sound.channels
        self.found, self.ended = 0, False
        self._sound, self._resampler = sound, Resampler(sound.rate)
        if not (0 <= start < math.inf and (end is None or start < end < math.inf)):
            raise AudioError(f"{path}: from {start:g} to {end or 0:g} s is no range of time")
        self._first, self._stated = round(start * self.rate), sound.stated
        self._range = f"from {start:g} s to {'its end' if end is None else f'{end:g} s'}"
        self._last = None if end is None else round(end * self.rate)
        if self._stated is not None:
            self._check_range(self._stated)
            # What comes behind the stated end fills a codec's last packet.
            self._last = min(self._last or self._stated, self._stated)
        self._skipped = sound.skip(self._first)

    @property
    def n_samples(self) -> int | None:
        """Length in the file's own samples; None if only decoding to its end tells."""
        if self._stated is not None and self._last is not None:
            return self._last - self._first
        return self.found if self.ended else None

    @property
    def seconds(self) -> float:
        """Length of the part; decodes to its end where nothing else tells."""
        while self.n_samples is None:
            self.next()
        return self.n_samples / self.rate

    def next(self, n: int | None = None) -> np.ndarray:
        """Decode up to `n` samples of the file (None: a block); `ended` says if all are read.

        Returns:
            float32 (n_samples,) at 16 kHz: what the samples that have been read complete.
        """
        n = min(n or _BLOCK_VALUES, max(1, _BLOCK_VALUES // self.channels))
        if self._last is not None:
            n = min(n, self._last - self._first - self.found)
        block = self._sound.read(n) if n > 0 else np.empty((0, self.channels), np.float32)
        if not np.isfinite(block).all():
            raise AudioError(f"{self.path}: has samples that are not finite (NaN or infinite)")
        self.found += len(block)
        if len(block):
            return self._resampler.push(block)
        if not self.ended:
            self._check_length()
            self.ended = True
        return self._resampler.finish()

    def read(self, seconds: float) -> np.ndarray:
        """Return the next so many seconds, or what is left (0: all), float32 (n,) at 16 kHz."""
        samples, n = np.empty(0, dtype=np.float32), 0
        wanted = math.ceil(seconds * SAMPLE_RATE) if seconds > 0 else None
        while not self.ended and (wanted is None or n < wanted):
            missing = None
            if wanted is not None:
                missing = round(((wanted - n) / SAMPLE_RATE + _EXTRA_SECONDS) * self.rate)
            block = self.next(missing)
            if n + len(block) > len(samples):  # grown where it is: the whole is there once
                samples.resize(n + max(len(block), n // 4), refcheck=False)
            samples[n : n + len(block)] = block
            n += len(block)
        samples.resize(n, refcheck=False)
        return samples

    def power(self, head: np.ndarray) -> np.ndarray:
        """Return the power of each frame from `head`, which has been read, to the end."""
        powers, rest = [], head
        while True:
            powers.append(frame_power(rest))
            rest = rest[len(powers[-1]) * FRAME_SAMPLES :]
            if self.ended:
                return np.concatenate(powers)
            rest = np.concatenate([rest, self.next()])

    def _check_range(self, n_samples: int) -> None:
        late = bool(self._first) and self._first >= n_samples
        if late or (self._last or 0) > n_samples + _BEYOND_SECONDS * self.rate:
            raise AudioError(
                f"{self.path}: the range {self._range} exceeds the file, which ends at "
                f"{n_samples / self.rate:.2f} s"
            )

    def _check_length(self) -> None:
        if self._stated is None:
            self._check_range(self._skipped + self.found)
        if not self.found:
            raise AudioError(f"{self.path}: holds no samples")
        promised = self.n_samples if self._stated is not None else None
        if promised is not None and self.found < promised - _CUT_SECONDS * self.rate:
            raise AudioError(
                f"{self.path}: cut short: the header promises "
                f"{(self._first + promised) / self.rate:.2f} s and "
                f"{(self._first + self.found) / self.rate:.2f} s are there; copy or download it "
                "again"
            )


class AudioFile:
    """An audio file on disk; nothing of it is read before a method asks for it.

    Every method raises AudioError if the file is missing, unreadable or, but for `sha256`, not
    audio; the message names the file and the reason.

    Args:
        path: Any file that soundfile decodes, or PyAV (extra `media`).
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

        With `trim` these are the first after leading silence, however long it lasts.

        Args:
            seconds: Clip length; 0 for all.
            trim: Whether silence before and after the sound is cut first.
            start: Where the clip's part of the file begins, in seconds; None: the beginning.
            end: Where it ends, in seconds; None: the end. The result is that of a file of this
                part alone, but for `sha256`.

        Raises:
            AudioError: Also if it is cut short, under 400 samples, silent or not finite, if the
                sound begins after the clip, or the file ends before the range.
        """
        lead = LEAD_SECONDS if trim and seconds > 0 else 0.0
        try:
            with self._bytes() as file:
                sha256 = _hash(file)
                with self._stretch(file, start, end) as stretch:
                    samples, begin = stretch.read(seconds + lead), 0.0
                    if seconds > 0 and not stretch.ended:
                        begin = late_start(samples, seconds, trim, stretch.power)
                    length, rate, channels = stretch.seconds, stretch.rate, stretch.channels
                if begin and trim:
                    with self._stretch(file, (start or 0.0) + begin, end) as stretch:
                        samples = stretch.read(seconds + lead)
        except MemoryError as error:
            raise AudioError(
                f"{self.path}: it takes more memory than there is; a clip length (--seconds) "
                "bounds it"
            ) from error
        if begin and not trim:
            raise AudioError(
                f"{self.path}: no speech in the first {seconds:g} s: sound begins at "
                f"{begin:.1f} s, and leading silence is kept"
            )
        mono = cut_clip(samples, seconds, trim)
        if len(mono) < Clip.MIN_SAMPLES:
            raise AudioError(
                f"{self.path}: {len(mono)} samples at 16 kHz; an encoder needs at least "
                f"{Clip.MIN_SAMPLES}"
            )
        if not mono.any():
            raise AudioError(f"{self.path}: digital silence, every sample is zero")
        return Clip(mono, sha256, length, rate, channels)

    def blocks(self, seconds: float = 20.0) -> Iterator[np.ndarray]:
        """Decode the file in blocks that, one after the other, are the samples of the whole.

        Args:
            seconds: Length of a block, within 0.05 s, or less if it has many channels.

        Yields:
            Mono float32 at 16 kHz, shape (n_samples,).

        Raises:
            AudioError: Also if it is cut short or not finite.
        """
        with self._bytes() as file, self._stretch(file) as stretch:
            while not stretch.ended:
                yield stretch.next(round(seconds * stretch.rate))

    def duration(self) -> float:
        """Return the seconds that the header states; without such a header, decode to the end."""
        with self._bytes() as file, self._stretch(file) as stretch:
            return stretch.seconds

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
    def _stretch(
        self, file: BinaryIO, start: float | None = None, end: float | None = None
    ) -> Iterator[_Stretch]:
        """Open a part of the file for decoding."""
        file.seek(0)
        with open_sound(self.path, file) as sound:
            yield _Stretch(self.path, sound, start or 0.0, end)


def load_audio(path: Path | str, seconds: float = 0.0) -> np.ndarray:
    """Decode a file to mono float32 at 16 kHz, shape (n_samples,).

    Args:
        path: Any file that `AudioFile` reads.
        seconds: Decode only what the first so many seconds need; 0 for the whole file.

    Raises:
        AudioError: The file can't be used; the message says why.
    """
    return AudioFile(path).read(seconds).samples


def _hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):  # a file of hours is never in memory whole
        digest.update(block)
    return digest.hexdigest()
