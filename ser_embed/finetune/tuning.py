"""Fine-tuning of an encoder and a classifier, end to end: one fold, and the run.

`python -m ser_embed.finetune --recipe ravdess8 ROOT --corpus ravdess` writes
`artifacts/runs/<name>/` as `train` does: network and card, history, report, plots, and the clips
that were misclassified. An interrupted run goes on by the same command.
"""

import ast
import logging
import multiprocessing
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ser_embed.command import DONE, SOME_CLIPS_FAILED, Outcome, command_line
from ser_embed.corpora import LabelScheme, Listing, listing_of
from ser_embed.encoders import Pool, load_encoder
from ser_embed.errors import EncoderError, HeadError, SerEmbedError
from ser_embed.extract import LISTED_FAULTS, ExtractConfig, Readers, extract_listing, spread
from ser_embed.finetune.network import (
    EncoderHead,
    Network,
    build_network,
    load_network,
    save_network,
)
from ser_embed.finetune.options import FinetuneConfig
from ser_embed.finetune.recipes import Augmentation, Recipe, fill_in
from ser_embed.finetune.recordings import Recordings, make_augment
from ser_embed.finetune.trainer import CHECKPOINTS, Stopping, available_precision, train_network
from ser_embed.progress import progress, track
from ser_embed.reports import scores_of
from ser_embed.splits import Split, make_splits
from ser_embed.store import FeatureSettings
from ser_embed.train import Experiment, Fitted, TrainConfig, fit_tensor, train

__all__ = ["NetworkModel", "finetune", "probe"]

log = logging.getLogger(__name__)

PROG = "python -m ser_embed.finetune"
LONGEST_OF_WHISPER = 30  # seconds


def probe(
    network: Network, clips: Recordings, split: Split, class_weights: np.ndarray,
    batch_size: int, seed: int, quiet: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Train a network's head in place on its encoder as it is, before both are trained.

    A new head's first gradients are noise, and what they do to the encoder is not undone: linear
    probing, then fine-tuning (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and
    Underperform Out-of-Distribution").

    Args:
        network: Of a head of stage 2 on an encoder.
        clips: All clips.
        split: Rows of each part; the test part is never looked at.
        class_weights: Weight of each class in the loss, (C,).
        batch_size: Clips that are encoded at a time.
        seed: Order of the clips and dropout.
        quiet: Whether progress is hidden.

    Returns:
        `epochs`, `kept`, and the validation part's `val_uar` there.
    """
    module = network.module
    assert isinstance(module, EncoderHead)
    rows = np.concatenate([split.train, split.val])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device).eval()
    pooled: torch.Tensor | None = None  # what the head pools of the states; of other clips zeros
    batches = np.split(rows, range(batch_size, len(rows), batch_size))
    for some in track(batches, f"probing {split.name}", "batch", quiet=quiet):
        batch = network.batch([clips.waveform(int(row)) for row in some])
        with torch.inference_mode():
            found = module.pooled(**{name: tensor.to(device) for name, tensor in batch.items()})
        if pooled is None:
            pooled = torch.zeros(len(clips.table), found.shape[1])
        pooled[some] = found.float().cpu()
    assert pooled is not None
    module.head.pooled = True
    history = fit_tensor(module.head, pooled, clips.labels, split, class_weights, seed)
    module.head.pooled = False
    best = history.best - 1
    return {"epochs": len(history.epoch), "kept": history.best, "val_uar": history.val_uar[best]}


class NetworkModel:
    """An encoder with a classifier, for an `Experiment` on recordings.

    Args:
        config: How it is fine-tuned.
        recipe: The settings, `precision` resolved.
    """

    def __init__(self, config: FinetuneConfig, recipe: Recipe) -> None:
        self.config, self.recipe = config, recipe

    def fit(self, clips: Recordings, split: Split, folder: Path) -> Fitted:
        """Fine-tune on a fold; an interrupted training in its folder goes on.

        Raises:
            SerEmbedError: See `train_network`.
        """
        config, recipe = self.config, self.recipe
        network = build_network(
            recipe.network, recipe.encoder, clips.classes, recipe.dropout, recipe.seed
        )
        network.mask_states(recipe.mask_time, recipe.mask_features)
        trainable = network.freeze(config.freeze)
        weights = clips.class_weights(config.class_weights, split.train)
        probed = None
        if recipe.start == "probed":
            probed = probe(
                network, clips, split, weights, recipe.batch_size, recipe.seed, config.quiet
            )
        stopping = Stopping(config.watch, config.patience) if config.early_stop else None
        augmentation = Augmentation(recipe.augment)
        with progress(split.name, None, "step", config.quiet) as bar:
            trace = train_network(
                network, clips, split, weights, recipe, folder, stopping=stopping,
                augment=make_augment(augmentation) if augmentation.kinds else None,
                workers=config.workers, bar=bar,
            )  # fmt: skip
        trace.write(folder)
        self.network, self.clips = network, clips
        val, labels = self.predict_log_proba(split.val), clips.labels[split.val]
        scores = scores_of(labels, val.argmax(1), len(clips.classes))
        training = {
            **asdict(recipe),  # whose epochs are the most there may be
            "steps": trace.steps, "kept": trace.kept, "val_uar": scores["uar"],
            "class_weights": weights.tolist(), "freeze": config.freeze, "trainable": trainable,
            "stopping": asdict(stopping) if stopping else None, "probe": probed,
            "augment": asdict(augmentation),
        }  # fmt: skip
        self.tested = split.test
        return Fitted(val, labels, trace.epochs, training)

    def predict_log_proba(self, rows: np.ndarray) -> np.ndarray:
        """Return log-probabilities float32 (n, C) of some clips."""
        return self.clips.by_network(self.network, rows, self.recipe.batch_size)

    def save(self, folder: Path, card: dict[str, Any]) -> None:
        """Write the network and its card, and load them again to be sure of them.

        Raises:
            HeadError: What was saved doesn't predict what was trained.
        """
        parameters = sum(self.network.parameters)
        save_network(folder, self.network, {
            **card, "head": {**card["head"], "parameters": parameters},
        })  # fmt: skip
        rows = self.tested[: self.recipe.batch_size]
        loaded = self.clips.by_network(load_network(folder)[0], rows, len(rows))
        if not np.allclose(loaded, self.predict_log_proba(rows), atol=1e-3):
            (folder / "card.json").unlink()
            raise HeadError(
                f"{folder}: what was saved doesn't predict what was trained; is the disk well?"
            )
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


# --- the run ---------------------------------------------------------------------------------


def finetune(config: FinetuneConfig) -> Outcome:
    """Fine-tune as the options say, and write and print the report.

    Raises:
        SerEmbedError: No corpus, encoder or usable clip; labels or a split that the clips don't
            allow; a loss that isn't finite, or too little memory, with advice.
    """
    _check_main(config)
    recipe = config.resolve()
    recipe = fill_in(recipe, {"precision": available_precision(recipe.precision)})
    whole = listing_of(config.root, config.corpus, config.csv)
    kept = spread(whole.utterances, config.limit)
    listing = Listing(whole.corpus, whole.root, kept, whole.faults)
    if recipe.network != "classification" and config.freeze == "all":
        return _through_the_cache(config, recipe, listing)
    scheme = LabelScheme.load(recipe.labels).fit(u.emotion for u in listing.utterances)
    network = build_network(recipe.network, recipe.encoder, scheme.classes, recipe.dropout, 0)
    settings = _settings(config, recipe, network)
    network.freeze(config.freeze)  # so that a wrong number is reported before the clips are read
    clips = Recordings.read(
        listing, scheme, settings, network.trained, config.workers, config.quiet
    )
    del network
    for path, reason in clips.faults[:LISTED_FAULTS]:
        print(f"failed: {path}: {reason}", file=sys.stderr)
    if len(clips.faults) > LISTED_FAULTS:
        print(f"... and {len(clips.faults) - LISTED_FAULTS} more", file=sys.stderr)
    corpora = ", ".join(sorted(clips.table["corpus"].unique()))
    experiment = Experiment(
        clips, make_splits(config.split, clips.table, clips.classes, recipe.seed),
        config.recipe, config.identity(recipe),
        title=f"{Path(recipe.labels).stem} on {corpora}, split {config.split}, {recipe.encoder} "
              "fine-tuned",
        runs_dir=config.runs_dir, name=config.name, report=not config.json,
        card={"head": {"name": recipe.network, "recipe": config.recipe},
              "labels": {"name": scheme.name, "mapping": dict(scheme.mapping)},
              "command": command_line(PROG, config)},
    )  # fmt: skip
    result = experiment.run(NetworkModel(config, recipe))
    return Outcome(result, SOME_CLIPS_FAILED if clips.faults else DONE)


def _check_main(config: FinetuneConfig) -> None:
    """Refuse a script that every process which reads clips would run again.

    Where processes are spawned (macOS, Windows) each imports the script that started it.
    """
    main = sys.modules["__main__"]
    file = Path(getattr(main, "__file__", None) or "")
    by_name = getattr(main, "__spec__", None) is not None  # python -m, which spawned ones don't run
    if not config.workers or multiprocessing.get_start_method() == "fork" or by_name:
        return
    if file.suffix != ".py" or not file.is_file():
        return
    body = ast.parse(file.read_text(encoding="utf-8", errors="replace")).body
    if not any(isinstance(one, ast.If) and "__name__" in ast.unparse(one.test) for one in body):
        raise SerEmbedError(
            f"{file}: has no 'if __name__ == \"__main__\":' around what it does, so on this system "
            "each process that reads clips would run it again; put the call under it, or give "
            "workers=0"
        )


def _settings(config: FinetuneConfig, recipe: Recipe, network: Network) -> FeatureSettings:
    """Return what the waveforms depend on, in the form that heads' cards have it."""
    if network.encoder.config.model_type == "whisper" and recipe.seconds > LONGEST_OF_WHISPER:
        raise EncoderError(
            f"--seconds {recipe.seconds:g}: Whisper's encoder takes {LONGEST_OF_WHISPER} s at once"
        )
    everything = network.kind == "stats"
    return FeatureSettings(
        encoder=recipe.encoder, weights=network.weights,
        layer="all" if everything else network.n_layers, pool="stats" if everything else "mean",
        norm="none", trim=config.trim, seconds=recipe.seconds, fill=config.fill, dtype="float32",
        precision="fp32", seed=recipe.seed,
    )  # fmt: skip


def _through_the_cache(config: FinetuneConfig, recipe: Recipe, listing: Listing) -> Outcome:
    """Encode each clip once and train the same head on the cache, by stages 1 and 2."""
    everything = recipe.network == "stats"
    pool: Pool = "stats" if everything else "mean"
    if config.augment is not None and recipe.augment:
        raise EncoderError("--augment disturbs waveforms, and --freeze all trains on cached ones")
    if recipe.augment:
        log.info("features are cached, so training clips are not disturbed")
    with Readers(config.workers) as readers:
        encoder = load_encoder(recipe.encoder, "all", backend="torch", seed=recipe.seed)
        if not everything:
            encoder = load_encoder(
                recipe.encoder, encoder.n_layers, backend="torch", seed=recipe.seed
            )
        stored = extract_listing(listing, encoder, ExtractConfig(
            pool=pool, trim=config.trim, seconds=recipe.seconds, fill=config.fill,
            seed=recipe.seed, limit=config.limit, workers=config.workers,
            features_dir=config.features_dir, quiet=config.quiet,
        ), readers)  # fmt: skip
    outcome = train(TrainConfig(
        stores=(Path(stored["store"]),), early_stop=config.early_stop, patience=config.patience,
        labels=recipe.labels, split=config.split, head=recipe.network,
        class_weights=config.class_weights, epochs=recipe.epochs, batch_size=recipe.batch_size,
        lr=recipe.lr, weight_decay=recipe.weight_decay, seed=recipe.seed, runs_dir=config.runs_dir,
        name=config.name, json=config.json, quiet=config.quiet,
    ))  # fmt: skip
    return Outcome(outcome.result, SOME_CLIPS_FAILED if stored["failed"] else outcome.status)
