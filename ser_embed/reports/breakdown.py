"""What stands behind a report's score: groups of clips, abstention, mistakes, the corpora."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from ser_embed.reports.scores import Report, confusion, evaluate, uar_of

__all__ = [
    "COVERAGES", "Abstention", "CorpusFacts", "Mistake", "abstention", "corpus_facts", "groups_of",
    "length_of", "mistakes", "risk_coverage",
]  # fmt: skip

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # shares of the clips that are answered
HABIT_FOLDS = 5
TELLING = 0.15  # by so much guessing from the speaker has to beat guessing, to be worth a word
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
        predictions: As `report.evaluate` takes them.
        names: The group of each clip, in the same order.
        classes: Class names.
        training: As `report.evaluate` takes it.
        seed: Of the resampling.

    Returns:
        A report of each group by its name, sorted.
    """
    found = {}
    for name in sorted(names.unique(), key=_by_number):
        part = predictions[(names == name).to_numpy()].reset_index(drop=True)
        title = str(name) or "unknown"
        found[title] = evaluate(title, part, classes, training=training, leakage={}, seed=seed)
    return found


def _by_number(name: str) -> tuple[int, str]:
    first = name.split(" ")[0]
    return (int(first), name) if first.isdigit() else (-1, name)


# --- abstention ------------------------------------------------------------------------------


def risk_coverage(
    confidence: np.ndarray, correct: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what answering only above a threshold costs and gives (El-Yaniv and Wiener 2010).

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
    """What is gained by not answering below a threshold.

    Attributes:
        threshold: Lowest confidence that is answered.
        coverage: Share of the clips answered.
        accuracy: Of those.
        uar: Of those, over the classes left among them.
    """

    threshold: float
    coverage: float
    accuracy: float
    uar: float


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
        uar = uar_of(confusion(truth[kept], predicted[kept], n_classes))
        rows.append(
            Abstention(float(thresholds[i]), float(coverage[i]), 1 - float(risk[i]), float(uar))
        )
    return rows


# --- mistakes --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mistake:
    """One clip that was classified wrongly.

    Attributes:
        row: Its row in the predictions.
        label: What it is.
        predicted: What was said.
        p_label: Probability of what it is.
        p_predicted: Probability of what was said.
    """

    row: int
    label: str
    predicted: str
    p_label: float
    p_predicted: float


def mistakes(predictions: pd.DataFrame, most: int = 10) -> list[Mistake]:
    """Return the wrong predictions that were surest of themselves, the surest first."""
    wrong = [
        Mistake(row, told["label"], told["predicted"], float(told[f"p_{told['label']}"]),
                float(told[f"p_{told['predicted']}"]))
        for row, told in enumerate(predictions.to_dict("records"))
        if told["label"] != told["predicted"]
    ]  # fmt: skip
    return sorted(wrong, key=lambda one: (-one.p_predicted, one.row))[:most]


# --- the corpora -----------------------------------------------------------------------------


@dataclass(frozen=True)
class CorpusFacts:
    """What a corpus can and can't show, whatever is trained on it.

    Attributes:
        corpus: Its name.
        clips: How many there are, whichever part they are in.
        speakers: How many are named.
        one_class: How many of them have clips of one class only.
        habit_wa: Accuracy of guessing each clip from its speaker's other clips, unheard.
        habit_uar: Mean recall of the same.
        majority_uar: Mean recall of always guessing the most frequent class.
    """

    corpus: str
    clips: int
    speakers: int
    one_class: int
    habit_wa: float
    habit_uar: float
    majority_uar: float

    @property
    def remarks(self) -> list[str]:
        """What a reader has to know before believing a score on it."""
        told = []
        if self.speakers and self.habit_uar > self.majority_uar + TELLING:
            told.append(
                f"{self.one_class} of {self.speakers} speakers have clips of one class only. "
                f"Guessing from who speaks, without listening, is right on {self.habit_wa:.1%} of "
                f"the clips (UAR {self.habit_uar:.1%}): a random split of it measures the speaker."
            )
        if 0 < self.speakers < FEW_SPEAKERS:
            told.append(
                f"It has {self.speakers} speaker{'s' * (self.speakers > 1)}: a random split has "
                "heard everyone it tests, and a split by speaker tests "
                f"{max(1, self.speakers // 2)} voice{'s' * (self.speakers > 3)}."
            )
        if not self.speakers:
            told.append("Its speakers are unknown: no split of it can keep them apart.")
        return told


def corpus_facts(clips: pd.DataFrame, classes: Sequence[str], seed: int) -> list[CorpusFacts]:
    """Say of each corpus how far its speakers alone give the classes away.

    The guess is each speaker's most frequent class in four fifths of the corpus's clips, tried
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
        counts = np.zeros((len(names), len(classes)))
        np.add.at(counts, (speakers, labels), 1)
        named = counts[names != ""]
        habit = _habits(speakers, labels, counts.shape, seed)
        found.append(CorpusFacts(
            corpus=str(corpus), clips=len(part), speakers=len(named),
            one_class=int((np.count_nonzero(named, axis=1) == 1).sum()),
            habit_wa=float((habit == labels).mean()),
            habit_uar=float(uar_of(confusion(labels, habit, len(classes)))),
            majority_uar=1 / np.unique(labels).size,
        ))  # fmt: skip
    return found


def _habits(
    speakers: np.ndarray, labels: np.ndarray, shape: tuple[int, int], seed: int
) -> np.ndarray:
    guess = np.full(len(labels), np.bincount(labels).argmax())
    if len(labels) < HABIT_FOLDS:
        return guess
    # Left-out fifths: leaving single clips out would make the guess of a speaker whose classes
    # are balanced always wrong.
    for rest, fifth in KFold(HABIT_FOLDS, shuffle=True, random_state=seed).split(labels):
        counts = np.zeros(shape)
        np.add.at(counts, (speakers[rest], labels[rest]), 1)
        most = np.where(counts.any(1), counts.argmax(1), counts.sum(0).argmax())
        guess[fifth] = most[speakers[fifth]]
    return guess
