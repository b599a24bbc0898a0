"""A recording of any length as segments, and the files that they are written to."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from ser_embed.audio import SAMPLE_RATE, AudioFile, Clip
from ser_embed.errors import AudioError
from ser_embed.predict.classifier import Classifier
from ser_embed.predict.options import SegmentSettings
from ser_embed.predict.segmenter import Segmenter
from ser_embed.predict.segments import Segment, clock

__all__ = ["PEAK_SECONDS", "Recording"]

PEAK_SECONDS = 0.01  # of sound that one value of a recording's envelope stands for


@dataclass(frozen=True)
class Recording:
    """A recording's labels over time.

    Attributes:
        classes: Class names.
        seconds: Its length.
        pieces: The windows' labels; they cover the recording without gap or overlap.
        threshold: Confidence below which a label is `unsure`.
        peaks: Loudest sample of every hundredth of a second, float32; 1 is full scale.
    """

    classes: tuple[str, ...]
    seconds: float
    pieces: list[Segment]
    threshold: float
    peaks: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.float32))

    @classmethod
    def of_file(
        cls,
        path: Path,
        classifier: Classifier,
        settings: SegmentSettings | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> "Recording":
        """Cut and label a file of any length; it is read in blocks.

        Args:
            path: Any file that soundfile decodes.
            classifier: Judges the windows.
            settings: How.
            on_progress: Called with the seconds that are done.

        Raises:
            AudioError: The file can't be used; the message says why.
        """
        return cls._of_blocks(
            AudioFile(path).blocks(), classifier, settings, on_progress, f"{path}: "
        )

    @classmethod
    def of_samples(
        cls, samples: np.ndarray, classifier: Classifier, settings: SegmentSettings | None = None
    ) -> "Recording":
        """Cut and label a waveform: mono float32 at 16 kHz, shape (n_samples,).

        Raises:
            AudioError: It is shorter than 25 ms, or not finite.
        """
        if not np.isfinite(samples).all():
            raise AudioError("the samples are not finite (NaN or infinite)")
        return cls._of_blocks([samples], classifier, settings)

    @classmethod
    def _of_blocks(
        cls,
        blocks: Iterable[np.ndarray],
        classifier: Classifier,
        settings: SegmentSettings | None,
        on_progress: Callable[[float], None] | None = None,
        where: str = "",
    ) -> "Recording":
        segmenter = Segmenter(classifier, settings)
        pieces: list[Segment] = []
        peaks, frame, n = [], round(PEAK_SECONDS * SAMPLE_RATE), 0
        for block in _in_seconds(blocks):
            n += len(block)
            frames = np.pad(np.abs(block), (0, -len(block) % frame)).reshape(-1, frame)
            peaks.append(frames.max(axis=1))
            pieces += segmenter.push(block)
            if on_progress is not None:
                on_progress(n / SAMPLE_RATE)
        if n < Clip.MIN_SAMPLES:
            raise AudioError(
                f"{where}{n} samples at 16 kHz; an encoder needs at least {Clip.MIN_SAMPLES}"
            )
        pieces += segmenter.finish()
        threshold = segmenter.settings.threshold
        return cls(classifier.classes, n / SAMPLE_RATE, pieces, threshold, np.concatenate(peaks))

    @cached_property
    def segments(self) -> list[Segment]:
        """The pieces, neighbours of equal label joined; they cover the recording too."""
        return Segment.merge(self.pieces)

    @cached_property
    def summary(self) -> Segment:
        """The whole as one segment, from the mean over all that is speech."""
        return Segment.mean(self.pieces, self.threshold)

    # --- files ---------------------------------------------------------------------------------

    def to_table(self) -> str:
        """Return the segments as text for reading, a line each."""
        width = max((len(segment.label) for segment in self.segments), default=0)
        time = max((len(clock(segment.end)) for segment in self.segments), default=0)
        lines = []
        for s in self.segments:
            sure = "" if s.confidence is None else f"{s.confidence:4.0%}"
            listed = "  ".join(f"{name} {p:4.0%}" for name, p in s.probabilities.items())
            when = f"{clock(s.start):>{time}} - {clock(s.end):>{time}}"
            lines.append(f"{when}  {s.label:{width}}  {sure}   {listed}".rstrip() + "\n")
        return "".join(lines)

    def to_csv(self) -> str:
        """Return CSV: start, end, label, confidence, and a column `p_<class>` each."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        probabilities = [f"p_{name}" for name in self.classes]
        writer.writerow(["start", "end", "label", "confidence", *probabilities])
        for s in self.segments:
            writer.writerow([f"{s.start:.3f}", f"{s.end:.3f}", *s.cells(self.classes)])
        return text.getvalue()

    def to_json(self) -> str:
        """Return a JSON array of objects; `confidence` is null where nobody speaks."""
        rows = [asdict(segment) for segment in self.segments]
        return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"

    def to_audacity(self) -> str:
        """Return an Audacity label track: start, tab, end, tab, label."""
        return "".join(
            f"{s.start:.6f}\t{s.end:.6f}\t{' '.join(s.label.split())}\n" for s in self.segments
        )

    FORMATS: ClassVar = {".csv": to_csv, ".json": to_json, ".txt": to_audacity}
    """How segments are written to a file, by the ending of its name."""


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
