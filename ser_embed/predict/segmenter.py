"""Long recordings and streams, cut at pauses and labelled piece by piece.

Speech is found in steps of a quarter of a second; steps without a pause between them are a
stretch. Over each stretch slides a window of the head's clip length, so no window mixes what a
pause separates. A window's probabilities are averaged with its neighbours', and it stands for the
time around its middle.
"""

from math import inf

import numpy as np

from ser_embed.audio import CLIP_SECONDS, SAMPLE_RATE, SpeechGate
from ser_embed.predict.classifier import Classifier
from ser_embed.predict.options import SegmentSettings
from ser_embed.predict.segments import Segment

__all__ = ["Segmenter", "Windows"]

_STEP = round(SpeechGate.SECONDS * SAMPLE_RATE) // 2  # samples that are speech or a pause together
_FIRST_SECONDS = 1.0  # of speech after which a live stream gets its first label


class Windows:
    """Overlapping windows of a stream; holds one window and one hop of it at most.

    Window k covers `length` samples from k * hop on.

    Args:
        length: Samples of a window.
        hop: Samples from one window's start to the next one's.

    Attributes:
        pushed: Samples so far.
        dropped: Windows that were skipped, because a newer one was complete.
    """

    def __init__(self, length: int, hop: int) -> None:
        self.length, self.hop = length, max(1, hop)
        self.pushed = self.dropped = self._next = 0
        self._tail = np.empty(0, dtype=np.float32)

    def push(self, samples: np.ndarray) -> None:
        """Add mono float32 samples of shape (n,)."""
        self.pushed += len(samples)
        self._tail = np.concatenate([self._tail, samples])[-self.length - self.hop :]

    def pop(self) -> tuple[int, np.ndarray] | None:
        """Return the newest complete window that is new: its first sample's number, its samples."""
        k = (self.pushed - self.length) // self.hop
        if k < self._next:
            return None
        self.dropped += k - self._next
        self._next = k + 1
        start = k * self.hop - self.pushed + len(self._tail)
        return k * self.hop, self._tail[start : start + self.length]

    def newest(self, n: int) -> np.ndarray:
        """Return the last n samples, or fewer if there are no more."""
        return self._tail[-n:]


class _Stretch:
    """Speech without a pause: its windows, and the pieces that no later window changes."""

    def __init__(self, start: float, seconds: float, settings: SegmentSettings) -> None:
        hop = round(settings.hop * SAMPLE_RATE)
        self.start, self.windows = start, Windows(round(seconds * SAMPLE_RATE), hop)
        self.guess: np.ndarray | None = None  # while there is no whole window yet
        self.guessed = 0  # samples that the guess was made from
        self.reach = settings.smooth // 2
        self.middles: list[float] = []
        self.results: list[np.ndarray] = []  # each (C,)
        self.settled = 0  # of `results`: kept because a later piece averages over them
        self.begun = start

    def add(self, first: int, n: int, probabilities: np.ndarray) -> float:
        """Keep what a window of n samples got, and return the seconds at which it ends."""
        self.middles.append(self.start + (first + n / 2) / SAMPLE_RATE)
        self.results.append(probabilities)
        return self.start + (first + n) / SAMPLE_RATE

    def newest(self) -> np.ndarray | None:
        """Return the mean of the last windows, however few there are."""
        return np.mean(self.results[-self.reach - 1 :], axis=0) if self.results else self.guess

    def settle(self, end: float = inf) -> list[tuple[float, float, np.ndarray]]:
        """Return the pieces that are final, all of them if the stretch has ended at `end`."""
        pieces = []
        ahead = 0 if end < inf else max(1, self.reach)
        while self.settled + ahead < len(self.results):
            i = self.settled
            near = self.results[max(0, i - self.reach) : i + self.reach + 1]
            until = sum(self.middles[i : i + 2]) / 2 if i + 1 < len(self.results) else end
            pieces.append((self.begun, until, np.mean(near, axis=0)))
            self.begun = until
            if i < self.reach:
                self.settled += 1
            else:
                del self.results[0], self.middles[0]
        return pieces


class Segmenter:
    """Follows a stream; what it keeps doesn't grow with the stream's length.

    A piece is the time that one window stands for, or a pause.

    Args:
        classifier: Judges the windows.
        settings: How.
        live: Keep up with a microphone: nothing waits for sound to come, of the windows that one
            push completes only the newest is judged, and a stretch gets a first label after a
            second.

    Attributes:
        samples: Those that are known to be speech or not.
        judged: Windows judged so far, first labels included.
        until: Seconds at which the newest of them ends.
    """

    def __init__(
        self,
        classifier: Classifier,
        settings: SegmentSettings | None = None,
        live: bool = False,
    ) -> None:
        self.classifier, self.live, self.gate = classifier, live, SpeechGate()
        self.settings = settings or SegmentSettings()
        self.samples = self.judged = self._skipped = 0
        self.until = 0.0
        # A hop below a step would complete several windows at once; 50 ms bound the gate's work.
        hop = max(0.05, self.settings.hop)
        self._n = min(_STEP, round(hop * SAMPLE_RATE)) if live else _STEP
        self._before = self._rest = np.empty(0, dtype=np.float32)
        self._pause_start = 0.0
        self._stretch: _Stretch | None = None

    @property
    def now(self) -> Segment:
        """The newest label: a class, `UNSURE`, or `NO_SPEECH`."""
        seconds = self.samples / SAMPLE_RATE
        if self._stretch is None:
            return self._segment(seconds, seconds)
        newest = self._stretch.newest()
        if newest is None:
            return Segment(self._stretch.start, seconds, Segment.UNSURE, None, {})
        return self._segment(self._stretch.begun, seconds, newest)

    @property
    def dropped(self) -> int:
        """Windows that were not judged, because a newer one was complete."""
        return self._skipped + (self._stretch.windows.dropped if self._stretch else 0)

    def push(self, samples: np.ndarray) -> list[Segment]:
        """Add samples, mono float32 at 16 kHz; return the pieces that are now final."""
        self._rest = np.concatenate([self._rest, samples])
        pieces, ahead = [], 0 if self.live else _STEP
        while len(self._rest) >= self._n + ahead:
            pieces += self._step(self._rest[: self._n], self._is_speech())
            self._rest = self._rest[self._n :]
        return pieces + self._judge_newest()

    def finish(self) -> list[Segment]:
        """End the stream and return the pieces that are left.

        Raises:
            AudioError: The whole stream was speech of less than 25 ms.
        """
        pieces = self._step(self._rest, self._is_speech()) if len(self._rest) else []
        self._rest = self._rest[:0]
        end = self.samples / SAMPLE_RATE
        if self._stretch is not None:
            pieces += self._close(self._stretch, end)
        elif end > self._pause_start:
            pieces.append(self._segment(self._pause_start, end))
        return pieces

    def _segment(self, start: float, end: float, values: np.ndarray | None = None) -> Segment:
        """Label a stretch of time; without probabilities (C,) it is a pause."""
        listed = () if values is None else values.tolist()
        named = dict(zip(self.classifier.classes, listed, strict=False))
        return Segment.judge(start, end, named, self.settings.threshold)

    def _is_speech(self) -> bool:
        """Judge the next step within the half second that it begins, or ends if live."""
        if not self.live:
            return self.gate.is_speech(self._rest[: 2 * _STEP])
        return self.gate.is_speech(np.concatenate([self._before, self._rest[: self._n]]))

    def _step(self, samples: np.ndarray, speech: bool) -> list[Segment]:
        at, pieces = self.samples / SAMPLE_RATE, []
        self.samples += len(samples)
        if speech:
            if self._stretch is None:
                pieces += self._open(at)
            pieces += self._add_speech(samples)
        elif self._stretch is None:
            pass
        elif self._stretch.windows.pushed > _STEP or self._stretch.results:
            # Live, the gate has judged half a second of pause when it says so.
            end = at - len(self._before) / SAMPLE_RATE
            pieces += self._close(self._stretch, max(end, self._stretch.begun))
        else:  # what sounded like speech from one side only
            self._pause_start, self._stretch = self._stretch.start, None
        if self.live:
            self._before = np.concatenate([self._before, samples])[self._n - 2 * _STEP :]
        return pieces

    def _open(self, at: float) -> list[Segment]:
        """Begin a stretch and return the pause that it ends."""
        # The gate notices an onset up to a step late: what was before it belongs to it.
        start = max(at - len(self._before) / SAMPLE_RATE, self._pause_start)
        self._stretch = _Stretch(start, self.classifier.seconds or CLIP_SECONDS, self.settings)
        onset = round((at - start) * SAMPLE_RATE)
        self._stretch.windows.push(self._before[len(self._before) - onset :])
        return [self._segment(self._pause_start, start)] if start > self._pause_start else []

    def _add_speech(self, samples: np.ndarray) -> list[Segment]:
        stretch = self._stretch
        assert stretch is not None
        if self.live:  # `_judge_newest` judges
            stretch.windows.push(samples)
            return []
        hop = stretch.windows.hop
        for start in range(0, len(samples), hop):  # one hop completes one window
            stretch.windows.push(samples[start : start + hop])
            self._judge_window(stretch)
        return self._settled(stretch)

    def _judge_window(self, stretch: _Stretch) -> float | None:
        """Judge the newest window that is complete; return the seconds at which it ends."""
        window = stretch.windows.pop()
        if window is None:
            return None
        first, samples = window
        return stretch.add(first, len(samples), self._classify(samples))

    def _judge_newest(self) -> list[Segment]:
        """Judge the newest window of a live stream, or what there is of the first one."""
        stretch = self._stretch
        if stretch is None or not self.live:
            return []
        windows = stretch.windows
        end = self._judge_window(stretch)
        enough = max(_FIRST_SECONDS * SAMPLE_RATE, stretch.guessed + windows.hop)
        if end is None and not stretch.results and windows.pushed >= enough:
            stretch.guess = self._classify(windows.newest(windows.length))
            stretch.guessed = windows.pushed
            end = stretch.start + windows.pushed / SAMPLE_RATE
        self.until = self.until if end is None else end
        return self._settled(stretch)

    def _close(self, stretch: _Stretch, end: float) -> list[Segment]:
        if self._judge_window(stretch) is None and not stretch.results:
            # Shorter than a window, as a clip may be.
            whole = stretch.windows.newest(stretch.windows.length)
            stretch.add(0, len(whole), self._classify(whole))
        self._stretch, self._pause_start = None, end
        self._skipped += stretch.windows.dropped
        return self._settled(stretch, end)

    def _settled(self, stretch: _Stretch, end: float = inf) -> list[Segment]:
        return [self._segment(*piece) for piece in stretch.settle(end)]

    def _classify(self, samples: np.ndarray) -> np.ndarray:
        self.judged += 1
        probabilities = self.classifier.classify(samples).probabilities
        return np.array([probabilities[name] for name in self.classifier.classes])
