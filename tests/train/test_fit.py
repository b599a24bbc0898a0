"""The training loop: stopping rules by hand, losses against torch, resumes bit by bit."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from stores import write_store
from torch import nn
from torch.nn import functional as F

from ser_embed.corpora.labels import SCHEMES
from ser_embed.errors import SerEmbedError
from ser_embed.heads.checkpoint import build_head
from ser_embed.heads.kinds import HEADS
from ser_embed.splits.rules import Split, make_splits
from ser_embed.store.reader import FeatureStore
from ser_embed.train.data import Features, LabelledClips, load_clips
from ser_embed.train.loop import (
    EarlyStopping,
    FitSettings,
    History,
    fit,
    log_probabilities,
    temperature_of,
)

EVEN = np.ones(3)
SETTINGS = FitSettings(
    epochs=4, batch_size=16, lr=1e-3, weight_decay=0.01, optimizer="adamw", stopping=None, seed=0
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> LabelledClips:
    """144 clips of 12 speakers, whose emotions a mean over time tells apart."""
    path = write_store(tmp_path_factory.mktemp("toy"), shape=(12, 8), n_speakers=12, per_emotion=4)
    return load_clips([FeatureStore(path)], SCHEMES["sentiment3"])


@pytest.fixture(scope="module")
def split(toy: LabelledClips) -> Split:
    (split,) = make_splits("speaker", toy.table, toy.classes, seed=0)
    return split


def labels_of(clips: LabelledClips) -> np.ndarray:
    return clips.table["label"].to_numpy()


def new_head(clips: LabelledClips, name: str = "mlp") -> nn.Module:
    return build_head(name, clips.features.shape, 3, False, seed=0)


def history_of(uar: list[float], val: list[float], train: list[float] | None = None) -> History:
    epochs = list(range(1, len(uar) + 1))
    return History(epochs, train or [1.0] * len(uar), val, uar, uar)


class PlainHead(nn.Module):
    """Linear in the mean over time, of products and sums that no autocast rounds."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, shape[-1], generator=generator))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return (features.mean(1)[:, None, :] * self.weight).sum(2)  # (B, C)

    def forward(self, features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(self.logits(features), dim=1)


# --- when to stop ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uar", "val", "best"),
    [
        ([0.5], [1.0], 1),
        ([0.5, 0.7, 0.6], [1.0, 1.0, 1.0], 2),
        ([0.5, 0.7, 0.7], [1.0, 0.9, 0.8], 3),  # equal UAR: the smaller loss
        ([0.5, 0.7, 0.7], [1.0, 0.8, 0.9], 2),
        ([0.7, 0.7, 0.7], [0.8, 0.8, 0.8], 1),  # nothing between them: the first
        ([0.7, 0.6, 0.6], [2.0, 0.1, 0.1], 1),  # the UAR comes before the loss
    ],
)
def test_patience_keeps_the_best_uar(uar: list[float], val: list[float], best: int) -> None:
    assert EarlyStopping(patience=9).best(history_of(uar, val)) == best


def test_patience_stops_after_so_many_epochs_without_a_better_one() -> None:
    uar = [0.4, 0.6, 0.5, 0.6, 0.7, 0.7, 0.6, 0.5]
    stops = [
        EarlyStopping(patience=3).stop(history_of(uar[:n], [1.0] * n))
        for n in range(1, len(uar) + 1)
    ]
    assert stops == [False] * 7 + [True]  # epoch 5 is the best, 8 the third after it
    assert EarlyStopping(patience=2).stop(history_of(uar[:4], [1.0] * 4))


@pytest.mark.parametrize(
    ("train", "val", "best", "stop"),
    [
        ([1.0], [0.9], 1, False),
        ([1.0, 0.8], [0.9, 0.8], 2, False),  # equal isn't over
        ([1.0, 0.8, 0.6], [0.9, 0.8, 0.7], 2, True),
        ([1.0], [1.1], 1, True),  # at once: the first is all there is
    ],
)
def test_the_papers_rule(train: list[float], val: list[float], best: int, stop: bool) -> None:
    history = history_of([0.5] * len(train), val, train)
    rule = EarlyStopping("paper")
    assert (rule.best(history), rule.stop(history)) == (best, stop)


@pytest.mark.parametrize("stopping", [EarlyStopping(patience=2), EarlyStopping("paper"), None])
def test_the_kept_weights_are_those_of_the_epoch_that_history_names(
    toy: LabelledClips, split: Split, stopping: EarlyStopping | None
) -> None:
    head, seen = new_head(toy), []

    def on_epoch(history: History) -> None:
        log_probs = log_probabilities(head, toy.features, split.val)
        seen.append((len(history.epoch), history.best, log_probs))

    settings = replace(SETTINGS, epochs=12, stopping=stopping, lr=0.02)
    history = fit(head, toy.features, labels_of(toy), split, EVEN, settings, on_epoch=on_epoch)
    assert [epoch for epoch, _, _ in seen] == history.epoch == list(range(1, len(seen) + 1))
    np.testing.assert_array_equal(
        log_probabilities(head, toy.features, split.val), seen[history.best - 1][2]
    )
    if stopping is None:
        assert (len(history.epoch), history.best) == (12, 12)
    else:
        assert stopping.stop(history) == (len(history.epoch) < 12)
        assert history.best == stopping.best(history)
    assert not head.training


# --- losses and scores -----------------------------------------------------------------------


def test_losses_are_torchs_cross_entropy_over_the_whole_part(
    toy: LabelledClips, split: Split
) -> None:
    """With weights, the mean of batches' means would differ: each batch has its own weight."""
    weights = np.array([10.0, 1.0, 0.1])
    head = PlainHead(toy.features.shape)
    settings = replace(SETTINGS, epochs=1, lr=0.0, weight_decay=0.0, batch_size=7)
    history = fit(head, toy.features, labels_of(toy), split, weights, settings)
    criterion = nn.CrossEntropyLoss(torch.tensor(weights, dtype=torch.float32))
    labels = torch.tensor(labels_of(toy))
    for rows, loss in ((split.train, history.train_loss), (split.val, history.val_loss)):
        features, _ = toy.features.batch(torch.from_numpy(rows))
        logits = head.logits(features).detach()
        expected = criterion(logits, labels[rows])
        assert loss == [pytest.approx(float(expected), rel=1e-5)]
        means = [criterion(z, y) for z, y in
                 zip(logits.split(7), labels[rows].split(7), strict=True)]  # fmt: skip
        assert abs(float(torch.stack(means).mean() / expected) - 1) > 1e-4
    predicted = head.logits(toy.features.batch(torch.from_numpy(split.val))[0]).argmax(1)
    truth = labels[split.val]
    assert history.val_uar == [pytest.approx(balanced_accuracy_score(truth, predicted))]
    assert history.val_wa == [pytest.approx(accuracy_score(truth, predicted))]


def test_log_softmax_and_nll_are_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(20, 3, generator=generator)
    labels = torch.randint(3, (20,), generator=generator)
    weights = torch.tensor([2.0, 3.0, 1.0])
    log_probs = F.log_softmax(logits, dim=1)
    expected = nn.CrossEntropyLoss(weights)(logits, labels)
    torch.testing.assert_close(F.nll_loss(log_probs, labels, weights), expected)
    # The reference puts cross-entropy on log-softmax: redundant, and the same.
    torch.testing.assert_close(nn.CrossEntropyLoss(weights)(log_probs, labels), expected)


@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_temperature_is_recovered(truth: float) -> None:
    """Labels drawn from the probabilities at a temperature are explained best by that one."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 3))
    noise = rng.gumbel(size=logits.shape)  # argmax of logits + Gumbel noise draws from softmax
    labels = (logits / truth + noise).argmax(1)
    log_probs = F.log_softmax(torch.from_numpy(logits), dim=1).numpy()
    assert temperature_of(log_probs, labels) == pytest.approx(truth, rel=0.06)


def test_log_probabilities_are_in_order_and_without_dropout(
    toy: LabelledClips, split: Split
) -> None:
    head = new_head(toy, "temporal").train()
    rows = split.train[::-1].copy()
    log_probs = log_probabilities(head, toy.features, rows)
    assert log_probs.dtype == np.float32
    np.testing.assert_array_equal(log_probs, log_probabilities(head, toy.features, rows))
    np.testing.assert_allclose(
        log_probs[::-1], log_probabilities(head, toy.features, split.train), atol=1e-5
    )
    many = np.tile(rows, 6)  # more than one batch of evaluation
    assert len(many) > 256
    np.testing.assert_allclose(
        log_probabilities(head, toy.features, many), np.tile(log_probs, (6, 1)), atol=1e-5
    )


# --- learning --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["temporal", "mlp"])
def test_a_separable_problem_is_learned(toy: LabelledClips, split: Split, name: str) -> None:
    head = new_head(toy, name)
    settings = replace(SETTINGS, epochs=40, lr=HEADS[name].lr, stopping=EarlyStopping(patience=8))
    history = fit(head, toy.features, labels_of(toy), split, EVEN, settings)
    assert history.val_uar[history.best - 1] > 0.95
    test = log_probabilities(head, toy.features, split.test).argmax(1)
    assert balanced_accuracy_score(labels_of(toy)[split.test], test) > 0.95
    assert history.train_loss[-1] < history.train_loss[0]


class Watched(Features):
    """Features that note which rows are asked for."""

    def __init__(self, features: Features) -> None:
        self.__dict__.update(features.__dict__)
        self.asked: list[int] = []

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked += rows.tolist()
        return super().batch(rows)


def test_the_test_part_is_never_read(toy: LabelledClips, split: Split) -> None:
    watched = Watched(toy.features)
    fit(new_head(toy), watched, labels_of(toy), split, EVEN, SETTINGS)
    assert not set(watched.asked) & set(split.test.tolist())
    assert set(watched.asked) == {*split.train.tolist(), *split.val.tolist()}


@pytest.mark.parametrize("batch_size", [5, 16, 96, 1000])
def test_an_epoch_is_every_clip_once_even_a_last_one_alone(
    toy: LabelledClips, split: Split, batch_size: int
) -> None:
    """Batch norm can't train on one clip; 81 of 5 leaves one, as does 97 of 96 or 16."""
    n = {5: 81, 16: 97, 96: 97, 1000: 40}[batch_size]
    rows = np.concatenate([split.train, split.test])[:n]
    watched = Watched(toy.features)
    settings = replace(SETTINGS, epochs=1, batch_size=batch_size)
    fit(new_head(toy), watched, labels_of(toy), replace(split, train=rows), EVEN, settings)
    assert sorted(watched.asked[:n]) == sorted(rows.tolist())
    assert watched.asked[:n] != rows.tolist()


# --- seeds and resumes -----------------------------------------------------------------------


def test_the_seed_makes_the_run_and_nothing_else_changes(toy: LabelledClips, split: Split) -> None:
    def run(seed: int) -> tuple[History, dict[str, torch.Tensor]]:
        head = new_head(toy, "temporal")
        history = fit(
            head, toy.features, labels_of(toy), split, EVEN, replace(SETTINGS, epochs=2, seed=seed)
        )
        return history, head.state_dict()

    state = torch.get_rng_state()
    history, weights = run(3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again, same = run(3)
    other, _ = run(4)
    assert history == again
    assert all(torch.equal(weights[key], same[key]) for key in weights)
    assert other.train_loss != history.train_loss


def interrupt_at(epoch: int) -> Callable[[History], None]:
    def on_epoch(history: History) -> None:
        if len(history.epoch) == epoch:
            raise KeyboardInterrupt

    return on_epoch


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> LabelledClips:
    """Features as wide and long as `conv` needs."""
    path = write_store(tmp_path_factory.mktemp("images"), shape=(44, 32), n_speakers=6)
    return load_clips([FeatureStore(path)], SCHEMES["sentiment3"])


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize(
    ("name", "optimizer", "stopping"),
    [("temporal", "adamw", EarlyStopping(patience=2)), ("mlp", "adam", None),
     ("conv", "adam", EarlyStopping("paper")), ("mlp", "adamw", EarlyStopping(patience=1))],
)  # fmt: skip
def test_a_resumed_run_is_the_one_never_interrupted(
    toy: LabelledClips, images: LabelledClips, tmp_path: Path, epoch: int,
    name: str, optimizer: str, stopping: EarlyStopping | None,
) -> None:  # fmt: skip
    clips = images if name == "conv" else toy
    (split,) = make_splits("speaker", clips.table, clips.classes, seed=0)
    settings = replace(SETTINGS, epochs=5, optimizer=optimizer, stopping=stopping, lr=1e-3)
    file = tmp_path / "resume.safetensors"

    def run(
        checkpoint: Path | None, on_epoch: Callable[[History], None] = lambda history: None
    ) -> tuple[History, dict[str, torch.Tensor]]:
        head = new_head(clips, name)
        history = fit(
            head, clips.features, labels_of(clips), split, EVEN, settings,
            checkpoint=checkpoint, on_epoch=on_epoch,
        )  # fmt: skip
        return history, head.state_dict()

    whole, weights = run(None)
    epoch = min(epoch, len(whole.epoch))
    with pytest.raises(KeyboardInterrupt):
        run(file, interrupt_at(epoch))
    assert file.is_file()
    epochs: list[int] = []
    history, resumed = run(file, lambda history: epochs.append(history.epoch[-1]))
    assert epochs == list(range(epoch + 1, len(whole.epoch) + 1))  # the earlier ones weren't redone
    assert asdict(history) == asdict(whole)
    assert all(torch.equal(weights[key], resumed[key]) for key in weights)


def test_a_checkpoint_that_cannot_be_used_is_named(
    toy: LabelledClips, split: Split, tmp_path: Path
) -> None:
    file = tmp_path / "resume.safetensors"

    def run(name: str) -> None:
        fit(
            new_head(toy, name), toy.features, labels_of(toy), split, EVEN,
            replace(SETTINGS, epochs=1), checkpoint=file,
        )  # fmt: skip

    run("mlp")
    whole = file.read_bytes()
    for content in (b"", b"not safetensors", whole[:-9], whole[:200]):
        file.write_bytes(content)
        with pytest.raises(SerEmbedError, match=r"(?s)resume\.safetensors: damaged .*delete it"):
            run("mlp")
    file.write_bytes(whole)
    with pytest.raises(SerEmbedError, match=r"(?s)resume\.safetensors: damaged .*delete it"):
        run("temporal")  # another head's
    save_file({"x": torch.zeros(2)}, file)
    with pytest.raises(SerEmbedError, match=r"(?s)resume\.safetensors: damaged .*delete it"):
        run("mlp")


# --- divergence ------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_loss_that_is_not_finite_stops_with_advice(
    toy: LabelledClips, split: Split, epochs: int
) -> None:
    """Even where it is the last step alone that breaks the weights."""
    settings = replace(SETTINGS, epochs=epochs, lr=1e37, batch_size=1000)
    with pytest.raises(SerEmbedError, match="the loss is not finite: try a smaller --lr"):
        fit(new_head(toy), toy.features, labels_of(toy), split, EVEN, settings)
