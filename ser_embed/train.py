"""Stage 2: train a small head on cached features, and report a number that can be trusted.

`python -m ser_embed.train --early-stop` trains on every store in `artifacts/features/` and
writes `artifacts/runs/<name>/`: the head and its card, the history, the report, the plots.
"""

import importlib.util
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
import tyro
from tqdm import tqdm

from ser_embed.command import (
    FEATURES_DIR,
    RUNS_DIR,
    Options,
    Outcome,
    command_line,
    hide_bar,
    run_command,
)
from ser_embed.data import LabelledClips, load_clips, open_stores
from ser_embed.errors import HeadError
from ser_embed.fit import (
    EarlyStopping,
    FitSettings,
    History,
    fit,
    log_probabilities,
    temperature_of,
)
from ser_embed.heads import HEADS, build_head, calibrated, default_head, save_head
from ser_embed.labels import load_scheme
from ser_embed.networks import Ensemble
from ser_embed.runs import (
    Fold,
    finished_fold,
    finished_result,
    fold_folder,
    identity_of,
    make_card,
    predictions_table,
    report_of,
    run_name,
    timed,
    write_history,
    write_json,
    write_parts,
)
from ser_embed.search import SEARCHED, require_optuna, search_head
from ser_embed.splits import Split, make_splits, rotations
from ser_embed.weighting import ClassWeights, class_weights

__all__ = ["TrainConfig", "main", "train"]

log = logging.getLogger(__name__)

PROG = "python -m ser_embed.train"


@dataclass(frozen=True)
class TrainConfig(Options):
    """Train a head on cached features; without files, on every store in --features-dir."""

    stores: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Stores to train on."""
    early_stop: bool = False
    """Stop when validation says so; without it all epochs are trained and the last is kept."""
    stop_rule: Literal["patience", "paper"] = "patience"
    """patience watches validation UAR and keeps the best epoch;
    paper stops when the validation loss exceeds the training loss."""
    patience: int = 15
    """Epochs without improvement before stopping."""
    labels: str = "sentiment3"
    """sentiment3, emotion4, emotion8, intensity21, or a mapping file."""
    split: str = "speaker"
    """random, speaker, kfold, loso, loco, given (the CSV's split column), or folds:FILE."""
    head: str | None = None
    """conv, temporal, mlp, stats, layers or cnn. Default: what suits the features."""
    class_weights: ClassWeights = "balanced"
    """Weights of the classes in the loss; paper: positive 1.99, neutral 3, negative 1."""
    epochs: int = 60
    """At most so many."""
    batch_size: int = 32
    """Clips per batch."""
    lr: float | None = None
    """Learning rate. Default: what suits the head (conv: the paper's 1e-4)."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """The paper's is adam."""
    mixup: float = 0.0
    """Mix pairs of training clips by shares drawn from Beta(M, M); 0 for none."""
    mask: float = 0.0
    """Mask up to this share of a training clip's frames, and of its features; 0 for none."""
    ensemble: int = 1
    """Heads that are trained, each validated on other training speakers, and averaged."""
    search: int = 0
    """Try so many settings of the head first, judged on validation speakers; 0 for none."""
    weight_decay: float = 0.01
    """Weight decay; the paper's code has 1e-4."""
    seed: int = 0
    """Seed of the split, the weights, the order and dropout."""
    features_dir: Path = FEATURES_DIR
    """Where stores are looked for."""
    runs_dir: Path = RUNS_DIR
    """Where runs are written."""
    name: str | None = None
    """Name of the run. Default: made from the settings and the data."""


# --- one fold --------------------------------------------------------------------------------


def _train_fold(
    clips: LabelledClips,
    split: Split,
    config: TrainConfig,
    folder: Path,
    card: dict[str, Any],
    on_epoch: Callable[[int, History], None],
) -> Fold:
    folder.mkdir(parents=True, exist_ok=True)
    labels = clips.table["label"].to_numpy()
    head_name, pooled = card["head"]["name"], card["head"]["pooled"]
    found = search_head(
        clips, split, _settings(config, head_name, 0), config.class_weights, card["head"],
        config.search, folder,
    )  # fmt: skip
    config = replace(config, **{k: found[k] for k in SEARCHED if k in found and k != "dropout"})
    head = build_head(
        head_name, clips.features.shape, len(clips.classes), pooled, config.seed, config.ensemble,
        found.get("dropout"),
    )  # fmt: skip
    members = list(head.members) if isinstance(head, Ensemble) else [head]
    turns = rotations(split, clips.table, config.ensemble, config.seed)
    trained = [
        _train_member(clips, turn, config, head_name, member, number, folder, on_epoch)
        for number, (member, turn) in enumerate(zip(members, turns, strict=True))
    ]
    histories = [history for history, _, _ in trained]
    # Each member judges clips that it wasn't trained on.
    temperature = temperature_of(
        np.concatenate([val for _, val, _ in trained]),
        np.concatenate([labels[turn.val] for turn in turns]),
    )
    test = log_probabilities(head, clips.features, split.test)
    predictions = predictions_table(
        clips.table.iloc[split.test], clips.classes, calibrated(test, temperature), np.exp(test)
    )
    write_history(folder, histories)
    write_parts(folder, clips, split)
    epochs = max(len(history.epoch) for history in histories)
    card = {
        **card,
        "head": {**card["head"], "parameters": sum(p.numel() for p in head.parameters())},
        "temperature": temperature,
        "training": {
            **trained[0][2],  # whose epochs are the most there may be
            "epochs": epochs, "kept": [history.best for history in histories],
            "val_uar": [history.val_uar[history.best - 1] for history in histories],
            **({"search": found} if found else {}),
        },
        "fold": split.name,
    }  # fmt: skip
    predictions.to_csv(folder / "predictions.csv", index=False, errors="surrogateescape")
    save_head(folder, head, card)  # last: a fold with a card is done
    for state in folder.glob("resume-*.safetensors"):
        state.unlink()
    return finished_fold(clips, split, folder, epochs)


def _settings(config: TrainConfig, head_name: str, number: int) -> FitSettings:
    return FitSettings(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr if config.lr is not None else HEADS[head_name].lr,
        weight_decay=config.weight_decay,
        optimizer=config.optimizer,
        stopping=EarlyStopping(config.stop_rule, config.patience) if config.early_stop else None,
        seed=config.seed + number,
        mixup=config.mixup,
        mask=config.mask,
    )


def _train_member(
    clips: LabelledClips,
    split: Split,
    config: TrainConfig,
    head_name: str,
    head: torch.nn.Module,
    number: int,
    folder: Path,
    on_epoch: Callable[[int, History], None],
) -> tuple[History, np.ndarray, dict[str, Any]]:
    """Train one head; return its history, its validation log-probabilities and its settings."""
    labels = clips.table["label"].to_numpy()
    settings = _settings(config, head_name, number)
    weights = class_weights(config.class_weights, clips.classes, labels[split.train])
    history = fit(
        head, clips.features, labels, split, weights, settings,
        checkpoint=folder / f"resume-{number}.safetensors",
        on_epoch=lambda history: on_epoch(number, history),
    )  # fmt: skip
    val = log_probabilities(head, clips.features, split.val)
    return history, val, {"class_weights": weights.tolist(), **asdict(settings)}


# --- the run ---------------------------------------------------------------------------------


def train(config: TrainConfig) -> Outcome:
    """Train as the options say, and write and print the report.

    Raises:
        SerEmbedError: No store, stores that disagree, labels or a split that the clips don't
            allow, a head that doesn't fit the features.
    """
    _check(config)
    if config.search:
        require_optuna()  # before anything is read
    scheme = load_scheme(config.labels)
    clips = load_clips(open_stores(config.stores, config.features_dir), scheme)
    splits = make_splits(config.split, clips.table, clips.classes, config.seed)
    settings = clips.settings
    head = config.head or default_head(settings.layer, settings.pool)
    options = asdict(config)
    identity = identity_of(options, clips, head, splits)
    folder = config.runs_dir / (config.name or run_name(options, clips, head, identity))
    _announce(clips, splits, head)
    if (finished := finished_result(folder, identity)) is not None:
        log.info("%s: trained before with the same data and options; nothing to do", folder)
        os.utime(folder / "report.json")  # it is the newest run again
        if not config.json:
            print(f"report: {folder / 'report.md'}")
        return Outcome(finished)
    built = {
        "name": head, "members": config.ensemble, "shape": list(clips.features.shape),
        "pooled": settings.pool != "none",
    }  # fmt: skip
    card = make_card(options, clips, built, scheme, identity, command_line(PROG, config))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "started.json", {"identity": identity})
    started = time.perf_counter()
    folds = [_fold(clips, split, config, folder, card, len(splits)) for split in splits]
    corpora = ", ".join(sorted(clips.table["corpus"].unique()))
    title = f"{Path(config.labels).stem} on {corpora}, split {config.split}"
    report = report_of(folds, clips, title, config.seed)
    report.save(folder, pd.concat([fold.predictions for fold in folds], ignore_index=True))
    epochs: Any = folds[0].epochs if len(folds) == 1 else [fold.epochs for fold in folds]
    result = {"run": str(folder), "epochs": epochs, "test": report.scores}
    write_json(folder / "result.json", {"identity": identity, **result})
    log.info("trained in %.0f s -> %s", time.perf_counter() - started, folder / "report.md")
    if not config.json:
        report.show(folder / "report.md")
    return Outcome(result)


def _check(config: TrainConfig) -> None:
    for name in ("epochs", "batch_size", "patience", "ensemble"):
        if getattr(config, name) < 1:
            raise HeadError(f"--{name.replace('_', '-')} {getattr(config, name)}: at least 1")
    if config.lr is not None and config.lr <= 0:
        raise HeadError(f"--lr {config.lr}: must be greater than 0")
    for name in ("weight_decay", "mixup", "mask", "search"):
        if getattr(config, name) < 0:
            raise HeadError(f"--{name.replace('_', '-')} {getattr(config, name)}: at least 0")
    if config.mask >= 1:
        raise HeadError(f"--mask {config.mask}: less than 1, or nothing may be left")
    if not 0 <= config.seed < 2**32:
        raise HeadError(f"--seed {config.seed}: 0 to 4294967295")
    if config.batch_size < 2:
        raise HeadError("--batch-size 1: batch norm needs at least 2 clips")


def _announce(clips: LabelledClips, splits: list[Split], head: str) -> None:
    counts = clips.table["label"].value_counts()
    told = ", ".join(f"{name} {counts.get(i, 0)}" for i, name in enumerate(clips.classes))
    log.info("%d clips (%s), head %s, features %s", len(clips.table), told, head,
             clips.features.shape)  # fmt: skip
    if clips.left_out:
        log.info("left out by the label scheme: %s",
                 ", ".join(f"{k} {v}" for k, v in clips.left_out.items()))  # fmt: skip
    if len(splits) == 1:
        s = splits[0]
        log.info("train %d, validation %d, test %d", len(s.train), len(s.val), len(s.test))


def _fold(
    clips: LabelledClips, split: Split, config: TrainConfig, run: Path, card: dict[str, Any], n: int
) -> Fold:
    folder = fold_folder(run, split, n)
    if (folder / "card.json").is_file():  # done before the run was stopped
        card = json.loads((folder / "card.json").read_text())
        return finished_fold(clips, split, folder, card["training"]["epochs"])
    bar = tqdm(total=config.epochs, desc=split.name, unit="epoch", disable=hide_bar(config))
    writer = _tensorboard(folder)
    with bar:

        def show(member: int, history: History) -> None:
            bar.n = len(history.epoch)
            if config.ensemble > 1:
                bar.set_description(f"{split.name}, head {member + 1} of {config.ensemble}")
            bar.set_postfix(loss=f"{history.train_loss[-1]:.3f}",
                            val_uar=f"{history.val_uar[-1]:.3f}", best=history.best)  # fmt: skip
            if writer:
                for name, values in history.columns.items():
                    tag = f"{member}/{name}" if config.ensemble > 1 else name
                    writer.add_scalar(tag, values[-1], len(history.epoch))

        with timed(folder):
            fold = _train_fold(clips, split, config, folder, card, show)
    if writer:
        writer.close()
    return fold


def _tensorboard(folder: Path) -> Any:
    """Return a SummaryWriter where TensorBoard is installed, else None."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.train`."""
    return run_command(train, TrainConfig, PROG, argv)


if __name__ == "__main__":
    raise SystemExit(main())
