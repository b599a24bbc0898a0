"""The second task of a head: what it pulls the head towards, what it knows of, that it resumes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from stores import write_store

from ser_embed.corpora.labels import SCHEMES
from ser_embed.errors import HeadError
from ser_embed.heads.checkpoint import build_head
from ser_embed.splits.rules import Split, make_splits
from ser_embed.store.reader import FeatureStore
from ser_embed.train import training as train
from ser_embed.train.data import LabelledClips, load_clips
from ser_embed.train.loop import FitSettings, History, fit
from ser_embed.train.second_task import SecondTask, second_task_of


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> LabelledClips:
    path = write_store(tmp_path_factory.mktemp("toy"), shape=(12, 8), n_speakers=12, per_emotion=4)
    return load_clips([FeatureStore(path)], SCHEMES["sentiment3"])


@pytest.fixture(scope="module")
def split(toy: LabelledClips) -> Split:
    (split,) = make_splits("speaker", toy.table, toy.classes, seed=0)
    return split


def test_the_loss_is_the_mean_over_clips_whose_class_is_known() -> None:
    head = build_head("mlp", (12, 8), 3, False, seed=0).eval()
    task = SecondTask(head, np.array([1, -1, 0]), 0.3, seed=0)
    batch = torch.randn(3, 12, 8, generator=torch.Generator().manual_seed(0))
    head(batch, torch.full((3,), 12))
    whole = task.loss(torch.arange(3)).item()
    singles = []
    for row in (0, 2):
        head(batch[row : row + 1], torch.full((1,), 12))
        singles.append(task.loss(torch.tensor([row])).item())
    assert whole == pytest.approx(np.mean(singles), rel=1e-5)
    head(batch[1:2], torch.full((1,), 12))
    assert task.loss(torch.tensor([1])).item() == 0


def test_it_knows_of_training_speakers_alone() -> None:
    clips = pd.DataFrame({"speaker": ["a", "b", "c", "", "a"], "gender": ["f", "m", "x", "f", ""]})
    head, train_rows = build_head("mlp", (12, 8), 3, False, seed=0), np.array([4, 1, 3])
    task = second_task_of("gender", 0.1, clips, train_rows, head, 0)
    assert task is not None
    assert task.targets.tolist() == [-1, 1, -1, 0, -1]
    assert second_task_of("none", 0.1, clips, train_rows, head, 0) is None


@pytest.mark.parametrize(
    ("gender", "message"), [("female", "name only female"), ("", "name none in column 'gender'")]
)
def test_one_class_is_no_task(gender: str, message: str) -> None:
    clips = pd.DataFrame({"gender": [gender] * 4, "speaker": list("abcd")})
    head = build_head("mlp", (12, 8), 3, False, seed=0)
    with pytest.raises(HeadError, match=message):
        second_task_of("gender", 0.1, clips, np.arange(4), head, 0)


def test_what_a_head_makes_of_a_clip_comes_to_tell_the_gender(
    toy: LabelledClips, split: Split
) -> None:
    """By speakers whom neither task knows; nothing but a constant of each gender is added."""
    genders = np.where(toy.table["gender"] == "male", 1.0, -1.0)
    features, frames = toy.features.batch(torch.arange(len(toy.table)))
    told = torch.from_numpy(0.3 * genders).float()[:, None, None] + features

    class Told:
        pooled, shape, frames = False, toy.features.shape, toy.features.frames

        def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return told[rows], frames[rows]

    labels, right = toy.table["label"].to_numpy(), []
    for weight in (0.0, 1.0):
        head = build_head("mlp", toy.features.shape, 3, False, seed=0)
        task = second_task_of("gender", weight, toy.table, split.train, head, 0)
        assert task is not None
        settings = FitSettings(30, 16, 1e-3, 0.0, "adamw", None, 0)
        fit(head, Told(), labels, split, np.ones(3), settings, second=task)  # type: ignore[arg-type]
        with torch.inference_mode():
            made = head.dense(told[split.test].mean(1))  # type: ignore[operator]
            said = task.layer(made).argmax(1).numpy()
        right.append((said == (genders[split.test] > 0)).mean())
    assert right[1] > max(0.8, right[0])


def test_a_resumed_run_is_the_one_never_interrupted(
    toy: LabelledClips, split: Split, tmp_path: Path
) -> None:
    labels, file = toy.table["label"].to_numpy(), tmp_path / "resume.safetensors"
    settings = FitSettings(4, 16, 1e-3, 0.01, "adamw", None, 0)

    def run(checkpoint: Path | None, stop: int = 0) -> tuple[History, dict[str, torch.Tensor]]:
        def interrupt(history: History) -> None:
            if history.epoch[-1] == stop:
                raise KeyboardInterrupt

        head = build_head("mlp", toy.features.shape, 3, False, seed=0)
        task = second_task_of("gender", 0.5, toy.table, split.train, head, 0)
        history = fit(head, toy.features, labels, split, np.ones(3), settings,
                      checkpoint=checkpoint, second=task, on_epoch=interrupt)  # fmt: skip
        return history, head.state_dict()

    whole, weights = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(file, stop=2)
    history, resumed = run(file)
    assert history == whole
    assert all(torch.equal(weights[key], resumed[key]) for key in weights)


def test_a_run_with_one_has_a_head_of_the_usual_kind(tmp_path: Path) -> None:
    write_store(tmp_path, shape=(12, 8), n_speakers=6, per_emotion=3, noise=2)
    heads = []
    for second in ("none", "gender"):
        config = train.TrainConfig(
            features_dir=tmp_path, runs_dir=tmp_path / "runs", name=second, epochs=3,
            second_task=second, json=True, quiet=True,  # type: ignore[arg-type]
        )  # fmt: skip
        heads.append(Path(train.train(config).result["run"]))
    sizes = [(run / "head.safetensors").stat().st_size for run in heads]
    assert sizes[0] == sizes[1]
    bytes_of = [(run / "head.safetensors").read_bytes() for run in heads]
    assert bytes_of[0] != bytes_of[1]
    command = json.loads((heads[1] / "card.json").read_text())["command"]
    assert "--second-task gender" in command
