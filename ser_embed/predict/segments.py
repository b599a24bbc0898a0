"""Segments of a recording: from probabilities over time to labels with start and end, and to files.

A piece is the time that one window stands for. Neighbouring pieces of equal label make a segment;
`ser_embed.segmenter` finds the pieces.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

__all__ = [
    "NO_SPEECH", "UNSURE", "Piece", "Segment", "clock", "judge", "mean_of", "merge_pieces",
    "write_audacity", "write_csv", "write_json", "write_table",
]  # fmt: skip

NO_SPEECH = "no speech"
UNSURE = "unsure"


@dataclass(frozen=True)
class Segment:
    """A stretch of time with one label.

    Attributes:
        start: Seconds from the start of the recording.
        end: The same.
        label: A class, `unsure`, or `no speech`.
        confidence: Probability of the most probable class; None where nobody speaks.
        probabilities: Class to probability, the mean over the segment; empty where nobody speaks.
    """

    start: float
    end: float
    label: str
    confidence: float | None
    probabilities: dict[str, float]


class Piece(NamedTuple):
    """The time that one window stands for, in seconds; `probabilities` is None in a pause."""

    start: float
    end: float
    probabilities: np.ndarray | None  # (C,)


def judge(
    start: float,
    end: float,
    probabilities: np.ndarray | None,
    classes: Sequence[str],
    threshold: float,
) -> Segment:
    """Return the segment that probabilities (C,) make; None is no speech."""
    if probabilities is None:
        return Segment(start, end, NO_SPEECH, None, {})
    best = int(probabilities.argmax())
    confidence = float(probabilities[best])
    label = classes[best] if confidence >= threshold else UNSURE
    shares = {name: float(p) for name, p in zip(classes, probabilities, strict=True)}
    return Segment(start, end, label, confidence, shares)


def merge_pieces(
    pieces: Iterable[Piece], classes: Sequence[str], threshold: float
) -> list[Segment]:
    """Join neighbours of equal label; a segment has its pieces' mean, weighted by their length."""
    runs: list[tuple[str, list[Piece]]] = []
    for piece in pieces:
        label = judge(*piece, classes, threshold).label
        if runs and runs[-1][0] == label:
            runs[-1][1].append(piece)
        else:
            runs.append((label, [piece]))
    segments = []
    for label, run in runs:
        whole = judge(run[0].start, run[-1].end, mean_of(run), classes, threshold)
        segments.append(replace(whole, label=label))
    return segments


def mean_of(pieces: Iterable[Piece]) -> np.ndarray | None:
    """Return the mean probabilities (C,) of what is speech, weighted by length."""
    told = [(p.end - p.start, p.probabilities) for p in pieces if p.probabilities is not None]
    if not told:
        return None
    weights, values = zip(*told, strict=True)
    return np.average(values, axis=0, weights=weights)


# --- files -------------------------------------------------------------------------------------


def clock(seconds: float) -> str:
    """Return a time as people read it: 1:02.5, or 1:02:03.5 from an hour on."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    shown = f"{rest / 10:04.1f}"
    return f"{minutes}:{shown}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{shown}"


def write_table(segments: Sequence[Segment]) -> str:
    """Return segments as text, a line each."""
    width = max((len(segment.label) for segment in segments), default=0)
    time = max((len(clock(segment.end)) for segment in segments), default=0)
    lines = []
    for s in segments:
        shown = "" if s.confidence is None else f"{s.confidence:4.0%}"
        shares = "  ".join(f"{name} {share:4.0%}" for name, share in s.probabilities.items())
        when = f"{clock(s.start):>{time}} - {clock(s.end):>{time}}"
        line = f"{when}  {s.label:{width}}  {shown}   {shares}"
        lines.append(line.rstrip() + "\n")
    return "".join(lines)


def write_json(segments: Sequence[Segment]) -> str:
    """Return segments as a JSON array of objects; `confidence` is null where nobody speaks."""
    return json.dumps([asdict(segment) for segment in segments], indent=1, ensure_ascii=False)


def write_csv(segments: Sequence[Segment], classes: Sequence[str]) -> str:
    """Return segments as CSV: start, end, label, confidence, and a column `p_<class>` each."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["start", "end", "label", "confidence", *(f"p_{name}" for name in classes)])
    for s in segments:
        confidence = "" if s.confidence is None else f"{s.confidence:.5f}"
        shares = (f"{s.probabilities[c]:.5f}" if s.probabilities else "" for c in classes)
        writer.writerow([f"{s.start:.3f}", f"{s.end:.3f}", s.label, confidence, *shares])
    return text.getvalue()


def write_audacity(segments: Sequence[Segment]) -> str:
    """Return segments as an Audacity label track: start, tab, end, tab, label."""
    return "".join(f"{s.start:.6f}\t{s.end:.6f}\t{' '.join(s.label.split())}\n" for s in segments)
