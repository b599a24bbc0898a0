"""Phones and films: what PyAV (FFmpeg) decodes and soundfile doesn't. Needs the extra `media`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from ser_embed.audio.sounds import read_away
from ser_embed.errors import AudioError

__all__ = ["MediaSound"]

# Containers, no playlists: those open other files and addresses.
_FORMATS = (
    "mov,matroska,webm,aac,amr,amrnb,amrwb,asf,caf,ac3,eac3,mp3,ogg,flac,wav,w64,aiff,au,avi,flv,"
    "mpeg,mpegts,tta,wv,ape,dts,voc"
)
_INDEXED = ("mov", "matroska")  # those in which a seek ends where the time stamps say
_RUN_UP = 1.0  # seconds decoded before the place that was sought: codecs carry state


class MediaSound:
    """The first sound track of a file, decoded by PyAV; see `Sound`."""

    def __init__(self, stack: contextlib.ExitStack, path: Path, file: BinaryIO) -> None:
        stack.enter_context(_named_faults(path))
        self._file = stack.enter_context(
            av.open(file, options={"format_whitelist": _FORMATS}, metadata_errors="replace")
        )
        if not self._file.streams.audio:
            raise AudioError(f"{path}: has no sound track")
        self._track = self._file.streams.audio[0]
        self._waiting: list[np.ndarray] = []
        self._frames = self._file.decode(self._track)
        first = next(self._frames, None)
        if first is None:
            raise AudioError(f"{path}: holds no samples")
        # The decoder's values, not the container's: HE-AAC has twice the rate that is stated.
        self.rate, self.channels = first.sample_rate, first.layout.nb_channels
        self._begin = first.pts
        self._convert = av.AudioResampler("fltp", first.layout, first.sample_rate)
        self._blocks = self._converted(first)
        self.stated = self._stated_samples()

    def _stated_samples(self) -> int | None:
        name, track = self._file.format.name, self._track
        if not any(kind in name for kind in ("mov", "matroska", "tta", "wav", "caf", "aiff")):
            return None  # an estimate from the bit rate
        if track.duration is not None and track.time_base is not None:
            return round(track.duration * track.time_base * self.rate)
        # Matroska states the longest track's: with a picture beside, it isn't the sound's.
        if self._file.duration and len(self._file.streams) == 1:
            return round(self._file.duration / av.time_base * self.rate)
        return None

    def skip(self, n: int) -> int:
        """Leave out the first `n` samples; return how many there were."""
        reach = n - round(_RUN_UP * self.rate)
        base, begin, done = self._track.time_base, self._begin, 0
        if reach > 0 and base and begin is not None and self._seekable():
            self._file.seek(begin + int(reach / self.rate / base), stream=self._track)
            self._frames = self._file.decode(self._track)
            first = next(self._frames, None)
            if first is None or first.pts is None:
                return 0
            self._convert = av.AudioResampler("fltp", first.layout, self.rate)
            self._blocks = self._converted(first)
            done = round((first.pts - begin) * base * self.rate)
        return done + read_away(self, n - done)

    def _seekable(self) -> bool:
        return any(kind in self._file.format.name for kind in _INDEXED)

    def read(self, n: int) -> np.ndarray:
        """Return the next `n` samples, float32 (n, n_channels); fewer at the end."""
        have = sum(map(len, self._waiting))
        while have < n and (block := next(self._blocks, None)) is not None:
            self._waiting.append(block)
            have += len(block)
        if not self._waiting:
            return np.empty((0, self.channels), dtype=np.float32)
        samples = np.concatenate(self._waiting)
        self._waiting = [samples[n:]] if have > n else []
        return samples[:n]

    def _converted(self, first: av.AudioFrame) -> Iterator[np.ndarray]:
        """Yield float32 (n, n_channels) of a frame and those after it."""
        for frame in self._convert.resample(first):
            yield frame.to_ndarray().T
        for decoded in self._frames:
            for frame in self._convert.resample(decoded):
                yield frame.to_ndarray().T
        for frame in self._convert.resample(None):
            yield frame.to_ndarray().T


@contextlib.contextmanager
def _named_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        reason = (error.strerror or str(error)).rstrip(".")
        raise AudioError(f"{path}: can't be decoded ({reason}); is it really audio?") from error
