"""The report's numbers: against scikit-learn, by hand, and by simulation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)

from ser_embed.reports.scores import Report, confusion, expected_calibration_error, uar_of
from ser_embed.reports.tables import read_table

CLASSES = ("positive", "neutral", "negative")
CLEAN = {"train": 80, "val": 10, "test": 10, "test_speakers": 9, "shared_speakers": 0,
         "duplicates": 0, "halves": 0}  # fmt: skip


def predictions_of(
    truth: Any,
    predicted: Any,
    speakers: Any = None,
    classes: tuple[str, ...] = CLASSES,
    sure: float = 0.8,
    **columns: Any,
) -> pd.DataFrame:
    """A table of predictions from class indices; each is `sure` of itself."""
    names = np.array(classes)
    table = pd.DataFrame({"label": names[truth], "predicted": names[predicted]})
    table["speaker"] = [f"x:{i}" for i in range(len(table))] if speakers is None else speakers
    table["gender"], table["corpus"] = "female", "x"
    for name in classes:
        rest = (1 - sure) / (len(classes) - 1)
        table[f"p_{name}"] = np.where(table["predicted"] == name, sure, rest)
    table["raw_confidence"] = sure
    return table.assign(**columns)


def report_of(
    predictions: pd.DataFrame, training: pd.DataFrame | None = None, **options: Any
) -> Report:
    if training is None:
        training = pd.DataFrame({"label": list(CLASSES), "speaker": ["x:a", "x:b", "x:c"]})
    return Report.of("a test", predictions, options.pop("classes", CLASSES), training=training,
                     leakage=options.pop("leakage", CLEAN), **options)  # fmt: skip


# --- scores ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(1, 60), n_classes=st.integers(2, 5))
def test_scores_are_scikit_learns(data: st.DataObject, n: int, n_classes: int) -> None:
    """Over the classes that occur in the test part, some of which may be absent."""
    indices = st.lists(st.integers(0, n_classes - 1), min_size=n, max_size=n)
    truth, predicted = np.array(data.draw(indices)), np.array(data.draw(indices))
    classes = tuple("abcde"[:n_classes])
    training = pd.DataFrame({"label": list(classes), "speaker": "x:t"})
    result = report_of(predictions_of(truth, predicted, classes=classes), training, classes=classes)
    occurring = np.unique(truth)
    assert result.clips == n
    assert result.wa == pytest.approx(accuracy_score(truth, predicted))
    # Recall of the classes that occur; a guess of an absent class is a miss like any other.
    recalls = [(predicted[truth == label] == label).mean() for label in occurring]
    assert result.uar == pytest.approx(np.mean(recalls))
    if set(predicted) <= set(truth) and len(occurring) > 1:
        assert result.uar == pytest.approx(balanced_accuracy_score(truth, predicted))
    expected = f1_score(truth, predicted, labels=occurring, average="macro", zero_division=0)
    assert result.macro_f1 == pytest.approx(expected)
    labels = list(range(n_classes))
    assert result.matrix == confusion_matrix(truth, predicted, labels=labels).tolist()
    columns = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    for i, name in enumerate(classes):
        row = result.per_class[name]
        assert [row[k] for k in ("precision", "recall", "f1", "support")] == pytest.approx(
            [column[i] for column in columns]
        )


def test_uar_takes_many_matrices_at_once() -> None:
    first, second = np.array([[3, 1], [2, 2]]), np.array([[0, 0], [1, 4]])
    np.testing.assert_allclose(uar_of(np.stack([first, second])), [(0.75 + 0.5) / 2, 0.8])
    assert confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist() == [[1, 1], [0, 1]]


def test_groups_by_hand() -> None:
    table = predictions_of(
        [0, 0, 1, 1, 2], [0, 1, 1, 1, 0], ["x:a", "x:a", "x:a", "x:b", "y:c"],
        gender=["female", "female", "female", "male", ""], corpus=["x"] * 4 + ["y"],
    )  # fmt: skip
    groups = report_of(table).groups
    assert groups["speaker"] == {
        "x:a": {"uar": 0.75, "wa": pytest.approx(2 / 3), "clips": 3.0},
        "x:b": {"uar": 1.0, "wa": 1.0, "clips": 1.0},
        "y:c": {"uar": 0.0, "wa": 0.0, "clips": 1.0},
    }
    assert set(groups["gender"]) == {"female", "male", "unknown"}
    assert groups["corpus"]["x"]["clips"] == 4.0


def test_folds_are_scored_one_by_one() -> None:
    table = predictions_of(
        [0, 1, 0, 1], [0, 1, 0, 0], fold=["fold 1", "fold 1", "fold 2", "fold 2"]
    )
    training = pd.DataFrame({
        "label": ["positive", "neutral", "positive", "neutral"], "speaker": ["a", "b", "c", "d"],
        "fold": ["fold 1", "fold 1", "fold 2", "fold 2"],
    })  # fmt: skip
    result = report_of(table, training)
    assert result.folds == {"fold 1": 1.0, "fold 2": 0.5}
    assert result.scores["mean_fold_uar"] == 0.75
    assert result.scores["fold_uar"] == result.folds
    assert "2 folds: mean UAR 0.750, standard deviation 0.250" in result.headline
    assert "| fold 2 | 0.500 |" in result.to_markdown()


# --- calibration -----------------------------------------------------------------------------


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.61, 0.65, 0.95, 0.99, 1.0])
    correct = np.array([True, False, True, True, False])
    # Bins of a fifteenth: the first two share one (0.600 to 0.667), as do the last three.
    expected = (abs(1.26 - 1) + abs(2.94 - 2)) / 5
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_probabilities_that_keep_their_word_have_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 200_000)
    correct = rng.random(200_000) < confidence
    assert expected_calibration_error(confidence, correct) < 0.005
    assert expected_calibration_error(np.sqrt(confidence), correct) > 0.1


def test_both_calibration_errors_are_reported() -> None:
    table = predictions_of([0, 1, 2, 0], [0, 1, 2, 1], sure=0.75, raw_confidence=0.95)
    result = report_of(table)
    assert result.ece == pytest.approx(0)
    assert result.ece_raw == pytest.approx(0.2)
    assert "calibration error 0.000; before temperature scaling on the validation part 0.200" in (
        result.to_markdown()
    )


# --- the interval ----------------------------------------------------------------------------


def population(rng: np.random.Generator, n_speakers: int, per_speaker: int) -> pd.DataFrame:
    """Predictions whose accuracy differs between speakers, around 0.7."""
    truth = rng.integers(0, 3, (n_speakers, per_speaker))
    skill = np.clip(rng.normal(0.7, 0.15, (n_speakers, 1)), 0, 1)
    wrong = (truth + rng.integers(1, 3, truth.shape)) % 3
    predicted = np.where(rng.random(truth.shape) < skill, truth, wrong)
    speakers = np.repeat([f"x:{i:03}" for i in range(n_speakers)], per_speaker)
    return predictions_of(truth.ravel(), predicted.ravel(), speakers)


def test_the_interval_covers_what_new_speakers_would_get() -> None:
    """95 % intervals of 80 simulated tests; 40 speakers make the bootstrap a little narrow."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(80):
        low, high = report_of(population(rng, 40, 30)).uar_ci
        covered += low <= 0.698 <= high  # clipping at 1 takes a little off the mean of 0.7
    assert 70 <= covered <= 80


def test_the_interval_is_over_speakers_not_clips() -> None:
    table = population(np.random.default_rng(1), 10, 100)
    by_speakers = report_of(table)
    by_clips = report_of(table.assign(speaker=""))
    width = np.diff(by_speakers.uar_ci)[0]
    assert width > 2 * np.diff(by_clips.uar_ci)[0]
    assert by_speakers.ci_by == "speakers"
    assert by_clips.ci_by.startswith("clips")
    assert by_speakers.uar_ci[0] < by_speakers.uar < by_speakers.uar_ci[1]


@pytest.mark.parametrize("speakers", [["x:a"] * 6, [""] * 6])
def test_without_two_named_speakers_clips_are_resampled_and_it_says_so(speakers: list[str]) -> None:
    result = report_of(predictions_of([0, 1, 2] * 2, [0, 1, 2, 1, 1, 1], speakers))
    assert result.ci_by == "clips (there are no two named speakers)"
    assert f"of the test {result.ci_by}" in result.to_markdown()


def test_clips_without_a_named_speaker_are_clusters_of_their_own() -> None:
    """As if each were of a speaker of its own: not one person's, and not dropped either."""
    table = population(np.random.default_rng(3), 12, 8)
    unnamed = table["speaker"].isin(sorted(set(table["speaker"]))[:4])
    part = table.assign(speaker=table["speaker"].where(~unnamed, ""))
    alone = [
        f"x:alone-{row}" if one else name
        for row, (one, name) in enumerate(zip(unnamed, table["speaker"], strict=True))
    ]
    found, expected = report_of(part), report_of(table.assign(speaker=alone))
    assert found.ci_by == "speakers (clips without a named speaker, 32, each by itself)"
    assert np.diff(found.uar_ci) == pytest.approx(np.diff(expected.uar_ci), rel=0.1)
    assert np.diff(found.uar_ci) < np.diff(report_of(table).uar_ci)
    # With one named speaker there are still clusters: that speaker, and the others' clips.
    one = report_of(table.assign(speaker=["x:a"] * 8 + [""] * 88))
    assert one.ci_by == "speakers (clips without a named speaker, 88, each by itself)"


def test_unnamed_clips_are_a_warning_that_leakage_cant_be_excluded() -> None:
    table = predictions_of([0, 1, 2], [0, 1, 2])
    result = report_of(table, leakage={**CLEAN, "unnamed": 2, "unnamed_training": 5})
    sentence = "2 test clips and 5 training clips have no named speaker"
    assert any(sentence in text and "can't be excluded" in text for text in result.warnings)
    assert sentence in result.to_markdown()
    nobody = report_of(table, leakage={**CLEAN, "test_speakers": 0, "unnamed": 3})
    assert any("speakers are unknown" in text for text in nobody.warnings)


def test_unnamed_clips_are_no_speaker_of_the_speaker_baseline() -> None:
    training = pd.DataFrame({"label": ["positive"] * 3 + ["negative"] * 5,
                             "speaker": [""] * 3 + ["x:b"] * 5})  # fmt: skip
    table = predictions_of([0, 0, 2], [0, 0, 2], ["", "", "x:b"])
    _, by_speaker = report_of(table, training).baselines.values()
    assert by_speaker["wa"] == pytest.approx(1 / 3)  # the majority, negative, for all


def test_a_class_missing_in_the_test_part_is_named() -> None:
    one = report_of(predictions_of([1, 1, 1], [1, 1, 1]))
    assert one.uar == 1.0
    assert any("All test clips are neutral" in text for text in one.warnings)
    assert "All test clips are neutral" in one.to_markdown()
    two = report_of(predictions_of([1, 0, 1], [1, 0, 1]))
    assert any("No test clip is negative" in text and "other 2" in text for text in two.warnings)
    folds = report_of(
        predictions_of([0, 1, 2, 0], [0, 1, 2, 0]).assign(fold=["a", "a", "a", "b"]),
        pd.DataFrame({"label": [*CLASSES] * 2, "speaker": "x:t", "fold": ["a"] * 3 + ["b"] * 3}),
    )
    assert any("1 of 2 folds test fewer classes" in text and "b: 1" in text
               for text in folds.warnings)  # fmt: skip
    assert report_of(predictions_of([0, 1, 2], [0, 1, 2])).warnings == []


def test_what_is_left_out_is_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    note = "Clips left out by the label scheme: boredom 3."
    result = report_of(predictions_of([0, 1, 2], [0, 1, 2]), notes=[note])
    assert note in result.to_markdown()
    result.show(tmp_path)
    assert note in capsys.readouterr().out


def test_predictions_keep_a_ranges_place(tmp_path: Path) -> None:
    """Probabilities are rounded to five digits, the seconds of a range aren't."""
    table = predictions_of([0, 1, 2], [0, 1, 2], path="a.wav", sha256="0", start=1.23456789,
                           end=[2.5, 3.5, 4.5])  # fmt: skip
    report_of(table).save(tmp_path, table)
    again = read_table(tmp_path / "predictions.csv")
    assert again[["start", "end"]].equals(table[["start", "end"]])
    without = table.drop(columns=["start", "end"])
    report_of(without).save(tmp_path, without)  # as it was written before there were ranges
    assert read_table(tmp_path / "predictions.csv")["end"].tolist() == [0.0] * 3


def test_the_interval_is_the_seeds_and_the_tables_in_any_order() -> None:
    table = population(np.random.default_rng(2), 10, 20)
    first = report_of(table, seed=1).uar_ci
    assert first == report_of(table.sample(frac=1, random_state=0), seed=1).uar_ci
    assert first != report_of(table, seed=2).uar_ci


# --- baselines -------------------------------------------------------------------------------


def test_baselines_by_hand_where_speakers_have_one_emotion() -> None:
    """As in URDU: the speaker almost determines the emotion, so a random split measures it."""
    training = pd.DataFrame({
        "label": ["positive"] * 5 + ["negative"] * 6 + ["neutral"],
        "speaker": ["u:1"] * 5 + ["u:2"] * 6 + ["u:1"],
    })  # fmt: skip
    table = predictions_of([0, 0, 2, 1, 1], [0, 0, 0, 0, 0], ["u:1", "u:1", "u:2", "u:1", "u:9"])
    majority, speaker = report_of(table, training).baselines.values()
    assert majority == {"wa": 0.2, "uar": pytest.approx(1 / 3)}  # negative for everyone
    # u:1 positive, u:2 negative, and u:9, unseen, the majority.
    assert speaker == {"wa": 0.6, "uar": pytest.approx(2 / 3)}


def test_baselines_are_made_fold_by_fold() -> None:
    table = predictions_of([0, 1], [0, 0], ["a", "a"], fold=["1", "2"])
    training = pd.DataFrame({
        "label": ["positive", "positive", "neutral", "neutral"], "speaker": ["b", "c", "b", "c"],
        "fold": ["1", "1", "2", "2"],
    })  # fmt: skip
    assert all(scores["wa"] == 1.0 for scores in report_of(table, training).baselines.values())
    swapped = training.assign(fold=["2", "2", "1", "1"])
    assert all(scores["wa"] == 0.0 for scores in report_of(table, swapped).baselines.values())


# --- warnings -----------------------------------------------------------


@pytest.mark.parametrize(
    ("leak", "said"),
    [
        ({"shared_speakers": 3}, "3 of 9 test speakers were also trained on"),
        ({"duplicates": 2}, "2 test clips are byte-identical to training clips"),
        ({"halves": 4}, "4 test clips are cut from a recording whose other part was trained on"),
        ({"test_speakers": 2}, "Test speakers: only 2"),
        ({"test_speakers": 0}, "speakers are unknown"),
    ],
)
def test_leakage_is_a_warning_in_the_report(
    leak: dict[str, int], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = report_of(predictions_of([0, 1, 2], [0, 1, 2]), leakage={**CLEAN, **leak})
    assert len(result.warnings) == 1
    assert said in result.warnings[0]
    assert f"> **Careful.** {result.warnings[0]}" in result.to_markdown()
    result.show(Path("somewhere/report.md"))
    shown = capsys.readouterr().out
    assert f"careful: {result.warnings[0]}" in shown
    assert shown.startswith(result.headline)
    assert f"no-audio baseline: UAR {result.baseline:.3f}" in shown
    assert "report: somewhere/report.md" in shown


def test_a_clean_test_has_no_warning_but_those_given() -> None:
    table = predictions_of([0, 1, 2], [0, 1, 2])
    assert report_of(table).warnings == []
    assert report_of(table, warnings=["mind"]).warnings == ["mind"]


# --- the files -------------------------------------------------------------------------------


def test_the_markdown_says_it_all() -> None:
    table = predictions_of([0, 0, 1, 1], [0, 0, 1, 0], ["x:a", "x:a", "x:b", "x:b"])
    result = report_of(table, leakage={**CLEAN, "halves": 1})
    text = result.to_markdown()
    low, high = result.uar_ci
    assert text.startswith("# a test\n")
    for part in (
        f"UAR 0.750 [{low:.3f}, {high:.3f}]  WA 0.750  macro-F1 0.733  on 4 clips",
        "resamples of the test speakers", "| this head | 0.750 | 0.750 |",
        "| majority class of training |", "| each speaker's majority class in training |",
        "| positive | 0.667 | 1.000 | 0.800 | 2 |", "| negative | 0.000 | 0.000 | 0.000 | 0 |",
        "- shared speakers: 0", "- halves: 1", "- train: 80", "## By corpus", "## By gender",
        "## By speaker", "| x:b | 0.500 | 0.500 | 2 |", "(confusion.png)", "(reliability.png)",
    ):  # fmt: skip
        assert part in text, part
    assert "## By fold" not in text


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@pytest.mark.parametrize("truth", [[0, 0, 0], [2], [0, 1, 2]])
def test_the_files_of_a_report(tmp_path: Path, truth: list[int]) -> None:
    table = predictions_of(truth, [0] * len(truth), path=[f"{i}, ä.wav" for i in range(len(truth))])
    result = report_of(table)
    result.save(tmp_path / "new" / "folder", table)
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "by_corpus.png", "by_gender.png", "by_speaker.png", "confusion.png", "predictions.csv",
        "reliability.png", "report.json", "report.md",
    ]  # fmt: skip
    saved = json.loads((folder / "report.json").read_text("utf-8"), parse_constant=refuse)
    assert saved["uar"] == result.uar
    assert saved["uar_ci"] == list(result.uar_ci)
    assert saved["matrix"] == result.matrix
    assert Report.load(folder).scores == result.scores
    assert (folder / "report.md").read_text("utf-8") == result.to_markdown()
    again = pd.read_csv(folder / "predictions.csv")
    assert again["path"].tolist() == table["path"].tolist()
    np.testing.assert_allclose(again["p_neutral"], table["p_neutral"], atol=1e-5)
