"""A search for a head's settings by Optuna (Akiba et al. 2019), on training speakers alone.

Each fold searches for itself: its trials are trained on its training part and judged on its
validation part, so the figure of its test part stays blind to them.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.errors import MissingExtra
from ser_embed.heads import HEADS, build_head
from ser_embed.splits import Split, rotations
from ser_embed.train.data import LabelledClips
from ser_embed.train.loop import FitSettings, fit
from ser_embed.train.options import ClassWeights

__all__ = ["SEARCHED", "require_optuna", "search_head", "search_settings"]

log = logging.getLogger(__name__)

SEARCHED = ("lr", "dropout", "weight_decay", "batch_size")
"""What is searched for."""

_ROTATIONS = 2  # of validation speakers by which a trial is judged: one alone is few voices
_LEAST_DECAY = 1e-5  # where the logarithmic range begins


def require_optuna() -> Any:
    """Return the optuna module.

    Raises:
        MissingExtra: It isn't installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "search") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _suggest(trial: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Draw settings; what was given is always within the bounds."""
    lr = given["lr"]
    return {
        "lr": trial.suggest_float("lr", min(1e-4, lr), max(5e-3, lr), log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
        "weight_decay": trial.suggest_float(
            "weight_decay", _LEAST_DECAY, max(0.3, given["weight_decay"]), log=True
        ),
        "batch_size": trial.suggest_categorical(
            "batch_size", sorted({16, 32, 64, 128, given["batch_size"]})
        ),
    }


def search_settings(
    judge: Callable[[Mapping[str, Any]], float],
    given: Mapping[str, Any],
    n_trials: int,
    folder: Path,
    seed: int,
) -> dict[str, Any]:
    """Try settings and return those with the best validation score.

    The first trial is what was given, so that the search can only gain on the validation part.
    What was tried is kept in the folder, trial by trial, and an interrupted search goes on.

    Args:
        judge: From settings, keys of `SEARCHED`, to their mean validation UAR.
        given: Settings to begin with.
        n_trials: Trials, the first one among them.
        folder: Where search.log is kept.
        seed: Of the sampler.

    Returns:
        The best settings, their `val_uar`, that of the given ones, `first_val_uar`, and how many
        `trials` there were.

    Raises:
        MissingExtra: optuna isn't installed.
    """
    optuna = require_optuna()
    folder.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "search.log"))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend), study_name="head", direction="maximize",
        load_if_exists=True,
    )  # fmt: skip
    state = optuna.trial.TrialState
    if not study.get_trials(states=(state.COMPLETE, state.WAITING)):
        study.enqueue_trial({**given, "weight_decay": max(_LEAST_DECAY, given["weight_decay"])})
    while (done := len(study.get_trials(states=(state.COMPLETE,)))) < n_trials:
        # By the number of the trial, so that a search that goes on draws what it would have drawn.
        study.sampler = optuna.samplers.TPESampler(seed=seed * 1009 + done)
        study.optimize(lambda trial: judge(_suggest(trial, given)), n_trials=1)
    first = study.get_trials(states=(state.COMPLETE,))[0]
    log.info("%s: %d trials, validation UAR %.3f to %.3f", folder, n_trials, first.value,
             study.best_value)  # fmt: skip
    return {**study.best_params, "val_uar": study.best_value, "first_val_uar": first.value,
            "trials": n_trials}  # fmt: skip


def search_head(
    clips: LabelledClips,
    split: Split,
    settings: FitSettings,
    rule: ClassWeights,
    head: Mapping[str, Any],
    n_trials: int,
    folder: Path,
) -> dict[str, Any]:
    """Search for a head's settings on one split; see `search_settings`.

    Each trial is judged by its mean over two parts of validation speakers.

    Args:
        clips: All clips; those of the test part are never looked at.
        split: Rows of each part.
        settings: To begin with; their seed is the search's too.
        rule: How classes are weighted.
        head: Its `name` and whether its features are `pooled`, as a card has them.
        n_trials: Trials; with 0 nothing is searched for, and nothing returned.
        folder: Where the trials are kept.
    """
    if not n_trials:
        return {}
    labels, n_classes = clips.labels, len(clips.classes)
    rotated = rotations(split, clips.table, _ROTATIONS, settings.seed)

    def judge(values: Mapping[str, Any]) -> float:
        tried = replace(settings, **{k: v for k, v in values.items() if k != "dropout"})
        scores = []
        for part in rotated:
            module = build_head(head["name"], clips.features.shape, n_classes, head["pooled"],
                                settings.seed, dropout=values["dropout"])  # fmt: skip
            weights = clips.class_weights(rule, part.train)
            history = fit(module, clips.features, labels, part, weights, tried)
            scores.append(history.val_uar[history.best - 1])
        return float(np.mean(scores))

    first = {**asdict(settings), "dropout": HEADS[head["name"]].dropout}
    given = {name: first[name] for name in SEARCHED}
    return search_settings(judge, given, n_trials, folder, settings.seed)
