"""From labels over time to what the page shows: numbers for the macros of `parts.html.j2`."""

import functools
import math
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jinja2
import numpy as np

from ser_embed.predict import Segment, clock

__all__ = ["Track", "list_probabilities", "percent", "render"]

# Each has a contrast of 3 or more to white and to the dark background.
HUES = {
    "positive": "#0d9f6e", "neutral": "#3b82f6", "negative": "#e0457b", "happy": "#d97706",
    "sad": "#3b82f6", "angry": "#e5484d", "fearful": "#8b5cf6", "disgust": "#7c8a1c",
    "surprised": "#d946a6", "calm": "#0891b2", Segment.NO_SPEECH: "#7d8ba1",
    Segment.UNSURE: "#78716c",
}  # fmt: skip
OTHER_HUES = (
    "#3b82f6", "#d97706", "#0d9f6e", "#e0457b", "#8b5cf6", "#0891b2", "#7c8a1c", "#a16207",
)  # fmt: skip


def render(part: str, *values: object) -> str:
    """Return a part of the page as HTML: the macro of that name, its values escaped."""
    return str(getattr(_macros(), part)(*values))


@functools.cache
def _macros() -> Any:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True,
    )  # fmt: skip
    environment.globals.update(NO_SPEECH=Segment.NO_SPEECH, UNSURE=Segment.UNSURE)
    environment.filters.update(
        clock=clock, percent=percent, hue=hue, best=_best, listed=list_probabilities,
        share=lambda value, digits: f"{value:.{digits}%}",
        base64=lambda text: b64encode(text.encode("utf-8", "replace")).decode(),
    )  # fmt: skip
    return environment.get_template("parts.html.j2").module


def percent(share: float | None) -> str:
    """Return a share as text, nothing for None."""
    return "" if share is None else f"{share:.0%}"


def list_probabilities(probabilities: Mapping[str, float]) -> str:
    """Return the three most probable classes in words."""
    return ", ".join(f"{name} {percent(p)}" for name, p in _best(probabilities, 3))


def _best(probabilities: Mapping[str, float], n: int) -> list[tuple[str, float]]:
    return sorted(probabilities.items(), key=lambda item: -item[1])[:n]


def hue(label: str, classes: Sequence[str]) -> str:
    """Return a label's colour."""
    return HUES.get(label) or OTHER_HUES[classes.index(label) % len(OTHER_HUES)]


class _Name(NamedTuple):
    """A label over its segment: where it stands and whether it fits."""

    label: str
    left: float
    width: float
    hue: str
    shown: bool
    roomy: bool  # too narrow for the label on a phone


class Track:
    """A picture of a stretch of time: segments by name, waveform, probabilities, times.

    Args:
        pieces: Labels over time, not empty.
        classes: Class names.
        threshold: Drawn as a line: below it a piece is unsure.
        peaks: Loudest samples at equal distances from start to end; without any there is no
            waveform.
    """

    WIDTH: ClassVar[int] = 1000  # units of the pictures; the page stretches them
    WAVE: ClassVar[int] = 100  # their heights
    CHART: ClassVar[int] = 120
    TICKS: ClassVar[int] = 6  # of the time axis, at most
    COLUMNS: ClassVar[int] = 600  # of the waveform
    # Share of the width that a letter needs: a name is shown where it fits.
    LETTER: ClassVar[float] = 0.010
    LETTER_ON_PHONE: ClassVar[float] = 0.025

    def __init__(
        self,
        pieces: Sequence[Segment],
        classes: Sequence[str],
        threshold: float,
        peaks: np.ndarray | None = None,
    ) -> None:
        self.classes = classes
        self.start, self.end = pieces[0].start, pieces[-1].end
        segments = Segment.merge(pieces)
        self.description = ", ".join(
            f"{s.label} from {clock(s.start)} to {clock(s.end)}" for s in segments[:20]
        )
        self.names = list(self._names(segments))
        peaks = np.empty(0) if peaks is None else peaks
        self.columns = min(self.COLUMNS, len(peaks))
        self.wave = list(self._wave(segments, peaks)) if self.columns else []
        self.stroke = f"{0.8 * self.WIDTH / max(1, self.columns):.2f}"
        self.lines = [(self._steps(pieces, name), hue(name, classes)) for name in classes]
        self.threshold_y = f"{self.CHART * (1 - threshold):.1f}"
        self.ticks = list(self._ticks())

    def _at(self, seconds: float) -> float:
        """Return where a time lies, from 0 to 1."""
        return (seconds - self.start) / (self.end - self.start)

    def _names(self, segments: Sequence[Segment]) -> Iterator[_Name]:
        """Place the labels over the segments; one may reach into the pause behind it."""
        for s, after in zip(segments, [*segments[1:], None], strict=True):
            left, right = self._at(s.start), self._at(s.end)
            pause = after is not None and after.label == Segment.NO_SPEECH
            room = self._at(after.end) - left if after and pause else right - left
            letters = len(s.label) + 1
            yield _Name(
                s.label, left, right - left, hue(s.label, self.classes),
                shown=s.label != Segment.NO_SPEECH and room > letters * self.LETTER,
                roomy=room <= letters * self.LETTER_ON_PHONE,
            )  # fmt: skip

    def _wave(self, segments: Sequence[Segment], peaks: np.ndarray) -> Iterator[tuple[str, str]]:
        """Draw the loudness over time, scaled to the loudest, each segment in its colour."""
        n, middle = self.columns, self.WAVE / 2
        loudest = np.maximum.reduceat(peaks, np.arange(n) * len(peaks) // n)
        heights = loudest / max(float(peaks.max()), 0.01) * (middle - 2) + 0.5
        centres = (np.arange(n) + 0.5) / n
        for s in segments:
            inside = (centres >= self._at(s.start)) & (centres < self._at(s.end))
            strokes = (
                f"M{x * self.WIDTH:.1f} {middle - h:.1f}V{middle + h:.1f}"
                for x, h in zip(centres[inside], heights[inside], strict=True)
            )
            yield "".join(strokes), hue(s.label, self.classes)

    def _steps(self, pieces: Sequence[Segment], name: str) -> str:
        """Draw a class's probability as steps that break where nobody speaks."""
        path, is_open = [], False
        for piece in pieces:
            if not piece.probabilities:
                is_open = False
                continue
            y = self.CHART * (1 - piece.probabilities[name])
            x, until = self.WIDTH * self._at(piece.start), self.WIDTH * self._at(piece.end)
            path += [f"V{y:.1f}" if is_open else f"M{x:.1f} {y:.1f}", f"H{until:.1f}"]
            is_open = True
        return "".join(path)

    def _ticks(self) -> Iterator[tuple[float, str]]:
        """Yield round times for the axis, each with where it lies."""
        seconds = self.end - self.start
        rough = max(0.1, seconds / self.TICKS)
        power = 10.0 ** math.floor(math.log10(rough))
        steps = [power, 2 * power, 5 * power, 10 * power]
        if rough >= 10:
            steps = [15, 30, 60, 120, 300, 600]
        step = next((s for s in steps if s >= rough), math.ceil(rough / 600) * 600)
        last = math.floor((self.end - 0.02 * seconds) / step)
        for k in range(math.ceil(self.start / step), last + 1):
            yield self._at(k * step), clock(k * step).removesuffix(".0")
