"""What the README quotes is what the files in artifacts/results say."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parent.parent


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", PROJECT / "benchmarks/results.py")
    assert spec
    assert spec.loader
    sys.modules["results"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


results = _script()
CONTROLLED = [name for name, one in results.EXPERIMENTS.items() if one.control]
PUBLISHED = [*results.EXPERIMENTS, *(f"{name}-random-mini" for name in CONTROLLED)]
TABLES = ("cross-corpus", "robustness")


def told(name: str, file: str) -> Any:
    path = PROJECT / "artifacts/results" / name / file
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_readme_is_what_the_script_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert results.quoted(readme) == readme


def test_the_script_notices_another_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    row = next(line for line in readme.splitlines() if "sentiment3-random/report.md" in line)
    assert results.quoted(readme.replace(row, row.replace("| ", "| 9", 2))) == readme
    with pytest.raises(SystemExit, match="no markers"):
        results.quoted("# no tables here")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_readme_has_the_report_s_numbers(name: str) -> None:
    """By another way than the script's, from the confusion matrix."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    report = told(name, "report.json")
    matrix = report["matrix"]
    recalls = [row[i] / sum(row) for i, row in enumerate(matrix) if sum(row)]
    uar = sum(recalls) / len(recalls)
    assert uar == pytest.approx(report["uar"])
    if report["folds"]:
        uar = sum(report["folds"].values()) / len(report["folds"])
    row = next(line for line in readme.splitlines() if f"({results.OUT}/{name}/report.md)" in line)
    assert f"{100 * uar:.1f}" in row
    if not name.endswith("random-mini"):
        right = sum(row[i] for i, row in enumerate(matrix))
        assert f"| {100 * right / sum(map(sum, matrix)):.1f} |" in row


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_result_says_how_it_was_made(name: str) -> None:
    card = told(name, "card.json")
    tuned = name in results.EXPERIMENTS and results.EXPERIMENTS[name].tuned
    assert card["command"].startswith(f"python -m ser_embed.{'finetune' if tuned else 'train'} ")
    trained = not name.endswith("random-mini")
    assert card["encoder_trained"] is trained
    report = told(name, "report.json")
    assert trained != any("untrained" in warning for warning in report["warnings"])


@pytest.mark.parametrize("name", TABLES)
def test_a_table_and_its_control_are_of_the_same_clips(name: str) -> None:
    if not (PROJECT / "artifacts/results" / f"{name}-random-mini").is_dir():
        pytest.skip(f"the control of {name} is not measured yet: make results DATA=FOLDER")
    ours, control = (told(f"{name}{suffix}", f"{name}.json") for suffix in ("", "-random-mini"))
    if name == "robustness":
        for condition, row in ours["conditions"].items():
            assert control["conditions"][condition]["clips"] == row["clips"]
        assert (ours["clips"], ours["of"]) == (control["clips"], control["of"])
        assert all("random-mini" not in command for command in ours["commands"])
        assert any("random-mini" in command for command in control["commands"])
    else:
        for trained_on, cells in ours["trained_on"].items():
            for tested_on, cell in cells.items():
                assert control["trained_on"][trained_on][tested_on]["clips"] == cell["clips"]
        assert "random-mini" not in ours["command"]
        assert "random-mini" in control["command"]


def test_urdu_s_fold_measures_the_speaker() -> None:
    """95 of 100 are right by each test speaker's usual emotion in training."""
    report = told("emotion4-urdu-folds", "report.json")
    guess = report["baselines"]["each speaker's majority class in training"]
    assert guess["wa"] == pytest.approx(0.95)
    assert report["clips"] == 100
