"""A report as one page: a single HTML file that loads nothing and runs no script.

Pictures and sounds are inside it. The sounds are other people's voices: the page is for the
machine it was made on.
"""

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from matplotlib import rc_context

from ser_embed.audio import SAMPLE_RATE, AudioFile
from ser_embed.errors import AudioError
from ser_embed.reports.breakdown import (
    abstention,
    corpus_facts,
    groups_of,
    length_of,
    most_confident_errors,
    risk_coverage,
)
from ser_embed.reports.paired import Comparison
from ser_embed.reports.plots import Plot
from ser_embed.reports.scores import Report
from ser_embed.reports.tables import find_originals, read_table, with_ranges
from ser_embed.store import FeatureSettings
from ser_embed.templates import render

__all__ = ["Page"]

PLAYED_SECONDS = 6.0  # of a wrongly classified clip, where the run takes whole clips
MOST_SPEAKERS = 60  # on the page: those with the lowest recall; the report has all
TEMPLATE = Path(__file__).with_name("page.html.j2")

_INKS = {"light": "#1d2830", "dark": "#d8dee3"}  # of the figures, on either ground


@dataclass(frozen=True)
class Page:
    """What a page is made from.

    Attributes:
        report: The scores.
        predictions: One row a test clip, with `seconds` and `sha256`.
        training: What the baselines are computed from, as `Report.of` takes it.
        run: Folder of the run.
        folders: Folders of its heads.
        cards: Their cards.
        seed: Of the resampling.
    """

    report: Report
    predictions: pd.DataFrame
    training: pd.DataFrame
    run: Path
    folders: Sequence[Path]
    cards: Sequence[Mapping[str, Any]]
    seed: int

    def write(
        self, path: Path, roots: Sequence[Path] = (), comparison: Comparison | None = None
    ) -> int:
        """Write the page.

        Args:
            path: The file.
            roots: Folders in which the audio of the worst errors is looked for; none for no sound.
            comparison: With another run.

        Returns:
            How many clips can be played on it.
        """
        errors = list(self._errors(roots))
        html = render(
            TEMPLATE,
            in_line=_in_line,
            report=self.report,
            comparison=comparison,
            corpora=self._corpora(),
            groups=self._groups(),
            most_speakers=MOST_SPEAKERS,
            figures=self._figures(),
            abstention=self._abstention(),
            errors=errors,
            wrong=int((self.predictions["label"] != self.predictions["predicted"]).sum()),
            robustness=self._robustness(),
            cards=self.cards,
        )
        # A file's name may hold bytes that are no text.
        path.write_text(html, encoding="utf-8", errors="backslashreplace")
        return sum(one["sound"] is not None for one in errors)

    # --- the numbers -------------------------------------------------------------------------

    def _scored(self, predictions: pd.DataFrame, names: pd.Series) -> dict[str, Report]:
        return groups_of(predictions, names, self.report.classes, self.training, self.seed)

    def _corpora(self) -> list[dict[str, Any]]:
        """Return each corpus's report, and facts from every clip of the run and of the test."""
        columns = ["corpus", "path", "start", "end", "speaker", "label"]
        tables = [read_table(folder / "clips.csv")[columns] for folder in self.folders]
        tables.append(with_ranges(self.predictions)[columns])
        clips = pd.concat(tables, ignore_index=True).drop_duplicates(columns[:4])
        facts = {one.corpus: one for one in corpus_facts(clips, self.report.classes, 0)}
        scored = self._scored(self.predictions, self.predictions["corpus"])
        return [{"report": one, "facts": facts[name]} for name, one in scored.items()]

    def _groups(self) -> dict[str, list[Report]]:
        """Return the reports of the groups that the page shows; of many speakers the lowest."""
        clips = self.predictions
        lowest = sorted(self.report.groups["speaker"].items(), key=lambda one: one[1]["uar"])
        names = {"" if name == "unknown" else name for name, _ in lowest[:MOST_SPEAKERS]}
        part = clips[clips["speaker"].isin(names)].reset_index(drop=True)
        speakers = self._scored(part, part["speaker"])
        return {
            "gender": list(self._scored(clips, clips["gender"]).values()),
            "clip length": list(self._scored(clips, length_of(clips["seconds"])).values()),
            "speaker": sorted(speakers.values(), key=lambda one: one.uar),
        }

    def _confidence(self) -> tuple[np.ndarray, np.ndarray]:
        names = [f"p_{name}" for name in self.report.classes]
        right = self.predictions["label"] == self.predictions["predicted"]
        return self.predictions[names].to_numpy().max(1), right.to_numpy()

    def _abstention(self) -> dict[str, Any]:
        index = {name: i for i, name in enumerate(self.report.classes)}
        truth, predicted = (
            self.predictions[column].map(index).to_numpy() for column in ("label", "predicted")
        )
        confidence, right = self._confidence()
        _, coverage, risk = risk_coverage(confidence, right)
        return {
            "rows": abstention(confidence, truth, predicted, len(index)),
            # Risk averaged over the coverages (Geifman and El-Yaniv 2017).
            "area": float(np.sum(risk * np.diff(coverage, prepend=0))),
        }

    def _robustness(self) -> dict[str, Any] | None:
        """Return what ser_embed.robustness found of these very heads, if it has been run."""
        try:
            found = json.loads((self.run / "robustness" / "robustness.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        same = found.get("heads") == [card.get("weights_sha256") for card in self.cards]
        return found if same else None

    # --- pictures and sounds -----------------------------------------------------------------

    def _figures(self) -> dict[str, dict[str, str]]:
        confidence, right = self._confidence()
        raw = self.predictions["raw_confidence"].to_numpy()
        _, coverage, risk = risk_coverage(confidence, right)
        figures = {
            "reliability": lambda: Plot.reliability(confidence, right, self.report.ece, raw=raw),
            "risk": lambda: Plot.risk_coverage(coverage, risk),
        }
        if history := self._history():
            # Fine-tuning counts steps, of which an epoch has many.
            unit = "step" if "step" in history[0] else "epoch"
            figures["history"] = lambda: Plot.history(*history, unit=unit)
        return {name: _figure(draw) for name, draw in figures.items()}

    def _history(self) -> tuple[dict[str, list[float]], int] | None:
        """Return the first head's history and the epoch kept, None where there is no such table."""
        try:
            table = pd.read_csv(self.folders[0] / "history.csv")
            if "member" in table:
                table = table[table["member"] == 1]
            columns = {str(name): table[name].tolist() for name in table}
            if not {"epoch", "train_loss", "val_loss", "val_uar"} <= set(columns):
                return None
            return columns, int(np.atleast_1d(self.cards[0]["training"]["kept"])[0])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _errors(self, roots: Sequence[Path]) -> Iterator[dict[str, Any]]:
        worst = most_confident_errors(with_ranges(self.predictions))
        files = find_originals(worst, roots) if roots else [None] * len(worst)
        settings = FeatureSettings(**self.cards[0]["features"])
        for clip, file in zip(worst.to_dict("records"), files, strict=True):
            yield {
                **{str(k): v for k, v in clip.items()},
                "sound": _sound(file, clip["start"], clip["end"], settings) if file else None,
            }


def _in_line(value: Any, of_floats: str = "") -> str:
    """Return a value of a card in one line of text, its floats in a format such as `.3f`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {one}" for name, one in value.items())
    values = value if isinstance(value, list) else [value]
    return ", ".join(f"{v:{of_floats}}" if isinstance(v, float) else str(v) for v in values)


def _figure(draw: Callable[[], Plot]) -> dict[str, str]:
    """Draw a figure as SVG for a light and for a dark page."""
    found = {}
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    for name, ink in _INKS.items():
        colours: dict[Any, str] = dict.fromkeys(inked, ink)
        colours |= dict.fromkeys(("axes.facecolor", "legend.facecolor"), "none")
        with rc_context({**colours, "svg.hashsalt": name}):
            found[name] = _data("image/svg+xml", draw().svg())
    return found


def _sound(file: Path, start: float, end: float, settings: FeatureSettings) -> str | None:
    """Return a clip as the classifier takes it, before it is filled: FLAC, 16 kHz, mono."""
    try:
        seconds = settings.seconds or PLAYED_SECONDS
        clip = AudioFile(file).read(seconds, settings.trim, start, end or None)
    except AudioError:
        return None
    memory = io.BytesIO()
    samples = clip.samples[: int(PLAYED_SECONDS * SAMPLE_RATE)]
    soundfile.write(memory, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return _data("audio/flac", memory.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
