"""Segments of a recording: labels with start and end, how they are averaged and joined."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

__all__ = ["Segment", "clock"]


@dataclass(frozen=True)
class Segment:
    """A stretch of time with one label.

    Attributes:
        start: Seconds from the start of the recording.
        end: The same.
        label: A class, `Segment.UNSURE`, or `Segment.NO_SPEECH`.
        confidence: Probability of the most probable class; None where nobody speaks.
        probabilities: Class to probability, the mean over the segment; empty where nobody speaks.
    """

    start: float
    end: float
    label: str
    confidence: float | None
    probabilities: dict[str, float]

    NO_SPEECH: ClassVar[str] = "no speech"
    UNSURE: ClassVar[str] = "unsure"

    @classmethod
    def judge(
        cls, start: float, end: float, probabilities: Mapping[str, float], threshold: float
    ) -> "Segment":
        """Return the segment that probabilities make; without any it is `NO_SPEECH`."""
        if not probabilities:
            return cls(start, end, cls.NO_SPEECH, None, {})
        best = max(probabilities, key=lambda name: probabilities[name])
        confidence = probabilities[best]
        label = best if confidence >= threshold else cls.UNSURE
        return cls(start, end, label, confidence, dict(probabilities))

    @classmethod
    def mean(cls, segments: Sequence["Segment"], threshold: float) -> "Segment":
        """Return consecutive segments as one: the mean over what is speech, weighted by length."""
        spoken = [segment for segment in segments if segment.probabilities]
        mean: dict[str, float] = {}
        if spoken:
            values = [list(segment.probabilities.values()) for segment in spoken]
            weights = [segment.end - segment.start for segment in spoken]
            average = np.average(values, axis=0, weights=weights)
            mean = dict(zip(spoken[0].probabilities, average.tolist(), strict=True))
        return cls.judge(segments[0].start, segments[-1].end, mean, threshold)

    @classmethod
    def merge(cls, segments: Iterable["Segment"]) -> list["Segment"]:
        """Join neighbours of equal label where one begins as the other ends."""
        runs: list[list[Segment]] = []
        for segment in segments:
            last = runs[-1][-1] if runs else None
            if last and (last.label, last.end) == (segment.label, segment.start):
                runs[-1].append(segment)
            else:
                runs.append([segment])
        return [
            run[0] if len(run) == 1 else replace(cls.mean(run, 0.0), label=run[0].label)
            for run in runs
        ]

    def cells(self, classes: Sequence[str]) -> list[str]:
        """Return a row of CSV: label, confidence, the probability of each class."""
        confidence = "" if self.confidence is None else f"{self.confidence:.5f}"
        row = (f"{self.probabilities[c]:.5f}" if self.probabilities else "" for c in classes)
        return [self.label, confidence, *row]


def clock(seconds: float) -> str:
    """Return a time as people read it: 1:02.5, or 1:02:03.5 from an hour on."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    shown = f"{rest / 10:04.1f}"
    return f"{minutes}:{shown}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{shown}"
