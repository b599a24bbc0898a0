"""What the tabs of the page do: a file, a microphone, many files, the model's card; HTML comes out.

Nothing here knows what serves the page.
"""

import contextlib
import csv
import html
import io
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.audio import SAMPLE_RATE, AudioFile, Resampler, gate_name
from ser_embed.errors import AudioError, SerEmbedError, WebError
from ser_embed.predict import (
    Classifier,
    Piece,
    Recording,
    Segmenter,
    SegmentSettings,
    clock,
    judge,
    mean_of,
    merge_pieces,
    segment_file,
    write_audacity,
    write_csv,
    write_json,
)
from ser_embed.web.markup import (
    draw_about,
    draw_error,
    draw_files,
    draw_now,
    draw_segments,
    draw_table,
    draw_track,
    frame,
    list_shares,
    percent,
)

__all__ = ["Listening", "Tabs"]

LIVE_SECONDS = 60.0  # of a microphone that the page shows


class Listening:
    """One visitor's microphone; what it keeps doesn't grow with the time it listens."""

    def __init__(self, classifier: Classifier, settings: SegmentSettings) -> None:
        self.segmenter = Segmenter(classifier, settings, live=True)
        self.resampler = Resampler(SAMPLE_RATE)
        self.pieces: deque[Piece] = deque()

    def hear(self, rate: int, block: np.ndarray) -> None:
        """Take a block as the browser gives it: integers of shape (n,) or (n, n_channels)."""
        if rate != self.resampler.rate:
            self.resampler = Resampler(rate)
        scale = np.iinfo(block.dtype).max if np.issubdtype(block.dtype, np.integer) else 1
        samples = self.resampler.push(block.astype(np.float32) / scale)
        self._keep(self.segmenter.push(samples))

    def stop(self) -> str:
        """Judge what is left and show the mean over the last minute."""
        with contextlib.suppress(AudioError):  # stopped before there was anything to judge
            self._keep(self.segmenter.finish())
        if not self.pieces:
            return frame()
        start, end = self.pieces[0].start, self.pieces[-1].end
        segmenter = self.segmenter
        classes, threshold = segmenter.classifier.classes, segmenter.settings.threshold
        whole = judge(start, end, mean_of(self.pieces), classes, threshold)
        told = f'<p class="quiet">Stopped. Mean over the speech in {clock(end - start)}</p>'
        return frame(told, draw_now(whole, classes), *self._track())

    def _keep(self, pieces: Sequence[Piece]) -> None:
        self.pieces += pieces
        if not self.pieces:
            return
        since = self.pieces[-1].end - LIVE_SECONDS
        while self.pieces[0].end <= since:
            self.pieces.popleft()
        first = self.pieces[0]  # a pause may have begun long ago
        self.pieces[0] = first._replace(start=max(first.start, since))

    def draw(self) -> str:
        """Show what is being heard, and the last minute."""
        now = draw_now(self.segmenter.now, self.segmenter.classifier.classes)
        return frame('<p class="quiet">Now</p>', now, *self._track())

    def _track(self) -> list[str]:
        if not self.pieces:
            return []
        classes, threshold = self.segmenter.classifier.classes, self.segmenter.settings.threshold
        pieces = list(self.pieces)
        segments = merge_pieces(pieces, classes, threshold)
        return ["<h2>The last minute</h2>", draw_track(pieces, segments, classes, threshold)]


class Tabs:
    """Does what the tabs ask for: takes uploads and settings, returns HTML."""

    def __init__(
        self, classifier: Classifier, settings: SegmentSettings, max_minutes: float, max_files: int
    ) -> None:
        self.classifier, self.settings = classifier, settings
        self.max_minutes, self.max_files = max_minutes, max_files
        self._closing, self._jobs, self._changed = False, 0, threading.Condition()

    def close(self, seconds: float = 10.0) -> None:
        """Take no more work and wait until what is being done has ended, at most so long.

        A process that ends while a thread of it computes is aborted.
        """
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: not self._jobs, seconds)

    @contextlib.contextmanager
    def _job(self) -> Iterator[None]:
        with self._changed:
            self._go_on()
            self._jobs += 1
        try:
            yield
        finally:
            with self._changed:
                self._jobs -= 1
                self._changed.notify_all()

    def _go_on(self) -> None:
        if self._closing:
            raise WebError("this page is closing")

    def hear_file(self, path: Path, told: Callable[[float, str], None]) -> Recording:
        """Cut and label one upload.

        Args:
            path: The upload.
            told: Called with the share that is done and a word on it.

        Raises:
            AudioError: It is too long or can't be used.
            WebError: The page is closing.
        """
        seconds = AudioFile(path).duration()
        if seconds > 60 * self.max_minutes:
            raise AudioError(
                f"{path.name}: lasts {clock(seconds)}; this page takes {self.max_minutes:g} "
                "minutes. Cut it, or classify it with python Main.py --file"
            )

        def _told(done: float) -> None:
            self._go_on()
            told(min(1.0, done / seconds), f"{clock(done)} of {clock(seconds)}")

        with self._job():
            return segment_file(path, self.classifier, self.settings, _told)

    def show_file(self, path: Path, told: Callable[[float, str], None]) -> str:
        """Return all about one upload: label, picture, files, table."""
        try:
            heard = self.hear_file(path, told)
        except SerEmbedError as error:
            return draw_error(_readable(error, path))
        stem = Path(path.name).stem
        files = {
            f"{stem}.csv": write_csv(heard.segments, heard.classes),
            f"{stem}.json": write_json(heard.segments),
            f"{stem}.audacity.txt": write_audacity(heard.segments),
        }
        track = draw_track(
            heard.pieces, heard.segments, heard.classes, self.settings.threshold, heard.peaks
        )
        return frame(
            f'<p class="quiet">Mean over the speech in {clock(heard.seconds)}</p>',
            draw_now(heard.summary, heard.classes), "<h2>Over time</h2>", track,
            "<h2>Segments</h2>", draw_segments(heard.segments), draw_files(files),
        )  # fmt: skip

    def show_batch(self, paths: Sequence[Path]) -> Iterator[str]:
        """Yield the table after each upload, and at the end the files too."""
        if not paths:
            yield draw_error("Choose one or more files first.")
            return
        if len(paths) > self.max_files:
            yield draw_error(f"{len(paths)} files; this page takes {self.max_files} at once.")
            return
        rows, lines = [], []
        for number, path in enumerate(paths, start=1):
            row, line = self._judge(path)
            rows.append(row)
            lines.append(line)
            done = f'<p class="quiet" role="status">{number} of {len(paths)} files</p>'
            head = ("file", "length", "label", "confidence", "details")
            files = draw_files({"emotions.csv": self._csv(lines)}) if number == len(paths) else ""
            yield frame(done, files, draw_table(head, rows, "Files"))

    def _judge(self, path: Path) -> tuple[list[str], list[str]]:
        """Return an upload's row on the page and its line in the CSV."""
        classes, name = self.classifier.classes, path.name
        try:
            heard = self.hear_file(path, lambda *_: None)
        except SerEmbedError as error:
            reason = _readable(error, path)
            return [name, "", "failed", "", reason], [name, *[""] * (len(classes) + 4), reason]
        said = heard.summary
        sure = percent(said.confidence)
        row = [name, clock(heard.seconds), said.label, sure, list_shares(said.probabilities)]
        spoken = sum(p.end - p.start for p in heard.pieces if p.probabilities is not None)
        shares = (f"{said.probabilities[c]:.5f}" if said.probabilities else "" for c in classes)
        confidence = "" if said.confidence is None else f"{said.confidence:.5f}"
        times = [f"{heard.seconds:.3f}", f"{spoken:.3f}"]
        return row, [name, *times, said.label, confidence, *shares, ""]

    def _csv(self, lines: Sequence[Sequence[str]]) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        shares = [f"p_{name}" for name in self.classifier.classes]
        head = ["file", "seconds", "speech_seconds", "label", "confidence", *shares, "error"]
        writer.writerows([head, *lines])
        return text.getvalue()

    def hear_block(
        self, block: tuple[int, np.ndarray] | None, listening: Listening | None
    ) -> tuple[str, Listening]:
        """Take a visitor's next block and return what to show; None starts anew."""
        listening = listening or Listening(self.classifier, self.settings)
        if block is not None:
            with contextlib.suppress(WebError), self._job():
                listening.hear(*block)
        return listening.draw(), listening

    def stop_listening(self, listening: Listening | None) -> tuple[str, None]:
        """End a visitor's stream; what was heard stays on the page."""
        if listening is None:
            return frame(), None
        with self._job():
            return listening.stop(), None

    def headline(self) -> str:
        """Return the page's head: what the model is, in two lines."""
        report = _report(self.classifier.run)
        told = f"Trained on {', '.join(self.classifier.card['corpora'])}"
        if report:
            low, high = report["uar_ci"]
            told += f"; unweighted average recall {report['uar']:.0%} [{low:.0%}, {high:.0%}]"
        return frame(
            f"<h1>Speech emotion: {html.escape(self.classifier.run.name)}</h1>",
            f'<p class="quiet">{html.escape(told)}. A guess about an expression, not a fact about '
            "a person.</p>",
        )

    def about(self) -> str:
        """Return the model's card as HTML."""
        card, report = self.classifier.card, _report(self.classifier.run)
        licences = card.get("corpus_licences", {})
        corpora = (
            f"{name}, {count:,} clips ({licences.get(name, 'licence unknown')})"
            for name, count in card["corpora"].items()
        )
        score = "there is no report beside this head"
        if report:
            low, high = report["uar_ci"]
            guess = max(scores["uar"] for scores in report["baselines"].values())
            score = (
                f"unweighted average recall {report['uar']:.1%}, 95% interval {low:.1%} to "
                f"{high:.1%} by {report['ci_by']}, on {report['clips']:,} clips of the same "
                f"corpora; the best guess without listening gets {guess:.1%}"
            )
        heads = len(self.classifier.heads)
        facts = {
            "Classes": ", ".join(self.classifier.classes),
            "Trained on": "; ".join(corpora),
            "Encoder": f"{card['features']['encoder']} ({card['encoder_licence']})",
            "Split": card["split"]["rule"] + (f", {heads} heads averaged" if heads > 1 else ""),
            "Tested": score,
            "Pauses found by": gate_name(),
            "Use": card["use"],
        }
        warnings = list(report.get("warnings", []))
        if card["demo"]:
            warnings.append("Trained on synthetic demo clips: of no use on real speech.")
        elif not card["encoder_trained"]:
            warnings.append("The encoder is untrained: a control, of no use by itself.")
        return frame(draw_about(facts, warnings))


def _report(run: Path) -> dict[str, Any]:
    """Return a run's report, empty if there is none that is whole."""
    try:
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
        return report if {"uar", "uar_ci", "ci_by", "clips", "baselines"} <= set(report) else {}
    except (OSError, ValueError):
        return {}


def _readable(error: Exception, path: Path) -> str:
    """Return an error without the folder that the upload was put into."""
    return str(error).replace(str(path), path.name)
