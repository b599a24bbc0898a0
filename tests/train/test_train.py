"""Stage 2 as a user runs it: the files of a run, its resumes, its refusals."""

import json
import logging
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from safetensors.torch import load_file
from stores import SETTINGS, write_store

from ser_embed.heads.checkpoint import build_head, load_head, read_card
from ser_embed.heads.kinds import HEADS
from ser_embed.heads.networks import Ensemble
from ser_embed.reports.scores import uar_of
from ser_embed.store.reader import FeatureStore
from ser_embed.train import training as train
from ser_embed.train.__main__ import main as train_main

Ran = tuple[int, dict[str, Any], str]
Command = Callable[..., Ran]

OTHER_FIELDS = {
    "conv": ({}, (44, 32)), "temporal": ({}, (12, 8)), "mlp": ({"pool": "mean"}, (1, 8)),
    "layers": ({"layer": "all", "pool": "mean"}, (3, 8)),
    "stats": ({"layer": "all", "pool": "stats"}, (3, 8)), "cnn": ({}, (12, 8)),
}  # fmt: skip


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process: exit status, JSON object, standard error."""

    def _run(*args: object) -> Ran:
        capsys.readouterr()
        status = train_main([*map(str, args), "--json", "--quiet"])
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        return status, json.loads(lines[-1]) if lines else {}, printed.err

    return _run


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two corpora, 8 speakers and 2, whose emotions can be told apart."""
    folder = tmp_path_factory.mktemp("features")
    write_store(folder, "ravdess", shape=(12, 8), n_speakers=8, per_emotion=4, noise=0.8)
    write_store(folder, "tess", shape=(10, 8), n_speakers=2, per_emotion=8, noise=0.8)
    return folder


@pytest.fixture(scope="module")
def finished(
    features: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """One run, for the tests that only look at it."""
    runs = tmp_path_factory.mktemp("runs")
    config = train.TrainConfig(
        features_dir=features, runs_dir=runs, early_stop=True, epochs=12, head="mlp", json=True
    )
    result = train.train(config).result
    return Path(result["run"]), result


def options(features: Path, runs: Path, *more: object) -> list[object]:
    return ["--features-dir", features, "--runs-dir", runs, "--head", "mlp", "--epochs", 1, *more]


# --- a finished run --------------------------------------------------------------------------


def test_the_files_of_a_run(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names == {
        "by_corpus.png", "by_gender.png", "by_speaker.png", "card.json", "clips.csv",
        "confusion.png", "head.safetensors", "history.csv", "history.png", "predictions.csv",
        "reliability.png", "report.json", "report.md", "result.json", "started.json",
        "training-time.json",
    }  # fmt: skip
    for path in folder.glob("*.png"):
        assert imread(path)[..., :3].std() > 0.01


def test_what_json_tells_is_the_report(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    assert set(result) == {"run", "epochs", "test"}
    assert set(result["test"]) == {"wa", "uar", "macro_f1", "uar_ci"}
    report = json.loads((folder / "report.json").read_text())
    assert {name: report[name] for name in result["test"]} == json.loads(json.dumps(result["test"]))
    predictions = pd.read_csv(folder / "predictions.csv")
    assert result["test"]["wa"] == (predictions["label"] == predictions["predicted"]).mean()
    assert result["test"]["uar"] == pytest.approx(float(uar_of(np.array(report["matrix"]))))
    low, high = result["test"]["uar_ci"]
    assert 0 <= low <= result["test"]["uar"] <= high <= 1
    assert result["test"]["uar"] > 0.9  # the corpora are made to be separable


def test_the_history_is_a_table_of_every_epoch(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    history = pd.read_csv(folder / "history.csv")
    assert list(history) == ["member", "epoch", "train_loss", "val_loss", "val_uar", "val_wa"]
    assert history["epoch"].tolist() == list(range(1, result["epochs"] + 1))
    card = read_card(folder)
    (kept,) = card["training"]["kept"]
    assert history["val_uar"][kept - 1] == history["val_uar"].max()
    assert card["training"]["val_uar"] == [history["val_uar"].max()]
    assert card["training"]["epochs"] == result["epochs"]


def test_the_card_says_what_rebuilds_and_explains_the_head(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = finished
    head, card = load_head(folder)
    assert card["head"]["name"] == "mlp"
    assert card["head"]["shape"] == [12, 8]  # the longer of the two stores
    assert card["head"]["parameters"] == sum(p.numel() for p in head.parameters())
    assert card["classes"] == ["positive", "neutral", "negative"]
    assert card["corpora"] == {"ravdess": 96, "tess": 48}
    assert card["corpus_licences"]["ravdess"] == "CC BY-NC-SA 4.0"
    assert card["features"]["weights"] == SETTINGS.weights
    assert card["split"] == {"rule": "speaker", "seed": 0}
    assert card["labels"]["mapping"]["sad"] == "negative"
    assert (card["demo"], card["encoder_trained"]) == (False, True)
    assert card["temperature"] > 0
    assert {"ser_embed", "python", "torch", "transformers", "numpy"} <= set(card["versions"])
    told = ["--early-stop", "--head", "mlp", "--epochs", "12", "--features-dir"]
    words = shlex.split(card["command"])
    assert words[:3] == ["python", "-m", "ser_embed.train"]  # though nobody typed it
    assert set(told) < set(words)


def test_the_clips_are_told_part_by_part(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    clips = pd.read_csv(folder / "clips.csv")
    assert len(clips) == 144
    assert set(clips["part"]) == {"train", "val", "test"}
    by_part = clips.groupby("part")["speaker"].agg(set)
    assert not by_part["train"] & by_part["test"]
    predictions = pd.read_csv(folder / "predictions.csv")
    assert set(predictions["path"]) == set(clips.loc[clips["part"] == "test", "path"])
    assert "| tess |" in (folder / "report.md").read_text()


def test_the_same_again_does_nothing(
    finished: tuple[Path, dict[str, Any]], features: Path, command: Command
) -> None:
    folder, result = finished
    untouched = {path: path.stat().st_mtime_ns for path in folder.glob("[!r]*") if path.is_file()}
    before = (folder / "report.json").stat().st_mtime_ns
    status, again, _ = command(*options(features, folder.parent, "--early-stop", "--epochs", 12))
    assert status == 0
    assert again == json.loads(json.dumps(result))
    assert all(path.stat().st_mtime_ns == then for path, then in untouched.items())
    assert (folder / "report.json").stat().st_mtime_ns > before  # it is the newest run again
    assert len(list(folder.parent.iterdir())) == 1


def test_a_name_stands_for_one_set_of_options_and_data(
    features: Path, tmp_path: Path, command: Command
) -> None:
    assert command(*options(features, tmp_path, "--name", "mine"))[0] == 0
    head = (tmp_path / "mine" / "head.safetensors").read_bytes()
    for changed in (["--epochs", 2], ["--seed", 1], [features / next(features.glob("ravdess*"))]):
        status, told, error = command(*options(features, tmp_path, "--name", "mine", *changed))
        assert status == 1
        assert "mine: holds a run of other data or options; give another --name" in error
        assert told["error"] in error
    assert (tmp_path / "mine" / "head.safetensors").read_bytes() == head
    assert command(*options(features, tmp_path, "--name", "mine"))[0] == 0


# --- interrupted runs ------------------------------------------------------------------------


def weights_and_history(folder: Path) -> tuple[dict[str, list[float]], str]:
    state = load_file(folder / "head.safetensors")
    return {k: v.flatten().tolist() for k, v in state.items()}, (folder / "history.csv").read_text()


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(
    features: Path, tmp_path: Path, project: Path, command: Command,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    args = options(features, tmp_path, "--epochs", 40)
    killed = [sys.executable, "-m", "ser_embed.train", *map(str, args), "--name", "killed"]
    resume = tmp_path / "killed" / "resume-0.safetensors"
    with subprocess.Popen(
        killed, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        until = time.monotonic() + 120
        while not resume.is_file() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -9
    assert resume.is_file()
    assert not (tmp_path / "killed" / "card.json").exists()

    with caplog.at_level(logging.INFO):
        status, again, _ = command(*args, "--name", "killed")
    assert status == 0
    assert "killed: going on where it stopped" in caplog.text
    assert not resume.exists()
    _, whole, _ = command(*args, "--name", "whole")
    assert again["test"] == whole["test"]
    assert again["epochs"] == whole["epochs"] == 40
    assert weights_and_history(tmp_path / "killed") == weights_and_history(tmp_path / "whole")


def test_a_run_stopped_at_its_very_end_goes_on_too(
    features: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card says that a fold is done, so nothing that the report needs may come after it."""

    def save_and_stop(*args: Any) -> None:
        save_head(*args)
        raise KeyboardInterrupt

    save_head = train.save_head
    with monkeypatch.context() as patch:
        patch.setattr(train, "save_head", save_and_stop)
        assert command(*options(features, tmp_path, "--name", "x"))[0] == 130
    assert (tmp_path / "x" / "card.json").is_file()
    status, result, _ = command(*options(features, tmp_path, "--name", "x"))
    assert status == 0
    assert result["test"] == command(*options(features, tmp_path, "--name", "y"))[1]["test"]


def test_a_cross_validation_is_a_folder_a_fold(
    features: Path, tmp_path: Path, command: Command
) -> None:
    arguments = options(features, tmp_path, "--split", "kfold", "--epochs", 2, "--name", "k")
    status, result, _ = command(*arguments)
    assert status == 0
    folder = tmp_path / "k"
    folds = sorted(path.parent.name for path in folder.glob("*/card.json"))
    assert folds == [f"fold_{k}" for k in range(1, 6)]
    assert result["epochs"] == [2] * 5
    fold_uar = result["test"]["fold_uar"]
    assert list(fold_uar) == [f"fold {k}" for k in range(1, 6)]
    assert result["test"]["mean_fold_uar"] == pytest.approx(np.mean(list(fold_uar.values())))
    assert "5 folds: mean UAR" in (folder / "report.md").read_text()
    predictions = pd.read_csv(folder / "predictions.csv")
    assert len(predictions) == predictions[["corpus", "path"]].drop_duplicates().shape[0] == 144
    one = pd.read_csv(folder / "fold_2" / "predictions.csv")
    recalls = [(rows["predicted"] == label).mean() for label, rows in one.groupby("label")]
    assert fold_uar["fold 2"] == pytest.approx(np.mean(recalls))
    assert not (folder / "card.json").exists()

    # Stopped in the last fold: that one alone is trained again.
    (folder / "result.json").unlink()
    (folder / "fold_5" / "card.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("fold_[1-4]/*.*")}
    assert command(*arguments)[1] == result
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert (folder / "fold_5" / "card.json").is_file()


def test_folds_of_a_published_list(features: Path, tmp_path: Path, command: Command) -> None:
    rows = [
        f"{speaker:02}-{number:02}-{emotion},{'test' if speaker % 2 else 'train'},"
        f"{'train' if speaker % 2 else 'test'}"
        for speaker in range(8) for number in range(12)
        for emotion in [("happy", "neutral", "sad")[number % 3]]
    ]  # fmt: skip
    (tmp_path / "list.csv").write_text("file,fold_1,fold_2\n" + "\n".join(rows))
    store = next(features.glob("ravdess*"))
    status, result, _ = command(
        store, *options(features, tmp_path, "--split", f"folds:{tmp_path / 'list.csv'}")
    )
    assert status == 0
    assert list(result["test"]["fold_uar"]) == ["fold_1", "fold_2"]
    assert "folds-list" in Path(result["run"]).name


def test_a_speakers_name_makes_no_path(tmp_path: Path, command: Command) -> None:
    """Leave-one-speaker-out names its folders by speakers, and a CSV's may be called anything."""
    write_store(tmp_path, "a_b", n_speakers=3, per_emotion=3, speaker="../x/{:02}")
    status, result, _ = command(*options(tmp_path, tmp_path / "runs", "--split", "loso"))
    assert status == 0
    assert len(list(Path(result["run"]).glob("*/card.json"))) == 3
    assert len(list((tmp_path / "runs").rglob("card.json"))) == 3


# --- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_every_head_trains_on_features_it_takes(
    head: str, tmp_path: Path, command: Command
) -> None:
    fields, shape = OTHER_FIELDS[head]
    settings = replace(SETTINGS, **fields)  # type: ignore[arg-type]
    write_store(tmp_path, settings=settings, shape=shape, n_speakers=4)
    status, result, _ = command(*options(tmp_path, tmp_path / "runs", "--head", head))
    assert status == 0
    card = read_card(Path(result["run"]))
    assert card["head"]["name"] == head
    assert card["training"]["lr"] == HEADS[head].lr
    assert f"-{head}-mini-s0-" in Path(result["run"]).name


@pytest.mark.parametrize(
    ("shape", "layer", "pool", "expected"),
    [
        ((149, 32), "logits", "none", "conv"), ((1, 32), "logits", "mean", "mlp"),
        ((149, 768), 6, "none", "stats"), ((1, 768), 6, "mean", "mlp"),
        ((13, 149, 768), "all", "none", "layers"), ((13, 768), "all", "mean", "layers"),
        ((13, 1536), "all", "stats", "stats"), ((1, 1536), 6, "stats", "stats"),
    ],
)  # fmt: skip
def test_the_default_head_fits(
    shape: tuple[int, ...], layer: int | str, pool: str, expected: str
) -> None:
    assert train.default_head(layer, pool) == expected
    build_head(expected, shape, 3, pool != "none", seed=0)


def test_an_ensemble_is_trained_resumed_and_used(
    features: Path, tmp_path: Path, command: Command
) -> None:
    wanted = options(features, tmp_path, "--ensemble", "3")
    status, result, _ = command(*wanted)
    assert status == 0
    folder = Path(result["run"])
    head, card = load_head(folder)
    assert isinstance(head, Ensemble)
    assert len(head.members) == card["head"]["members"] == len(card["training"]["kept"]) == 3
    history = pd.read_csv(folder / "history.csv")
    assert history["member"].unique().tolist() == [1, 2, 3]
    assert not list(folder.glob("resume*"))
    # Stopped when the second of three was being trained: the same weights in the end.
    weights = (folder / "head.safetensors").read_bytes()
    for name in ("card.json", "result.json", "head.safetensors", "report.json"):
        (folder / name).unlink()
    _, again, _ = command(*wanted)
    assert again == result
    assert (folder / "head.safetensors").read_bytes() == weights


def test_a_head_that_does_not_fit_names_those_that_do(
    features: Path, tmp_path: Path, command: Command
) -> None:
    status, _, error = command(*options(features, tmp_path, "--head", "layers"))
    assert status == 1
    assert "these are features of shape (12, 8), for which there is conv, temporal, mlp" in error


def test_class_weights(features: Path, tmp_path: Path, command: Command) -> None:
    store = write_store(tmp_path, emotions=("happy", "neutral", "sad", "angry"), per_emotion=4)
    expected = {
        # counts in training by speaker: 8 of each emotion, two of which are negative
        "balanced": [4 / 3, 4 / 3, 2 / 3], "paper": [1.99, 3.0, 1.0], "none": [1.0, 1.0, 1.0],
    }  # fmt: skip
    for kind, weights in expected.items():
        _, result, _ = command(
            store, *options(features, tmp_path / "runs", "--class-weights", kind)
        )
        card = read_card(Path(result["run"]))
        assert card["training"]["class_weights"] == pytest.approx(weights)


def test_the_papers_weights_are_for_its_classes(
    features: Path, tmp_path: Path, command: Command
) -> None:
    mapping = tmp_path / "two.csv"
    mapping.write_text("emotion,label\nhappy,a\nneutral,a\nsad,b\n")
    status, _, error = command(
        *options(features, tmp_path, "--class-weights", "paper", "--labels", mapping)
    )
    assert status == 1
    assert "--class-weights paper is for positive, neutral, negative" in error
    assert "these classes are a, b" in error


def test_a_users_mapping_whose_classes_are_numbers(
    features: Path, tmp_path: Path, command: Command
) -> None:
    mapping = tmp_path / "valence.csv"
    mapping.write_text("emotion,label\nhappy,1\nneutral,\nsad,0\n")
    arguments = options(features, tmp_path / "runs", "--labels", mapping, "--epochs", 8)
    status, result, _ = command(*arguments)
    assert status == 0
    folder = Path(result["run"])
    card = read_card(folder)
    assert card["classes"] == ["1", "0"]
    assert card["left_out"] == {"neutral": 48}
    assert folder.name.startswith("valence-speaker-mlp-mini-s0-")
    assert result["test"]["uar"] > 0.9
    text = (folder / "report.md").read_text()
    assert text.startswith("# valence on ravdess, tess, split speaker\n")
    assert re.search(r"\| 1 \| [\d.]+ \| [\d.]+ \| [\d.]+ \| \d+ \|", text)


def test_a_file_name_that_is_no_text_does_not_end_a_run(tmp_path: Path, command: Command) -> None:
    name = os.fsdecode(b"\xe9t\xe9 ")  # Latin-1, as old archives have it
    write_store(tmp_path, n_speakers=4, prefix=name)
    status, result, _ = command(*options(tmp_path, tmp_path / "runs"))
    assert status == 0
    for table in ("clips.csv", "predictions.csv"):
        assert name.encode("utf-8", "surrogateescape") in Path(result["run"], table).read_bytes()


def test_item_10_an_emotion_that_a_scheme_does_not_have_is_left_out_and_counted(
    tmp_path: Path, command: Command
) -> None:
    write_store(tmp_path, emotions=("happy", "neutral", "sad", "smug"))
    status, result, error = command(*options(tmp_path, tmp_path / "runs"))
    assert status == 0, error
    card = json.loads(Path(result["run"], "card.json").read_text())
    assert card["left_out"] == {"smug": 8}


def test_an_emotion_that_a_mapping_file_does_not_name_is_listed(
    tmp_path: Path, command: Command
) -> None:
    write_store(tmp_path, emotions=("happy", "smug", "sad"))
    mapping = tmp_path / "mine.csv"
    mapping.write_text("emotion,label\nhappy,good\nsad,bad\n")
    status, told, error = command(*options(tmp_path, tmp_path / "runs", "--labels", str(mapping)))
    assert status == 1
    assert "'smug' (8 clips)" in error
    assert "smug" in told["error"]
    assert not (tmp_path / "runs").exists()


def test_what_a_score_is_worth_is_said_in_the_report(tmp_path: Path, command: Command) -> None:
    write_store(tmp_path, "demo", demo=True, trained=False, n_speakers=5, per_emotion=3)
    status, result, _ = command(*options(tmp_path, tmp_path / "runs", "--split", "random"))
    assert status == 0
    folder = Path(result["run"])
    assert folder.name.startswith("demo-")
    text = (folder / "report.md").read_text()
    for words in (
        r"> \*\*Careful.\*\* \d of \d test speakers were also trained on",
        r"> \*\*Careful.\*\* These are synthetic demo clips",
        r"> \*\*Careful.\*\* The encoder mini has untrained, seeded weights: a control",
    ):
        assert re.search(words, text), words
    assert read_card(folder)["demo"]


def test_what_is_printed_without_json(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_main([*map(str, options(features, tmp_path)), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(
        r"UAR 0\.\d+ \[0\.\d+, [01]\.\d+\]  WA 0\.\d+  macro-F1 0\.\d+  on \d+ clips", lines[0]
    )
    assert any("no-audio baseline: UAR 0." in line for line in lines)
    assert lines[-1].startswith(f"report: {tmp_path}")


# --- refusals --------------------------------------------------------------------------------


def test_no_store_says_how_to_make_one(tmp_path: Path, command: Command) -> None:
    status, told, error = command(*options(tmp_path, tmp_path / "runs"))
    assert status == 1
    assert f"no feature store in {tmp_path}: make one with python -m ser_embed.extract" in error
    assert told["error"] in error


def test_one_class_is_not_enough(tmp_path: Path, command: Command) -> None:
    write_store(tmp_path, emotions=("happy",))
    status, _, error = command(*options(tmp_path, tmp_path / "runs"))
    assert status == 1
    assert "all 8 clips are positive by the label scheme 'sentiment3'" in error
    assert "a classifier needs two classes" in error


def test_item_22_classes_that_no_clip_has_are_dropped_with_a_remark(
    tmp_path: Path, command: Command
) -> None:
    """As emotion8 on TESS, which has nobody calm."""
    write_store(tmp_path)
    labels = ("--labels", "emotion8")
    status, result, error = command(*options(tmp_path, tmp_path / "runs", *labels))
    assert status == 0, error
    assert read_card(Path(result["run"]))["classes"] == ["neutral", "happy", "sad"]
    text = Path(result["run"], "report.md").read_text()
    assert "No clip is calm, angry, fearful, disgust, surprised: dropped from the classes." in text


def test_item_22_loco_trains_without_a_class_that_one_corpus_alone_has(
    tmp_path: Path, command: Command
) -> None:
    write_store(tmp_path, "ravdess", emotions=("happy", "sad", "angry"))
    write_store(tmp_path, "tess", emotions=("happy", "sad", "fearful"))
    more = ("--labels", "emotion8", "--split", "loco")
    status, result, error = command(*options(tmp_path, tmp_path / "runs", *more))
    assert status == 0, error
    text = Path(result["run"], "report.md").read_text()
    assert "In 2 of 2 folds the training part lacks a class (ravdess: no clip of angry)" in text
    assert "2 of 2 folds test fewer classes than there are" in text


def test_item_22_parts_without_a_class_are_named(tmp_path: Path, command: Command) -> None:
    """One speaker alone is sad, so any split by speaker leaves two parts without."""
    write_store(tmp_path, "ravdess", emotions=("happy", "neutral"), n_speakers=8)
    write_store(tmp_path, "tess", emotions=("sad",), n_speakers=1, per_emotion=4)
    status, result, error = command(*options(tmp_path, tmp_path / "runs"))
    assert status == 0, error
    report = json.loads(Path(result["run"], "report.json").read_text())
    missing = [text for text in report["warnings"] if "negative" in text]
    assert len(missing) == 2, report["warnings"]
    assert "No test clip is negative" in missing[0]
    assert "The validation part has no clip of negative" in missing[1]


def test_item_22_an_ensemble_of_too_few_clips_ends_in_a_sentence(
    tmp_path: Path, command: Command
) -> None:
    """A published list whose validation part is smaller than there are classes."""
    with FeatureStore(write_store(tmp_path, per_emotion=3, speaker="unknown")) as store:
        names = [Path(row.path).name for row in store.rows]
    parts = ["val"] * 2 + ["test"] * 10 + ["train"] * (len(names) - 12)
    folds = tmp_path / "folds.csv"
    folds.write_text("file,fold_1\n" + "".join(map("{},{}\n".format, names, parts)))
    more = ("--split", f"folds:{folds}", "--ensemble", 3)
    status, _, error = command(*options(tmp_path, tmp_path / "runs", *more))
    assert status == 1
    assert "too few clips for an ensemble of 3" in error
    assert "Traceback" not in error


def test_item_10_the_clips_own_words_are_classes(tmp_path: Path, command: Command) -> None:
    write_store(tmp_path, emotions=("Smug", "wry", "happy"))
    status, result, error = command(*options(tmp_path, tmp_path / "runs", "--labels", "own"))
    assert status == 0, error
    assert read_card(Path(result["run"]))["classes"] == ["Smug", "happy", "wry"]


def test_item_10_a_mapping_tells_two_words_for_one_emotion_apart(
    tmp_path: Path, command: Command
) -> None:
    write_store(tmp_path, emotions=("N", "neutral", "sad"))
    mapping = tmp_path / "mine.csv"
    mapping.write_text("Emotion ; Label\nN;nasal\nneutral;even\nsad;low\n")
    status, result, error = command(*options(tmp_path, tmp_path / "runs", "--labels", mapping))
    assert status == 0, error
    told = pd.read_csv(Path(result["run"], "clips.csv"), keep_default_na=False)
    expected = {"N": "nasal", "neutral": "even", "sad": "low"}
    assert told["label"].tolist() == told["emotion"].map(expected).tolist()


def test_item_8_unnamed_clips_are_said_in_the_report(tmp_path: Path, command: Command) -> None:
    """In a store made before, whose speaker is called nan."""
    write_store(tmp_path, "ravdess", n_speakers=6)
    write_store(tmp_path, "calls", n_speakers=6, speaker="nan")
    more = ("--split", "random", "--labels", "sentiment3")
    status, result, error = command(*options(tmp_path, tmp_path / "runs", *more))
    assert status == 0, error
    report = json.loads(Path(result["run"], "report.json").read_text())
    assert report["leakage"]["unnamed"] + report["leakage"]["unnamed_training"] == 36
    assert any("have no named speaker: that the same people" in w for w in report["warnings"])
    assert "each by itself" in report["ci_by"]
    status, _, error = command(*options(tmp_path, tmp_path / "runs"))
    assert status == 1
    assert "36 clips have no speaker" in error


def test_item_21_two_fold_names_never_share_a_folder(tmp_path: Path, command: Command) -> None:
    write_store(tmp_path, "x", n_speakers=3, speaker="{}/é")
    write_store(tmp_path, "X", n_speakers=3, speaker="{}_é")
    status, result, error = command(*options(tmp_path, tmp_path / "runs", "--split", "loso"))
    assert status == 0, error
    folds = [path.parent for path in Path(result["run"]).glob("*/card.json")]
    assert len({folder.name.casefold() for folder in folds}) == 6
    names = {read_card(folder)["fold"] for folder in folds}
    assert names == set(json.loads(Path(result["run"], "report.json").read_text())["folds"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--epochs", 0], "--epochs 0: at least 1"),
        (["--batch-size", 1], "--batch-size 1: batch norm needs at least 2"),
        (["--patience", 0], "--patience 0: at least 1"),
        (["--lr", -1], "--lr -1.0: must be greater than 0"),
        (["--weight-decay", -1], "--weight-decay -1.0: at least 0"),
        (["--seed", -1], "--seed -1: 0 to 4294967295"),
        (["--seed", 2**32], "--seed 4294967296: 0 to 4294967295"),
        (["--split", "speakers"], "no split 'speakers'; there are random, speaker"),
        (["--split", "folds:none.csv"], "none.csv: can't be read"),
        (["--labels", "emotions"], "'emotions' is neither a label scheme"),
        (["--head", "lstm"], "no head 'lstm'; there are conv, temporal, mlp, stats, layers, cnn"),
        (["--lr", 1e37], "the loss is not finite: try a smaller --lr"),
    ],
)
def test_options_that_cannot_be_are_named(
    features: Path, tmp_path: Path, command: Command, wrong: list[object], said: str
) -> None:
    status, _, error = command(*options(features, tmp_path), *wrong)
    assert status == 1
    assert said in error


@pytest.mark.parametrize("wrong", [["--no-such"], ["--stop-rule", "never"], ["--epochs", "many"]])
def test_wrong_usage_exits_with_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        train_main(wrong)
    assert left.value.code == 2
