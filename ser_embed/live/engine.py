"""The live engine: from a ring of sound to labels that follow it, and what it has found so far.

Terminal and page use the same one. In a terminal it runs in a thread of its own, which alone waits
for the encoder: sound goes on arriving, and the screen goes on being drawn.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from ser_embed.audio import CLIP_SECONDS, SAMPLE_RATE, SpeechGate
from ser_embed.live.journal import Log, Recorder
from ser_embed.live.ring import Ring
from ser_embed.predict import Classifier, Segment, Segmenter, SegmentSettings

__all__ = ["RECENT_SECONDS", "WAIT_SECONDS", "Engine", "Session"]

RECENT_SECONDS = 60.0  # of the past that is shown
WAIT_SECONDS = 0.2  # for sound to come, before looking whether all is over
CLOSE_SECONDS = 5.0  # that an engine which is judging a window has to end
_WAITING_LINES = 1000  # for a reader of the output who is late


@dataclass
class Session:
    """What a screen shows. The engine writes, a screen's thread reads, each with `lock`.

    Attributes:
        classes: Class names.
        seconds: Sound so far.
        peak: Loudest of the newest samples, 1 is full scale.
        state: What keeps it from listening: "paused" or a lost device; "" if nothing does.
        judged: Windows that were judged.
        dropped: Windows that were not, because a newer one was complete.
        overflows: Times that samples were lost on their way.
        losses: Times that the device was lost.
        latency: Seconds from the end of the newest window to its label.
        now: The newest label.
        recent: The pieces of the last minute.
        lines: Labels that have not been printed yet.
    """

    classes: tuple[str, ...]
    seconds: float = 0.0
    peak: float = 0.0
    state: str = ""
    judged: int = 0
    dropped: int = 0
    overflows: int = 0
    losses: int = 0
    latency: float = 0.0
    worst_latency: float = 0.0
    now: Segment | None = None
    recent: deque[Segment] = field(default_factory=deque)
    lines: deque[Segment] = field(default_factory=lambda: deque(maxlen=_WAITING_LINES))
    label_seconds: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock)
    changed: threading.Event = field(default_factory=threading.Event)
    _sums: Counter[str] = field(default_factory=Counter)  # of probabilities times seconds
    _spoken: float = 0.0
    _latencies: float = 0.0
    _timed: int = 0

    def update(self, now: Segment | None, latency: float | None = None) -> None:
        """Note the newest label; `latency` if a window has just been judged."""
        before, self.now = self.now, now
        if latency is not None:
            self.latency, self.worst_latency = latency, max(latency, self.worst_latency)
            self._latencies += latency
            self._timed += 1
        changed = now is not None and (before is None or before.label != now.label)
        if now is not None and (latency is not None or (changed and not now.probabilities)):
            self.lines.append(now)

    def add(self, piece: Segment) -> None:
        """Count a piece that no later window changes."""
        seconds = piece.end - piece.start
        self.label_seconds[piece.label] += seconds  # type: ignore[assignment]
        for name, probability in piece.probabilities.items():
            self._sums[name] += probability * seconds  # type: ignore[assignment]
        self._spoken += seconds if piece.probabilities else 0.0
        self.recent.append(piece)
        since = piece.end - RECENT_SECONDS
        while self.recent[0].end <= since:
            self.recent.popleft()
        first = self.recent[0]  # a pause may have begun long ago
        self.recent[0] = replace(first, start=max(first.start, since))

    def reset(self) -> None:
        """Forget the labels, not what went wrong."""
        self.recent.clear()
        self.label_seconds.clear()
        self._sums.clear()
        self._spoken = 0.0

    @property
    def mean_latency(self) -> float:
        """Seconds from a window's end to its label, the mean over all windows."""
        return self._latencies / self._timed if self._timed else 0.0

    def means(self) -> dict[str, float]:
        """Return each class's mean probability over the speech; empty without any."""
        if not self._spoken:
            return {}
        return {name: self._sums[name] / self._spoken for name in self.classes}

    def counts(self) -> list[str]:
        """Return the counters in words."""
        minutes, seconds = divmod(int(self.seconds), 60)
        named = {"windows": self.judged, "dropped": self.dropped, "overflows": self.overflows}
        words = [f"{minutes}:{seconds:02}", *(f"{name} {n}" for name, n in named.items())]
        words += [f"device lost {self.losses}"] if self.losses else []
        if self._timed:
            mean = self.mean_latency * 1e3
            words.append(f"latency {self.latency * 1e3:.0f} ms (mean {mean:.0f})")
        return words


class Engine:
    """Judges what comes out of its ring: speech gate, windows, classifier, log, recording.

    Use it in a thread (`start`, `close`), or call `process` after each push and `finish` at the
    end. A stream that was interrupted is two: no window reaches over a pause, a lost device or
    lost samples. Times are seconds of sound since the start.

    Args:
        classifier: Judges the windows.
        settings: How.
        log: Gets a line per window and per segment.
        recorder: Gets the sound.
        on_segment: Called with every segment that is complete.

    Attributes:
        ring: Where the sound is pushed.
        session: What it has found so far.
        error: What ended its thread before its time.
    """

    def __init__(
        self,
        classifier: Classifier,
        settings: SegmentSettings | None = None,
        log: Log | None = None,
        recorder: Recorder | None = None,
        on_segment: Callable[[Segment], None] | None = None,
    ) -> None:
        self.ring, self.session = Ring(), Session(classifier.classes)
        self.classifier, self.settings = classifier, settings or SegmentSettings()
        self.log, self.recorder, self.on_segment = log, recorder, on_segment
        self.error: Exception | None = None
        self._segmenter = Segmenter(classifier, self.settings, live=True)
        self._offset = 0.0  # seconds at which the segmenter's stream began
        self._judged = self._dropped = 0  # by the segmenters before this one
        self._open: Segment | None = None  # the segment that may go on
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @staticmethod
    def warm_up(classifier: Classifier) -> None:
        """Let the encoder's backend compile before sound comes, rather than while it waits."""
        n = round((classifier.seconds or CLIP_SECONDS) * SAMPLE_RATE)
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, n).astype(np.float32)
        classifier.classify(noise)
        SpeechGate().is_speech(noise[:SAMPLE_RATE])

    def start(self) -> None:
        """Process what comes, in a thread, until the ring ends or `close` is called."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread is at work."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread; it judges no more than the window at hand."""
        self._closing.set()
        if self.running:
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                if not self.process(WAIT_SECONDS) and self.ring.ended:
                    break
            self.finish()
        except Exception as error:  # the main thread raises it
            self.error = error
        finally:
            self.session.changed.set()

    def process(self, timeout: float = 0.0) -> bool:
        """Judge what waits in the ring; return False if nothing came in `timeout` s."""
        block = self.ring.pop(timeout)
        if block is None:
            return False
        if block.gap:
            self._end_stream()
            self._offset = block.start / SAMPLE_RATE
        if self.recorder is not None:
            self.recorder.write(block.samples)
        segmenter, before = self._segmenter, self._segmenter.until
        pieces = segmenter.push(block.samples)
        latency = None
        if segmenter.until != before:
            end = round((self._offset + segmenter.until) * SAMPLE_RATE)
            latency = time.monotonic() - self.ring.arrival(end)
        now = self._shifted(segmenter.now)
        self._note(pieces, now, latency)
        if self.log is not None and latency is not None:
            facts = asdict(now)
            del facts["start"]
            self.log.write("window", **facts, latency_ms=round(latency * 1e3, 1))
        return True

    def finish(self) -> None:
        """Judge what is left, and end the open segment.

        Raises:
            AudioError: The whole stream was speech of less than 25 ms.
        """
        self._end_stream()
        self._emit(self._open)
        self._open = None

    def _end_stream(self) -> None:
        self._note(self._segmenter.finish())
        self._judged += self._segmenter.judged
        self._dropped += self._segmenter.dropped
        self._segmenter = Segmenter(self.classifier, self.settings, live=True)

    def _note(
        self, pieces: Sequence[Segment], now: Segment | None = None, latency: float | None = None
    ) -> None:
        session, segmenter = self.session, self._segmenter
        shifted = [self._shifted(piece) for piece in pieces]
        with session.lock:
            for piece in shifted:
                session.add(piece)
            session.update(now, latency)
            session.seconds = self.ring.pushed / SAMPLE_RATE
            session.judged = self._judged + segmenter.judged
            session.dropped = self._dropped + segmenter.dropped
        for piece in shifted:
            joined = Segment.merge([self._open, piece] if self._open else [piece])
            for segment in joined[:-1]:
                self._emit(segment)
            self._open = joined[-1]
        if latency is not None or shifted:
            session.changed.set()

    def _shifted(self, segment: Segment) -> Segment:
        start, end = segment.start + self._offset, segment.end + self._offset
        return replace(segment, start=start, end=end)

    def _emit(self, segment: Segment | None) -> None:
        if segment is None:
            return
        if self.log is not None:
            self.log.write("segment", **asdict(segment))
        if self.on_segment is not None:
            self.on_segment(segment)
