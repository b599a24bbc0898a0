"""The parts of the page, against sums written out and against a real corpus's names."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_embed.corpora.listing import read_corpus
from ser_embed.reports.breakdown import (
    COVERAGES,
    abstention,
    corpus_facts,
    groups_of,
    length_of,
    most_confident_errors,
    risk_coverage,
)
from ser_embed.reports.scores import Report

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
    rows = list(zip(*risk_coverage(confidence, correct), strict=True))
    expected = []
    for threshold in sorted({c for c, _ in clips}, reverse=True):
        answered = [right for c, right in clips if c >= threshold]
        expected.append(
            (threshold, len(answered) / len(clips), answered.count(False) / len(answered))
        )
    assert rows == [pytest.approx(row) for row in expected]


def test_abstention_keeps_the_share_it_names() -> None:
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
    clips = made()
    training = pd.DataFrame({"label": ["negative", "neutral"], "speaker": ["x", "y"]})
    found = groups_of(clips, clips["gender"], CLASSES, training, seed=3)
    assert list(found) == ["female", "male"]
    for name, report in found.items():
        part = clips[clips["gender"] == name].reset_index(drop=True)
        alone = Report.of("", part, CLASSES, training=training, leakage={}, seed=3)
        assert (report.uar, report.uar_ci, report.clips) == (alone.uar, alone.uar_ci, len(part))
        assert report.ci_by == "speakers"
    assert sum(report.clips for report in found.values()) == len(clips)


def test_lengths_are_named_by_whole_seconds_in_their_order() -> None:
    clips = made(5).assign(seconds=[0.2, 2.0, 2.99, 10.0, 3600.0])
    names = length_of(clips["seconds"])
    assert names.tolist() == ["0 to 1 s", "2 to 3 s", "2 to 3 s", "10 s or more", "10 s or more"]
    training = pd.DataFrame({"label": ["negative"], "speaker": ["x"]})
    found = groups_of(clips, names, CLASSES, training, seed=0)
    assert list(found) == ["0 to 1 s", "2 to 3 s", "10 s or more"]


def test_the_most_confident_errors_come_first() -> None:
    clips = made()
    worst = most_confident_errors(clips, most=7)
    wrong = clips[clips["label"] != clips["predicted"]]
    top = wrong[[f"p_{name}" for name in CLASSES]].max(axis=1).nlargest(7)
    assert worst["confidence"].tolist() == top.tolist()
    for row, one in worst.iterrows():
        clip = clips.loc[row]
        assert (one["label"], one["predicted"]) == (clip["label"], clip["predicted"])
        assert one["confidence_true"] == clip[f"p_{clip['label']}"] < one["confidence"]
    assert most_confident_errors(clips.assign(predicted=clips["label"])).empty


def test_urdus_speakers_give_its_classes_away(shared: Path) -> None:
    """Known of this corpus: 26 of 29 speakers have one emotion; they alone are right on 95 %."""
    listing = read_corpus(shared / "corpora/urdu", "urdu")
    clips = pd.DataFrame({
        "corpus": "urdu", "speaker": [u.speaker for u in listing.utterances],
        "label": [u.emotion for u in listing.utterances],
    })  # fmt: skip
    (facts,) = corpus_facts(clips, ("angry", "happy", "neutral", "sad"), 0)
    assert (facts.clips, facts.speakers, facts.one_class) == (400, 29, 26)
    assert facts.speaker_wa == pytest.approx(0.95, abs=0.02)
    assert facts.majority_uar == 0.25
    (remark,) = facts.remarks
    assert remark.startswith("26 of 29 speakers have clips of one class only.")


def test_tess_is_two_voices(shared: Path) -> None:
    listing = read_corpus(shared / "corpora/tess", "tess")
    clips = pd.DataFrame({
        "corpus": "tess", "speaker": [u.speaker for u in listing.utterances],
        "label": [u.emotion for u in listing.utterances],
    })  # fmt: skip
    (facts,) = corpus_facts(clips, sorted(set(clips["label"])), 0)
    assert (facts.speakers, facts.one_class) == (2, 0)
    assert facts.speaker_uar < 0.25
    (remark,) = facts.remarks
    assert remark.startswith("It has 2 speakers")
    assert remark.endswith("a split by speaker tests 1 voice.")


def test_unknown_speakers_are_remarked() -> None:
    clips = made(30).assign(speaker="", corpus="x")
    (facts,) = corpus_facts(clips, CLASSES, 0)
    assert facts.speakers == facts.one_class == 0
    assert facts.remarks == ["Its speakers are unknown: no split of it can keep them apart."]
    (few,) = corpus_facts(clips.head(2), CLASSES, 0)  # fewer clips than fifths
    assert few.clips == 2
