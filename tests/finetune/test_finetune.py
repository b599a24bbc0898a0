"""Fine-tuning as a user runs it: a run's files, its resumes, its refusals, its recipes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file
from test_endtoend import tiny_encoder

from ser_embed.bundled import DEMO_CORPUS
from ser_embed.corpora.labels import LabelScheme
from ser_embed.corpora.listing import read_corpus
from ser_embed.evaluate import __main__ as evaluate
from ser_embed.finetune import tuning as finetune
from ser_embed.finetune.__main__ import main as finetune_main
from ser_embed.finetune.network import load_network
from ser_embed.finetune.recordings import Recordings
from ser_embed.finetune.trainer import _loss_of, available_precision
from ser_embed.heads.checkpoint import read_card
from ser_embed.live.__main__ import main as live
from ser_embed.predict.__main__ import main as predict
from ser_embed.predict.classifier import Classifier
from ser_embed.reports.scores import uar_of
from ser_embed.splits.rules import Split, make_splits

Ran = tuple[int, dict[str, Any], str]
Command = Callable[..., Ran]
Made = tuple[Path, dict[str, Any]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process: exit status, JSON object, standard error."""

    def _run(*args: object) -> Ran:
        capsys.readouterr()
        status = finetune_main([*map(str, args), "--json", "--quiet"])
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        return status, json.loads(lines[-1]) if lines else {}, printed.err

    return _run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run of the RAVDESS recipe on real audio with the encoder that ships."""
    config = finetune.FinetuneConfig(
        recipe="ravdess8", corpus="demo", encoder="mini", split="random", limit=80, epochs=1,
        seconds=2.0, trim=True, lr=1e-3, eval_steps=3, freeze=3, early_stop=True,
        runs_dir=tmp_path_factory.mktemp("runs"), json=True, quiet=True,
    )  # fmt: skip
    result = finetune.finetune(config).result
    return Path(result["run"]), result


def options(tiny: Path, runs: Path, *more: object) -> list[object]:
    """A few seconds' work: 64 clips, one epoch of the tiny encoder."""
    return ["--corpus", "demo", "--limit", 64, "--encoder", tiny, "--seconds", 1, "--labels",
            "sentiment3", "--epochs", 1, "--runs-dir", runs, *more]  # fmt: skip


# --- a finished run --------------------------------------------------------------------------


def test_the_files_of_a_run(mini: Made) -> None:
    folder, _ = mini
    assert {path.name for path in folder.iterdir()} == {
        "by_corpus.png", "by_gender.png", "by_speaker.png", "card.json", "clips.csv",
        "config.json", "confusion.png", "history.csv", "history.md", "history.png",
        "misclassified.csv", "model.safetensors", "predictions.csv", "preprocessor_config.json",
        "reliability.png", "report.json", "report.md", "result.json", "started.json",
        "training-time.json",
    }  # fmt: skip
    for path in folder.glob("*.png"):
        assert imread(path)[..., :3].std() > 0.01


def test_what_json_tells_is_the_report(mini: Made) -> None:
    folder, result = mini
    assert set(result) == {"run", "epochs", "test"}
    report = json.loads((folder / "report.json").read_text())
    assert {name: report[name] for name in result["test"]} == json.loads(json.dumps(result["test"]))
    predictions = pd.read_csv(folder / "predictions.csv")
    assert result["test"]["wa"] == (predictions["label"] == predictions["predicted"]).mean()
    assert result["test"]["uar"] == pytest.approx(float(uar_of(np.array(report["matrix"]))))
    assert report["leakage"]["shared_speakers"] > 0
    assert any("also trained on" in warning for warning in report["warnings"])
    assert any("synthetic" in warning for warning in report["warnings"])


def test_the_history_is_the_cards_table(mini: Made) -> None:
    folder, _ = mini
    history = pd.read_csv(folder / "history.csv")
    assert history["step"].tolist() == [3, 6, 8]  # 64 clips by 8 are 8 steps
    assert history["epoch"].tolist() == pytest.approx([3 / 8, 6 / 8, 1])
    lines = (folder / "history.md").read_text().splitlines()
    assert lines[0].startswith("| training loss | epoch | step | validation loss | accuracy |")
    first = history.iloc[0]
    assert lines[2].startswith(
        f"| {first['train_loss']:.4f} | 0.38 | 3 | {first['val_loss']:.4f} | {first['val_wa']:.4f}"
    )
    assert lines[-1].startswith("| no log | 1.00 | 8 | ")
    card = read_card(folder)
    kept = history.set_index("step").loc[card["training"]["kept"]]
    assert kept["val_loss"] == history["val_loss"].min()
    assert card["training"]["val_uar"] == pytest.approx(kept["val_uar"], abs=0.15)  # fp32 now


def test_the_card_says_what_rebuilds_and_explains_the_network(mini: Made) -> None:
    folder, _ = mini
    network, card = load_network(folder)
    assert card["head"]["name"] == "classification"
    assert card["head"]["parameters"] == sum(p.numel() for p in network.module.parameters())
    assert 0 < card["training"]["trainable"] < card["head"]["parameters"]
    assert card["features"]["encoder"] == "mini"
    assert (card["features"]["seconds"], card["features"]["fill"]) == (2.0, "none")
    assert card["encoder_licence"] == "CC BY-NC-SA 4.0"
    assert (card["demo"], card["encoder_trained"]) == (True, True)
    assert card["training"]["accumulate"] == 2
    assert "ser_embed.finetune --recipe ravdess8 --corpus demo" in card["command"]
    assert len(card["weights_sha256"]) == 64


def test_frozen_layers_are_the_encoders(mini: Made) -> None:
    folder, _ = mini
    tuned = load_file(folder / "model.safetensors")
    stored = load_file(Path("artifacts/encoders/mini/model.safetensors"))
    same = {n for n, t in stored.items() if torch.equal(tuned[f"wav2vec2.{n}"], t.float())}
    layers = {n.split("layers.")[1][0] for n in stored if ".layers." in n and n not in same}
    assert layers == {"3", "4", "5"}
    assert {n for n in stored if "feature_extractor" in n} <= same


def test_misclassified_clips_can_be_played(mini: Made) -> None:
    folder, _ = mini
    wrong = pd.read_csv(folder / "misclassified.csv")
    told = pd.read_csv(folder / "predictions.csv")
    assert len(wrong) == (told["label"] != told["predicted"]).sum() > 0
    assert (wrong["label"] != wrong["predicted"]).all()
    assert (wrong["p_predicted"] >= wrong["p_label"]).all()
    assert wrong["p_predicted"].is_monotonic_decreasing
    for file in wrong["file"]:
        assert Path(file).is_relative_to(DEMO_CORPUS)
        assert Path(file).is_file()


def test_item_5_misclassified_ranges_of_a_file_are_told_apart(
    tiny: Path, tmp_path: Path, command: Command, write_tone: Callable[..., Path]
) -> None:
    """And classes that no clip has are dropped, an emotion without a class is counted."""
    rows = ["path,emotion,speaker,start,end"]
    for who in range(4):
        write_tone(tmp_path / f"{who}.wav", seconds=8, f0=150 + 20 * who, seed=who)
        for second, word in enumerate(["happy", "sad", "happy", "smug"] * 2):
            rows.append(f"{who}.wav,{word},{who},{second},{second + 1}")
    (tmp_path / "calls.csv").write_text("\n".join(rows) + "\n")
    status, result, error = command(
        "--recipe", "ravdess8", "--csv", tmp_path / "calls.csv", "--encoder", tiny, "--seconds", 1,
        "--labels", "emotion8", "--epochs", 1, "--freeze", 0, "--workers", 0, "--runs-dir",
        tmp_path / "runs",
    )  # fmt: skip
    assert status == 0, error
    folder = Path(result["run"])
    card = json.loads((folder / "card.json").read_text())
    assert (card["classes"], card["left_out"]) == (["happy", "sad"], {"smug": 8})
    wrong = pd.read_csv(folder / "misclassified.csv")
    assert len(wrong) > 0
    assert not wrong[["file", "start", "end"]].duplicated().any()
    assert (wrong["end"] - wrong["start"] == 1).all()
    assert evaluate.main([str(folder), "--csv", str(tmp_path / "calls.csv"), "--quiet"]) == 0


def test_a_fresh_process_predicts_what_the_report_was_made_from(
    mini: Made, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder, _ = mini
    told = pd.read_csv(folder / "predictions.csv")
    files = [DEMO_CORPUS / path for path in told["path"]]
    done = run("-m", "ser_embed.predict", *files, "--run", folder, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    predicted = json.loads(done.stdout.splitlines()[-1])["files"]
    assert len(predicted) == len(told) == 8
    for (_, row), one in zip(told.iterrows(), predicted, strict=True):
        assert one["label"] == row["predicted"]
        for name, probability in one["probabilities"].items():
            assert probability == pytest.approx(row[f"p_{name}"], abs=1e-5)


def test_a_classifier_says_that_it_was_fine_tuned_and_takes_samples(mini: Made) -> None:
    classifier = Classifier.load(mini[0])
    assert "encoder mini fine-tuned" in classifier.about
    assert "SYNTHETIC" in classifier.about
    assert classifier.seconds == 2.0
    assert classifier.classes == LabelScheme.load("emotion8").classes
    rng = np.random.default_rng(0)
    prediction = classifier.classify(rng.standard_normal((50_000, 2)).astype(np.float32), 48_000)
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_live_takes_it_too(mini: Made, capsys: pytest.CaptureFixture[str]) -> None:
    clip = sorted(DEMO_CORPUS.rglob("*.ogg"))[0]
    args = ["--file", clip, "--once", "--run", mini[0], "--json", "--quiet"]
    assert live([str(word) for word in args]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["windows"][0]
    expected = Classifier.load(mini[0]).classify_file(clip).probabilities
    assert told["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_evaluate_scores_the_audio_again(
    mini: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], write_tone: Callable[..., Path]
) -> None:
    """Its own test part of the corpus it was trained on, every clip of another."""
    folder, result = mini
    args = [str(folder), "--json", "--quiet"]
    assert evaluate.main([*args, "--corpus", "demo", "--out", str(tmp_path / "own")]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["test"] == json.loads(json.dumps(result["test"]))
    again, first = (
        pd.read_csv(place / "predictions.csv").sort_values("path", ignore_index=True)
        for place in (tmp_path / "own", folder)
    )
    pd.testing.assert_frame_equal(again[list(first)], first, atol=2e-5)
    rows = ["path,emotion,speaker"]
    for number, emotion in enumerate(("happy", "sad", "angry")):
        write_tone(tmp_path / f"{emotion}.wav", f0=150 + 50 * number)
        rows.append(f"{emotion}.wav,{emotion},{number}")
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    assert evaluate.main([*args, "--csv", str(tmp_path / "mine.csv")]) == 0
    report = json.loads((folder / "evaluation-mine/report.json").read_text())
    shutil.rmtree(folder / "evaluation-mine")
    assert report["clips"] == 3
    assert report["leakage"]["shared_speakers"] == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [((), "its report is"), (("x.h5",), "takes --audio and no stores")],
)
def test_evaluate_says_what_it_needs(
    more: tuple, said: str, mini: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(mini[0]), *more]) == 1
    error = capsys.readouterr().err
    assert "a fine-tuned run" in error
    assert said in error


# --- resuming --------------------------------------------------------------------------------


def wait_for(what: Path, process: subprocess.Popen, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not what.is_file():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_killed_run_goes_on_and_is_the_run_that_was_not(
    tiny: Path, tmp_path: Path, project: Path, command: Command
) -> None:
    """Given from another folder, too: its best step was before it was killed."""

    def args(name: str, runs: Path = tmp_path) -> list[str]:
        more = ["--recipe", "crema21", "--split", "random", "--epochs", 4, "--lr", 0.2,
                "--schedule", "constant", "--eval-steps", 5, "--batch-size", 8, "--early-stop",
                "--patience", 50, "--watch", "uar", "--name", name]  # fmt: skip
        return [str(word) for word in options(tiny, runs, *more)]

    process = subprocess.Popen(
        [sys.executable, "-m", "ser_embed.finetune", *args("killed", Path()), "--quiet"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(project)}, stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(tmp_path / "killed/checkpoints/checkpoint-10/trainer_state.json", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/card.json").exists()
    found = tmp_path / "killed/checkpoints"
    # As if it had been killed in the middle of writing a later one.
    (found / "checkpoint-999").mkdir()
    (found / "checkpoint-999/trainer_state.json").write_text("{")
    status, killed, error = command(*args("killed"))
    assert status == 0, error
    _, whole, _ = command(*args("whole"))
    history = [pd.read_csv(tmp_path / name / "history.csv") for name in ("killed", "whole")]
    assert history[0]["step"].tolist() == [5, 10, 15, 20, 25, 28]  # 52 clips by 8
    pd.testing.assert_frame_equal(*history)
    assert read_card(tmp_path / "killed")["training"]["kept"] <= 10
    states = [load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole")]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert killed["test"] == whole["test"]
    assert not found.exists()


def test_a_finished_run_is_not_trained_again(mini: Made, command: Command) -> None:
    folder, result = mini
    written = (folder / "model.safetensors").stat().st_mtime_ns
    args = ["--recipe", "ravdess8", "--corpus", "demo", "--encoder", "mini", "--split", "random",
            "--limit", 80, "--epochs", 1, "--seconds", 2, "--trim", "--lr", 1e-3, "--eval-steps", 3,
            "--freeze", 3, "--early-stop", "--runs-dir", folder.parent]  # fmt: skip
    status, again, _ = command(*args)
    assert (status, again) == (0, json.loads(json.dumps(result)))
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    status, told, _ = command(*args, "--seed", 1, "--name", folder.name)
    assert status == 1
    assert "other data or options" in told["error"]


def test_early_stopping_keeps_the_best_and_a_resume_after_it_takes_no_step(
    tiny: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = options(tiny, tmp_path, "--recipe", "crema21", "--split", "random", "--epochs", 30,
                   "--lr", 0.05, "--eval-steps", 2, "--batch-size", 16, "--early-stop",
                   "--patience", 2, "--name", "early")  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(Recordings, "by_network", interrupt)
        assert finetune_main([*map(str, args), "--quiet"]) == 130
    checkpoints = sorted((tmp_path / "early/checkpoints").iterdir())
    assert 1 <= len(checkpoints) <= 2  # the newest, and the best beside it
    status, _, error = command(*args)
    assert status == 0, error
    history = pd.read_csv(tmp_path / "early/history.csv")
    kept = read_card(tmp_path / "early")["training"]["kept"]
    best = history["val_loss"].idxmin()
    assert kept == history["step"][best]
    assert len(history) == best + 3  # two evaluations later it was over
    # The weights are those of the best step: they give its validation scores again.
    card = read_card(tmp_path / "early")
    assert card["training"]["val_uar"] == pytest.approx(history["val_uar"][best], abs=1e-6)
    assert card["training"]["epochs"] == pytest.approx(history["epoch"].iloc[-1], abs=0.01)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


# --- what training hears ---------------------------------------------------------------------


def test_training_clips_alone_are_disturbed(
    tiny: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[bool, set[int]] = {True: set(), False: set()}
    real = Recordings.waveform

    def listen(self: Recordings, row: int, augment: Any = None, epoch: int = 0) -> np.ndarray:
        heard[augment is not None].add(row)
        return real(self, row, augment, epoch)

    monkeypatch.setattr(Recordings, "waveform", listen)
    status, _, error = command(*options(
        tiny, tmp_path, "--recipe", "crema21", "--split", "random", "--name", "x", "--augment",
        "noise", "pitch",
    ))  # fmt: skip
    assert status == 0, error
    parts = pd.read_csv(tmp_path / "x/clips.csv")
    rows = {part: set(group.index) for part, group in parts.groupby("part")}
    assert heard[True] == rows["train"]
    assert heard[False] == rows["val"] | rows["test"]
    assert read_card(tmp_path / "x")["training"]["augment"]["kinds"] == ["noise", "pitch"]


def test_accumulated_batches_are_one_batch(tiny: Path, tmp_path: Path, command: Command) -> None:
    """And class weights don't break it: 4 x 4 clips a step train as 16 do."""
    states = []
    for size, times in ((16, 1), (4, 4)):
        status, _, error = command(*options(
            tiny, tmp_path, "--recipe", "crema21", "--split", "random", "--augment", "none",
            "--batch-size", size, "--accumulate", times, "--class-weights", "balanced", "--lr",
            1e-3, "--name", f"b{size}",
        ))  # fmt: skip
        assert status == 0, error
        states.append(load_file(tmp_path / f"b{size}/model.safetensors"))
    torch.testing.assert_close(*states, rtol=0, atol=2e-4)
    start = load_file(tiny / "model.safetensors")
    moved = [float((states[0][f"wav2vec2.{n}"] - t).abs().max()) for n, t in start.items()]
    assert max(moved) > 2e-3
    weights = read_card(tmp_path / "b16")["training"]["class_weights"]
    assert len(set(weights)) == 2  # positive and neutral clips are as many


def test_the_loss_is_weighted_cross_entropy() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, 0, 1, 2, 2, 2])
    weights = np.array([0.5, 2.0, 1.0])
    loss = _loss_of(weights, 1e-3)
    probabilities = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    each = -np.log(probabilities[np.arange(6), labels.numpy()]) * weights[labels.numpy()]
    assert float(loss({"logits": logits}, labels)) == pytest.approx(each.sum() / 6, rel=1e-5)
    told = loss({"logits": logits}, labels, num_items_in_batch=torch.tensor(12))
    assert float(told) == pytest.approx(each.sum() / 12, rel=1e-5)


def test_folds_are_averaged(tiny: Path, tmp_path: Path, command: Command) -> None:
    status, told, error = command(*options(
        tiny, tmp_path, "--recipe", "mlp4", "--split", "kfold", "--labels", "emotion4",
        "--batch-size", 8, "--name", "k",
    ))  # fmt: skip
    assert status == 0, error
    folders = Classifier.head_folders(tmp_path / "k")
    assert len(folders) == len(told["test"]["fold_uar"]) == 5
    report = json.loads((tmp_path / "k/report.json").read_text())
    assert report["leakage"]["shared_speakers"] == 0
    clip = sorted(DEMO_CORPUS.rglob("*.ogg"))[0]
    each = [Classifier.load(folder).classify_file(clip).probabilities for folder in folders]
    whole = Classifier.load(tmp_path / "k").classify_file(clip).probabilities
    for name, probability in whole.items():
        assert probability == pytest.approx(np.mean([one[name] for one in each]))
    assert (tmp_path / "k/misclassified.csv").is_file()


# --- what goes wrong -------------------------------------------------------------------------


def test_a_loss_that_explodes_stops_with_advice(
    tiny: Path, tmp_path: Path, command: Command
) -> None:
    status, told, error = command(*options(
        tiny, tmp_path, "--recipe", "crema21", "--split", "random", "--lr", 1e30, "--name", "nan"
    ))  # fmt: skip
    assert status == 1
    assert "the loss is not finite at a learning rate of 1e+30: try a smaller --lr" in told["error"]
    assert "Traceback" not in error
    assert not (tmp_path / "nan/card.json").exists()


def test_an_infinite_weight_stops_with_advice(tiny: Path, tmp_path: Path, command: Command) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    state = load_file(broken / "model.safetensors")
    state["encoder.layer_norm.weight"][3] = float("inf")
    from safetensors.torch import save_file

    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    status, told, _ = command(*options(
        broken, tmp_path, "--recipe", "crema21", "--split", "random", "--name", "inf"
    ))  # fmt: skip
    assert status == 1
    assert "the loss is not finite" in told["error"]


LIMITED = """
import resource, sys
import ser_embed.finetune.tuning
from ser_embed.finetune.__main__ import main
import torch, transformers, datasets, accelerate, audiomentations, matplotlib.figure
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700_000_000,) * 2)
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's address limit")
def test_too_little_memory_stops_with_advice(
    tmp_path: Path, tiny: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """A batch of 52 clips of a minute, in 700 MB."""
    args = options(tiny, tmp_path, "--recipe", "crema21", "--split", "random", "--augment", "none",
                   "--batch-size", 52, "--seconds", 60, "--fill", "repeat", "--quiet")  # fmt: skip
    done = run("-c", LIMITED, *args, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 1, done.stderr
    assert "memory ran out at 52 clips a batch of 60 s" in done.stderr
    assert "--batch-size 26 --accumulate 2" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_that_goes_away_is_named(
    workers: int, tiny: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in sorted(DEMO_CORPUS.rglob("*.ogg"))[::4]:
        shutil.copy(path, tmp_path)
    gone: list[Path] = []
    real = finetune.NetworkModel.fit

    def after_a_loss(self: Any, clips: Recordings, split: Split, folder: Path) -> Any:
        gone.append(clips.root / clips.table["path"].iat[split.train[0]])
        gone[0].unlink()
        return real(self, clips, split, folder)

    monkeypatch.setattr(finetune.NetworkModel, "fit", after_a_loss)
    args = options(tiny, tmp_path / "runs", "--recipe", "crema21", "--split", "random", "--workers",
                   workers)  # fmt: skip
    args[:2] = [tmp_path, "--corpus", "ravdess"]
    status, told, _ = command(*args)
    assert status == 1
    assert told["error"] == f"{gone[0]}: No such file or directory"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--recipe", "mlp4", "--batch-size", 1), "batch norm needs at least 2"),
        (("--recipe", "crema21", "--lr", 0), "--lr 0.0: must be greater"),
        (("--recipe", "crema21", "--freeze", 7), "--freeze 7: the encoder has 2 layers"),
        (("--recipe", "crema21", "--accumulate", 0), "--accumulate 0: at least 1"),
        (("--recipe", "crema21", "--seconds", -1), "--seconds -1.0"),
        (("--recipe", "mlp4", "--dropout", 1), "--dropout 1.0: less than 1"),
        (("--recipe", "stats8", "--mask-time", 1), "--mask-time 1.0: 0 or more, less than 1"),
        (("--recipe", "stats8", "--mask-features", -1), "--mask-features -1.0: 0 or more"),
        (("--recipe", "ravdess8", "--start", "probed"), "not for transformers"),
        (("--recipe", "mlp4", "--freeze", "all", "--augment", "noise"), "cached"),
        (("--recipe", "crema21", "--labels", "nonsense"), "neither a label scheme"),
        (("--recipe", "crema21", "--split", "nonsense"), "no split 'nonsense'"),
    ],
)
def test_options_that_cannot_be(
    more: tuple, said: str, tiny: Path, tmp_path: Path, command: Command
) -> None:
    status, told, error = command(*options(tiny, tmp_path, *more))
    assert status == 1
    assert said in told["error"]
    assert "Traceback" not in error


def test_half_precision_where_the_hardware_has_it() -> None:
    assert available_precision("fp32") == "fp32"
    assert available_precision("auto") in ("bf16", "fp16", "fp32")


def test_clips_of_a_group_norm_encoder_stay_whole(tmp_path: Path, command: Command) -> None:
    folder = tiny_encoder(tmp_path / "group", "group")
    args = options(folder, tmp_path, "--recipe", "crema21", "--split", "random")
    status, _, error = command(*args, "--name", "g", "--seconds", 0)
    assert status == 0, error
    features = read_card(tmp_path / "g")["features"]
    assert (features["seconds"], features["fill"]) == (0, "none")


# --- recipes ---------------------------------------------------------------------------------


def test_crema_d_has_21_classes_with_the_official_counts(
    shared: Path, tmp_path: Path, write_tone: Callable[..., Path]
) -> None:
    names = (shared / "corpora/cremad/filenames.txt").read_text().split()
    assert len(names) == 7442
    clip = write_tone(tmp_path.with_name("one.wav"), 0.1)
    for name in names:  # the whole tree, of one generated clip
        (tmp_path / name).hardlink_to(clip)
    listing = read_corpus(tmp_path, "crema-d")
    assert (len(listing.utterances), listing.faults) == (7442, ())
    scheme = LabelScheme.load("intensity21")
    labels = scheme.encode(
        (u.emotion for u in listing.utterances), (u.intensity for u in listing.utterances)
    )
    counts = Counter(scheme.classes[label] for label in labels)
    # By the names themselves: two fields, and the one short suffix that old copies have.
    expected = Counter("_".join(Path(n).stem.split("_")[2:]) for n in names)
    expected["SAD_XX"] += expected.pop("SAD_X", 0)
    assert counts == expected
    assert len(counts) == 21
    by_emotion = Counter(name[:3] for name in counts.elements())
    assert by_emotion == {"ANG": 1271, "DIS": 1271, "FEA": 1271, "HAP": 1271, "SAD": 1271,
                          "NEU": 1087}  # fmt: skip
    assert counts["NEU_XX"] == 1087
    assert {counts[f"ANG_{level}"] for level in ("LO", "MD", "HI")} == {91}


def test_the_crema_recipe_learns_21_classes(
    shared: Path, tmp_path: Path, tiny: Path, command: Command, write_tone: Callable[..., Path]
) -> None:
    """From a tree of official names with generated audio to probabilities of 21 classes."""
    names = (shared / "corpora/cremad/filenames.txt").read_text().split()
    chosen: dict[str, list[str]] = {}
    for name in names:
        chosen.setdefault("_".join(Path(name).stem.split("_")[2:]), []).append(Path(name).stem)
    rows = ["file,fold_1"]
    for number, stems in enumerate(s for s in chosen.values() if len(s) > 3):
        for part, stem in zip(("train", "train", "val", "test"), stems, strict=False):
            write_tone(tmp_path / f"crema/{stem}.wav", 0.3, f0=100 + 10 * number, seed=len(rows))
            rows.append(f"{stem},{part}")
    (tmp_path / "folds.csv").write_text("\n".join(rows) + "\n")
    args = options(tiny, tmp_path, "--recipe", "crema21", "--split", f"folds:{tmp_path}/folds.csv",
                   "--name", "c")  # fmt: skip
    args[:2] = [tmp_path / "crema", "--corpus", "crema-d"]
    args[args.index("--limit") : args.index("--limit") + 2] = []
    args[args.index("--labels") : args.index("--labels") + 2] = []
    status, _, error = command(*args)
    assert status == 0, error
    classifier = Classifier.load(tmp_path / "c")
    assert len(classifier.classes) == 21
    told = classifier.classify_file(tmp_path / f"crema/{rows[1].split(',')[0]}.wav")
    assert len(told.probabilities) == 21
    report = json.loads((tmp_path / "c/report.json").read_text())
    assert report["clips"] == 21
    card = read_card(tmp_path / "c")
    assert card["training"]["augment"]["kinds"] == ["noise", "pitch", "stretch"]
    assert (card["training"]["lr"], card["training"]["batch_size"]) == (1e-5, 4)


@pytest.mark.parametrize(
    ("recipe", "head", "layer", "pool", "lr"),
    [("mlp4", "mlp", 2, "mean", 1e-4), ("stats8", "stats", "all", "stats", 2e-4)],
)
def test_a_frozen_encoders_head_is_trained_on_cached_features(
    recipe: str, head: str, layer: object, pool: str, lr: float, tiny: Path, tmp_path: Path,
    command: Command,
) -> None:  # fmt: skip
    status, told, error = command(*options(
        tiny, tmp_path, "--recipe", recipe, "--freeze", "all", "--labels", "emotion4",
        "--features-dir", tmp_path / "features", "--epochs", 2,
    ))  # fmt: skip
    assert status == 0, error
    card = read_card(Path(told["run"]))
    assert card["head"]["name"] == head
    assert (card["features"]["pool"], card["features"]["layer"]) == (pool, layer)
    assert card["training"]["lr"] == lr
    assert len(list((tmp_path / "features").glob("*.h5"))) == 1


def test_a_probed_head_goes_on_with_its_encoder(
    tiny: Path, tmp_path: Path, command: Command
) -> None:
    status, told, error = command(*options(tiny, tmp_path, "--recipe", "stats8"))
    assert status == 0, error
    card = read_card(Path(told["run"]))
    assert card["head"]["name"] == "stats"
    assert (card["features"]["pool"], card["features"]["layer"]) == ("stats", "all")
    training = card["training"]
    assert (training["start"], training["mask_time"]) == ("probed", 0.1)
    assert training["probe"]["kept"] >= 1
    row = pd.read_csv(Path(told["run"]) / "predictions.csv").iloc[0]
    said = Classifier.load(Path(told["run"])).classify_file(DEMO_CORPUS / row["path"])
    assert said.label == row["predicted"]


def test_a_last_batch_of_one_clip_is_left_out_of_training_alone(
    tiny: Path, tmp_path: Path, command: Command
) -> None:
    """Batch norm can't train on one clip; validation, smaller than a batch, is whole."""
    first = options(tiny, tmp_path, "--recipe", "mlp4")
    status, told, error = command(*first)
    assert status == 0, error
    parts = pd.read_csv(Path(told["run"]) / "clips.csv")["part"].value_counts()
    assert parts["val"] < parts["train"] - 1
    status, told, error = command(*first, "--batch-size", parts["train"] - 1)
    assert status == 0, error
    run = Path(told["run"])
    assert read_card(run)["training"]["steps"] == 1
    history = pd.read_csv(run / "history.csv").iloc[-1]
    assert np.isfinite(history["val_loss"])
    right = history["val_wa"] * parts["val"]
    assert right == pytest.approx(round(right))


def test_the_split_of_a_run_is_the_rule_by_itself(mini: Made) -> None:
    """The same clips by the same rule fall into the same parts as stage 2 would have them."""
    parts = pd.read_csv(mini[0] / "clips.csv", dtype=str)
    scheme = LabelScheme.load("emotion8")
    index = {name: number for number, name in enumerate(scheme.classes)}
    table = parts.assign(label=parts["label"].map(index), gender="", part="")
    (split,) = make_splits("random", table, scheme.classes, 42)
    assert parts["part"].iloc[split.test].eq("test").all()
    assert parts["part"].iloc[split.val].eq("val").all()
    assert len(split.train) == parts["part"].eq("train").sum()


def test_predict_finds_it_as_the_newest_run(mini: Made, capsys: pytest.CaptureFixture) -> None:
    clip = sorted(DEMO_CORPUS.rglob("*.ogg"))[0]
    assert predict([str(clip), "--runs-dir", str(mini[0].parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["run"] == str(mini[0])


def test_item_18_a_script_without_a_main_guard_gets_one_clear_error(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Where processes are spawned, each would run the script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\nmultiprocessing.set_start_method('spawn')\n"
        "from ser_embed.finetune import FinetuneConfig, finetune\n"
        "finetune(FinetuneConfig(recipe='ravdess8', corpus='demo', encoder='mini', workers=2))\n"
    )
    done = run(script)
    assert done.returncode == 1
    assert done.stderr.count("has no 'if __name__ == \"__main__\":'") == 1
    assert "bootstrapping" not in done.stderr
