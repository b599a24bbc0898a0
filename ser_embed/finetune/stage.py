"""Fine-tune an encoder and a classifier end to end, by a published recipe or your own values.

`python -m ser_embed.finetune --recipe ravdess8 ROOT --corpus ravdess` writes
`artifacts/runs/<name>/` as `train` does: network and card, history, report, plots, and the clips
that were misclassified. An interrupted run goes on by the same command.
"""

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import tyro

from ser_embed.audio import FillRule
from ser_embed.command import (
    DONE,
    FEATURES_DIR,
    RUNS_DIR,
    SOME_CLIPS_FAILED,
    Options,
    Outcome,
    command_line,
    hide_bar,
    run_command,
)
from ser_embed.corpora import LabelScheme, Listing, listing_of
from ser_embed.encoders import Pool, load_encoder
from ser_embed.errors import EncoderError, HeadError
from ser_embed.extract import LISTED_FAULTS, ExtractConfig, Readers, extract_listing, spread
from ser_embed.finetune.network import Freeze, Network, build_network, freeze, n_layers
from ser_embed.finetune.recipes import (
    RECIPES,
    Augmentation,
    Disturbance,
    Precision,
    Recipe,
    Start,
    check,
    fill_in,
)
from ser_embed.finetune.recordings import Recordings, read_recordings
from ser_embed.finetune.trainer import Stopping, available_precision
from ser_embed.finetune.tuning import Tuning, tune_fold
from ser_embed.heads import read_card
from ser_embed.reports import write_json
from ser_embed.splits import Split, make_splits
from ser_embed.store import FeatureSettings
from ser_embed.train import (
    TrainConfig,
    finished_fold,
    finished_result,
    fold_folder,
    identity_of,
    make_card,
    report_of,
    run_name,
    timed,
    train,
    write_misclassified,
)

__all__ = ["FinetuneConfig", "finetune", "main"]

log = logging.getLogger(__name__)

PROG = "python -m ser_embed.finetune"


@dataclass(frozen=True)
class FinetuneConfig(Options):
    """Fine-tune an encoder and a classifier end to end, by a recipe or by options.

    Options without a value here take the recipe's.
    """

    recipe: Literal["crema21", "ravdess8", "mlp4", "stats8"]
    """crema21: wav2vec2-base, 21 classes, 5 s; ravdess8: xlsr-53-english, eight classes; mlp4:
    wav2vec2-base under a multi-layer perceptron, four classes, 6 s; stats8: mini under the default
    head of stage 2, eight classes, 3 s."""
    root: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the corpus, in any nesting."""
    corpus: str = ""
    """ravdess, ravdess-song, tess, urdu, crema-d, emo-db, savee, nemo, or demo."""
    csv: Path | None = None
    """A CSV with the header path,emotion[,speaker,gender,intensity,split] instead."""
    encoder: str | None = None
    """Encoder by name, hub id or folder; mini ships and needs no network."""
    labels: str | None = None
    """sentiment3, emotion4, emotion8, intensity21, or a mapping file."""
    split: str = "speaker"
    """random (the recipes' own), speaker, kfold, loso, loco, given, or folds:FILE."""
    freeze: Freeze = "none"
    """0: the convolutions stay as they are; N: and the N lowest transformer layers; all: the
    whole encoder, for mlp4 and stats8 through cached features; none."""
    early_stop: bool = False
    """Stop when validation says so and keep the best; without it the last weights are kept."""
    watch: Literal["loss", "uar"] = "loss"
    """What early stopping watches on the validation part."""
    patience: int = 5
    """Evaluations without improvement before stopping."""
    class_weights: Literal["balanced", "none"] = "none"
    """Weights of the classes in the loss."""
    lr: float | None = None
    """Highest learning rate."""
    schedule: Literal["linear", "cosine", "constant"] | None = None
    """How it falls."""
    warmup: float | None = None
    """Share of the steps over which it first rises from zero."""
    batch_size: int | None = None
    """Clips per batch."""
    accumulate: int | None = None
    """Batches whose gradients make one step."""
    epochs: int | None = None
    """Passes over the training clips."""
    weight_decay: float | None = None
    """Weight decay of AdamW."""
    eval_steps: int | None = None
    """Steps between two evaluations, at which the state is saved too; 0: once an epoch."""
    precision: Precision | None = None
    """Arithmetic of training: fp32, bf16, fp16; auto: half precision where the hardware has it."""
    dropout: float | None = None
    """Dropout of mlp4's and stats8's layers."""
    mask_time: float | None = None
    """Share of the frames that are masked inside the encoder while it trains (SpecAugment).
    Default: the recipe's, or what the encoder's configuration says."""
    mask_features: float | None = None
    """Share of the features that are masked there."""
    start: Start | None = None
    """new weights of the classifier, or probed: trained first on the encoder as it is, which
    spares the encoder the steps that would undo it; for mlp4 and stats8."""
    trim: bool = False
    """Cut the silence before and after the speech first."""
    seconds: float | None = None
    """Clip length in seconds, first part kept; 0 for whole clips."""
    fill: FillRule | None = None
    """How shorter clips are filled: sample, repeat, zero, none. Default: none where the encoder
    masks what is missing, else zero."""
    augment: tuple[Disturbance | Literal["none"], ...] | None = None
    """Disturbances of training clips: noise, pitch, stretch, mask, or none."""
    noise: tuple[float, float] = Augmentation.noise
    """Lowest and highest amplitude of the noise."""
    pitch: float = Augmentation.pitch
    """Semitones up or down, at most."""
    stretch: tuple[float, float] = Augmentation.stretch
    """Slowest and fastest rate."""
    mask: float = Augmentation.mask
    """Largest share of a clip that is silenced."""
    probability: float = Augmentation.probability
    """Of each disturbance."""
    seed: int | None = None
    """Seed of the split, the new weights, the order and the disturbances."""
    limit: int = 0
    """Only so many clips, spread evenly over the corpus; 0 for all."""
    workers: int = 0
    """Processes that read clips beside training."""
    features_dir: Path = FEATURES_DIR
    """Where cached features are kept, with --freeze all."""
    runs_dir: Path = RUNS_DIR
    """Where runs are written."""
    name: str | None = None
    """Name of the run. Default: made from the settings and the data."""


def _resolve(config: FinetuneConfig) -> Recipe:
    """Return the recipe with the options' values in place of its own."""
    given = asdict(config)
    if config.augment is not None:
        given["augment"] = tuple(kind for kind in config.augment if kind != "none")
    recipe = fill_in(RECIPES[config.recipe], given)
    check(recipe)
    for name, bound in {"patience": 1, "workers": 0}.items():
        if given[name] < bound:
            raise HeadError(f"--{name} {given[name]}: at least {bound}")
    return fill_in(recipe, {"precision": available_precision(recipe.precision)})


def _settings(config: FinetuneConfig, recipe: Recipe, network: Network) -> FeatureSettings:
    """Return what the waveforms depend on, in the form that heads' cards have it."""
    fill = config.fill or ("none" if network.masks else "zero")
    if not network.masks and (fill == "none" or recipe.seconds == 0):
        raise EncoderError(
            f"{recipe.encoder}: has group norm, so clips of different lengths can't share a batch: "
            "give --seconds and a --fill other than none"
        )
    everything = network.kind == "stats"
    return FeatureSettings(
        encoder=recipe.encoder, weights=network.weights,
        layer="all" if everything else n_layers(network), pool="stats" if everything else "mean",
        norm="none", trim=config.trim, seconds=recipe.seconds, fill=fill, dtype="float32",
        precision="fp32", seed=recipe.seed,
    )  # fmt: skip


# --- the run ---------------------------------------------------------------------------------


def finetune(config: FinetuneConfig) -> Outcome:
    """Fine-tune as the options say, and write and print the report.

    Raises:
        SerEmbedError: No corpus, encoder or usable clip; labels or a split that the clips don't
            allow; a loss that isn't finite, or too little memory, with advice.
    """
    recipe = _resolve(config)
    listing = _listing(config)
    if recipe.network != "classification" and config.freeze == "all":
        return _through_the_cache(config, recipe, listing)
    scheme = LabelScheme.load(recipe.labels)
    network = build_network(recipe.network, recipe.encoder, scheme.classes, recipe.dropout, 0)
    settings = _settings(config, recipe, network)
    freeze(network, config.freeze)  # so that a wrong number is told before the clips are read
    clips = read_recordings(
        listing, scheme, settings, network.trained, config.workers, hide_bar(config)
    )
    del network
    splits = make_splits(config.split, clips.table, clips.classes, recipe.seed)
    options = {**asdict(config), **asdict(recipe)}
    identity = identity_of(options, clips, config.recipe, splits)
    folder = config.runs_dir / (config.name or run_name(options, clips, config.recipe, identity))
    _announce(clips, splits, config, recipe)
    result = finished_result(folder, identity)
    if result is None:
        built = {"name": recipe.network, "recipe": config.recipe}
        card = make_card(options, clips, built, scheme, identity, command_line(PROG, config))
        result = _run(config, recipe, clips, splits, folder, card)
    else:
        log.info("%s: fine-tuned before with the same data and options; nothing to do", folder)
        (folder / "report.json").touch()  # it is the newest run again
        if not config.json:
            print(f"report: {folder / 'report.md'}")
    return Outcome(result, SOME_CLIPS_FAILED if clips.faults else DONE)


def _listing(config: FinetuneConfig) -> Listing:
    listing = listing_of(config.root, config.corpus, config.csv)
    kept = spread(listing.utterances, config.limit)
    return Listing(listing.corpus, listing.root, kept, listing.faults)


def _announce(
    clips: Recordings, splits: list[Split], config: FinetuneConfig, recipe: Recipe
) -> None:
    counts = clips.table["label"].value_counts()
    told = ", ".join(f"{name} {counts.get(i, 0)}" for i, name in enumerate(clips.classes))
    log.info("%d clips (%s), recipe %s, encoder %s, %s", len(clips.table), told, config.recipe,
             recipe.encoder, recipe.precision)  # fmt: skip
    if clips.left_out:
        log.info("left out by the label scheme: %s",
                 ", ".join(f"{k} {v}" for k, v in clips.left_out.items()))  # fmt: skip
    for path, reason in clips.faults[:LISTED_FAULTS]:
        print(f"failed: {path}: {reason}", file=sys.stderr)
    if len(clips.faults) > LISTED_FAULTS:
        print(f"... and {len(clips.faults) - LISTED_FAULTS} more", file=sys.stderr)
    if len(splits) == 1:
        s = splits[0]
        log.info("train %d, validation %d, test %d", len(s.train), len(s.val), len(s.test))


def _tuning(config: FinetuneConfig, recipe: Recipe) -> Tuning:
    return Tuning(
        recipe=recipe,
        augmentation=Augmentation(
            recipe.augment, config.noise, config.pitch, config.stretch, config.mask,
            config.probability,
        ),
        freeze=config.freeze,
        balanced=config.class_weights == "balanced",
        stopping=Stopping(config.watch, config.patience) if config.early_stop else None,
        workers=config.workers,
        hide=hide_bar(config),
    )  # fmt: skip


def _run(
    config: FinetuneConfig, recipe: Recipe, clips: Recordings, splits: list[Split], folder: Path,
    card: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "started.json", {"identity": card["identity"]})
    started = time.perf_counter()
    tuning, folds = _tuning(config, recipe), []
    for split in splits:
        place = fold_folder(folder, split, len(splits))
        if (place / "card.json").is_file():  # done before the run was stopped
            done = read_card(place)["training"]["epochs"]
            folds.append(finished_fold(clips, split, place, done))
        else:
            with timed(place):
                folds.append(tune_fold(clips, split, tuning, place, dict(card)))
    corpora = ", ".join(sorted(clips.table["corpus"].unique()))
    title = (
        f"{Path(recipe.labels).stem} on {corpora}, split {config.split}, "
        f"{recipe.encoder} fine-tuned"
    )
    report = report_of(folds, clips, title, recipe.seed)
    predictions = pd.concat([fold.predictions for fold in folds], ignore_index=True)
    report.save(folder, predictions)
    wrong = write_misclassified(folder, predictions, clips.root)
    epochs: Any = folds[0].epochs if len(folds) == 1 else [fold.epochs for fold in folds]
    result = {"run": str(folder), "epochs": epochs, "test": report.scores}
    write_json(folder / "result.json", {"identity": card["identity"], **result})
    log.info("fine-tuned in %.0f s -> %s", time.perf_counter() - started, folder / "report.md")
    if not config.json:
        report.show(folder / "report.md")
        print(f"misclassified: {wrong} clips, {folder / 'misclassified.csv'}")
    return result


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


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.finetune`."""
    return run_command(finetune, FinetuneConfig, PROG, argv)


if __name__ == "__main__":
    raise SystemExit(main())
