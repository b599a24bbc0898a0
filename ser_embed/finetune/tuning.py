"""One split's fine-tuning: trained, scored, saved, and loaded again to be sure of it."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ser_embed.errors import HeadError, SerEmbedError
from ser_embed.finetune.augment import make_augment
from ser_embed.finetune.network import (
    Freeze,
    Network,
    build_network,
    freeze,
    load_network,
    mask_states,
    save_network,
)
from ser_embed.finetune.probe import probe
from ser_embed.finetune.recipes import Augmentation, Recipe
from ser_embed.finetune.recordings import Recordings
from ser_embed.finetune.trace import write_trace
from ser_embed.finetune.trainer import CHECKPOINTS, Stopping, train_network
from ser_embed.heads import calibrated
from ser_embed.reports import scores_of
from ser_embed.splits import Split
from ser_embed.train import (
    Fold,
    balanced_weights,
    finished_fold,
    predictions_table,
    temperature_of,
    write_parts,
)

__all__ = ["Tuning", "score_clips", "tune_fold"]


@dataclass(frozen=True)
class Tuning:
    """How a split is fine-tuned.

    Attributes:
        recipe: The settings, `precision` resolved.
        augmentation: How training clips are disturbed.
        freeze: What of the encoder stays as it is.
        balanced: Whether classes are weighted by the inverse of their counts.
        stopping: When to stop; None trains all epochs.
        workers: Processes that read clips.
        hide: tqdm's `disable`.
    """

    recipe: Recipe
    augmentation: Augmentation
    freeze: Freeze
    balanced: bool
    stopping: Stopping | None
    workers: int
    hide: bool | None


def score_clips(
    network: Network, clips: Recordings, rows: np.ndarray, batch_size: int
) -> np.ndarray:
    """Return log-probabilities float32 (n, C) of some clips, undisturbed, on a GPU if there is one.

    Raises:
        SerEmbedError: The network's output isn't finite.
    """
    network.module.to("cuda" if torch.cuda.is_available() else "cpu")
    found = [
        network.log_probabilities([clips.waveform(int(row)) for row in batch])
        for batch in np.split(rows, range(batch_size, len(rows), batch_size))
    ]
    log_probs = np.concatenate(found)
    if not np.isfinite(log_probs).all():
        raise SerEmbedError("the trained network's output is not finite: try a smaller --lr")
    return log_probs


def tune_fold(
    clips: Recordings, split: Split, tuning: Tuning, folder: Path, card: dict[str, Any]
) -> Fold:
    """Fine-tune on one split and write its folder, the card last: a fold with a card is done.

    Args:
        clips: All clips.
        split: Rows of each part.
        tuning: How.
        folder: Where to; an interrupted training in it goes on.
        card: What the card says before training.

    Raises:
        SerEmbedError: See `train_network`; or what was saved doesn't say what was trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recipe = tuning.recipe
    labels = clips.table["label"].to_numpy()
    network = build_network(
        recipe.network, recipe.encoder, clips.classes, recipe.dropout, recipe.seed
    )
    mask_states(network, recipe.mask_time, recipe.mask_features)
    trainable = freeze(network, tuning.freeze)
    weights = np.ones(len(clips.classes))
    if tuning.balanced:
        weights = balanced_weights(labels[split.train], len(clips.classes))
    probed = None
    if recipe.start == "probed":
        probed = probe(network, clips, split, weights, recipe.batch_size, recipe.seed,
                       tuning.hide)  # fmt: skip
    with tqdm(desc=split.name, unit="step", disable=tuning.hide) as bar:
        trace = train_network(
            network, clips, split, weights, recipe, folder,
            stopping=tuning.stopping,
            augment=make_augment(tuning.augmentation) if tuning.augmentation.kinds else None,
            workers=tuning.workers, bar=bar,
        )  # fmt: skip
    val = score_clips(network, clips, split.val, recipe.batch_size)
    test = score_clips(network, clips, split.test, recipe.batch_size)
    temperature = temperature_of(val, labels[split.val])
    predictions = predictions_table(
        clips.table.iloc[split.test], clips.classes, calibrated(test, temperature), np.exp(test)
    )
    predictions.to_csv(folder / "predictions.csv", index=False, errors="surrogateescape")
    write_trace(folder, trace)
    write_parts(folder, clips, split)
    scores = scores_of(labels[split.val], val.argmax(1), len(clips.classes))
    parameters = sum(p.numel() for p in network.module.parameters())
    training = {
        **asdict(recipe),  # whose epochs are the most there may be
        "epochs": trace.epochs, "steps": trace.steps, "kept": trace.kept,
        "val_uar": scores["uar"], "class_weights": weights.tolist(),
        "freeze": tuning.freeze, "trainable": trainable,
        "stopping": asdict(tuning.stopping) if tuning.stopping else None,
        "probe": probed, "augment": asdict(tuning.augmentation),
    }  # fmt: skip
    save_network(folder, network, {
        **card, "head": {**card["head"], "parameters": parameters}, "temperature": temperature,
        "training": training, "fold": split.name,
    })  # fmt: skip
    _confirm(folder, clips, split.test[: recipe.batch_size], test)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return finished_fold(clips, split, folder, trace.epochs)


def _confirm(folder: Path, clips: Recordings, rows: np.ndarray, told: np.ndarray) -> None:
    """Load what was saved and compare what it says with what was reported."""
    network, _ = load_network(folder)
    found = score_clips(network, clips, rows, len(rows))
    if not np.allclose(found, told[: len(rows)], atol=1e-3):
        (folder / "card.json").unlink()
        raise HeadError(f"{folder}: what was saved doesn't say what was trained; is the disk well?")
