"""What stands behind a score, against sums written out and against a real corpus's names."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_embed.corpora.folders import read_corpus
from ser_embed.reports.breakdown import (
    COVERAGES,
    abstention,
    corpus_facts,
    groups_of,
    length_of,
    mistakes,
    risk_coverage,
)
from ser_embed.reports.scores import evaluate

CLASSES = ("positive", "neutral", "negative")


def made(n: int = 120, n_speakers: int = 6, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(3), n)
    truth = rng.integers(0, 3, n)
    names = np.array(CLASSES)
    return pd.DataFrame({
        "path": [f"{i}.wav" for i in range(n)], "corpus": np.where(np.arange(n) % 2, "a", "b"),
        "speaker": [f"s{i % n_speakers}" for i in range(n)],
        "gender": np.where(np.arange(n) % 3, "male", "female"), "label": names[truth],
        "predicted": names[probabilities.argmax(1)], "raw_confidence": probabilities.max(1),
        "seconds": rng.uniform(0.2, 14, n),
        **{f"p_{name}": probabilities[:, i] for i, name in enumerate(CLASSES)},
    })  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from([0.4, 0.5, 0.6, 0.9]), st.booleans()), min_size=1))
@settings(max_examples=60, deadline=None)
def test_risk_and_coverage_are_the_counts_above_each_threshold(
    clips: list[tuple[float, bool]],
) -> None:
    confidence, correct = (np.array(column) for column in zip(*clips, strict=True))
    told = list(zip(*risk_coverage(confidence, correct), strict=True))
    expected = []
    for threshold in sorted({c for c, _ in clips}, reverse=True):
        answered = [right for c, right in clips if c >= threshold]
        expected.append(
            (threshold, len(answered) / len(clips), answered.count(False) / len(answered))
        )
    assert told == [pytest.approx(row) for row in expected]


def test_abstention_keeps_the_share_it_says() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 1, 200)
    truth = rng.integers(0, 3, 200)
    predicted = np.where(rng.uniform(size=200) < confidence, truth, (truth + 1) % 3)
    rows = abstention(confidence, truth, predicted, 3)
    assert [row.coverage for row in rows] == pytest.approx(COVERAGES)
    for row in rows:
        kept = confidence >= row.threshold
        assert kept.mean() == pytest.approx(row.coverage)
        right = truth[kept] == predicted[kept]
        assert row.accuracy == pytest.approx(right.mean())
        recalls = [right[truth[kept] == c].mean() for c in range(3)]
        assert row.uar == pytest.approx(np.mean(recalls))
    assert rows[-1].accuracy > rows[0].accuracy


def test_equal_confidences_are_answered_together_or_not_at_all() -> None:
    rows = abstention(np.full(10, 0.7), np.zeros(10, int), np.zeros(10, int), 3)
    assert {(row.threshold, row.coverage, row.uar) for row in rows} == {(0.7, 1.0, 1.0)}


def test_each_group_is_scored_as_if_it_were_all() -> None:
    told = made()
    training = pd.DataFrame({"label": ["negative", "neutral"], "speaker": ["x", "y"]})
    found = groups_of(told, told["gender"], CLASSES, training, seed=3)
    assert list(found) == ["female", "male"]
    for name, report in found.items():
        part = told[told["gender"] == name].reset_index(drop=True)
        alone = evaluate("", part, CLASSES, training=training, leakage={}, seed=3)
        assert (report.uar, report.uar_ci, report.clips) == (alone.uar, alone.uar_ci, len(part))
        assert report.ci_by == "speakers"
    assert sum(report.clips for report in found.values()) == len(told)


def test_lengths_are_named_by_whole_seconds_in_their_order() -> None:
    told = made(5).assign(seconds=[0.2, 2.0, 2.99, 10.0, 3600.0])
    names = length_of(told["seconds"])
    assert names.tolist() == ["0 to 1 s", "2 to 3 s", "2 to 3 s", "10 s or more", "10 s or more"]
    training = pd.DataFrame({"label": ["negative"], "speaker": ["x"]})
    found = groups_of(told, names, CLASSES, training, seed=0)
    assert list(found) == ["0 to 1 s", "2 to 3 s", "10 s or more"]


def test_the_surest_mistakes_come_first() -> None:
    told = made()
    worst = mistakes(told, most=7)
    wrong = told[told["label"] != told["predicted"]]
    top = wrong[[f"p_{name}" for name in CLASSES]].max(axis=1).nlargest(7)
    assert [one.p_predicted for one in worst] == top.tolist()
    for one in worst:
        row = told.iloc[one.row]
        assert (one.label, one.predicted) == (row["label"], row["predicted"])
        assert one.p_label == row[f"p_{row['label']}"] < one.p_predicted
    assert mistakes(told.assign(predicted=told["label"])) == []


def test_urdu_gives_its_classes_away_by_who_speaks(shared: Path) -> None:
    """Known of this corpus: 26 of 29 speakers have one emotion; a guess is right on 95 of 100."""
    listing = read_corpus(shared / "corpora/urdu", "urdu")
    clips = pd.DataFrame({
        "corpus": "urdu", "speaker": [u.speaker for u in listing.utterances],
        "label": [u.emotion for u in listing.utterances],
    })  # fmt: skip
    (told,) = corpus_facts(clips, ("angry", "happy", "neutral", "sad"), 0)
    assert (told.clips, told.speakers, told.one_class) == (400, 29, 26)
    assert told.habit_wa == pytest.approx(0.95, abs=0.02)
    assert told.majority_uar == 0.25
    (remark,) = told.remarks
    assert remark.startswith("26 of 29 speakers have clips of one class only.")


def test_tess_is_two_voices(shared: Path) -> None:
    listing = read_corpus(shared / "corpora/tess", "tess")
    clips = pd.DataFrame({
        "corpus": "tess", "speaker": [u.speaker for u in listing.utterances],
        "label": [u.emotion for u in listing.utterances],
    })  # fmt: skip
    (told,) = corpus_facts(clips, sorted(set(clips["label"])), 0)
    assert (told.speakers, told.one_class) == (2, 0)
    assert told.habit_uar < 0.25
    (remark,) = told.remarks
    assert remark.startswith("It has 2 speakers")
    assert remark.endswith("a split by speaker tests 1 voice.")


def test_speakers_that_nobody_names_are_said() -> None:
    told = made(30).assign(speaker="", corpus="x")
    (facts,) = corpus_facts(told, CLASSES, 0)
    assert facts.speakers == facts.one_class == 0
    assert facts.remarks == ["Its speakers are unknown: no split of it can keep them apart."]
    (few,) = corpus_facts(told.head(2), CLASSES, 0)  # fewer clips than fifths
    assert few.clips == 2
