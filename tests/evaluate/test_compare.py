"""The table's lines are what the models' own runs say, kept, and trained once."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser_embed import compare
from ser_embed.audio.cutting import cut_clip
from ser_embed.audio.decoding import load_audio
from ser_embed.corpora.listing import read_demo
from ser_embed.errors import HeadError
from ser_embed.evaluate.contestants import contestant_of
from ser_embed.heads.checkpoint import load_head, read_card

Ran = tuple[int, dict[str, Any], str]
Command = Callable[..., Ran]
MODELS = ("base-cnn", "mini:mlp", "egemaps-svm")
pytest.importorskip("opensmile")


def options(folder: Path, *more: object, models: tuple[str, ...] = MODELS) -> list[str]:
    given: list[object] = [
        "--corpus", "demo", "--limit", 96, "--labels", "emotion4", "--split", "kfold", "--epochs",
        2, "--backend", "torch", "--features-dir", folder / "features", "--runs-dir",
        folder / "runs", "--out", folder / "out", *more, "--models", *models,
    ]  # fmt: skip
    return [*map(str, given), "--json", "--quiet"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def _run(*args: str) -> Ran:
        capsys.readouterr()
        status = compare.main(list(args))
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        return status, json.loads(lines[-1]) if lines else {}, printed.err

    return _run


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole comparison of three models."""
    folder = tmp_path_factory.mktemp("compared")
    assert compare.main(options(folder)) == 0
    return folder


def rows_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out/comparison.json").read_text())["models"]


def test_every_line_is_what_scikit_learn_says_of_the_runs_predictions(compared: Path) -> None:
    rows = rows_of(compared)
    assert tuple(rows) == MODELS
    for row in rows.values():
        told = pd.read_csv(Path(row["run"]) / "predictions.csv", keep_default_na=False)
        folds = [balanced_accuracy_score(fold["label"], fold["predicted"])
                 for _, fold in told.groupby("fold")]  # fmt: skip
        assert row["uar"] == pytest.approx(np.mean(folds))
        assert row["wa"] == pytest.approx(accuracy_score(told["label"], told["predicted"]))
        f1 = f1_score(told["label"], told["predicted"], average="macro")
        assert row["macro_f1"] == pytest.approx(f1)
        assert row["clips"] == len(told)
        assert row["training_cpu_seconds"] > 0
        assert row["training_seconds"] > 0
        assert 1 < row["clips_per_second"] < 10_000
        assert row["uar_ci"][0] <= row["uar_ci"][1]
    assert len({row["tested"] for row in rows.values()}) == 1


def test_parameters_are_those_that_are_run(compared: Path) -> None:
    rows = rows_of(compared)
    for name, encoder in (("base-cnn", 0), ("mini:mlp", 3_216_224)):
        run = Path(rows[name]["run"])
        head, card = load_head(next(path.parent for path in sorted(run.glob("*/card.json"))))
        assert rows[name]["head_parameters"] == sum(p.numel() for p in head.parameters())
        assert rows[name]["encoder_parameters"] == encoder
        assert card["training"]["epochs"] == 2
    assert rows["egemaps-svm"]["encoder_parameters"] == 0


def test_the_baseline_is_trained_as_published(compared: Path) -> None:
    run = Path(rows_of(compared)["base-cnn"]["run"])
    told = read_card(next(path.parent for path in run.glob("*/card.json")))
    training = told["training"]
    assert (training["optimizer"], training["lr"], training["batch_size"]) == ("adam", 1e-3, 128)
    assert training["weight_decay"] == 1e-5
    assert contestant_of("base-cnn").training["epochs"] == 100
    assert (told["features"]["encoder"], told["head"]["name"]) == ("log-mel", "cnn")


def test_the_svm_is_scikit_learns_on_opensmiles_functionals(compared: Path) -> None:
    """Once more by hand: its own functionals, scaler and machine, on the parts that were told."""
    import opensmile

    run = Path(rows_of(compared)["egemaps-svm"]["run"])
    told = pd.read_csv(run / "predictions.csv", keep_default_na=False)
    root = read_demo().root
    smile = opensmile.Smile("eGeMAPSv02", "func")
    features = {
        path: smile.process_signal(cut_clip(load_audio(root / path), 3.0, True), 16_000).iloc[0]
        for path in told["path"].unique()
    }
    table = pd.DataFrame(features).T
    labels = told.drop_duplicates("path").set_index("path")["label"]
    for _, fold in told.groupby("fold"):
        seen = [path for path in labels.index if path not in set(fold["path"])]
        scaler = StandardScaler().fit(table.loc[seen].to_numpy())
        machine = SVC(C=1.0, class_weight="balanced", decision_function_shape="ovr")
        machine.fit(scaler.transform(table.loc[seen].to_numpy()), labels[seen])
        decisions = machine.decision_function(scaler.transform(table.loc[fold["path"]].to_numpy()))
        by_hand = machine.classes_[decisions.argmax(1)]
        assert (by_hand == fold["predicted"].to_numpy()).mean() > 0.97  # but for rounded ties
    probabilities = told[[name for name in told if name.startswith("p_")]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-4)


def test_it_is_written_as_markdown_csv_and_picture(compared: Path) -> None:
    rows, out = rows_of(compared), compared / "out"
    with (out / "comparison.csv").open(newline="") as file:
        lines = {row["model"]: row for row in csv.DictReader(file)}
    assert list(lines) == list(MODELS)
    text = (out / "comparison.md").read_text()
    for name, row in rows.items():
        assert float(lines[name]["uar"]) == row["uar"]
        assert [float(lines[name][key]) for key in ("uar_low", "uar_high")] == row["uar_ci"]
        low, high = (100 * value for value in row["uar_ci"])
        assert f"| {name} | {100 * row['uar']:.1f} [{low:.1f}, {high:.1f}] |" in text
    assert "synthetic demo clips" in text
    assert text.count("synthetic demo clips") == 1  # what holds of all is said once
    assert "    python -m ser_embed.compare --corpus demo" in text
    assert matplotlib.image.imread(out / "comparison.png")[..., :3].std() > 0.05


def test_a_second_call_trains_nothing_and_a_new_model_alone(
    compared: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(compared, tmp_path / "c")
    before = rows_of(compared)
    shutil.rmtree(tmp_path / "c/features")  # nothing is encoded either
    status, told, _ = command(*options(tmp_path / "c"))
    assert (status, told["models"]) == (0, before)
    assert not (tmp_path / "c/features").exists()
    status, told, _ = command(*options(tmp_path / "c", models=("random-mini", "base-cnn")))
    assert status == 0
    assert list(told["models"]) == ["random-mini", "base-cnn"]
    assert told["models"]["base-cnn"] == before["base-cnn"]
    assert any("untrained" in text for text in told["models"]["random-mini"]["warnings"])
    assert "- random-mini: The encoder" in (tmp_path / "c/out/comparison.md").read_text()


def test_speed_alone_can_be_measured_anew(compared: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(compared, tmp_path / "c")
    before = rows_of(compared)
    args = options(compared, "--out", tmp_path / "c/out", "--retime", models=("mini:mlp",))
    status, told, _ = command(*args)
    assert status == 0
    after = told["models"]["mini:mlp"]
    assert after.pop("clips_per_second") != before["mini:mlp"]["clips_per_second"]
    assert after.items() <= before["mini:mlp"].items()


def test_other_settings_are_computed_anew(compared: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(compared, tmp_path / "c")
    before = rows_of(compared)["egemaps-svm"]
    _, told, _ = command(*options(tmp_path / "c", "--seed", 1, models=("egemaps-svm",)))
    assert told["models"]["egemaps-svm"]["run"] != before["run"]
    # What was kept of the first seed is still there.
    known = json.loads((tmp_path / "c/out/comparison.json").read_text())["known"]
    assert before in known.values()


def test_a_model_that_fails_is_told_and_the_others_go_on(
    compared: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(compared, tmp_path / "c")
    status, told, error = command(*options(tmp_path / "c", models=("base-cnn", "nowhere")))
    assert status == 3
    assert "nowhere failed: no encoder 'nowhere'" in error
    assert list(told["models"]) == ["base-cnn"]
    assert "- nowhere failed: no encoder" in (tmp_path / "c/out/comparison.md").read_text()
    status, _, error = command(*options(tmp_path / "d", models=("nowhere",)))
    assert status == 1
    assert "none of 1 models could be trained" in error


def test_a_finished_run_takes_part_by_its_folder(
    compared: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(compared, tmp_path / "c")
    known = rows_of(compared)["mini:mlp"]
    run = shutil.copytree(known["run"], tmp_path / "elsewhere")
    status, told, _ = command(*options(tmp_path / "c", models=("mini:mlp", str(run))))
    assert status == 0
    entered = told["models"]["elsewhere"]
    for name in ("uar", "uar_ci", "head_parameters", "encoder_parameters", "tested",
                 "training_seconds"):  # fmt: skip
        assert entered[name] == known[name]
    # Of other labels it can't.
    status, _, error = command(*options(tmp_path / "c", "--labels", "emotion8", models=(str(run),)))
    assert status == 1
    assert "not those of --labels emotion8" in error
    # Of other clips it can, and that is said.
    args = options(tmp_path / "c", "--split", "speaker", models=("egemaps-svm", str(run)))
    assert command(*args)[0] == 0
    text = (tmp_path / "c/out/comparison.md").read_text()
    assert "- elsewhere: tested on other clips than egemaps-svm" in text
    # Two of one name go by their whole paths.
    twin = shutil.copytree(run, tmp_path / "twin" / "elsewhere")
    status, told, _ = command(*options(tmp_path / "c", models=(str(run), str(twin))))
    assert status == 0
    assert list(told["models"]) == [str(run), str(twin)]


def test_a_fine_tuned_model_is_trained_and_counted(
    tmp_path: Path, tiny: str, command: Command
) -> None:
    pytest.importorskip("accelerate")
    models = (f"{tiny}:finetuned",)
    args = options(tmp_path, "--split", "random", "--epochs", 1, models=models)
    status, told, error = command(*args)
    assert status == 0, error
    (row,) = told["models"].values()
    card = read_card(Path(row["run"]))
    assert row["encoder_parameters"] + row["head_parameters"] == card["head"]["parameters"]
    assert row["encoder_parameters"] > 1000
    assert (card["training"]["lr"], card["training"]["freeze"]) == (2e-4, 0)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_what_was_done_before_ctrl_c_is_kept(tmp_path: Path, project: Path) -> None:
    args = options(tmp_path, models=("egemaps-svm", "mini:layers"))
    process = subprocess.Popen(
        [sys.executable, "-m", "ser_embed.compare", *args], cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    kept = tmp_path / "out/comparison.json"
    for _ in range(1200):
        if kept.is_file() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert list(rows_of(tmp_path)) == ["egemaps-svm"]
    assert "interrupted" in error


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--epochs", 0), "--epochs 0: at least 1"), (("--limit", -1), "--limit -1: at least 0"),
        (("--ensemble", 0), "--ensemble 0: at least 1"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(
    more: tuple[object, ...], message: str, tmp_path: Path, command: Command
) -> None:
    status, _, error = command(*options(tmp_path, *more))
    assert status == 1
    assert message in error


def test_a_head_that_there_is_not_lists_those_there_are() -> None:
    with pytest.raises(HeadError, match=r"no head 'lstm'; there are conv, .* and finetuned"):
        contestant_of("mini:lstm")
