"""The table's cells are what train and evaluate say, cell by cell."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from stores import write_store

from ser_embed import crosscorpus
from ser_embed.evaluate import EvaluateConfig, cross_corpus, evaluate_run
from ser_embed.train import training as train

Ran = tuple[int, dict[str, Any], str]
Command = Callable[..., Ran]
CORPORA = ("ravdess", "tess", "urdu")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def _run(*args: object) -> Ran:
        capsys.readouterr()
        argv = [*map(str, args), "--head", "mlp", "--epochs", "3", "--json", "--quiet"]
        status = crosscorpus.main(argv)
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        return status, json.loads(lines[-1]) if lines else {}, printed.err

    return _run


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    write_store(folder, "ravdess", shape=(12, 8), n_speakers=6, per_emotion=3, noise=2)
    write_store(folder, "tess", shape=(10, 8), n_speakers=2, per_emotion=4, noise=2)
    write_store(folder, "urdu", shape=(9, 8), n_speakers=5, per_emotion=2, noise=2,
                emotions=("happy", "sad", "neutral", "angry"))  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def table(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole table."""
    out = tmp_path_factory.mktemp("table")
    config = crosscorpus.CrossCorpusConfig(
        features_dir=features, out=out, head="mlp", epochs=3, json=True, quiet=True
    )
    assert cross_corpus(config).status == 0
    return out


def test_every_cell_is_what_train_and_evaluate_say(
    table: Path, features: Path, tmp_path: Path
) -> None:
    output = json.loads((table / "cross-corpus.json").read_text())
    assert output["corpora"] == list(output["trained_on"]) == list(CORPORA)
    assert [list(cells) for cells in output["trained_on"].values()] == [list(CORPORA)] * 3
    (store,) = features.glob("urdu*")
    own = train.train(train.TrainConfig(
        stores=(store,), early_stop=True, split="kfold", head="mlp", epochs=3, runs_dir=tmp_path,
        json=True, quiet=True,
    )).result  # fmt: skip
    for tested in CORPORA:
        result = own
        if tested != "urdu":
            (other,) = features.glob(f"{tested}*")
            config = EvaluateConfig(run=Path(own["run"]), stores=(other,), json=True)
            result = evaluate_run(config).result
        cell = output["trained_on"]["urdu"][tested]
        assert cell["uar"] == pytest.approx(result["test"]["uar"])
        assert cell["uar_ci"] == pytest.approx(result["test"]["uar_ci"])
    assert output["trained_on"]["ravdess"]["urdu"]["clips"] == 5 * 8
    assert output["trained_on"]["urdu"]["tess"]["speakers"] == 2


def test_the_table_is_written_as_json_markdown_and_picture(
    features: Path, tmp_path: Path, command: Command
) -> None:
    stores = sorted(features.glob("[ru]*.h5"))
    status, output, _ = command(*stores, "--runs-dir", tmp_path, "--split", "speaker")
    assert status == 0
    folder = tmp_path / "cross-corpus-sentiment3"
    assert json.loads((folder / "cross-corpus.json").read_text()) == output
    text = (folder / "cross-corpus.md").read_text()
    low, high = output["trained_on"]["urdu"]["ravdess"]["uar_ci"]
    cell = f"{output['trained_on']['urdu']['ravdess']['uar']:.3f} [{low:.3f}, {high:.3f}]"
    row = next(line for line in text.splitlines() if line.startswith("| urdu | "))
    assert row.split(" | ")[1] == cell
    assert row.split(" | ")[2].startswith("**")  # within the corpus
    assert f"    python -m ser_embed.crosscorpus {stores[0]}" in text
    assert "only" in text  # few test speakers within a corpus: the report's warning is passed on
    assert matplotlib.image.imread(folder / "cross-corpus.png").shape[0] > 200


def test_a_second_call_trains_nothing_again(table: Path, features: Path, command: Command) -> None:
    first = json.loads((table / "cross-corpus.json").read_text())
    heads = {path: path.stat().st_mtime_ns for path in table.rglob("head.safetensors")}
    assert len(heads) == 5 + 2 + 5
    assert command("--features-dir", features, "--out", table)[:2] == (0, first)
    assert heads == {path: path.stat().st_mtime_ns for path in table.rglob("head.safetensors")}


def test_item_22_a_corpus_without_a_class_is_trained_on_with_a_remark(
    features: Path, tmp_path: Path, command: Command
) -> None:
    write_store(tmp_path, "savee", shape=(12, 8), n_speakers=3, emotions=("happy", "sad"))
    (store,) = tmp_path.glob("savee*")
    out = tmp_path / "out"
    (urdu,) = features.glob("urdu*")
    status, output, _ = command(urdu, store, "--split", "speaker", "--out", out)
    assert status == 0
    assert output["trained_on"]["urdu"]["savee"]["classes"] == ["positive", "negative"]
    text = (out / "cross-corpus.md").read_text()
    assert "- savee on savee: No clip is neutral: dropped from the classes." in text
    assert re.search(r"- savee on urdu: Clips left out by the label scheme: neutral \d+", text)
    assert "- urdu on savee: No test clip is neutral" in text


def test_item_22_a_corpus_of_one_class_is_tested_on_but_not_trained_on(
    features: Path, tmp_path: Path, command: Command
) -> None:
    write_store(tmp_path, "savee", shape=(12, 8), n_speakers=3, emotions=("happy",))
    (store,) = tmp_path.glob("savee*")
    out = tmp_path / "out"
    (urdu,) = features.glob("urdu*")
    status, output, error = command(urdu, store, "--split", "speaker", "--out", out)
    assert status == 3
    assert "training on savee: all 6 clips are positive by the label scheme" in error
    assert list(output["trained_on"]) == ["urdu"]
    assert output["trained_on"]["urdu"]["savee"]["classes"] == ["positive"]
    text = (out / "cross-corpus.md").read_text()
    assert "- Not trained on savee: all 6 clips are positive" in text
    assert "- urdu on savee: All test clips are positive" in text


def test_item_22_a_corpus_without_any_class_of_a_run_is_an_empty_cell(
    features: Path, tmp_path: Path, command: Command
) -> None:
    write_store(tmp_path, "savee", shape=(12, 8), n_speakers=3, emotions=("smug", "wry"))
    (store,) = tmp_path.glob("savee*")
    (urdu,) = features.glob("urdu*")
    out = tmp_path / "out"
    status, output, error = command(urdu, store, "--split", "speaker", "--out", out)
    assert status == 3
    assert "urdu on savee: the label scheme 'sentiment3' leaves out every clip" in error
    assert output["not_tested"]["urdu"]["savee"].count("'smug', 'wry'") == 1
    assert "- urdu on savee: the label scheme" in (out / "cross-corpus.md").read_text()


def test_one_corpus_is_refused_by_name(features: Path, tmp_path: Path, command: Command) -> None:
    status, _, error = command(next(features.glob("tess*")), "--out", tmp_path)
    assert status == 1
    assert "tess: the only corpus in these stores" in error


def test_when_none_can_be_trained_on_it_says_so(
    features: Path, tmp_path: Path, command: Command
) -> None:
    mapping = tmp_path / "fear.csv"
    mapping.write_text("emotion,label\nfearful,fear\ndisgust,disgust\nhappy,\nneutral,\nsad,\n")
    status, _, error = command("--features-dir", features, "--labels", mapping,
                               "--out", tmp_path)  # fmt: skip
    assert status == 1
    assert "none of these corpora can be trained on with --labels" in error
    assert "no class for 'happy', 'neutral', 'sad'" in error
