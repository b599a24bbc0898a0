"""What the tabs of the page do: a file, a microphone, many files, the model's card; HTML comes out.

Nothing here knows what serves the page.
"""

import contextlib
import csv
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.audio import AudioFile, SpeechGate
from ser_embed.errors import AudioError, SerEmbedError, WebError
from ser_embed.live import Engine
from ser_embed.predict import Classifier, Recording, Segment, SegmentSettings, clock
from ser_embed.web.markup import Track, list_probabilities, percent, render

__all__ = ["Tabs"]


class Tabs:
    """Does what the tabs ask for: uploads and blocks of sound come in, HTML goes out."""

    def __init__(
        self, classifier: Classifier, settings: SegmentSettings, max_minutes: float, max_files: int
    ) -> None:
        self.classifier, self.settings = classifier, settings
        self.max_minutes, self.max_files = max_minutes, max_files
        self._closing, self._jobs, self._changed = False, 0, threading.Condition()

    def close(self, seconds: float = 10.0) -> None:
        """Accept no more work and wait until the jobs at hand have ended, at most so long.

        A process that ends while a thread of it computes is aborted.
        """
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: not self._jobs, seconds)

    @contextlib.contextmanager
    def _job(self) -> Iterator[None]:
        with self._changed:
            self._check_open()
            self._jobs += 1
        try:
            yield
        finally:
            with self._changed:
                self._jobs -= 1
                self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closing:
            raise WebError("this page is closing")

    # --- files ---------------------------------------------------------------------------------

    def label_file(self, path: Path, on_progress: Callable[[float, str], object]) -> Recording:
        """Cut and label one upload.

        Args:
            path: The upload.
            on_progress: Called with the share that is done and a word on it.

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

        def _on_progress(done: float) -> None:
            self._check_open()
            on_progress(min(1.0, done / seconds), f"{clock(done)} of {clock(seconds)}")

        with self._job():
            return Recording.of_file(path, self.classifier, self.settings, _on_progress)

    def show_file(self, path: Path, on_progress: Callable[[float, str], object]) -> str:
        """Return all about one upload: label, picture, files, table."""
        try:
            recording = self.label_file(path, on_progress)
        except SerEmbedError as error:
            return render("error", _without_folder(error, path))
        files = {
            f"{path.stem}.csv": recording.to_csv(),
            f"{path.stem}.json": recording.to_json(),
            f"{path.stem}.audacity.txt": recording.to_audacity(),
        }
        threshold = self.settings.threshold
        picture = Track(recording.pieces, recording.classes, threshold, recording.peaks)
        return render("recording", recording, picture, files)

    def show_batch(self, paths: Sequence[Path]) -> Iterator[str]:
        """Yield the table after each upload, and at the end the files too."""
        if not paths:
            yield render("error", "Choose one or more files first.")
            return
        if len(paths) > self.max_files:
            yield render("error", f"{len(paths)} files; this page takes {self.max_files} at once.")
            return
        rows, lines = [], []
        for path in paths:
            row, line = self._batch_row(path)
            rows.append(row)
            lines.append(line)
            done = len(rows) == len(paths)
            files = {"emotions.csv": self._batch_csv(lines)} if done else {}
            yield render("batch", rows, len(paths), files)

    def _batch_row(self, path: Path) -> tuple[list[str], list[str]]:
        """Return an upload's row on the page and its line in the CSV."""
        classes, name = self.classifier.classes, path.name
        try:
            recording = self.label_file(path, lambda *_: None)
        except SerEmbedError as error:
            reason = _without_folder(error, path)
            return [name, "", "failed", "", reason], [name, *[""] * (len(classes) + 4), reason]
        whole = recording.summary
        listed = list_probabilities(whole.probabilities)
        row = [name, clock(recording.seconds), whole.label, percent(whole.confidence), listed]
        spoken = sum(p.end - p.start for p in recording.pieces if p.probabilities)
        times = [f"{recording.seconds:.3f}", f"{spoken:.3f}"]
        return row, [name, *times, *whole.cells(classes), ""]

    def _batch_csv(self, lines: Sequence[Sequence[str]]) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        probabilities = [f"p_{name}" for name in self.classifier.classes]
        head = ["file", "seconds", "speech_seconds", "label", "confidence", *probabilities, "error"]
        writer.writerows([head, *lines])
        return text.getvalue()

    # --- a microphone --------------------------------------------------------------------------

    def stream(
        self, block: tuple[int, np.ndarray] | None, engine: Engine | None
    ) -> tuple[str, Engine]:
        """Process a visitor's next block, and return what to show and the visitor's engine.

        Args:
            block: Rate in Hz, and samples as the browser gives them: mostly integers, of shape
                (n,) or (n, n_channels).
            engine: The visitor's; None starts anew.
        """
        engine = engine or Engine(self.classifier, self.settings)
        if block is not None:
            rate, samples = block
            scale = np.iinfo(samples.dtype).max if samples.dtype.kind in "iu" else 1
            with contextlib.suppress(WebError), self._job():
                engine.ring.push(samples.astype(np.float32) / scale, rate)
                engine.process()
        return self.show_live(engine), engine

    def stop_stream(self, engine: Engine | None) -> tuple[str, None]:
        """End a visitor's stream: what stays on the page is the mean over the last minute."""
        if engine is None:
            return "", None
        with self._job(), contextlib.suppress(AudioError):  # stopped before there was any speech
            engine.finish()
        pieces = list(engine.session.recent)
        if not pieces:
            return "", None
        whole = Segment.mean(pieces, self.settings.threshold)
        title = f"Stopped. Mean over the speech in {clock(whole.end - whole.start)}"
        return self._live(title, whole, pieces), None

    def show_live(self, engine: Engine | None) -> str:
        """Show a visitor's newest label and the last minute."""
        if engine is None:
            return self._live("Press Record and speak.", None, [])
        now = engine.session.now or Segment.judge(0.0, 0.0, {}, 0.0)
        return self._live("Now", now, list(engine.session.recent))

    def _live(self, title: str, segment: Segment | None, pieces: Sequence[Segment]) -> str:
        classes = self.classifier.classes
        picture = Track(pieces, classes, self.settings.threshold) if pieces else None
        return render("live", title, segment, classes, picture)

    # --- the model -----------------------------------------------------------------------------

    def headline(self) -> str:
        """Return the page's head: what the model is, in two lines."""
        report = _report(self.classifier.run)
        text = f"Trained on {', '.join(self.classifier.card['corpora'])}"
        if report:
            low, high = report["uar_ci"]
            text += f"; unweighted average recall {report['uar']:.0%} [{low:.0%}, {high:.0%}]"
        return render("headline", self.classifier.run.name, text)

    def about(self) -> str:
        """Return the model's card as HTML."""
        card, report = self.classifier.card, _report(self.classifier.run)
        licences = card.get("corpus_licences", {})
        corpora = (
            f"{name}, {count:,} clips ({licences.get(name, 'licence unknown')})"
            for name, count in card["corpora"].items()
        )
        score = "this head has no report"
        if report:
            low, high = report["uar_ci"]
            baseline = max(scores["uar"] for scores in report["baselines"].values())
            score = (
                f"unweighted average recall {report['uar']:.1%}, 95% interval {low:.1%} to "
                f"{high:.1%} by {report['ci_by']}, on {report['clips']:,} clips of the same "
                f"corpora; the no-audio baseline gets {baseline:.1%}"
            )
        heads = len(self.classifier.heads)
        facts = {
            "Classes": ", ".join(self.classifier.classes),
            "Trained on": "; ".join(corpora),
            "Encoder": f"{card['features']['encoder']} ({card['encoder_licence']})",
            "Split": card["split"]["rule"] + (f", {heads} heads averaged" if heads > 1 else ""),
            "Tested": score,
            "Pauses found by": SpeechGate().name,
            "Use": card["use"],
        }
        warnings = list(report.get("warnings", []))
        if card["demo"]:
            warnings.append("Trained on synthetic demo clips: not meant for real speech.")
        elif not card["encoder_trained"]:
            warnings.append("The encoder is untrained: a control, not meant for use.")
        return render("about", facts, warnings)


def _report(run: Path) -> dict[str, Any]:
    """Return a run's report, empty if there is none that is whole."""
    try:
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
        return report if {"uar", "uar_ci", "ci_by", "clips", "baselines"} <= set(report) else {}
    except (OSError, ValueError):
        return {}


def _without_folder(error: Exception, path: Path) -> str:
    """Return an error without the folder that the upload was put into."""
    return str(error).replace(str(path), path.name)
