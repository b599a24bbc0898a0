"""Two runs on the same clips: against exact sums and a bootstrap written out clip by clip."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stores import write_store

from ser_embed.errors import HeadError
from ser_embed.evaluate import __main__ as evaluate
from ser_embed.reports.paired import Comparison, mcnemar
from ser_embed.reports.scores import Report
from ser_embed.train import training as train

CLASSES = ("positive", "neutral", "negative")


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (0, 1), (5, 5), (1, 9), (9, 1), (30, 12), (700, 640), (0, 2500)]
)
def test_mcnemar_is_the_binomial_test(first: int, second: int) -> None:
    """Summed in whole numbers, which is exact however many clips there are."""
    n = first + second
    tail = sum(math.comb(n, k) for k in range(min(first, second) + 1))
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail / 2**n), rel=1e-9)


def predictions(share: float, seed: int, n: int = 240, n_speakers: int = 8) -> pd.DataFrame:
    """Predictions of the same clips, right with a given share; speakers differ in difficulty."""
    clips = np.random.default_rng(0)
    truth = clips.integers(0, 3, n)
    speakers = np.arange(n) % n_speakers
    rng = np.random.default_rng(seed)
    right = rng.uniform(size=n) < share + 0.02 * (speakers - n_speakers / 2)
    names = np.array(CLASSES, dtype=object)
    predicted = np.where(right, truth, (truth + 1) % 3)
    return pd.DataFrame({
        "path": [f"{i}.wav" for i in range(n)], "corpus": "ravdess", "gender": "",
        "speaker": [f"s{i}" for i in speakers], "label": names[truth],
        "predicted": names[predicted], "raw_confidence": 0.8, "seconds": 2.0,
        "sha256": [f"{i:064x}" for i in range(n)],
        **{f"p_{name}": np.where(names[predicted] == name, 0.8, 0.1) for name in CLASSES},
    })  # fmt: skip


def saved(folder: Path, table: pd.DataFrame, **leakage: int) -> Report:
    training = pd.DataFrame({"label": ["negative"], "speaker": ["x"]})
    counts = {"train": 9, "test": len(table), "test_speakers": 8, **leakage}
    report = Report.of("made", table, CLASSES, training=training, leakage=counts)
    report.save(folder, table)
    return report


def test_the_interval_is_that_of_a_bootstrap_written_out(tmp_path: Path) -> None:
    one, two = predictions(0.75, 1), predictions(0.6, 2)
    saved(tmp_path / "two", two)
    found = Comparison.of(saved(tmp_path / "one", one), one, "one", tmp_path / "two", seed=0)

    def uar(rows: np.ndarray, table: pd.DataFrame) -> float:
        label, predicted = table["label"].to_numpy()[rows], table["predicted"].to_numpy()[rows]
        return float(np.mean([(predicted[label == c] == c).mean() for c in CLASSES]))

    everything = np.arange(len(one))
    assert found.uar == pytest.approx(uar(everything, one))
    assert found.difference == pytest.approx(uar(everything, one) - uar(everything, two))
    rng = np.random.default_rng(99)
    speakers = one["speaker"].to_numpy()
    of = {name: np.flatnonzero(speakers == name) for name in np.unique(speakers)}
    differences = []
    for _ in range(1500):
        rows = np.concatenate([of[name] for name in rng.choice(list(of), len(of))])
        differences.append(uar(rows, one) - uar(rows, two))
    assert found.difference_ci == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=0.012)
    assert found.share_better == pytest.approx(np.mean(np.array(differences) > 0), abs=0.02)
    right = [table["label"] == table["predicted"] for table in (one, two)]
    assert found.only_run == (right[0] & ~right[1]).sum()
    assert found.only_against == (right[1] & ~right[0]).sum()
    assert found.difference_ci[0] > 0
    assert found.verdict.startswith(f"one is better than {tmp_path / 'two'}: UAR +0.")


def test_pairing_finds_a_small_difference_that_the_two_intervals_hide(tmp_path: Path) -> None:
    one = predictions(0.7, 1)
    two = one.copy()
    rows = np.flatnonzero(one["label"] == one["predicted"])[::12]  # a little worse everywhere
    column = two.columns.get_loc("predicted")
    two.iloc[rows, column] = np.where(two["label"].iloc[rows] == "positive", "neutral", "positive")
    other = saved(tmp_path / "two", two)
    report = saved(tmp_path / "one", one)
    assert report.uar_ci[0] < other.uar_ci[1]  # apart they overlap
    found = Comparison.of(report, one, "one", tmp_path / "two", seed=0)
    assert found.difference_ci[0] > 0
    assert found.only_against == 0
    assert found.mcnemar_p == pytest.approx(2.0 ** (1 - len(rows)))


def test_a_run_against_itself_is_no_better(tmp_path: Path) -> None:
    table = predictions(0.7, 1)
    found = Comparison.of(saved(tmp_path, table), table, "one", tmp_path, seed=0)
    assert found.difference == 0
    assert found.difference_ci == (0, 0)
    assert found.mcnemar_p == 1
    assert found.verdict.startswith("no difference between one and")


def test_clips_pair_by_their_bytes_whatever_their_folder(tmp_path: Path) -> None:
    one = predictions(0.7, 1)
    other = one.assign(path="elsewhere/" + one["path"]).sample(frac=1, random_state=0)
    saved(tmp_path, other.iloc[:200].reset_index(drop=True))
    found = Comparison.of(saved(tmp_path / "one", one), one, "one", tmp_path, seed=0)
    assert (found.clips, found.left_out, found.only_run, found.only_against) == (200, 40, 0, 0)


def test_leakage_of_either_run_is_a_warning(tmp_path: Path) -> None:
    table = predictions(0.7, 1)
    saved(tmp_path / "two", table, shared_speakers=8, duplicates=2)
    found = Comparison.of(saved(tmp_path / "one", table), table, "one", tmp_path / "two", seed=0)
    assert len(found.warnings) == 2
    assert found.warnings[0].startswith(f"{tmp_path / 'two'} was trained on 8 of the speakers")
    found.save(tmp_path)
    assert "> **Careful.** " in (tmp_path / "paired.md").read_text()
    assert json.loads((tmp_path / "paired.json").read_text())["clips"] == 240


# --- refusals --------------------------------------------------------------------------------


def refused(tmp_path: Path, one: pd.DataFrame, other: pd.DataFrame, **changes: Any) -> str:
    saved(tmp_path / "other", other)
    path = tmp_path / "other" / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(HeadError) as caught:
        Comparison.of(saved(tmp_path / "one", one), one, "one", tmp_path / "other", seed=0)
    assert str(caught.value).startswith(str(tmp_path / "other"))
    return str(caught.value)


def test_other_classes_are_refused_by_name(tmp_path: Path) -> None:
    table = predictions(0.7, 1)
    text = refused(tmp_path, table, table, classes=["happy", "sad"])
    assert "its classes are happy, sad, those of one are positive, neutral, negative" in text


def test_no_common_clip_is_refused(tmp_path: Path) -> None:
    table = predictions(0.7, 1)
    other = table.assign(sha256=[f"{i + 999:064x}" for i in range(len(table))])
    assert "none of the 240 clips it was tested on" in refused(tmp_path, table, other)


def test_other_labels_of_the_same_clips_are_refused(tmp_path: Path) -> None:
    table = predictions(0.7, 1)
    other = table.assign(label=table["label"].replace("neutral", "negative"))
    n = (table["label"] == "neutral").sum()
    assert f"labels {n} of the 240 common clips otherwise" in refused(tmp_path, table, other)


def test_predictions_of_an_older_version_say_how_to_go_on(tmp_path: Path) -> None:
    table = predictions(0.7, 1)
    text = refused(tmp_path, table, table.drop(columns="sha256"))
    assert "run python -m ser_embed.evaluate" in text


# --- the command -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two real runs on the same split, of which one was hardly trained; and their features."""
    folder = tmp_path_factory.mktemp("paired")
    write_store(folder, "ravdess", shape=(12, 8), n_speakers=10, per_emotion=6, noise=3)
    found = {"features": folder}
    for name, epochs, lr in (("good", 12, None), ("poor", 1, 1e-6)):
        config = train.TrainConfig(
            features_dir=folder, runs_dir=folder / "runs", head="mlp", epochs=epochs, lr=lr,
            name=name, json=True, quiet=True,
        )  # fmt: skip
        found[name] = Path(train.train(config).result["run"])
    return found


def test_evaluate_compares_two_runs(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [runs["good"], "--against", runs["poor"], "--features-dir", runs["features"],
            "--out", tmp_path, "--quiet"]  # fmt: skip
    assert evaluate.main([*map(str, args), "--json"]) == 0
    output = json.loads(capsys.readouterr().out.splitlines()[-1])["against"]
    good, poor = (json.loads((runs[name] / "report.json").read_text()) for name in ("good", "poor"))
    assert output["difference"] == pytest.approx(good["uar"] - poor["uar"])
    assert output["clips"] == good["clips"]
    assert output == json.loads((tmp_path / "paired.json").read_text())
    assert evaluate.main([*map(str, args)]) == 0
    assert f"comparison: {tmp_path / 'paired.md'}" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "[]", "not json"])
def test_a_folder_that_is_no_run_is_named(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    other = Path(shutil.copytree(runs["poor"], tmp_path / "other"))
    if content is None:
        (other / "predictions.csv").unlink()
    else:
        (other / "report.json").write_text(content)
    args = [runs["good"], "--against", other, "--features-dir", runs["features"],
            "--out", tmp_path / "out", "--quiet"]  # fmt: skip
    assert evaluate.main([*map(str, args)]) == 1
    name = "predictions.csv" if content is None else "report.json"
    assert f"{other / name}: can't be read" in capsys.readouterr().err
