"""The parts of a report's page: groups of clips, abstention, errors, what a corpus can show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from ser_embed.reports.scores import Report, scores_of

__all__ = [
    "COVERAGES", "Abstention", "CorpusFacts", "abstention", "corpus_facts", "groups_of",
    "length_of", "most_confident_errors", "risk_coverage",
]  # fmt: skip

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # shares of the clips that are answered
SPEAKER_FOLDS = 5
NOTABLE = 0.15  # UAR by which the speaker alone has to beat the majority class for a remark
FEW_SPEAKERS = 5


# --- groups ----------------------------------------------------------------------------------


def length_of(seconds: pd.Series) -> pd.Series:
    """Name the whole second that each clip's length in seconds (N,) lies in: `2 to 3 s`."""
    whole = seconds.clip(0, 10).astype(int)
    return whole.map(lambda n: "10 s or more" if n == 10 else f"{n} to {n + 1} s")


def groups_of(
    predictions: pd.DataFrame,
    names: pd.Series,
    classes: Sequence[str],
    training: pd.DataFrame,
    seed: int,
) -> dict[str, Report]:
    """Score each group of test clips by itself, with its own interval and baselines.

    Args:
        predictions: As `Report.of` takes them.
        names: The group of each clip, in the same order.
        classes: Class names.
        training: As `Report.of` takes it.
        seed: Of the resampling.

    Returns:
        A report of each group by its name, sorted.
    """
    found = {}
    for name in sorted(names.unique(), key=_by_number):
        part = predictions[(names == name).to_numpy()].reset_index(drop=True)
        title = str(name) or "unknown"
        found[title] = Report.of(title, part, classes, training=training, leakage={}, seed=seed)
    return found


def _by_number(name: str) -> tuple[int, str]:
    first = name.split(" ")[0]
    return (int(first), name) if first.isdigit() else (-1, name)


# --- abstention and errors -------------------------------------------------------------------


def risk_coverage(
    confidence: np.ndarray, correct: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the risk-coverage curve of answering above a threshold (El-Yaniv and Wiener 2010).

    Args:
        confidence: Probability of the predicted class, (N,).
        correct: Whether it was right, (N,) bool.

    Returns:
        For each distinct confidence as threshold, from the highest: the threshold, the coverage
        (share of clips at or above it) and the risk (share of those that are wrong).
    """
    thresholds, which = np.unique(-confidence, return_inverse=True)
    answered = np.bincount(which).cumsum()
    wrong = np.bincount(which, ~correct).cumsum()
    return -thresholds, answered / len(confidence), wrong / answered


@dataclass(frozen=True)
class Abstention:
    """What is gained by not answering below a threshold."""

    threshold: float  # lowest confidence that is answered
    coverage: float  # share of the clips answered
    accuracy: float  # of those
    uar: float  # of those, over the classes left among them


def abstention(
    confidence: np.ndarray, truth: np.ndarray, predicted: np.ndarray, n_classes: int
) -> list[Abstention]:
    """Return the highest thresholds that leave the shares in `COVERAGES` answered.

    Args:
        confidence: Probability of the predicted class, (N,).
        truth: Class indices (N,).
        predicted: Class indices (N,).
        n_classes: C.
    """
    thresholds, coverage, risk = risk_coverage(confidence, truth == predicted)
    rows = []
    for wanted in COVERAGES:
        i = int(np.searchsorted(coverage, wanted - 1e-9))
        kept = confidence >= thresholds[i]
        uar = scores_of(truth[kept], predicted[kept], n_classes)["uar"]
        rows.append(Abstention(float(thresholds[i]), float(coverage[i]), 1 - float(risk[i]), uar))
    return rows


def most_confident_errors(predictions: pd.DataFrame, most: int = 10) -> pd.DataFrame:
    """Return the wrong predictions with the highest probabilities, the highest first.

    Two columns are added: `confidence`, the probability of the predicted class, and
    `confidence_true`, that of the true one.
    """
    wrong = predictions[predictions["label"] != predictions["predicted"]]
    rows = wrong.to_dict("records")
    added = {
        "confidence": [float(row[f"p_{row['predicted']}"]) for row in rows],
        "confidence_true": [float(row[f"p_{row['label']}"]) for row in rows],
    }
    ordered = wrong.assign(**added).sort_values("confidence", ascending=False, kind="stable")
    return ordered.head(most)


# --- the corpora -----------------------------------------------------------------------------


@dataclass(frozen=True)
class CorpusFacts:
    """What a corpus can and can't show, whatever is trained on it."""

    corpus: str
    clips: int  # in whichever part
    speakers: int  # that are named
    one_class: int  # of them: those with clips of one class only
    speaker_wa: float  # of predicting each clip from its speaker's other clips, without audio
    speaker_uar: float  # of the same
    majority_uar: float  # of always predicting the most frequent class

    @property
    def remarks(self) -> list[str]:
        """What a reader has to know before believing a score on it."""
        remarks = []
        if self.speakers and self.speaker_uar > self.majority_uar + NOTABLE:
            remarks.append(
                f"{self.one_class} of {self.speakers} speakers have clips of one class only. "
                f"Speaker identity alone, without audio, is right on {self.speaker_wa:.1%} of the "
                f"clips (UAR {self.speaker_uar:.1%}): a random split of it measures the speaker."
            )
        if 0 < self.speakers < FEW_SPEAKERS:
            remarks.append(
                f"It has {self.speakers} speaker{'s' * (self.speakers > 1)}: a random split trains "
                "on everyone it tests, and a split by speaker tests "
                f"{max(1, self.speakers // 2)} voice{'s' * (self.speakers > 3)}."
            )
        if not self.speakers:
            remarks.append("Its speakers are unknown: no split of it can keep them apart.")
        return remarks


def corpus_facts(clips: pd.DataFrame, classes: Sequence[str], seed: int) -> list[CorpusFacts]:
    """Measure on each corpus how well the speaker alone predicts the class.

    Predicted is each speaker's most frequent class in four fifths of the corpus's clips, tried
    on the fifth that is left out, five times.

    Args:
        clips: All clips of a run, with `corpus`, `speaker` and `label` (class name).
        classes: Class names.
        seed: Of the fifths.
    """
    index = {name: i for i, name in enumerate(classes)}
    found = []
    for corpus, part in clips.groupby("corpus"):
        labels = part["label"].map(index).to_numpy(dtype=int)
        names, speakers = np.unique(part["speaker"].to_numpy(dtype=str), return_inverse=True)
        named = _counts(speakers, labels, (len(names), len(classes)))[names != ""]
        predicted = _from_speaker(speakers, names != "", labels, len(classes), seed)
        scores = scores_of(labels, predicted, len(classes))
        found.append(CorpusFacts(
            corpus=str(corpus), clips=len(part), speakers=len(named),
            one_class=int((np.count_nonzero(named, axis=1) == 1).sum()),
            speaker_wa=scores["wa"], speaker_uar=scores["uar"],
            majority_uar=1 / np.unique(labels).size,
        ))  # fmt: skip
    return found


def _counts(speakers: np.ndarray, labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    counts = np.zeros(shape)
    np.add.at(counts, (speakers, labels), 1)
    return counts


def _from_speaker(
    speakers: np.ndarray, named: np.ndarray, labels: np.ndarray, n_classes: int, seed: int
) -> np.ndarray:
    predicted = np.full(len(labels), np.bincount(labels).argmax())
    if len(labels) < SPEAKER_FOLDS:
        return predicted
    # Fifths are left out: with single clips left out, a speaker whose classes are balanced would
    # always be predicted wrongly.
    for rest, fifth in KFold(SPEAKER_FOLDS, shuffle=True, random_state=seed).split(labels):
        counts = _counts(speakers[rest], labels[rest], (int(speakers.max()) + 1, n_classes))
        known = counts.any(1) & named  # clips without a name are not one person's
        most = np.where(known, counts.argmax(1), counts.sum(0).argmax())
        predicted[fifth] = most[speakers[fifth]]
    return predicted
