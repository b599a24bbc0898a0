"""The report again: on a run's own test part to the last digit, and on unseen stores."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stores import SETTINGS, write_store

from ser_embed.evaluate import __main__ as evaluate
from ser_embed.train import training as train

Ran = tuple[int, dict[str, Any], str]
Command = Callable[..., Ran]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process: exit status, JSON object, standard error."""

    def _run(*args: object) -> Ran:
        capsys.readouterr()
        status = evaluate.main([*map(str, args), "--json", "--quiet"])
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        return status, json.loads(lines[-1]) if lines else {}, printed.err

    return _run


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    write_store(folder, "ravdess", shape=(12, 8), n_speakers=8, per_emotion=4, noise=3)
    write_store(folder, "tess", shape=(10, 8), n_speakers=4, per_emotion=4, noise=3)
    return folder


def train_run(features: Path, runs: Path, **options: Any) -> tuple[Path, dict[str, Any]]:
    config = train.TrainConfig(
        features_dir=features, runs_dir=runs, head="mlp", epochs=4, json=True, **options
    )
    result = train.train(config).result
    return Path(result["run"]), json.loads(json.dumps(result))


@pytest.fixture(scope="module")
def trained(
    features: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """A run by each of three splits, with a seed that isn't the default."""
    runs = tmp_path_factory.mktemp("runs")
    return {
        split: train_run(features, runs, split=split, seed=7)
        for split in ("speaker", "random", "kfold")
    }


# --- a run's own test part -------------------------------------------------------------------


@pytest.mark.parametrize("split", ["speaker", "random", "kfold"])
def test_the_own_test_part_gives_the_training_reports_numbers(
    trained: dict[str, tuple[Path, dict[str, Any]]], features: Path, tmp_path: Path, split: str,
    command: Command,
) -> None:  # fmt: skip
    folder, result = trained[split]
    status, output, _ = command(folder, "--features-dir", features, "--out", tmp_path)
    assert status == 0
    assert output == result
    first = json.loads((folder / "report.json").read_text())
    again = json.loads((tmp_path / "report.json").read_text())
    for name in ("clips", "matrix", "per_class", "leakage", "baselines", "groups", "warnings",
                 "folds", "ci_by"):  # fmt: skip
        assert again[name] == first[name], name
    assert again["ece"] == pytest.approx(first["ece"], abs=1e-6)
    columns = ["path", "predicted", "p_positive"]
    one, other = (pd.read_csv(f / "predictions.csv")[columns].sort_values("path")
                  for f in (folder, tmp_path))  # fmt: skip
    assert one["path"].tolist() == other["path"].tolist()
    assert one["predicted"].tolist() == other["predicted"].tolist()
    np.testing.assert_allclose(one["p_positive"], other["p_positive"], atol=2e-5)


def test_the_epochs_are_those_that_were_trained(
    features: Path, tmp_path: Path, command: Command
) -> None:
    config = train.TrainConfig(
        features_dir=features, runs_dir=tmp_path, head="mlp", epochs=40, patience=2,
        early_stop=True, json=True, quiet=True,
    )  # fmt: skip
    result = train.train(config).result
    assert len(pd.read_csv(Path(result["run"]) / "history.csv")) == result["epochs"] < 40
    assert command(result["run"], "--features-dir", features)[1]["epochs"] == result["epochs"]


def test_the_report_goes_into_the_run_by_default(
    trained: dict[str, tuple[Path, dict[str, Any]]], features: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder, _ = trained["random"]
    assert evaluate.main([str(folder), "--features-dir", str(features), "--quiet"]) == 0
    out = folder / "evaluation-own-test"
    assert (out / "report.md").read_text().startswith(f"# {folder.name} on own-test\n")
    shown = capsys.readouterr().out
    assert shown.startswith("UAR 0.")
    assert "test speakers were also trained on" in shown
    assert shown.endswith(f"report: {out / 'report.md'}\n")


def test_stores_of_other_kinds_in_the_folder_are_passed_over(
    trained: dict[str, tuple[Path, dict[str, Any]]], features: Path, tmp_path: Path,
    command: Command,
) -> None:  # fmt: skip
    for path in features.glob("*.h5"):
        shutil.copy(path, tmp_path)
    write_store(tmp_path, "urdu", shape=(12, 8))
    write_store(tmp_path, "ravdess", settings=replace(SETTINGS, layer=5), shape=(12, 8))
    folder, result = trained["speaker"]
    assert command(folder, "--features-dir", tmp_path, "--out", tmp_path / "out")[1] == result


def test_a_run_whose_stores_are_gone_says_which(
    trained: dict[str, tuple[Path, dict[str, Any]]], features: Path, tmp_path: Path,
    command: Command,
) -> None:  # fmt: skip
    folder, _ = trained["speaker"]
    status, output, error = command(folder, "--features-dir", tmp_path)
    assert status == 1
    assert f"{tmp_path}: none of the stores that {folder} was trained on" in error
    assert f"ravdess, tess, key {SETTINGS.key}" in error
    assert output["error"] in error
    shutil.copy(next(features.glob("ravdess*")), tmp_path)  # and one of two isn't enough
    status, _, error = command(folder, "--features-dir", tmp_path)
    assert status == 1
    assert "of its clips are not in the stores any more; extract them again" in error


# --- other stores ----------------------------------------------------------------------------


def test_another_corpus_is_scored_whole(
    trained: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, command: Command
) -> None:
    store = write_store(tmp_path, "urdu", shape=(9, 8), n_speakers=6, noise=0.3)
    for split in ("speaker", "kfold"):  # the heads of five folds are averaged
        folder, _ = trained[split]
        status, output, _ = command(folder, store, "--out", tmp_path / split)
        assert status == 0
        assert set(output) == {"run", "epochs", "test"}
        report = json.loads((tmp_path / split / "report.json").read_text())
        assert report["clips"] == 36
        assert report["uar"] > 0.8
        assert report["folds"] == {}
        for name in ("shared_speakers", "duplicates", "halves"):
            assert report["leakage"][name] == 0
        assert report["leakage"]["test_speakers"] == 6
        assert report["warnings"] == []


def test_overlap_of_the_other_store_with_training_is_counted(
    trained: dict[str, tuple[Path, dict[str, Any]]], features: Path, tmp_path: Path,
    command: Command,
) -> None:  # fmt: skip
    folder, _ = trained["speaker"]
    status, _, _ = command(folder, next(features.glob("tess*")), "--out", tmp_path)
    assert status == 0
    report = json.loads((tmp_path / "report.json").read_text())
    parts = pd.read_csv(folder / "clips.csv")
    seen = parts[(parts["part"] != "test") & (parts["corpus"] == "tess")]
    assert report["leakage"]["duplicates"] == len(seen) > 0
    assert report["leakage"]["shared_speakers"] == seen["speaker"].nunique() == 3
    assert len(report["warnings"]) == 3  # speakers, duplicates, and how few speakers


def test_segments_of_recordings_that_were_trained_on_are_counted(
    trained: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, command: Command
) -> None:
    folder = Path(shutil.copytree(trained["speaker"][0], tmp_path / "run"))
    parts = pd.read_csv(folder / "clips.csv", keep_default_na=False)
    parts["recording"] = "urdu:one"
    parts.to_csv(folder / "clips.csv", index=False)
    store = write_store(tmp_path, "urdu", shape=(12, 8), recording="urdu:one")
    assert command(folder, store, "--out", tmp_path / "out")[0] == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["leakage"]["halves"] == 24
    assert any("cut from a recording" in warning for warning in report["warnings"])


def test_synthetic_and_untrained_are_warnings(
    trained: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, command: Command
) -> None:
    store = write_store(tmp_path, "demo", shape=(12, 8), demo=True, trained=False)
    assert command(trained["speaker"][0], store, "--out", tmp_path / "out")[0] == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Synthetic demo clips are involved" in text
    assert "untrained, seeded weights: a control" in text


def test_classes_that_are_numbers_survive_the_way_through_csv(
    features: Path, tmp_path: Path, command: Command
) -> None:
    mapping = tmp_path / "valence.csv"
    mapping.write_text("emotion,label\nhappy,1\nneutral,\nsad,0\n")
    folder, result = train_run(features, tmp_path / "runs", labels=str(mapping))
    mapping.unlink()  # the card has it
    assert command(folder, "--features-dir", features)[1] == result


def test_item_10_evaluate_takes_a_mapping(
    trained: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, command: Command
) -> None:
    """From another corpus's words to the run's classes."""
    folder, _ = trained["speaker"]
    words = ("joy!", "N", "neutral", "blue", "sleepy")
    store = write_store(tmp_path, "calls", shape=(9, 8), emotions=words, noise=0.3)
    mapping = tmp_path / "calls.csv"
    mapping.write_text(
        "Emotion,LABEL\njoy!,positive\nN,negative\nneutral,neutral\nblue,negative\nsleepy,\n"
    )
    out = tmp_path / "out"
    status, _, error = command(folder, store, "--labels", mapping, "--out", out)
    assert status == 0, error
    told = pd.read_csv(out / "predictions.csv", keep_default_na=False)
    expected = {"joy!": "positive", "N": "negative", "neutral": "neutral", "blue": "negative"}
    assert told["label"].tolist() == told["emotion"].map(expected).tolist()
    assert "Clips left out by the label scheme: sleepy 8." in (out / "report.md").read_text()


def test_item_10_evaluate_leaves_out_what_the_run_does_not_know(
    trained: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, command: Command
) -> None:
    folder, _ = trained["speaker"]
    store = write_store(tmp_path, "emodb", shape=(9, 8), emotions=("happy", "boredom"))
    assert command(folder, store, "--out", tmp_path / "out")[0] == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Clips left out by the label scheme: boredom 8." in text
    assert "All test clips are positive" in text
    nothing = write_store(tmp_path, "cafe", shape=(9, 8), emotions=("boredom", "wry"))
    status, _, error = command(folder, nothing)
    assert status == 1
    assert "leaves out every clip: no class for 'boredom', 'wry'" in error


def test_item_8_the_page_of_another_corpus_says_who_is_unnamed(
    trained: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, command: Command
) -> None:
    folder, _ = trained["speaker"]
    write_store(tmp_path, "a", shape=(9, 8), noise=0.3)
    write_store(tmp_path, "b", shape=(9, 8), noise=0.3, speaker="Unknown", n_speakers=1)
    stores = sorted(tmp_path.glob("*.h5"))
    status, _, error = command(folder, *stores, "--html", "--out", tmp_path / "out")
    assert status == 0, error
    text = " ".join((tmp_path / "out" / "page.html").read_text().split())
    assert "some clips have no named speaker, so it isn't certain" in text
    assert "on unseen speakers" not in text
    assert "6 test clips and 0 training clips have no named speaker" in text


def test_item_10_a_mapping_to_other_classes_than_the_runs_is_refused(
    trained: dict[str, tuple[Path, dict[str, Any]]], features: Path, tmp_path: Path,
    command: Command,
) -> None:  # fmt: skip
    folder, _ = trained["speaker"]
    store = write_store(tmp_path, "urdu", shape=(9, 8))
    mapping = tmp_path / "calls.csv"
    mapping.write_text("emotion,label\nhappy,positive\nsad,gloomy\nneutral,neutral\n")
    status, _, error = command(folder, store, "--labels", mapping)
    assert status == 1
    assert f"gloomy is no class of {folder}, which has positive, neutral, negative" in error
    status, _, error = command(folder, store, "--labels", "emotion9")
    assert status == 1
    assert "'emotion9' is neither a label scheme" in error
    mapping.write_text("emotion,label\nhappy,positive\nsad,negative\nneutral,neutral\n")
    status, _, error = command(folder, "--features-dir", features, "--labels", mapping)
    assert status == 1
    assert "--labels maps the emotions of stores that the run wasn't trained on" in error


def test_item_22_classes_that_were_dropped_stay_out_of_the_own_test(
    features: Path, tmp_path: Path, command: Command
) -> None:
    """The own test part again, warnings of parts that lack a class among them."""
    write_store(tmp_path, "x", shape=(12, 8), emotions=("happy", "neutral"), n_speakers=8)
    write_store(tmp_path, "y", shape=(12, 8), emotions=("sad",), n_speakers=1, per_emotion=4)
    folder, result = train_run(tmp_path, tmp_path / "runs", labels="emotion8")
    first = json.loads((folder / "report.json").read_text())
    assert first["classes"] == ["neutral", "happy", "sad"]
    status, output, error = command(folder, "--features-dir", tmp_path, "--out", tmp_path / "out")
    assert status == 0, error
    assert output == result
    again = json.loads((tmp_path / "out" / "report.json").read_text())
    assert again["warnings"] == first["warnings"]
    assert any("validation part has no clip of sad" in text for text in first["warnings"])
    # Another corpus with a class that was dropped: left out, not an error.
    store = write_store(tmp_path, "urdu", shape=(9, 8), emotions=("happy", "angry"))
    assert command(folder, store, "--out", tmp_path / "urdu")[0] == 0
    assert "label scheme: angry 8." in (tmp_path / "urdu" / "report.md").read_text()


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"), [("layer", 5), ("weights", "b" * 64), ("seconds", 2.0), ("norm", "clip")]
)
def test_a_store_of_other_settings_names_the_field(
    trained: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, command: Command,
    field: str, value: Any,
) -> None:  # fmt: skip
    changed: dict[str, Any] = {field: value}
    store = write_store(tmp_path, "urdu", settings=replace(SETTINGS, **changed), shape=(12, 8))
    status, _, error = command(trained["speaker"][0], store)
    assert status == 1
    assert f"{store}: not the features that" in error
    assert f"{field}: {getattr(SETTINGS, field)!r} against {value!r}" in error


def test_a_missing_run_or_store_is_named(
    trained: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, command: Command
) -> None:
    status, _, error = command(tmp_path / "none")
    assert status == 1
    assert f"{tmp_path / 'none'}: no trained head there" in error
    status, _, error = command(trained["speaker"][0], tmp_path / "none.h5")
    assert status == 1
    assert "none.h5: no such feature store; make one with" in error


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_a_run_without_its_list_of_clips_says_so(
    trained: dict[str, tuple[Path, dict[str, Any]]], features: Path, tmp_path: Path,
    command: Command, content: bytes | None,
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(trained["speaker"][0], tmp_path / "run"))
    (folder / "clips.csv").unlink()
    if content is not None:
        (folder / "clips.csv").write_bytes(content)
    status, _, error = command(folder, "--features-dir", features)
    assert status == 1
    assert "clips.csv: can't be read" in error
    assert "train again" in error
