"""Predictions to numbers one can trust: scores, intervals, calibration, leakage, baselines.

UAR, unweighted average recall, is the mean over the classes of each class's recall (macro
recall); WA, weighted accuracy, is plain accuracy. These are the field's names.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_embed.reports.plots import plot_confusion, plot_groups, plot_reliability, save_plot

__all__ = [
    "Report", "confusion", "evaluate", "expected_calibration_error", "resampled", "uar_of",
]  # fmt: skip

RESAMPLES = 2000  # of the speakers, for the interval
BINS = 15  # of confidence, for the calibration error (Guo et al. 2017)


def confusion(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Count (true, predicted) pairs of class indices (N,): an int matrix (C, C), rows true."""
    pairs = np.bincount(truth * n_classes + predicted, minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes)


def uar_of(matrix: np.ndarray) -> np.ndarray:
    """Return the mean recall over the classes that occur, of confusion matrices (..., C, C)."""
    support = matrix.sum(-1)
    recall = np.diagonal(matrix, axis1=-2, axis2=-1) / np.maximum(support, 1)
    return recall.sum(-1) / np.maximum((support > 0).sum(-1), 1)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean distance between confidence and accuracy over 15 equal bins (Guo et al. 2017)."""
    which = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    gap = np.bincount(which, confidence - correct, BINS)
    return float(np.abs(gap).sum() / len(confidence))


@dataclass
class Report:
    """The scores of one set of predictions.

    Attributes:
        title: What was tested.
        classes: Class names.
        clips: Number of test clips.
        wa: Accuracy.
        uar: Mean recall over the classes.
        macro_f1: Mean F1 over the classes.
        uar_ci: 95 % interval of the UAR by resampling speakers (clips, where there are no two).
        ci_by: What was resampled.
        per_class: Precision, recall, F1 and support of each class.
        matrix: Confusion matrix, rows true.
        groups: UAR and clips by speaker, gender and corpus.
        ece: Expected calibration error of the probabilities as given.
        ece_raw: The same before temperature scaling.
        baselines: Scores without listening: the majority class, and each speaker's.
        leakage: Counts of what test shares with training.
        warnings: Sentences that belong beside the score.
        folds: UAR of each fold, of a cross-validation.
    """

    title: str
    classes: tuple[str, ...]
    clips: int
    wa: float
    uar: float
    macro_f1: float
    uar_ci: tuple[float, float]
    ci_by: str
    per_class: dict[str, dict[str, float]]
    matrix: list[list[int]]
    groups: dict[str, dict[str, dict[str, float]]]
    ece: float
    ece_raw: float
    baselines: dict[str, dict[str, float]]
    leakage: dict[str, int]
    warnings: list[str] = field(default_factory=list)
    folds: dict[str, float] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """The result in one line."""
        low, high = self.uar_ci
        text = (
            f"UAR {self.uar:.3f} [{low:.3f}, {high:.3f}]  WA {self.wa:.3f}  "
            f"macro-F1 {self.macro_f1:.3f}  on {self.clips} clips"
        )
        if self.folds:
            values = list(self.folds.values())
            text += (
                f"; {len(values)} folds: mean UAR {np.mean(values):.3f}, "
                f"standard deviation {np.std(values):.3f}"
            )
        return text

    @property
    def scores(self) -> dict[str, Any]:
        """The object that `--json` prints under `test`."""
        scores: dict[str, Any] = {
            "wa": self.wa, "uar": self.uar, "macro_f1": self.macro_f1, "uar_ci": list(self.uar_ci),
        }  # fmt: skip
        if self.folds:
            scores["fold_uar"] = self.folds
            scores["mean_fold_uar"] = float(np.mean(list(self.folds.values())))
        return scores

    def show(self, path: Path) -> None:
        """Print the result, what is to be said beside it, and where the whole report is."""
        print(self.headline)
        for warning in self.warnings:
            print(f"  careful: {warning}")
        guess = max(self.baselines.values(), key=lambda scores: scores["uar"])["uar"]
        print(f"  guessing without listening: UAR {guess:.3f}")
        print(f"report: {path}")

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        lines = [f"# {self.title}", "", f"**{self.headline}**", ""]
        lines += [f"> **Careful.** {warning}\n" for warning in self.warnings]
        lines += ["The interval is the 2.5 to 97.5 percentile of "
                  f"{RESAMPLES} resamples of the test {self.ci_by}.", ""]  # fmt: skip
        lines += ["## Against guessing", "", "| | WA | UAR |", "|---|---|---|"]
        lines += [f"| this head | {self.wa:.3f} | {self.uar:.3f} |"]
        lines += [f"| {k} | {v['wa']:.3f} | {v['uar']:.3f} |" for k, v in self.baselines.items()]
        lines += ["", "## By class", "", "| class | precision | recall | F1 | clips |",
                  "|---|---|---|---|---|"]  # fmt: skip
        for name, row in self.per_class.items():
            cells = " | ".join(f"{row[k]:.3f}" for k in ("precision", "recall", "f1"))
            lines.append(f"| {name} | {cells} | {row['support']:.0f} |")
        lines += ["", "![confusion matrix](confusion.png)", ""]
        lines += ["## What test shares with training", ""]
        lines += [f"- {name.replace('_', ' ')}: {count}" for name, count in self.leakage.items()]
        lines += ["", "## Calibration", ""]
        lines += [
            f"Expected calibration error {self.ece:.3f}; before temperature scaling on the "
            f"validation part {self.ece_raw:.3f}.",
            "",
            "![reliability](reliability.png)",
            "",
        ]
        for column, groups in self.groups.items():
            lines += [f"## By {column}", "", "| | UAR | WA | clips |", "|---|---|---|---|"]
            lines += [
                f"| {name} | {v['uar']:.3f} | {v['wa']:.3f} | {v['clips']:.0f} |"
                for name, v in groups.items()
            ]
            lines.append("")
        if self.folds:
            lines += ["## By fold", "", "| fold | UAR |", "|---|---|"]
            lines += [f"| {name} | {value:.3f} |" for name, value in self.folds.items()]
        return "\n".join(lines) + "\n"

    def save(self, folder: Path, predictions: pd.DataFrame) -> None:
        """Write report.md, report.json, predictions.csv and the plots into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_plot(plot_confusion(np.array(self.matrix), self.classes), folder / "confusion.png")
        confidence = predictions[[f"p_{name}" for name in self.classes]].to_numpy().max(1)
        correct = (predictions["label"] == predictions["predicted"]).to_numpy()
        save_plot(plot_reliability(confidence, correct, self.ece), folder / "reliability.png")
        for column, groups in self.groups.items():
            names = list(groups)
            values = [groups[name]["uar"] for name in names]
            save_plot(plot_groups(names, values, self.uar), folder / f"by_{column}.png")
        predictions.to_csv(
            folder / "predictions.csv", index=False, float_format="%.5f", errors="surrogateescape"
        )
        (folder / "report.md").write_text(self.to_markdown(), encoding="utf-8")
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        (folder / "report.json").write_text(text, encoding="utf-8")


def evaluate(
    title: str,
    predictions: pd.DataFrame,
    classes: Sequence[str],
    *,
    training: pd.DataFrame,
    leakage: Mapping[str, int],
    warnings: Sequence[str] = (),
    seed: int = 0,
) -> Report:
    """Score predictions.

    Args:
        title: What was tested.
        predictions: One row a test clip: `label` and `predicted` (class names), `p_<class>`
            (probabilities), `raw_confidence`, `speaker`, `gender`, `corpus`, and `fold` if
            cross-validated.
        classes: Class names in the head's order.
        training: Clips that training saw, with `label` (class name), `speaker` and, if
            cross-validated, `fold`: what the baselines are computed from.
        leakage: The audit of the split.
        warnings: Further sentences to print beside the score.
        seed: Seed of the resampling.

    Returns:
        The report.
    """
    index = {name: i for i, name in enumerate(classes)}
    truth = predictions["label"].map(index).to_numpy()
    predicted = predictions["predicted"].map(index).to_numpy()
    matrix = confusion(truth, predicted, len(classes))
    correct = truth == predicted
    confidence = predictions[[f"p_{name}" for name in classes]].to_numpy().max(1)
    per_class = _per_class(matrix, classes)
    interval, by = _interval(predictions["speaker"], truth, predicted, len(classes), seed)
    occurring = [row for row in per_class.values() if row["support"]]
    folds = {}
    if "fold" in predictions and predictions["fold"].nunique() > 1:
        for name, rows in predictions.groupby("fold", sort=False).indices.items():
            folds[str(name)] = float(uar_of(confusion(truth[rows], predicted[rows], len(classes))))
    return Report(
        title=title,
        classes=tuple(classes),
        clips=len(predictions),
        wa=float(correct.mean()),
        uar=float(uar_of(matrix)),
        macro_f1=float(np.mean([row["f1"] for row in occurring])),
        uar_ci=interval,
        ci_by=by,
        per_class=per_class,
        matrix=matrix.tolist(),
        groups={c: _groups(predictions[c], truth, predicted, len(classes))
                for c in ("corpus", "gender", "speaker")},
        ece=expected_calibration_error(confidence, correct),
        ece_raw=expected_calibration_error(predictions["raw_confidence"].to_numpy(), correct),
        baselines=_baselines(predictions, training, truth, index),
        leakage=dict(leakage),
        warnings=[*_leak_warnings(leakage), *warnings],
        folds=folds,
    )  # fmt: skip


def _per_class(matrix: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    hits, support, guesses = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    precision, recall = hits / np.maximum(guesses, 1), hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + guesses, 1)
    return {
        name: {"precision": float(precision[i]), "recall": float(recall[i]),
               "f1": float(f1[i]), "support": float(support[i])}
        for i, name in enumerate(classes)
    }  # fmt: skip


def resampled(
    speakers: pd.Series, truth: np.ndarray, predicted: np.ndarray, n_classes: int, seed: int
) -> tuple[np.ndarray, str]:
    """Resample speakers with replacement: a new recording comes from a new speaker.

    Clips (N,) are resampled where there are no two speakers, or one is unknown. Two sets of
    predictions of the same clips are resampled alike, so their matrices pair up.

    Returns:
        Confusion matrices (2000, C, C), and what was resampled.
    """
    names, which = np.unique(speakers.to_numpy(dtype=str), return_inverse=True)
    by = "speakers"
    if len(names) < 2 or "" in names:
        which, by = np.arange(len(truth)), "clips (there are no two named speakers)"
    n = int(which.max()) + 1
    per_group = np.zeros((n, n_classes, n_classes))
    np.add.at(per_group, (which, truth, predicted), 1)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)  # how often each is drawn
    return np.einsum("rn,nij->rij", times, per_group, optimize=True), by


def _interval(
    speakers: pd.Series, truth: np.ndarray, predicted: np.ndarray, n_classes: int, seed: int
) -> tuple[tuple[float, float], str]:
    matrices, by = resampled(speakers, truth, predicted, n_classes, seed)
    low, high = np.percentile(uar_of(matrices), [2.5, 97.5])
    return (float(low), float(high)), by


def _groups(
    column: pd.Series, truth: np.ndarray, predicted: np.ndarray, n_classes: int
) -> dict[str, dict[str, float]]:
    result = {}
    for name in sorted(column.unique()):
        rows = np.flatnonzero(column == name)
        matrix = confusion(truth[rows], predicted[rows], n_classes)
        result[name or "unknown"] = {
            "uar": float(uar_of(matrix)),
            "wa": float(np.trace(matrix) / len(rows)),
            "clips": float(len(rows)),
        }
    return result


def _baselines(
    predictions: pd.DataFrame, training: pd.DataFrame, truth: np.ndarray, index: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Score two guesses that never listen, fold by fold where there are folds."""
    majority = np.zeros(len(predictions), dtype=int)
    speaker = np.zeros(len(predictions), dtype=int)
    folds = predictions["fold"] if "fold" in predictions else pd.Series("", predictions.index)
    for fold, rows in predictions.groupby(folds).indices.items():
        seen = training[training["fold"] == fold] if "fold" in training else training
        labels = seen["label"].map(index).to_numpy(dtype=int)
        most = int(np.bincount(labels).argmax())
        habits = {
            name: int(np.bincount(labels[group]).argmax())
            for name, group in seen.groupby("speaker").indices.items()
        }
        majority[rows] = most
        speakers = predictions["speaker"].iloc[rows]
        speaker[rows] = speakers.map(habits).fillna(most).to_numpy(dtype=int)
    n = len(index)
    return {
        name: {"wa": float((guess == truth).mean()),
               "uar": float(uar_of(confusion(truth, guess, n)))}
        for name, guess in (("majority class of training", majority),
                            ("each speaker's majority class in training", speaker))
    }  # fmt: skip


def _leak_warnings(leakage: Mapping[str, int]) -> list[str]:
    warnings = []
    if leakage.get("shared_speakers"):
        warnings.append(
            f"{leakage['shared_speakers']} of {leakage['test_speakers']} test speakers were also "
            "trained on: the score is not what a new speaker would get."
        )
    if leakage.get("test_speakers") == 0:
        warnings.append(
            "The test clips' speakers are unknown, so they may have been trained on: the score is "
            "not what a new speaker would get."
        )
    if leakage.get("duplicates"):
        warnings.append(f"{leakage['duplicates']} test clips are byte-identical to training clips.")
    if leakage.get("halves"):
        warnings.append(
            f"{leakage['halves']} test clips are cut from a recording whose other part was "
            "trained on."
        )
    if 0 < leakage.get("test_speakers", 0) < 5:
        warnings.append(
            f"Test speakers: only {leakage['test_speakers']}, so the interval is a rough guide."
        )
    return warnings
