"""Long recordings and streams, cut at pauses and labelled piece by piece.

Speech is found in steps of a quarter of a second (`speech_gate`); steps without a pause between
them are a stretch. Over each stretch slides a window of the head's clip length, so no window
mixes what a pause separates. A window's probabilities are averaged with its neighbours', and it
stands for the time around its middle.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np

from ser_embed.audio import (
    CLIP_SECONDS,
    GATE_SECONDS,
    SAMPLE_RATE,
    AudioFile,
    Clip,
    Window,
    Windows,
    is_speech,
)
from ser_embed.errors import AudioError
from ser_embed.predict.classifier import Classifier
from ser_embed.predict.segments import (
    NO_SPEECH,
    UNSURE,
    Piece,
    Segment,
    judge,
    mean_of,
    merge_pieces,
)

__all__ = [
    "PEAK_SECONDS", "Recording", "SegmentSettings", "Segmenter", "segment_file",
    "segment_samples",
]  # fmt: skip

PEAK_SECONDS = 0.01  # of sound that one value of a recording's envelope stands for

_STEP = round(GATE_SECONDS * SAMPLE_RATE) // 2  # samples that are speech or a pause together
_FIRST_SECONDS = 1.0  # of speech after which a live stream gets its first guess


@dataclass(frozen=True)
class SegmentSettings:
    """How a recording is cut and labelled.

    Attributes:
        hop: Seconds from one window to the next within a stretch of speech.
        smooth: Windows whose probabilities are averaged, an odd number; 1 averages none.
        threshold: Under this confidence a piece is `unsure`. At a half, what has a label is
            likelier than all other classes together, however many there are.
    """

    hop: float = 0.5
    smooth: int = 3
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            AudioError: The message names the setting.
        """
        if not 0.02 <= self.hop <= 60:
            raise AudioError(f"hop {self.hop}: give 0.02 to 60 seconds")
        if self.smooth < 1 or self.smooth % 2 == 0:
            raise AudioError(f"smooth {self.smooth}: give an odd number of windows, 1 for none")
        if not 0 <= self.threshold <= 1:
            raise AudioError(f"threshold {self.threshold}: give a confidence from 0 to 1")


@dataclass(frozen=True)
class Recording:
    """What was heard in a recording.

    Attributes:
        classes: Class names.
        seconds: Its length.
        pieces: Probabilities over time; they cover the recording without gap or overlap.
        segments: The pieces, merged; they cover it too.
        peaks: Loudest sample of every hundredth of a second, float32; 1 is full scale.
        summary: The whole as one segment, from the mean over all that is speech.
    """

    classes: tuple[str, ...]
    seconds: float
    pieces: list[Piece]
    segments: list[Segment]
    peaks: np.ndarray
    summary: Segment


class _Stretch:
    """Speech without a pause: its windows, and the pieces that no later window changes."""

    def __init__(self, start: float, seconds: float, settings: SegmentSettings) -> None:
        self.start = start
        self.windows = Windows(SAMPLE_RATE, seconds, settings.hop)
        self.guess: np.ndarray | None = None  # while there is no whole window yet
        self.guessed = 0  # samples that the guess was made from
        self.reach = settings.smooth // 2
        self.middles: list[float] = []
        self.results: list[np.ndarray] = []
        self.settled = 0  # of `results`: kept because a later piece averages over them
        self.begun = start

    def add(self, window: Window, probabilities: np.ndarray) -> None:
        self.middles.append(self.start + window.start + len(window.samples) / SAMPLE_RATE / 2)
        self.results.append(probabilities)

    def newest(self) -> np.ndarray | None:
        """Return the mean of the last windows, however few there are."""
        return np.mean(self.results[-self.reach - 1 :], axis=0) if self.results else self.guess

    def settle(self, end: float = inf) -> list[Piece]:
        """Return the pieces that are final, all of them if the stretch has ended at `end`."""
        pieces = []
        ahead = 0 if end < inf else max(1, self.reach)
        while self.settled + ahead < len(self.results):
            i = self.settled
            near = self.results[max(0, i - self.reach) : i + self.reach + 1]
            until = sum(self.middles[i : i + 2]) / 2 if i + 1 < len(self.results) else end
            pieces.append(Piece(self.begun, until, np.mean(near, axis=0)))
            self.begun = until
            if i < self.reach:
                self.settled += 1
            else:
                del self.results[0], self.middles[0]
        return pieces


class Segmenter:
    """Follows a stream; what it keeps doesn't grow with the stream's length.

    Args:
        classifier: Judges the windows.
        settings: How.
        live: Keep up with a microphone: nothing waits for sound to come, of the windows that one
            push completes only the newest is judged, and a stretch gets a first guess after a
            second.

    Attributes:
        samples: Those that are known to be speech or not.
        judged: Windows judged so far, first guesses included.
        until: Seconds at which the newest of them ends.
    """

    def __init__(
        self,
        classifier: Classifier,
        settings: SegmentSettings | None = None,
        live: bool = False,
    ) -> None:
        self.classifier, self.live = classifier, live
        self.settings = settings or SegmentSettings()
        self.samples = self.judged = self._missed = 0
        self.until = 0.0
        # A hop below a step would complete several windows at once; 50 ms bound the gate's work.
        hop = max(0.05, self.settings.hop)
        self._n = min(_STEP, round(hop * SAMPLE_RATE)) if live else _STEP
        self._before = self._rest = np.empty(0, dtype=np.float32)
        self._pause_start = 0.0
        self._stretch: _Stretch | None = None

    @property
    def now(self) -> Segment:
        """What is being heard: a class, `unsure`, or `no speech`."""
        seconds = self.samples / SAMPLE_RATE
        if self._stretch is None:
            return Segment(seconds, seconds, NO_SPEECH, None, {})
        newest = self._stretch.newest()
        if newest is None:
            return Segment(self._stretch.start, seconds, UNSURE, None, {})
        start = self._stretch.begun
        return judge(start, seconds, newest, self.classifier.classes, self.settings.threshold)

    @property
    def dropped(self) -> int:
        """Windows that were not judged, because a newer one was complete."""
        return self._missed + (self._stretch.windows.dropped if self._stretch else 0)

    def push(self, samples: np.ndarray) -> list[Piece]:
        """Take the next samples, mono float32 at 16 kHz; return the pieces that are now final."""
        self._rest = np.concatenate([self._rest, samples])
        pieces, ahead = [], 0 if self.live else _STEP
        while len(self._rest) >= self._n + ahead:
            pieces += self._step(self._rest[: self._n], self._hears_speech())
            self._rest = self._rest[self._n :]
        return pieces + self._judge_newest()

    def _hears_speech(self) -> bool:
        """Judge the next step within the half second that it begins, or ends if live."""
        if not self.live:
            return is_speech(self._rest[: 2 * _STEP])
        return is_speech(np.concatenate([self._before, self._rest[: self._n]]))

    def finish(self) -> list[Piece]:
        """End the stream and return the pieces that are left.

        Raises:
            AudioError: The whole stream was speech of less than 25 ms.
        """
        pieces = self._step(self._rest, self._hears_speech()) if len(self._rest) else []
        self._rest = self._rest[:0]
        end = self.samples / SAMPLE_RATE
        if self._stretch is not None:
            pieces += self._close(self._stretch, end)
        elif end > self._pause_start:
            pieces.append(Piece(self._pause_start, end, None))
        return pieces

    def _step(self, samples: np.ndarray, speech: bool) -> list[Piece]:
        at, pieces = self.samples / SAMPLE_RATE, []
        self.samples += len(samples)
        if speech:
            if self._stretch is None:
                pieces += self._open(at)
            pieces += self._hear(samples)
        elif self._stretch is None:
            pass
        elif self._stretch.windows.pushed > _STEP or self._stretch.results:
            # Live, the gate has heard a pause for half a second when it says so.
            end = at - len(self._before) / SAMPLE_RATE
            pieces += self._close(self._stretch, max(end, self._stretch.begun))
        else:  # what sounded like speech from one side only
            self._pause_start, self._stretch = self._stretch.start, None
        if self.live:
            self._before = np.concatenate([self._before, samples])[self._n - 2 * _STEP :]
        return pieces

    def _open(self, at: float) -> list[Piece]:
        """Begin a stretch and return the pause that it ends."""
        # The gate hears an onset up to a step late: what was before it belongs to it.
        start = max(at - len(self._before) / SAMPLE_RATE, self._pause_start)
        self._stretch = _Stretch(start, self.classifier.seconds or CLIP_SECONDS, self.settings)
        onset = round((at - start) * SAMPLE_RATE)
        self._stretch.windows.push(self._before[len(self._before) - onset :])
        return [Piece(self._pause_start, start, None)] if start > self._pause_start else []

    def _hear(self, samples: np.ndarray) -> list[Piece]:
        stretch = self._stretch
        if stretch is None:
            return []
        if self.live:
            stretch.windows.push(samples)
            return []
        for window in stretch.windows.feed(samples):
            stretch.add(window, self._classify(window.samples))
        return stretch.settle()

    def _judge_newest(self) -> list[Piece]:
        """Judge the newest window of a live stream, or what there is of the first one."""
        stretch = self._stretch
        if stretch is None or not self.live:
            return []
        window, heard = stretch.windows.take(), stretch.windows.pushed
        if window is not None:
            stretch.add(window, self._classify(window.samples))
            self.until = stretch.start + window.start + len(window.samples) / SAMPLE_RATE
        elif not stretch.results and heard >= max(
            _FIRST_SECONDS * SAMPLE_RATE, stretch.guessed + stretch.windows.hop
        ):
            stretch.guess = self._classify(stretch.windows.newest(CLIP_SECONDS))
            stretch.guessed = heard
            self.until = stretch.start + heard / SAMPLE_RATE
        return stretch.settle()

    def _close(self, stretch: _Stretch, end: float) -> list[Piece]:
        window = stretch.windows.take()
        if window is None and not stretch.results:  # shorter than a window, as a clip may be
            whole = stretch.windows.newest(self.classifier.seconds or CLIP_SECONDS)
            window = Window(0.0, whole)
        if window is not None:
            stretch.add(window, self._classify(window.samples))
        self._stretch, self._pause_start = None, end
        self._missed += stretch.windows.dropped
        return stretch.settle(end)

    def _classify(self, samples: np.ndarray) -> np.ndarray:
        self.judged += 1
        shares = self.classifier.classify(samples).probabilities
        return np.array([shares[name] for name in self.classifier.classes])


# --- whole recordings --------------------------------------------------------------------------


def segment_file(
    path: Path,
    classifier: Classifier,
    settings: SegmentSettings | None = None,
    told: Callable[[float], None] | None = None,
) -> Recording:
    """Cut and label a file of any length; it is read in blocks.

    Args:
        path: Any file that soundfile decodes.
        classifier: Judges the windows.
        settings: How.
        told: Called with the seconds that are done.

    Raises:
        AudioError: The file can't be used; the message says why.
    """
    return _follow(AudioFile(path).blocks(), classifier, settings, told, f"{path}: ")


def segment_samples(
    samples: np.ndarray, classifier: Classifier, settings: SegmentSettings | None = None
) -> Recording:
    """Cut and label a waveform: mono float32 at 16 kHz, shape (n_samples,).

    Raises:
        AudioError: It is shorter than 25 ms, or not finite.
    """
    if not np.isfinite(samples).all():
        raise AudioError("the samples are not finite (NaN or infinite)")
    return _follow([samples], classifier, settings)


def _follow(
    blocks: Iterable[np.ndarray],
    classifier: Classifier,
    settings: SegmentSettings | None,
    told: Callable[[float], None] | None = None,
    where: str = "",
) -> Recording:
    segmenter = Segmenter(classifier, settings)
    pieces: list[Piece] = []
    peaks, frame, n = [], round(PEAK_SECONDS * SAMPLE_RATE), 0
    for block in _in_seconds(blocks):
        n += len(block)
        frames = np.pad(np.abs(block), (0, -len(block) % frame)).reshape(-1, frame)
        peaks.append(frames.max(axis=1))
        pieces += segmenter.push(block)
        if told is not None:
            told(n / SAMPLE_RATE)
    if n < Clip.MIN_SAMPLES:
        raise AudioError(
            f"{where}{n} samples at 16 kHz; an encoder needs at least {Clip.MIN_SAMPLES}"
        )
    pieces += segmenter.finish()
    classes, threshold = classifier.classes, segmenter.settings.threshold
    seconds = n / SAMPLE_RATE
    return Recording(
        classes,
        seconds,
        pieces,
        merge_pieces(pieces, classes, threshold),
        np.concatenate(peaks),
        judge(0.0, seconds, mean_of(pieces), classes, threshold),
    )


def _in_seconds(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Cut blocks of any length into seconds; the last one may be shorter."""
    rest = np.empty(0, dtype=np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // SAMPLE_RATE * SAMPLE_RATE
        yield from rest[:whole].reshape(-1, SAMPLE_RATE)
        rest = rest[whole:]
    if len(rest):
        yield rest
