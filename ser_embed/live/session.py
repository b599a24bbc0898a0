"""What a live session has heard so far; its size doesn't depend on how long it lasts."""

import threading
from collections import Counter, deque
from dataclasses import dataclass, field

from ser_embed.predict import Piece, Segment, judge

__all__ = ["LANE_SECONDS", "Session"]

LANE_SECONDS = 60.0  # of the past that the screen shows
_WAITING_LINES = 1000  # for a reader of the output who is late


@dataclass
class Session:
    """What the screen shows. The listener's thread writes, the screen's reads, each with `lock`.

    Attributes:
        classes: Class names.
        threshold: Confidence under which it is `unsure`.
        seconds: Sound heard.
        peak: Loudest of the newest samples, 1 is full scale.
        state: What keeps it from listening: "paused" or a lost device; "" if nothing does.
        judged: Windows that were judged.
        dropped: Windows that were not, because a newer one was complete.
        overflows: Times that samples were lost before they were heard.
        losses: Times that the device was lost.
        latency: Seconds from the end of the newest window to its label.
        now: What is being heard.
        recent: The pieces of the last minute, each with its label.
        lines: Judgements that have not been printed yet.
    """

    classes: tuple[str, ...]
    threshold: float = 0.5
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

    def hear(self, now: Segment | None, latency: float | None = None) -> None:
        """Note what is being heard; `latency` if a window has just been judged."""
        before, self.now = self.now, now
        if latency is not None:
            self.latency, self.worst_latency = latency, max(latency, self.worst_latency)
            self._latencies += latency
            self._timed += 1
        changed = now is not None and (before is None or before.label != now.label)
        if now is not None and (latency is not None or (changed and not now.probabilities)):
            self.lines.append(now)

    def add(self, piece: Piece) -> None:
        """Count a piece that no later window changes."""
        segment = judge(*piece, self.classes, self.threshold)
        seconds = segment.end - segment.start
        self.label_seconds[segment.label] += seconds  # type: ignore[assignment]
        for name, share in segment.probabilities.items():
            self._sums[name] += share * seconds  # type: ignore[assignment]
        self._spoken += seconds if segment.probabilities else 0.0
        self.recent.append(segment)
        while self.recent[0].end < segment.end - LANE_SECONDS:
            self.recent.popleft()

    def reset(self) -> None:
        """Forget what was heard, not what went wrong."""
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
        told = [f"{minutes}:{seconds:02}", *(f"{name} {n}" for name, n in named.items())]
        told += [f"device lost {self.losses}"] if self.losses else []
        if self._timed:
            told.append(f"latency {self.latency * 1e3:.0f} ms (mean {self.mean_latency * 1e3:.0f})")
        return told
