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
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from ser_embed.errors import HeadError
from ser_embed.reports.plots import Plot
from ser_embed.templates import render

__all__ = [
    "Report", "confusion", "expected_calibration_error", "resampled", "scores_of", "uar_of",
]  # fmt: skip

TEMPLATE = Path(__file__).with_name("report.md.j2")
RESAMPLES = 2000  # of the speakers, for the interval
BINS = 15  # of confidence, for the calibration error (Guo et al. 2017)


def confusion(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Count (true, predicted) pairs of class indices (N,): an int matrix (C, C), rows true."""
    return confusion_matrix(truth, predicted, labels=range(n_classes))


def uar_of(matrix: np.ndarray) -> np.ndarray:
    """Return the mean recall over the classes that occur, of confusion matrices (..., C, C)."""
    support = matrix.sum(-1)
    recall = np.diagonal(matrix, axis1=-2, axis2=-1) / np.maximum(support, 1)
    return recall.sum(-1) / np.maximum((support > 0).sum(-1), 1)


def scores_of(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> dict[str, float]:
    """Return `wa`, `uar` and `macro_f1` of class indices (N,); means over the classes in truth."""
    matrix = confusion(truth, predicted, n_classes)
    hits, support = np.diag(matrix), matrix.sum(1)
    f1 = 2 * hits / np.maximum(support + matrix.sum(0), 1)
    return {
        "wa": float(hits.sum() / matrix.sum()),
        "uar": float(uar_of(matrix)),
        "macro_f1": float(f1[support > 0].mean()),
    }


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
        baselines: Scores without audio: the majority class, and each speaker's.
        leakage: Counts of what test and training have in common.
        warnings: Sentences that belong next to the score.
        folds: UAR of each fold, of a cross-validation.
        notes: Sentences on what isn't in it: clips that were left out, classes that were dropped.
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
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        title: str,
        predictions: pd.DataFrame,
        classes: Sequence[str],
        *,
        training: pd.DataFrame,
        leakage: Mapping[str, int],
        warnings: Sequence[str] = (),
        notes: Sequence[str] = (),
        seed: int = 0,
    ) -> "Report":
        """Score predictions.

        Args:
            title: What was tested.
            predictions: One row a test clip: `label` and `predicted` (class names), `p_<class>`
                (probabilities), `raw_confidence`, `speaker`, `gender`, `corpus`, and `fold` if
                cross-validated.
            classes: Class names in the head's order.
            training: Clips that were trained on, with `label` (class name), `speaker` and, if
                cross-validated, `fold`: what the baselines are computed from.
            leakage: The audit of the split.
            warnings: Further sentences to print next to the score.
            notes: On what isn't in it.
            seed: Seed of the resampling.
        """
        index, n = {name: i for i, name in enumerate(classes)}, len(classes)
        truth = predictions["label"].map(index).to_numpy()
        predicted = predictions["predicted"].map(index).to_numpy()
        confidence = predictions[[f"p_{name}" for name in classes]].to_numpy().max(1)
        correct = truth == predicted
        matrices, by = resampled(predictions["speaker"], truth, predicted, n, seed)
        low, high = np.percentile(uar_of(matrices), [2.5, 97.5])
        folds, absent = {}, _absent_warnings(predictions, classes)
        if "fold" in predictions and predictions["fold"].nunique() > 1:
            for name, rows in predictions.groupby("fold", sort=False).indices.items():
                folds[str(name)] = scores_of(truth[rows], predicted[rows], n)["uar"]
        return cls(
            title=title,
            classes=tuple(classes),
            clips=len(predictions),
            **scores_of(truth, predicted, n),
            uar_ci=(float(low), float(high)),
            ci_by=by,
            per_class=_per_class(truth, predicted, classes),
            matrix=confusion(truth, predicted, n).tolist(),
            groups={column: _groups(predictions[column], truth, predicted, n)
                    for column in ("corpus", "gender", "speaker")},
            ece=expected_calibration_error(confidence, correct),
            ece_raw=expected_calibration_error(predictions["raw_confidence"].to_numpy(), correct),
            baselines=_baselines(predictions, training, truth, index),
            leakage=dict(leakage),
            warnings=[*_leakage_warnings(leakage), *absent, *warnings],
            folds=folds,
            notes=list(notes),
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> "Report":
        """Read a run's or an evaluation's report.json.

        Raises:
            HeadError: It can't be read.
        """
        path = folder / "report.json"
        try:
            report = cls(**json.loads(path.read_text(encoding="utf-8")))
            report.classes = tuple(report.classes)
            return report
        except (OSError, ValueError, TypeError) as error:
            raise HeadError(f"{path}: can't be read ({error}); train or evaluate again") from error

    @property
    def baseline(self) -> float:
        """UAR of the better no-audio baseline."""
        return max(scores["uar"] for scores in self.baselines.values())

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
        """Print the result, its warnings, and where the whole report is."""
        print(self.headline)
        for warning in self.warnings:
            print(f"  careful: {warning}")
        for note in self.notes:
            print(f"  {note}")
        print(f"  no-audio baseline: UAR {self.baseline:.3f}")
        print(f"report: {path}")

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        return render(TEMPLATE, report=self, resamples=RESAMPLES)

    def save(self, folder: Path, predictions: pd.DataFrame) -> None:
        """Write report.md, report.json, predictions.csv and the plots into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        Plot.confusion(np.array(self.matrix), self.classes).save(folder / "confusion.png")
        confidence = predictions[[f"p_{name}" for name in self.classes]].to_numpy().max(1)
        correct = (predictions["label"] == predictions["predicted"]).to_numpy()
        Plot.reliability(confidence, correct, self.ece).save(folder / "reliability.png")
        for column, groups in self.groups.items():
            values = [row["uar"] for row in groups.values()]
            Plot.groups(list(groups), values, self.uar).save(folder / f"by_{column}.png")
        ranges = {name: object for name in ("start", "end") if name in predictions}  # not rounded
        predictions.astype(ranges).to_csv(
            folder / "predictions.csv", index=False, float_format="%.5f", errors="surrogateescape"
        )
        (folder / "report.md").write_text(self.to_markdown(), encoding="utf-8")
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        (folder / "report.json").write_text(text, encoding="utf-8")


def _per_class(
    truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    columns = precision_recall_fscore_support(
        truth, predicted, labels=range(len(classes)), zero_division=0
    )
    names = ("precision", "recall", "f1", "support")
    return {
        name: dict(zip(names, map(float, row), strict=True))
        for name, *row in zip(classes, *columns, strict=True)
    }


def resampled(
    speakers: pd.Series, truth: np.ndarray, predicted: np.ndarray, n_classes: int, seed: int
) -> tuple[np.ndarray, str]:
    """Resample speakers with replacement: a new recording comes from a new speaker.

    Each clip without a named speaker is resampled by itself, as if of a speaker of its own; so is
    every clip (N,) where all are of one. Two sets of predictions of the same clips are resampled
    alike, so their matrices pair up.

    Returns:
        Confusion matrices (2000, C, C), and what was resampled.
    """
    names, which = np.unique(speakers.to_numpy(dtype=str), return_inverse=True)
    by, unnamed = "speakers", (speakers == "").to_numpy()
    which[unnamed] = len(names) + np.arange(unnamed.sum())
    _, which = np.unique(which, return_inverse=True)
    n = int(which.max()) + 1
    if unnamed.all() or n < 2:
        n, which, by = len(truth), np.arange(len(truth)), "clips (there are no two named speakers)"
    elif unnamed.any():
        by = f"speakers (clips without a named speaker, {unnamed.sum()}, each by itself)"
    per_group = np.zeros((n, n_classes, n_classes))
    np.add.at(per_group, (which, truth, predicted), 1)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)  # how often each is drawn
    return np.einsum("rn,nij->rij", times, per_group, optimize=True), by


def _groups(
    column: pd.Series, truth: np.ndarray, predicted: np.ndarray, n_classes: int
) -> dict[str, dict[str, float]]:
    result = {}
    for name in sorted(column.unique()):
        rows = np.flatnonzero(column == name)
        scores = scores_of(truth[rows], predicted[rows], n_classes)
        result[name or "unknown"] = {
            "uar": scores["uar"], "wa": scores["wa"], "clips": float(len(rows))
        }  # fmt: skip
    return result


def _baselines(
    predictions: pd.DataFrame, training: pd.DataFrame, truth: np.ndarray, index: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Score two predictions made without audio, fold by fold where there are folds."""
    majority = np.zeros(len(predictions), dtype=int)
    by_speaker = np.zeros(len(predictions), dtype=int)
    folds = predictions["fold"] if "fold" in predictions else pd.Series("", predictions.index)
    for fold, rows in predictions.groupby(folds).indices.items():
        seen = training[training["fold"] == fold] if "fold" in training else training
        labels = seen["label"].map(index).to_numpy(dtype=int)
        most = int(np.bincount(labels).argmax())
        usual = {
            name: int(np.bincount(labels[group]).argmax())
            for name, group in seen.groupby("speaker").indices.items()
            if name  # clips without one are not one person's
        }
        majority[rows] = most
        speakers = predictions["speaker"].iloc[rows]
        by_speaker[rows] = speakers.map(usual).fillna(most).to_numpy(dtype=int)
    found = {}
    for name, predicted in (("majority class of training", majority),
                            ("each speaker's majority class in training", by_speaker)):  # fmt: skip
        scores = scores_of(truth, predicted, len(index))
        found[name] = {"wa": scores["wa"], "uar": scores["uar"]}
    return found


def _absent_warnings(predictions: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """Name the classes that no test clip has: the means are over the others alone."""
    found = set(predictions["label"])
    absent = [name for name in classes if name not in found]
    warnings = []
    if len(found) == 1:
        warnings.append(
            f"All test clips are {found.pop()}: the UAR is the accuracy on that one class, and "
            "doesn't say whether classes are told apart."
        )
    elif absent:
        warnings.append(
            f"No test clip is {', '.join(absent)}: UAR and macro-F1 are means over the other "
            f"{len(found)} classes."
        )
    if "fold" in predictions and predictions["fold"].nunique() > 1:
        folds = predictions.groupby("fold", sort=False)["label"].nunique()
        few = folds[folds < len(classes) - len(absent)]
        if len(few):
            warnings.append(
                f"{len(few)} of {len(folds)} folds test fewer classes than there are "
                f"({few.index[0]}: {few.iloc[0]}): a fold's UAR is a mean over its own classes."
            )
    return warnings


def _leakage_warnings(leakage: Mapping[str, int]) -> list[str]:
    speakers = leakage.get("test_speakers")
    warnings = []
    if leakage.get("shared_speakers"):
        warnings.append(
            f"{leakage['shared_speakers']} of {speakers} test speakers were also "
            "trained on: the score is not what a new speaker would get."
        )
    unnamed, also = leakage.get("unnamed", 0), leakage.get("unnamed_training", 0)
    if speakers == 0:
        warnings.append(
            "The test clips' speakers are unknown, so they may have been trained on: the score is "
            "not what a new speaker would get."
        )
    elif unnamed or also:
        warnings.append(
            f"{unnamed} test clips and {also} training clips have no named speaker: that the same "
            "people are on both sides can't be excluded."
        )
    if leakage.get("duplicates"):
        warnings.append(f"{leakage['duplicates']} test clips are byte-identical to training clips.")
    if leakage.get("near_duplicates"):
        warnings.append(
            f"{leakage['near_duplicates']} test clips are near-duplicates of training clips: the "
            "same recording in another format or under another name."
        )
    if leakage.get("halves"):
        warnings.append(
            f"{leakage['halves']} test clips are cut from a recording whose other part was "
            "trained on."
        )
    if speakers and speakers < 5:
        warnings.append(f"Test speakers: only {speakers}, so the interval is a rough guide.")
    return warnings
