"""Stage 2: train a small head on cached features, and report a number that can be trusted.

`python -m ser_embed.train --early-stop` trains on every store in `artifacts/features/` and
writes `artifacts/runs/<name>/`: the head and its card, the history, the report, the plots.
"""

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

from ser_embed.command import (
    FEATURES_DIR,
    RUNS_DIR,
    Options,
    Outcome,
    command_line,
    hide_bar,
    run_command,
)
from ser_embed.corpora import LabelScheme
from ser_embed.errors import HeadError
from ser_embed.heads import HEADS, build_head, calibrated, save_head
from ser_embed.reports import write_json
from ser_embed.splits import Split, make_splits, rotations
from ser_embed.train.data import LabelledClips, load_clips, open_stores
from ser_embed.train.loop import (
    EarlyStopping,
    FitSettings,
    History,
    fit,
    log_probabilities,
    temperature_of,
)
from ser_embed.train.progress import announce, progress
from ser_embed.train.pseudo import Pseudo, labelled_stores, strangers, sure_of, with_unlabelled
from ser_embed.train.runs import (
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
    write_parts,
)
from ser_embed.train.search import SEARCHED, require_optuna, search_head
from ser_embed.train.second_task import SecondTaskName, second_task_of
from ser_embed.train.weighting import ClassWeights, class_weights

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
    second_task: SecondTaskName = "none"
    """Another task that the head learns beside: the speakers' gender."""
    second_weight: float = 0.1
    """Weight of the second task's loss."""
    ensemble: int = 1
    """Heads that are trained, each validated on other training speakers, and averaged."""
    search: int = 0
    """Try so many settings of the head first, judged on validation speakers; 0 for none."""
    unlabelled: tuple[Path, ...] = ()
    """Stores that a trained head labels where it is sure, to be trained anew with them; their own
    labels are not looked at, and clips of test speakers are left out."""
    confidence: float = 0.9
    """How sure the head has to be of an unlabelled clip."""
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


@dataclass(frozen=True)
class _Heads:
    """The heads of a fold, one or an ensemble, and what their training gave."""

    head: torch.nn.Module
    histories: list[History]
    temperature: float
    settings: dict[str, Any]


def _train_heads(
    clips: LabelledClips, labels: np.ndarray, turns: list[Split], config: TrainConfig,
    head: torch.nn.Module, state: Path, on_epoch: Callable[[int, History], None],
) -> _Heads:  # fmt: skip
    """Train each member on its turn; the state after every epoch is kept beside `state`."""
    members: Any = getattr(head, "members", [head])
    trained = [
        _train_member(clips, labels, turn, config, member, number,
                      state.with_name(f"{state.name}-{number}.safetensors"), on_epoch)
        for number, (member, turn) in enumerate(zip(members, turns, strict=True))
    ]  # fmt: skip
    # Each member judges clips that it wasn't trained on.
    temperature = temperature_of(
        np.concatenate([val for _, val, _ in trained]),
        np.concatenate([labels[turn.val] for turn in turns]),
    )
    return _Heads(head, [history for history, _, _ in trained], temperature, trained[0][2])


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
    name, pooled = card["head"]["name"], card["head"]["pooled"]
    config = replace(config, lr=config.lr if config.lr is not None else HEADS[name].lr)
    found = search_head(
        clips, split, _settings(config, 0), config.class_weights, card["head"], config.search,
        folder,
    )  # fmt: skip
    config = replace(config, **{k: found[k] for k in SEARCHED if k in found and k != "dropout"})

    def new_head() -> torch.nn.Module:
        return build_head(name, clips.features.shape, len(clips.classes), pooled, config.seed,
                          config.ensemble, found.get("dropout"))  # fmt: skip

    turns = rotations(split, clips.table, config.ensemble, config.seed)
    heads = _train_heads(clips, labels, turns, config, new_head(), folder / "resume", on_epoch)
    pseudo = Pseudo.none()
    if config.unlabelled:
        rows = strangers(clips, split)
        told = log_probabilities(heads.head, clips.features, rows)
        pseudo = sure_of(rows, told, heads.temperature, config.confidence)
        labels, turns = pseudo.joined(labels), [pseudo.added(turn) for turn in turns]
        heads = _train_heads(clips, labels, turns, config, new_head(), folder / "resume-pseudo",
                             on_epoch)  # fmt: skip
    head, histories, temperature = heads.head, heads.histories, heads.temperature
    test = log_probabilities(head, clips.features, split.test)
    predictions = predictions_table(
        clips.table.iloc[split.test], clips.classes, calibrated(test, temperature), np.exp(test)
    )
    write_history(folder, histories)
    write_parts(folder, clips, split, pseudo.rows, pseudo.labels)
    epochs = max(len(history.epoch) for history in histories)
    card = {
        **card,
        "head": {**card["head"], "parameters": sum(p.numel() for p in head.parameters())},
        "temperature": temperature,
        "training": {
            **heads.settings,  # whose epochs are the most there may be
            "epochs": epochs, "kept": [history.best for history in histories],
            "val_uar": [history.val_uar[history.best - 1] for history in histories],
            **({"search": found} if found else {}),
            **({"pseudo": pseudo.facts(clips.classes)} if config.unlabelled else {}),
        },
        "fold": split.name,
    }  # fmt: skip
    predictions.to_csv(folder / "predictions.csv", index=False, errors="surrogateescape")
    save_head(folder, head, card)  # last: a fold with a card is done
    for state in folder.glob("resume-*.safetensors"):
        state.unlink()
    return finished_fold(clips, split, folder, epochs)


def _settings(config: TrainConfig, number: int) -> FitSettings:
    assert config.lr is not None
    return FitSettings(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        optimizer=config.optimizer,
        stopping=EarlyStopping(config.stop_rule, config.patience) if config.early_stop else None,
        seed=config.seed + number,
        mixup=config.mixup,
        mask=config.mask,
    )


def _train_member(
    clips: LabelledClips, labels: np.ndarray, split: Split, config: TrainConfig,
    head: torch.nn.Module, number: int, state: Path, on_epoch: Callable[[int, History], None],
) -> tuple[History, np.ndarray, dict[str, Any]]:  # fmt: skip
    """Train one head; return its history, its validation log-probabilities and its settings."""
    settings = _settings(config, number)
    weights = class_weights(config.class_weights, clips.classes, labels[split.train])
    second = second_task_of(config.second_task, config.second_weight, clips.table, split.train,
                            head, settings.seed)  # fmt: skip
    history = fit(
        head, clips.features, labels, split, weights, settings, checkpoint=state, second=second,
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
    scheme = LabelScheme.load(config.labels)
    files = labelled_stores(config.stores, config.features_dir, config.unlabelled)
    clips = load_clips(open_stores(files, config.features_dir), scheme)
    splits = make_splits(config.split, clips.table, clips.classes, config.seed)
    corpora = ", ".join(sorted(clips.table["corpus"].unique()))
    clips = with_unlabelled(clips, config.unlabelled)
    settings = clips.settings
    head = config.head or default_head(settings.layer, settings.pool)
    options = asdict(config)
    identity = identity_of(options, clips, head, splits)
    folder = config.runs_dir / (config.name or run_name(options, clips, head, identity))
    announce(clips, splits, head)
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


def default_head(layer: int | str, pool: str) -> str:
    """Return the head that suits a kind of features."""
    if pool == "stats":
        return "stats"
    if layer == "all":
        return "layers"
    if pool == "mean":
        return "mlp"
    return "conv" if layer == "logits" else "stats"


def _check(config: TrainConfig) -> None:
    if config.head is not None and config.head not in HEADS:
        raise HeadError(f"no head {config.head!r}; there are {', '.join(HEADS)}")
    for name in ("epochs", "batch_size", "patience", "ensemble"):
        if getattr(config, name) < 1:
            raise HeadError(f"--{name.replace('_', '-')} {getattr(config, name)}: at least 1")
    if config.lr is not None and config.lr <= 0:
        raise HeadError(f"--lr {config.lr}: must be greater than 0")
    for name in ("weight_decay", "mixup", "mask", "search", "second_weight"):
        if getattr(config, name) < 0:
            raise HeadError(f"--{name.replace('_', '-')} {getattr(config, name)}: at least 0")
    if config.mask >= 1:
        raise HeadError(f"--mask {config.mask}: less than 1, or nothing may be left")
    if config.second_task != "none" and config.mixup:
        raise HeadError("--second-task with --mixup: a mixed clip has no one speaker; choose one")
    if not 0 < config.confidence <= 1:
        raise HeadError(f"--confidence {config.confidence}: above 0, up to 1")
    if not 0 <= config.seed < 2**32:
        raise HeadError(f"--seed {config.seed}: 0 to 4294967295")
    if config.batch_size < 2:
        raise HeadError("--batch-size 1: batch norm needs at least 2 clips")


def _fold(
    clips: LabelledClips, split: Split, config: TrainConfig, run: Path, card: dict[str, Any], n: int
) -> Fold:
    folder = fold_folder(run, split, n)
    if (folder / "card.json").is_file():  # done before the run was stopped
        card = json.loads((folder / "card.json").read_text())
        return finished_fold(clips, split, folder, card["training"]["epochs"])
    hide = hide_bar(config)
    with (
        progress(split.name, config.ensemble, config.epochs, folder, hide) as show,
        timed(folder),
    ):
        return _train_fold(clips, split, config, folder, card, show)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.train`."""
    return run_command(train, TrainConfig, PROG, argv)


if __name__ == "__main__":
    raise SystemExit(main())
