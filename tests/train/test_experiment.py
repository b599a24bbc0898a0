"""The runner: classifiers of scikit-learn fit in as they are, and are scored as heads are."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from stores import load, write_store

from ser_embed.corpora.labels import SCHEMES
from ser_embed.errors import HeadError
from ser_embed.splits.rules import make_splits
from ser_embed.store.reader import FeatureStore
from ser_embed.train import Experiment
from ser_embed.train.data import LabelledClips


@pytest.fixture(scope="module")
def clips(demo_runs: dict[str, Path]) -> LabelledClips:
    """Features of the demo's speech, as the encoder that ships has them."""
    return load(*FeatureStore.find(demo_runs["features"]), scheme=SCHEMES["sentiment3"])


def experiment(clips: LabelledClips, runs: Path, seed: int = 0) -> Experiment:
    splits = make_splits("kfold", clips.table, clips.classes, seed)
    options = {"labels": "sentiment3", "split": "kfold", "seed": seed}
    return Experiment(clips, splits, "linear", options, "sentiment3 on demo", runs, name="run")


@pytest.mark.parametrize("estimator", [LogisticRegression(max_iter=500), SVC()])
def test_a_pipeline_of_scikit_learn_is_a_run(
    estimator: object, clips: LabelledClips, tmp_path: Path
) -> None:
    pipeline = make_pipeline(StandardScaler(), estimator)
    one = experiment(clips, tmp_path)
    result = one.run(pipeline)
    told = pd.read_csv(one.folder / "predictions.csv", keep_default_na=False)
    assert result["test"]["uar"] == pytest.approx(
        balanced_accuracy_score(told["label"], told["predicted"])
    )
    # Once more by hand, on training and validation part alike.
    for split in one.splits:
        seen = np.concatenate([split.train, split.val])
        by_hand = pipeline.fit(clips.matrix()[seen], clips.labels[seen])
        predicted = by_hand.predict(clips.matrix()[split.test])
        rows = told[told["fold"] == split.name]
        assert (rows["predicted"].to_numpy() == np.array(clips.classes)[predicted]).mean() > 0.95
    names = [f"p_{name}" for name in clips.classes]
    np.testing.assert_allclose(told[names].sum(axis=1), 1, atol=1e-5)
    assert (one.folder / "report.md").is_file()
    assert not list(one.folder.rglob("card.json"))  # pickles are neither written nor read


def test_it_is_trained_once_and_named_for_one_set_of_options(
    clips: LabelledClips, tmp_path: Path
) -> None:
    result = experiment(clips, tmp_path).run(make_pipeline(StandardScaler(), SVC()))
    again = experiment(clips, tmp_path).run(None)  # nothing is fitted
    assert again == json.loads(json.dumps(result))
    with pytest.raises(HeadError, match="holds a run of other data or options"):
        experiment(clips, tmp_path, seed=1).run(LogisticRegression())


@pytest.mark.parametrize("estimator", [LogisticRegression(max_iter=500), SVC()])
@pytest.mark.parametrize("others", [("disgust", "happy"), ("disgust", "happy", "sad")])
def test_item_22_a_classifier_of_scikit_learn_without_a_class_in_training(
    estimator: object, others: tuple[str, ...], tmp_path: Path
) -> None:
    """What it never saw it can't predict, and the others keep their columns."""
    for corpus, emotions in (("ravdess", ("angry", "happy", "sad")), ("tess", others)):
        write_store(tmp_path, corpus, emotions=emotions, noise=0.1)
    clips = load(*FeatureStore.find(tmp_path), scheme=SCHEMES["emotion8"])
    splits = make_splits("loco", clips.table, clips.classes, 0)
    options = {"labels": "emotion8", "split": "loco", "seed": 0}
    one = Experiment(clips, splits, "linear", options, "loco", tmp_path, name="run")
    one.run(make_pipeline(StandardScaler(), estimator))
    told = pd.read_csv(one.folder / "predictions.csv", keep_default_na=False)
    known = told["label"].isin({"happy", "sad"} & {*others})
    assert (told["label"] == told["predicted"])[known].all()
    unseen = told[told["fold"] == "ravdess"]
    assert "angry" not in set(unseen["predicted"])
    assert unseen["p_angry"].max() < 1e-3
    np.testing.assert_allclose(told[[f"p_{name}" for name in clips.classes]].sum(axis=1), 1,
                               atol=1e-4)  # fmt: skip


def test_frames_are_averaged_over_a_clips_own(clips: LabelledClips) -> None:
    features, frames = clips.features.batch(np.arange(3))  # type: ignore[arg-type]
    for row in range(3):
        by_hand = features[row, : frames[row]].mean(0)
        np.testing.assert_allclose(clips.matrix()[row], by_hand, rtol=1e-4, atol=1e-5)
