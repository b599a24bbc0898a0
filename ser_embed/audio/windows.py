"""Overlapping windows of a stream."""

import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ser_embed.audio.constants import CLIP_SECONDS
from ser_embed.audio.resampling import to_mono

__all__ = ["Window", "Windows"]


class Window(NamedTuple):
    """A stretch of a stream: `samples` is mono float32, `start` is in seconds of the stream."""

    start: float
    samples: np.ndarray


class Windows:
    """Cuts a stream into windows; holds one window and one hop of it, whatever happens.

    One thread pushes, another takes. Window k covers `seconds` from k * hop on. Who takes late
    gets the newest window that is complete; those missed in between are counted in `dropped`.

    Args:
        rate: Samples per second of the stream.
        seconds: Length of a window.
        hop: Seconds from one window's start to the next one's.
    """

    def __init__(self, rate: int, seconds: float = CLIP_SECONDS, hop: float = 0.5) -> None:
        self.rate, self.length, self.hop = rate, round(seconds * rate), max(1, round(hop * rate))
        self.pushed = self.taken = self.dropped = 0  # samples, windows, windows
        self._ring = np.zeros(self.length + self.hop, dtype=np.float32)
        self._changed = threading.Condition()

    def push(self, block: np.ndarray) -> None:
        """Add samples of shape (n,) or (n, n_channels)."""
        mono = to_mono(block)
        with self._changed:
            newest = mono[-len(self._ring) :]
            at = (self.pushed + len(mono) - len(newest) + np.arange(len(newest))) % len(self._ring)
            self._ring[at] = newest
            self.pushed += len(mono)
            self._changed.notify()

    def take(self, timeout: float = 0.0) -> Window | None:
        """Return the newest complete window not taken yet; None if none comes in `timeout` s."""
        with self._changed:
            self._changed.wait_for(lambda: self._due() >= 0, timeout)
            k = self._due()
            if k < 0:
                return None
            self.dropped += k - self.taken - self.dropped
            self.taken += 1
            return Window(k * self.hop / self.rate, self._copy(k * self.hop, self.length))

    def feed(self, samples: np.ndarray) -> Iterator[Window]:
        """Push samples that nobody waits for, hop by hop, and yield every window they complete."""
        for start in range(0, len(samples), self.hop):
            self.push(samples[start : start + self.hop])
            window = self.take()
            if window is not None:
                yield window

    def newest(self, seconds: float) -> np.ndarray:
        """Return the last samples, at most `seconds` of them."""
        with self._changed:
            n = min(round(seconds * self.rate), self.pushed, len(self._ring))
            return self._copy(self.pushed - n, n)

    def _due(self) -> int:
        k = (self.pushed - self.length) // self.hop
        return k if k >= self.taken + self.dropped else -1

    def _copy(self, start: int, n: int) -> np.ndarray:
        return self._ring[(start + np.arange(n)) % len(self._ring)]
