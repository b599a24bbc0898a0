"""Pseudo-labels: never of test speakers, never by the clips' own labels, told in card and parts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stores import SETTINGS, load, write_store

from ser_embed.errors import StoreError
from ser_embed.evaluate import EvaluateConfig, evaluate_run
from ser_embed.heads.checkpoint import read_card
from ser_embed.splits.rules import make_splits
from ser_embed.store.reader import FeatureStore
from ser_embed.store.writer import StoreWriter
from ser_embed.train.__main__ import main as train_main
from ser_embed.train.pseudo import (
    UNLABELLED,
    Pseudo,
    labelled_stores,
    unlabelled_rows,
    with_unlabelled,
)

LABELS = ("--labels", "sentiment3", "--head", "mlp", "--epochs", 8, "--split", "kfold", "--quiet")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    write_store(folder, "ravdess", shape=(12, 8), n_speakers=6, per_emotion=3, noise=1.0)
    write_store(folder, "tess", shape=(10, 8), n_speakers=3, per_emotion=6, noise=1.0)
    return folder


def store_of(folder: Path, corpus: str) -> Path:
    return next(folder.glob(f"{corpus}*.h5"))


def test_the_unlabelled_stand_behind_the_labelled_and_keep_their_features(features: Path) -> None:
    clips = load(store_of(features, "ravdess"))
    joined = with_unlabelled(clips, (store_of(features, "tess"),))
    n = len(clips.table)
    assert len(joined.table) == n + 3 * 18
    assert joined.table.iloc[:n].equals(clips.table)
    assert (joined.table["label"].iloc[n:] == UNLABELLED).all()
    alone = load(store_of(features, "tess"))
    own, _ = alone.features.batch(pd.Series(range(5)).to_numpy().tolist())  # type: ignore[arg-type]
    rows = [n + int(np.flatnonzero(joined.table["sha256"].iloc[n:] == sha)[0])
            for sha in alone.table["sha256"].iloc[:5]]  # fmt: skip
    given, _ = joined.features.batch(rows)  # type: ignore[arg-type]
    np.testing.assert_array_equal(given[:, : own.shape[1]].numpy(), own.numpy())
    assert with_unlabelled(clips, ()) is clips
    # Clips that are labelled already aren't taken twice.
    assert len(with_unlabelled(clips, (store_of(features, "ravdess"),)).table) == n


def test_other_settings_and_the_demo_are_refused(features: Path, tmp_path: Path) -> None:
    clips = load(store_of(features, "ravdess"))
    other = write_store(tmp_path, "tess", settings=replace(SETTINGS, layer=2), shape=(10, 8))
    with pytest.raises(StoreError, match="layer: 4 against 2"):
        with_unlabelled(clips, (other,))
    demo = write_store(tmp_path, "urdu", shape=(10, 8), demo=True)
    with pytest.raises(StoreError, match="never mix"):
        with_unlabelled(clips, (demo,))


def test_unlabelled_rows_have_no_test_speaker(tmp_path: Path) -> None:
    """The same speakers in both stores: of each fold only those that it doesn't test."""
    labelled = write_store(tmp_path, n_speakers=5, per_emotion=2)
    more = write_store(tmp_path / "more", n_speakers=5, per_emotion=4, text="other takes")
    clips = load(labelled)
    splits = make_splits("kfold", clips.table, clips.classes, 0)
    joined = with_unlabelled(clips, (more,))
    for split in splits:
        rows = unlabelled_rows(joined, split)
        assert set(joined.table["label"].iloc[rows]) == {UNLABELLED}
        tested = set(joined.table["speaker"].iloc[split.test])
        assert not tested & set(joined.table["speaker"].iloc[rows])
        assert len(rows) == 12 * (5 - len(tested))
    nameless = write_store(tmp_path / "none", "tess", speaker="")
    joined = with_unlabelled(clips, (nameless,))
    joined.table.loc[joined.table["label"] == UNLABELLED, "speaker"] = ""
    with pytest.raises(StoreError, match="a speaker without a name"):
        unlabelled_rows(joined, splits[0])


def test_confidence_is_what_the_temperature_says(tmp_path: Path) -> None:
    log_probs = np.log(np.array([[0.95, 0.05], [0.8, 0.2], [0.01, 0.99]]))
    rows = np.array([7, 8, 9])
    for temperature, wanted in ((1.0, [7, 9]), (0.5, [7, 8, 9]), (3.0, [])):
        pseudo = Pseudo.of(rows, log_probs, temperature, 0.9)
        assert pseudo.rows.tolist() == wanted
        assert pseudo.asked == 3
    pseudo = Pseudo.of(rows, log_probs, 1.0, 0.9)
    assert pseudo.labels.tolist() == [0, 1]
    clips = load(write_store(tmp_path, n_speakers=2, per_emotion=2))
    before = clips.labels.tolist()
    assert pseudo.labelled(clips).labels.tolist() == [*before[:7], 0, before[8], 1, *before[10:]]
    assert clips.labels.tolist() == before
    assert pseudo.facts(("a", "b")) == {"asked": 3, "taken": {"a": 1, "b": 1}}


def run_of(tmp_path: Path, features: Path, name: str, *more: object) -> Path:
    args = [store_of(features, "ravdess"), *LABELS, "--runs-dir", tmp_path, "--name", name, *more]
    assert train_main([*map(str, args)]) == 0
    return tmp_path / name


def test_a_run_with_pseudo_labels_tells_of_them_and_is_evaluated(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tess = store_of(features, "tess")
    told = run_of(tmp_path, features, "p", "--unlabelled", tess, "--confidence", 0.6)
    plain = run_of(tmp_path, features, "plain")
    for folder in sorted(path.parent for path in told.glob("*/card.json")):
        card = read_card(folder)
        pseudo = card["training"]["pseudo"]
        assert pseudo["asked"] == 54
        parts = pd.read_csv(folder / "clips.csv", dtype=str, keep_default_na=False)
        given = parts[parts["part"] == "pseudo"]
        assert sum(pseudo["taken"].values()) == len(given) > 0
        assert set(given["corpus"]) == {"tess"}
        assert given["label"].value_counts().to_dict() == {
            name: count for name, count in pseudo["taken"].items() if count
        }
        # The features have places by emotion, so what it is sure of is mostly right.
        right = given["path"].str.extract(r"-(happy|neutral|sad)\.wav")[0].map(
            {"happy": "positive", "neutral": "neutral", "sad": "negative"})  # fmt: skip
        assert (right == given["label"]).mean() > 0.8
        other = read_card(plain / folder.name)
        assert card["weights_sha256"] != other["weights_sha256"]
        assert "pseudo" not in other["training"]
        assert not list(folder.glob("resume*"))
    predictions = pd.read_csv(told / "predictions.csv", keep_default_na=False)
    assert set(predictions["corpus"]) == {"ravdess"}
    # The report again, from the stores; and on tess it says what training has heard.
    again = evaluate_run(EvaluateConfig(run=told, features_dir=features, json=True)).result
    assert again["test"]["uar"] == pytest.approx(
        pd.read_json(told / "report.json", typ="series")["uar"]
    )
    evaluate_run(EvaluateConfig(run=told, stores=(tess,), out=tmp_path / "e", json=True))
    leakage: Any = pd.read_json(tmp_path / "e/report.json", typ="series")["leakage"]
    assert leakage["duplicates"] > 0
    assert leakage["shared_speakers"] > 0


def test_the_clips_own_labels_are_not_looked_at(features: Path, tmp_path: Path) -> None:
    """The same sounds under labels that are all wrong give the same head."""
    runs = []
    for number, emotions in enumerate((("happy", "neutral", "sad"), ("sad", "happy", "neutral"))):
        folder = tmp_path / f"f{number}"
        path = write_store(folder, "tess", shape=(10, 8), n_speakers=2, per_emotion=6, noise=0.5)
        if number:
            swapped = dict(zip(("happy", "neutral", "sad"), emotions, strict=True))
            with (
                FeatureStore(path) as store,
                StoreWriter.open(
                    path, store.settings, "tess", folder, trained=True, demo=False
                ) as writer,
            ):
                for row in store.rows:
                    writer.record(replace(row, emotion=swapped[row.emotion]))
                writer.finish()
        runs.append(run_of(tmp_path, features, f"r{number}", "--unlabelled", path,
                           "--confidence", 0.6))  # fmt: skip
    for fold in sorted(path.parent.name for path in runs[0].glob("*/card.json")):
        weights = [(run / fold / "head.safetensors").read_bytes() for run in runs]
        assert weights[0] == weights[1]


def test_the_folders_other_stores_are_the_labelled_ones(features: Path) -> None:
    tess, ravdess = store_of(features, "tess"), store_of(features, "ravdess")
    assert labelled_stores((), features, (tess,)) == (ravdess,)
    assert labelled_stores((), features, ()) == ()
    assert labelled_stores((tess,), features, (ravdess,)) == (tess,)


def test_a_confidence_that_can_not_be_is_refused(
    features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_main(["--features-dir", str(features), "--confidence", "1.5"]) == 1
    assert "--confidence 1.5: above 0, up to 1" in capsys.readouterr().err
