"""A trained run as a classifier: what stage 1 and 2 said of a file, it says again."""

import ast
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.signal
import soundfile

from ser_embed.audio.cutting import trim_silence
from ser_embed.audio.decoding import load_audio
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.errors import AudioError, HeadError
from ser_embed.heads.checkpoint import read_card
from ser_embed.predict import classifier as predict
from ser_embed.predict.__main__ import main
from ser_embed.predict.classifier import Classifier, find_run

Ran = tuple[int, dict[str, Any], str]
Command = Callable[..., Ran]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process: exit status, JSON object, standard error."""

    def _run(*args: object) -> Ran:
        capsys.readouterr()
        status = main([*map(str, args), "--json", "--quiet"])
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        return status, json.loads(lines[-1]) if lines else {}, printed.err

    return _run


@pytest.fixture(scope="module")
def classifier(demo_runs: dict[str, Path]) -> Classifier:
    return Classifier.load(demo_runs["speaker"])


@pytest.fixture(scope="module")
def clip() -> Path:
    return sorted(DEMO_CORPUS.rglob("*.ogg"))[5]


def values(probabilities: dict[str, float]) -> np.ndarray:
    return np.array(list(probabilities.values()))


# --- the classifier --------------------------------------------------------------------------


def test_files_get_the_probabilities_of_the_report(
    demo_runs: dict[str, Path], classifier: Classifier
) -> None:
    told = pd.read_csv(demo_runs["speaker"] / "predictions.csv")
    for _, row in told.iterrows():
        prediction = classifier.classify_file(DEMO_CORPUS / row["path"])
        assert prediction.label == row["predicted"]
        for name, probability in prediction.probabilities.items():
            assert probability == pytest.approx(row[f"p_{name}"], abs=1e-5)
        assert values(prediction.probabilities).sum() == pytest.approx(1)
        assert prediction.confidence == max(prediction.probabilities.values())
    assert len(told) > 10


def test_what_a_classifier_says_of_itself(
    classifier: Classifier, demo_runs: dict[str, Path]
) -> None:
    assert classifier.classes == ("positive", "neutral", "negative")
    assert classifier.seconds == 3.0
    assert classifier.run == demo_runs["speaker"]
    assert "sentiment3 on demo (96 clips), encoder mini" in classifier.about
    assert "split speaker" in classifier.about
    assert "SYNTHETIC" in classifier.about


def test_rate_and_channels_hardly_matter(classifier: Classifier, clip: Path) -> None:
    """The same three seconds at 16 kHz, and at a stereo microphone's 48 kHz."""
    mono = np.tile(trim_silence(load_audio(clip)), 4)[:56_000]
    assert len(mono) > 48_000
    fast = scipy.signal.resample_poly(mono, 3, 1).astype(np.float32)
    stereo = np.stack([1.2 * fast, 0.8 * fast], axis=1)
    expected = classifier.classify(mono)
    told = classifier.classify(stereo, 48_000)
    np.testing.assert_allclose(
        values(told.probabilities), values(expected.probabilities), atol=0.02
    )
    # The first part counts; silence in front of it doesn't.
    later = np.concatenate([np.zeros(32_000, np.float32), mono, np.zeros(9000, np.float32)])
    np.testing.assert_allclose(
        values(classifier.classify(later).probabilities), values(expected.probabilities), atol=0.1
    )
    assert classifier.classify(mono) == classifier.classify(mono[:50_000])


def test_a_file_of_clip_length_is_its_samples(
    classifier: Classifier, clip: Path, tmp_path: Path
) -> None:
    samples = np.tile(load_audio(clip), 4)[:48_000]
    soundfile.write(tmp_path / "x.wav", samples, 16_000, subtype="FLOAT")
    assert classifier.classify_file(tmp_path / "x.wav") == classifier.classify(samples)


def test_a_short_clip_is_filled_and_says_the_same_each_time(
    classifier: Classifier, write_tone: Callable[..., Path], tmp_path: Path
) -> None:
    for seconds in (0.025, 0.3, 2.9):
        path = write_tone(tmp_path / f"{seconds}.wav", seconds)
        samples = load_audio(path)
        first = classifier.classify(samples)
        assert values(first.probabilities).sum() == pytest.approx(1)
        assert classifier.classify(samples) == first
        assert classifier.classify_file(path) == classifier.classify_file(path)


@pytest.mark.parametrize(
    ("samples", "rate", "said"),
    [
        (np.zeros(48_000, np.float32), 16_000, "all zero"),
        (np.zeros((48_000, 2), np.float32), 48_000, "all zero"),
        (np.full(48_000, np.nan, np.float32), 16_000, "not finite"),
        (np.r_[np.ones(1000), np.inf].astype(np.float32), 16_000, "not finite"),
        (np.ones(399, np.float32), 16_000, "399 samples at 16 kHz; at least 400"),
        (np.ones(1000, np.float32), 44_100, "363 samples at 16 kHz; at least 400"),
        (np.ones(0, np.float32), 16_000, "0 samples"),
        (np.ones((0, 2), np.float32), 48_000, "0 samples"),
    ],
    ids=["silence", "stereo silence", "nan", "inf", "short", "short at 44.1", "empty",
         "empty at 48"],
)  # fmt: skip
def test_samples_that_cannot_be_used(
    classifier: Classifier, samples: np.ndarray, rate: int, said: str
) -> None:
    with pytest.raises(AudioError, match=said):
        classifier.classify(samples, rate)


def test_the_heads_of_all_folds_are_averaged(demo_runs: dict[str, Path], clip: Path) -> None:
    folders = Classifier.head_folders(demo_runs["kfold"])
    assert [folder.name for folder in folders] == [f"fold_{k}" for k in range(1, 6)]
    whole = Classifier.load(demo_runs["kfold"])
    assert "5 folds averaged" in whole.about
    each = [values(Classifier.load(folder).classify_file(clip).probabilities) for folder in folders]
    np.testing.assert_allclose(
        values(whole.classify_file(clip).probabilities), np.mean(each, axis=0), atol=1e-6
    )
    assert np.ptp(each, axis=0).max() > 1e-4  # the folds' heads do differ


# --- which run -------------------------------------------------------------------------------


def test_the_newest_finished_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, name in ((30, "old"), (10, "new"), (20, "between")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text("{}")
        os.utime(tmp_path / name / "report.json", (1e9 - age, 1e9 - age))
    (tmp_path / "unfinished").mkdir()
    assert find_run(runs_dir=tmp_path).name == "new"
    os.utime(tmp_path / "old" / "report.json")
    assert find_run(runs_dir=tmp_path).name == "old"
    bundled = tmp_path / "bundled" / "sentiment3"
    monkeypatch.setattr(predict, "BUNDLED_HEADS", bundled.parent)
    with pytest.raises(
        HeadError, match=r"no trained run in .*ser_embed\.train --early-stop.*--run"
    ):
        find_run(runs_dir=tmp_path / "nowhere")
    bundled.mkdir(parents=True)
    (bundled.parent / "emotion8").mkdir()
    assert find_run(runs_dir=tmp_path / "nowhere") == bundled
    assert find_run(runs_dir=tmp_path).name == "old"


def test_a_run_is_named_by_its_folder_or_by_the_name_of_a_bundled_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundled" / "emotion8").mkdir(parents=True)
    monkeypatch.setattr(predict, "BUNDLED_HEADS", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    assert find_run(Path("emotion8")) == tmp_path / "bundled" / "emotion8"
    (tmp_path / "emotion8").mkdir()  # the user's own goes first
    assert find_run(Path("emotion8")) == Path("emotion8")
    with pytest.raises(HeadError, match=r"emotion: no trained head .*with the project: emo"):
        find_run(Path("emotion"))


def test_the_newest_run_classifies_without_being_named(
    demo_runs: dict[str, Path], command: Command, clip: Path
) -> None:
    status, told, _ = command(clip, "--runs-dir", demo_runs["speaker"].parent)
    assert status == 0
    assert told["run"] == str(demo_runs["speaker"])  # trained after the other


# --- the command -----------------------------------------------------------------------------


def test_json_names_each_file(
    demo_runs: dict[str, Path], command: Command, clip: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "some" / "clips"
    folder.mkdir(parents=True)
    for other in sorted(DEMO_CORPUS.rglob("*.ogg"))[::90]:
        shutil.copy(other, folder)
    (folder / "notes.txt").write_text("not a clip")
    folder = folder.parent
    status, told, error = command(clip, folder, "--run", demo_runs["speaker"])
    assert (status, error) == (0, "")
    assert set(told) == {"files", "run"}
    names = [one["file"] for one in told["files"]]
    assert names == [str(clip), *map(str, sorted(folder.rglob("*.ogg")))]
    for one in told["files"]:
        assert set(one) == {"file", "label", "probabilities"}
        assert set(one["probabilities"]) == {"positive", "neutral", "negative"}
        assert one["label"] == max(one["probabilities"], key=one["probabilities"].__getitem__)


def test_a_file_that_cannot_be_used_is_named_and_the_rest_goes_on(
    demo_runs: dict[str, Path], command: Command, clip: Path, tmp_path: Path,
    write_tone: Callable[..., Path],
) -> None:  # fmt: skip
    write_tone(tmp_path / "good.wav")
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    missing = tmp_path / "gone" / "missing.wav"
    status, told, error = command(tmp_path, missing, "--run", demo_runs["speaker"])
    assert status == 3
    good, silent, text, gone = told["files"]
    assert set(good) == {"file", "label", "probabilities"}
    for one, said in (
        (silent, "digital silence"),
        (text, "can't be decoded"),
        (gone, "No such file"),
    ):
        assert set(one) == {"file", "error"}
        assert said in one["error"]
        assert f"failed: {one['file']}: " in error


def test_no_usable_file_is_an_error(
    demo_runs: dict[str, Path], command: Command, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_text("not audio")
    (tmp_path / "b.wav").write_text("nor this")
    status, told, error = command(tmp_path, "--run", demo_runs["speaker"])
    assert status == 1
    assert "none of 2 files could be classified" in told["error"]
    assert f"failed: {tmp_path / 'a.wav'}" in error
    (tmp_path / "empty").mkdir()
    status, _, error = command(tmp_path / "empty", "--run", demo_runs["speaker"])
    assert status == 1
    assert "empty: no audio file in it" in error


def test_a_missing_run_says_what_to_do(
    command: Command, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "BUNDLED_HEADS", tmp_path)
    status, told, error = command(clip, "--runs-dir", tmp_path)
    assert status == 1
    assert "run python -m ser_embed.extract and then python -m ser_embed.train" in error
    assert told["error"] in error
    status, _, error = command(clip, "--run", tmp_path / "nowhere")
    assert status == 1
    assert "nowhere: no trained head there" in error


def test_a_line_a_file_without_json(
    demo_runs: dict[str, Path], clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(clip), "--run", str(demo_runs["speaker"]), "--quiet"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    path, label, *rest = line.split()
    assert path == str(clip)
    assert label in ("positive", "neutral", "negative")
    assert rest[::2] == ["positive", "neutral", "negative"]
    assert all(share.endswith("%") for share in rest[1::2])


def test_no_file_at_all_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main([])
    except SystemExit as left:
        status = int(left.code or 0)
    assert status in (1, 2)
    assert "file" in capsys.readouterr().err.lower()


# --- runs that don't fit ---------------------------------------------------------------------


@pytest.fixture
def copied(demo_runs: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_runs["speaker"], tmp_path / "run"))


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    card = read_card(folder)
    edit(card)
    (folder / "card.json").write_text(json.dumps(card))


def test_an_encoder_with_other_weights_is_refused(copied: Path) -> None:
    change(copied, lambda card: card["features"].update(weights="f" * 64))
    with pytest.raises(HeadError, match=r"encoder mini with weights f{12}, which now has .*again"):
        Classifier.load(copied)


@pytest.mark.parametrize(
    "edit",
    [
        lambda card: card.pop("features"),
        lambda card: card["features"].pop("layer"),
        lambda card: card["features"].update(new_setting=1),
        lambda card: card.update(features=[1]),
    ],
)
def test_a_card_without_its_features_is_refused(
    copied: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    change(copied, edit)
    with pytest.raises(HeadError, match=r"card\.json doesn't say what features it takes.*again"):
        Classifier.load(copied)


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_nothing_in_a_runs_folder_is_unpickled(
    copied: Path, command: Command, clip: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "unpickled"
    trap = pickle.dumps(Trap(mark))
    pickle.loads(trap)
    assert mark.is_file()  # the trap works
    mark.unlink()
    for name in ("head.pt", "head.pkl", "model.bin", "pytorch_model.bin", "card.pkl"):
        (copied / name).write_bytes(trap)
    assert command(clip, "--run", copied)[0] == 0
    (copied / "head.safetensors").write_bytes(trap)
    assert command(clip, "--run", copied)[0] == 1
    assert not mark.exists()


def test_the_package_has_no_unpickler(project: Path) -> None:
    modules = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    calls = {("torch", "load"), ("np", "load"), ("numpy", "load"), ("pd", "read_pickle"),
             ("torch.jit", "load"), ("torch.hub", "load")}  # fmt: skip
    for path in (project / "ser_embed").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & modules, path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in modules, path
            elif isinstance(node, ast.Attribute):
                assert (ast.unparse(node.value), node.attr) not in calls, path


def test_a_cross_validation_that_was_stopped_is_no_classifier_yet(
    demo_runs: dict[str, Path], tmp_path: Path
) -> None:
    half = tmp_path / "half"
    shutil.copytree(demo_runs["kfold"], half)
    (half / "result.json").unlink()
    with pytest.raises(HeadError, match="same train command"):
        Classifier.head_folders(half)
