"""What is between a source of sound and the engine: bounded, whatever happens on either side.

A microphone or a file pushes from its own thread; the engine pops at its own pace.
"""

import threading
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ser_embed.audio import SAMPLE_RATE, AudioFile, Resampler
from ser_embed.errors import AudioError

__all__ = ["Block", "FilePlayer", "Ring"]

METER_SECONDS = 0.1  # whose loudest sample the level meter shows
PLAYED_SECONDS = 0.05  # that a file is played at a time


class Block(NamedTuple):
    """Samples of a stream, mono float32 at 16 kHz, shape (n,).

    `start` is the number of the first one in the stream; `gap` says that the block doesn't follow
    the one before.
    """

    start: int
    samples: np.ndarray
    gap: bool


class Ring:
    """The newest part of a stream that has not been popped yet.

    Args:
        seconds: What it holds at most; for a reader who is later, the oldest samples are lost.

    Attributes:
        pushed: Samples at 16 kHz so far.
        lost: Of those, the ones that were never popped.
        paused: Whether what is pushed is thrown away.
        ended: Whether nothing will come any more.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        self.capacity = round(seconds * SAMPLE_RATE)
        self.pushed = self.lost = self._held = 0
        self.paused = self.ended = False
        self._gap = True
        self._blocks: deque[tuple[bool, np.ndarray]] = deque()  # with whether a gap is before it
        self._arrivals: deque[tuple[int, float]] = deque(maxlen=4096)
        self._tail = np.zeros(0, dtype=np.float32)
        self._resampler = Resampler(SAMPLE_RATE)
        self._changed = threading.Condition()

    def push(self, block: np.ndarray, rate: int = SAMPLE_RATE) -> None:
        """Add samples of shape (n,) or (n, n_channels) at `rate` Hz."""
        if rate != self._resampler.rate:
            self._resampler = Resampler(rate)
        mono = self._resampler.push(block)
        with self._changed:
            if self.paused or not len(mono):
                return
            self._blocks.append((self._gap, mono))
            self._gap = False
            self.pushed += len(mono)
            self._held += len(mono)
            self._arrivals.append((self.pushed, time.monotonic()))
            self._tail = np.concatenate([self._tail, mono])[-round(METER_SECONDS * SAMPLE_RATE) :]
            while self._held > self.capacity and len(self._blocks) > 1:
                oldest = len(self._blocks.popleft()[1])
                self._held -= oldest
                self.lost += oldest
                self._blocks[0] = (True, self._blocks[0][1])
            self._changed.notify()

    def interrupt(self, paused: bool | None = None) -> None:
        """Note that what comes next doesn't follow what came last; `paused` stays if None."""
        with self._changed:
            self.paused = self.paused if paused is None else paused
            self._resampler = Resampler(SAMPLE_RATE)
            self._tail = self._tail[:0]
            self._gap = True

    def pop(self, timeout: float = 0.0) -> Block | None:
        """Return all that has come since, up to an interruption; None if nothing in `timeout` s."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self.ended, timeout)
            if not self._blocks:
                return None
            start = self.pushed - self._held
            gap, first = self._blocks.popleft()
            parts = [first]
            while self._blocks and not self._blocks[0][0]:
                parts.append(self._blocks.popleft()[1])
            samples = np.concatenate(parts)
            self._held -= len(samples)
            self._changed.notify_all()
            return Block(start, samples, gap)

    def __len__(self) -> int:
        """Return the number of samples that wait."""
        return self._held

    def end(self) -> None:
        """Say that nothing will come any more."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait until nothing is held, for a source that can wait; False if it still is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, timeout)

    def arrival(self, sample: int) -> float:
        """Return the `time.monotonic()` at which all before the sample of that number had come."""
        with self._changed:
            found = time.monotonic()
            for pushed, when in reversed(self._arrivals):
                if pushed < sample:
                    break
                found = when
            return found

    @property
    def level(self) -> float:
        """Loudest of the newest samples; 1 is full scale."""
        with self._changed:
            return float(np.abs(self._tail).max(initial=0.0))


class FilePlayer(threading.Thread):
    """Pushes a file into a ring as if it were being spoken; a pause of the ring pauses it.

    Args:
        path: Any file that soundfile decodes; it is read in blocks.
        ring: What to fill; it is ended with the file.
        speed: Seconds of sound a second; 0 is as fast as the ring is emptied.

    Attributes:
        error: Why it broke off, if it did.
    """

    def __init__(self, path: Path, ring: Ring, speed: float = 1.0) -> None:
        super().__init__(daemon=True)
        self.path, self.ring, self.speed = path, ring, speed
        self.error: AudioError | None = None
        self._closing = threading.Event()
        self._due = 0.0

    def run(self) -> None:
        """Play the file."""
        self._due = time.monotonic()
        try:
            for block in AudioFile(self.path).blocks():
                n = round(PLAYED_SECONDS * SAMPLE_RATE)
                for start in range(0, len(block), n):
                    if self._closing.is_set():
                        return
                    self._play(block[start : start + n])
        except AudioError as error:
            self.error = error
        finally:
            self.ring.end()

    def _play(self, samples: np.ndarray) -> None:
        if self.speed:
            self._due += len(samples) / SAMPLE_RATE / self.speed
            self._closing.wait(max(0.0, self._due - time.monotonic()))
        else:
            while not self.ring.wait_until_empty(0.2) and not self._closing.is_set():
                pass
        while self.ring.paused and not self._closing.wait(PLAYED_SECONDS):
            self._due = time.monotonic()
        self.ring.push(samples)

    def close(self) -> None:
        """Break off."""
        self._closing.set()
