"""Disturbed test clips: clean they score as in the report, and no answer is asked for twice."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stores import write_store

from ser_embed import robustness
from ser_embed.audio.conditions import CONDITIONS
from ser_embed.audio.decoding import load_audio
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.evaluate import __main__ as evaluate
from ser_embed.evaluate.robustness import roots_of
from ser_embed.heads.checkpoint import read_card
from ser_embed.predict.classifier import Classifier

Ran = tuple[int, dict[str, Any], str]
Command = Callable[..., Ran]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], demo_runs: dict[str, Path]) -> Command:
    def _run(*args: object) -> Ran:
        capsys.readouterr()
        argv = [*map(str, args), "--features-dir", str(demo_runs["features"]), "--json", "--quiet"]
        status = robustness.main(argv)
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        return status, json.loads(lines[-1]) if lines else {}, printed.err

    return _run


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_the_clean_clips_score_as_in_the_report(
    demo_runs: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    """Each by the head of its own fold: the others were trained on it."""
    run = demo_runs["kfold"]
    status, output, _ = command(run, "--conditions", "clean", "--out", tmp_path)
    assert status == 0
    report = json.loads((run / "report.json").read_text())
    assert output["clips"] == output["of"] == report["clips"] == 96
    assert output["conditions"]["clean"]["uar"] == pytest.approx(report["uar"])
    said = {row["clip"]: row["p"] for row in answers(tmp_path)}
    first = pd.read_csv(run / "predictions.csv")
    expected = first[
        [f"p_{name}" for name in read_card(Classifier.head_folders(run)[0])["classes"]]
    ]
    np.testing.assert_allclose([said[clip] for clip in first["sha256"]], expected, atol=2e-4)


def test_a_disturbed_clip_is_classified_as_any_other_sound(
    demo_runs: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    run = demo_runs["speaker"]
    status, output, _ = command(
        run, "--limit", "3", "--conditions", "noise0", "telephone", "first1", "--out", tmp_path
    )
    assert status == 0
    assert list(output["conditions"]) == ["clean", "noise0", "telephone", "first1"]
    assert output["clips"] == 3
    parts = pd.read_csv(run / "clips.csv").set_index("sha256")
    classifier = Classifier.load(run)
    for row in answers(tmp_path):
        assert parts.loc[row["clip"], "part"] == "test"
        samples = load_audio(DEMO_CORPUS / str(parts.loc[row["clip"], "path"]))
        condition = next(one for one in CONDITIONS.values() if one.description == row["condition"])
        rng = np.random.default_rng(int(row["clip"][:16], 16))
        expected = classifier.classify(*condition.disturb(samples, rng)).probabilities
        assert row["p"] == pytest.approx(list(expected.values()), abs=1e-5)


def test_a_second_call_asks_nothing_again(
    demo_runs: dict[str, Path], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = (demo_runs["speaker"], "--limit", 4, "--out", tmp_path, "--conditions", "quiet", "mp3")
    first = command(*args)
    kept = (tmp_path / "answers.jsonl").read_bytes()
    assert len(kept.splitlines()) == 4 * 3
    # Killed while it wrote a line: what was whole is kept, the rest is asked again.
    (tmp_path / "answers.jsonl").write_bytes(kept[:-30])
    assert command(*args) == first
    assert (tmp_path / "answers.jsonl").read_bytes() == kept

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr(Classifier, "load", refuse)
    assert command(*args) == first
    assert (tmp_path / "answers.jsonl").read_bytes() == kept


def test_few_clips_are_spread_over_speakers_and_classes(
    demo_runs: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    run = demo_runs["kfold"]
    assert command(run, "--limit", 12, "--conditions", "clean", "--out", tmp_path)[1]["clips"] == 12
    table = pd.read_csv(run / "predictions.csv").set_index("sha256")
    taken = table.loc[[row["clip"] for row in answers(tmp_path)]]
    assert taken["speaker"].nunique() == min(12, table["speaker"].nunique())
    assert taken["label"].nunique() == 3


def test_the_table_is_written_and_shown_on_the_page(
    demo_runs: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    run = Path(shutil.copytree(demo_runs["speaker"], tmp_path / "run"))
    status, output, _ = command(run, "--limit", 4)
    assert status == 0
    folder = run / "robustness"
    kept = json.loads((folder / "robustness.json").read_text())
    assert kept["conditions"] == output["conditions"]
    assert list(kept["conditions"]) == list(CONDITIONS)
    text = (folder / "robustness.md").read_text()
    for row in output["conditions"].values():
        assert f"| {row['told']} | {row['uar']:.3f} [" in text
        low, high = row["uar_ci"]
        assert low <= row["uar"] <= high
        if row["difference"] is not None:
            expected = row["uar"] - output["conditions"]["clean"]["uar"]
            assert row["difference"] == pytest.approx(expected)
    assert "python -m ser_embed.robustness" in text
    assert (folder / "robustness.png").stat().st_size > 5000
    page = ["--features-dir", str(demo_runs["features"]), "--html", "--no-sound", "--json"]
    assert evaluate.main([str(run), *page, "--quiet"]) == 0
    html = (run / "evaluation-own-test" / "page.html").read_text()
    assert "telephone: 300 to 3400 Hz" in html
    # Of other heads it says nothing.
    (folder / "robustness.json").write_text(json.dumps({**kept, "heads": ["another"]}))
    assert evaluate.main([str(run), *page, "--quiet"]) == 0
    assert "telephone: 300" not in (run / "evaluation-own-test" / "page.html").read_text()


def test_missing_audio_is_counted_and_its_absence_an_error(
    demo_runs: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    run = demo_runs["speaker"]
    parts = pd.read_csv(run / "clips.csv").query("part == 'test'")
    corpus = tmp_path / "corpus"
    for path in parts["path"].iloc[:5]:
        (corpus / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DEMO_CORPUS / path, corpus / path)
    out = tmp_path / "out"
    status, output, _ = command(run, corpus, "--conditions", "quiet", "--out", out)
    assert status == 3
    assert (output["clips"], output["missing"], output["of"]) == (5, len(parts) - 5, len(parts))
    status, _, error = command(run, tmp_path / "none", "--out", out)
    assert status == 1
    assert "the audio of none of its test clips was found in" in error
    assert str(tmp_path / "none") in error


def test_bad_options_are_named(
    demo_runs: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    status, _, error = command(demo_runs["speaker"], "--conditions", "rain")
    assert status == 1
    assert "no condition 'rain'; there are clean, noise20," in error
    assert "--limit -1: at least 0" in command(demo_runs["speaker"], "--limit", -1)[2]
    status, _, error = command(tmp_path)
    assert status == 1
    assert f"{tmp_path}: no trained head there" in error


def test_stores_say_where_their_corpora_were(tmp_path: Path) -> None:
    for corpus in ("ravdess", "tess"):
        (tmp_path / corpus).mkdir()
        store = write_store(tmp_path / corpus, corpus)
        shutil.move(store, tmp_path / store.name)
    assert roots_of(tmp_path, ["tess", "urdu"]) == [tmp_path / "tess"]
    assert roots_of(tmp_path, ["ravdess", "tess"]) == [
        tmp_path / "ravdess",
        tmp_path / "tess",
    ]
