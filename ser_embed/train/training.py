"""Training heads on cached features: one head or an ensemble, each fold by itself.

`train` writes `artifacts/runs/<name>/`: the heads and their cards, history, report, plots.
"""

import csv
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ser_embed.command import Outcome, command_line
from ser_embed.corpora import LabelScheme
from ser_embed.heads import HEADS, build_head, save_head
from ser_embed.progress import progress
from ser_embed.reports import Plot
from ser_embed.splits import Split, make_splits, rotations
from ser_embed.train.data import LabelledClips, load_clips, open_stores
from ser_embed.train.experiment import Experiment, Fitted
from ser_embed.train.loop import (
    EarlyStopping,
    FitSettings,
    History,
    fit,
    log_probabilities,
    temperature_of,
)
from ser_embed.train.options import TrainConfig
from ser_embed.train.pseudo import Pseudo, labelled_stores, unlabelled_rows, with_unlabelled
from ser_embed.train.search import SEARCHED, require_optuna, search_head
from ser_embed.train.second_task import second_task_of

__all__ = ["HeadModel", "default_head", "train"]

PROG = "python -m ser_embed.train"

OnEpoch = Callable[[int, History], None]


def default_head(layer: int | str, pool: str) -> str:
    """Return the head that suits a kind of features."""
    if pool == "stats":
        return "stats"
    if layer == "all":
        return "layers"
    if pool == "mean":
        return "mlp"
    return "conv" if layer == "logits" else "stats"


class HeadModel:
    """A head, or an ensemble of heads, for an `Experiment` on cached features.

    Args:
        config: How it is trained.
        head: Key of `HEADS`.
    """

    def __init__(self, config: TrainConfig, head: str) -> None:
        self.config, self.name = config, head

    def fit(self, clips: LabelledClips, split: Split, folder: Path) -> Fitted:
        """Train on a fold; the state after every epoch is kept in the folder, and gone on from."""
        config, pooled = self.config, clips.features.pooled
        config = replace(config, lr=HEADS[self.name].lr if config.lr is None else config.lr)
        found = search_head(
            clips, split, _settings(config, 0), config.class_weights,
            {"name": self.name, "pooled": pooled}, config.search, folder,
        )  # fmt: skip
        config = replace(config, **{k: found[k] for k in SEARCHED if k in found and k != "dropout"})
        rotated = rotations(split, clips.table, config.ensemble, config.seed)

        def fit_members(clips: LabelledClips, rotated: list[Split], state: str) -> _Members:
            self.head = build_head(self.name, clips.features.shape, len(clips.classes), pooled,
                                   config.seed, config.ensemble, found.get("dropout"))  # fmt: skip
            with _shown(split.name, config, folder) as on_epoch:
                return _fit_members(self.head, clips, rotated, config, folder / state, on_epoch)

        self.clips, pseudo = clips, None
        members = fit_members(clips, rotated, "resume")
        if config.unlabelled:
            rows = unlabelled_rows(clips, split)
            temperature = temperature_of(members.log_probs, members.labels)
            pseudo = Pseudo.of(rows, self.predict_log_proba(rows), temperature, config.confidence)
            members = fit_members(
                pseudo.labelled(clips), [pseudo.added(one) for one in rotated], "resume-pseudo"
            )
        _write_history(folder, members.histories)
        histories = members.histories
        training = {
            **members.settings, "kept": [history.best for history in histories],
            "val_uar": [history.val_uar[history.best - 1] for history in histories],
            **({"search": found} if found else {}),
            **({"pseudo": pseudo.facts(clips.classes)} if pseudo else {}),
        }  # fmt: skip
        epochs = max(len(history.epoch) for history in histories)
        added = {"added": (pseudo.rows, pseudo.labels)} if pseudo else {}
        return Fitted(members.log_probs, members.labels, epochs, training, **added)

    def predict_log_proba(self, rows: np.ndarray) -> np.ndarray:
        """Return log-probabilities float32 (n, C) of some clips."""
        return log_probabilities(self.head, self.clips.features, rows)

    def save(self, folder: Path, card: dict[str, Any]) -> None:
        """Write the head and its card, and drop the states of its training."""
        parameters = sum(p.numel() for p in self.head.parameters())
        save_head(folder, self.head, {**card, "head": {**card["head"], "parameters": parameters}})
        for state in folder.glob("resume-*.safetensors"):
            state.unlink()


class _Members(NamedTuple):
    """What training the members of an ensemble gave.

    `log_probs` (n, C) and `labels` (n,) are of each member's own validation part, one after the
    other.
    """

    log_probs: np.ndarray
    labels: np.ndarray
    histories: list[History]
    settings: dict[str, Any]


def _fit_members(
    head: torch.nn.Module, clips: LabelledClips, rotated: Sequence[Split], config: TrainConfig,
    state: Path, on_epoch: OnEpoch,
) -> _Members:  # fmt: skip
    """Train each member on its own split; its state after every epoch is kept in `state`-N."""
    log_probs, labels, histories, settings = [], [], [], list[dict[str, Any]]()
    for number, split in enumerate(rotated):
        member: Any = head.members[number] if config.ensemble > 1 else head  # type: ignore[index]
        how = _settings(config, number)
        weights = clips.class_weights(config.class_weights, split.train)
        second = second_task_of(config.second_task, config.second_weight, clips.table, split.train,
                                member, how.seed)  # fmt: skip
        history = fit(
            member, clips.features, clips.labels, split, weights, how, second=second,
            checkpoint=state.with_name(f"{state.name}-{number}.safetensors"),
            on_epoch=partial(on_epoch, number),
        )  # fmt: skip
        histories.append(history)
        log_probs.append(log_probabilities(member, clips.features, split.val))
        labels.append(clips.labels[split.val])
        settings.append({"class_weights": weights.tolist(), **asdict(how)})
    return _Members(np.concatenate(log_probs), np.concatenate(labels), histories, settings[0])


def _settings(config: TrainConfig, number: int) -> FitSettings:
    assert config.lr is not None
    return FitSettings(
        epochs=config.epochs, batch_size=config.batch_size, lr=config.lr,
        weight_decay=config.weight_decay, optimizer=config.optimizer,
        stopping=EarlyStopping(config.stop_rule, config.patience) if config.early_stop else None,
        seed=config.seed + number,
    )  # fmt: skip


# --- what is shown ---------------------------------------------------------------------------


@contextmanager
def _shown(name: str, config: TrainConfig, folder: Path) -> Iterator[OnEpoch]:
    """Yield what shows an epoch: on a bar, and as TensorBoard's curves where it is installed."""
    several = config.ensemble > 1
    writer: Any = None
    if importlib.util.find_spec("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder / "tensorboard"))
    with progress(name, config.ensemble * config.epochs, "epoch", config.quiet) as bar:

        def on_epoch(member: int, history: History) -> None:
            epoch = len(history.epoch)
            bar.advance(member * config.epochs + epoch - bar.done)
            which = f"head {member + 1} of {config.ensemble}, " if several else ""
            bar.note(f"{which}loss {history.train_loss[-1]:.3f}, val UAR "
                     f"{history.val_uar[-1]:.3f}, best epoch {history.best}")  # fmt: skip
            for column, values in history.columns.items() if writer else ():
                tag = f"{member}/{column}" if several else column
                writer.add_scalar(tag, values[-1], epoch)

        try:
            yield on_epoch
        finally:
            if writer:
                writer.close()


def _write_history(folder: Path, histories: Sequence[History]) -> None:
    """Write history.csv, one member of an ensemble after the other, and the first's plot."""
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["member", *histories[0].columns])
        for number, history in enumerate(histories, start=1):
            writer.writerows([number, *row] for row in zip(*history.columns.values(), strict=True))
    first = histories[0]
    Plot.history(first.columns, first.best).save(folder / "history.png")


# --- the run ---------------------------------------------------------------------------------


def train(config: TrainConfig) -> Outcome:
    """Train as the options say, and write and print the report.

    Raises:
        SerEmbedError: No store, stores that disagree, labels or a split that the clips don't
            allow, a head that doesn't fit the features.
    """
    config.check()
    if config.search:
        require_optuna()  # before anything is read
    scheme = LabelScheme.load(config.labels)  # before anything is read
    files = labelled_stores(config.stores, config.features_dir, config.unlabelled)
    stores = open_stores(files, config.features_dir)
    scheme = scheme.fit(word for store in stores for word in store.stored_clips["emotion"])
    clips = load_clips(stores, scheme)
    splits = make_splits(config.split, clips.table, clips.classes, config.seed)
    corpora = ", ".join(sorted(clips.table["corpus"].unique()))
    clips = with_unlabelled(clips, config.unlabelled)
    head = config.head or default_head(clips.settings.layer, clips.settings.pool)
    built = {
        "name": head, "members": config.ensemble, "shape": list(clips.features.shape),
        "pooled": clips.features.pooled,
    }  # fmt: skip
    experiment = Experiment(
        clips, splits, head, config.identity,
        title=f"{Path(config.labels).stem} on {corpora}, split {config.split}",
        runs_dir=config.runs_dir, name=config.name, report=not config.json,
        card={"head": built, "command": command_line(PROG, config),
              "labels": {"name": scheme.name, "mapping": dict(scheme.mapping)}},
    )  # fmt: skip
    return Outcome(experiment.run(HeadModel(config, head)))
