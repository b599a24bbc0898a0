"""The options of `python -m ser_embed.finetune`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from ser_embed.audio import FillRule
from ser_embed.command import FEATURES_DIR, RUNS_DIR, Options
from ser_embed.errors import HeadError
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

__all__ = ["FinetuneConfig", "Freeze"]

Freeze = int | Literal["none", "all"]

# What a run's identity is made of, in the order of the first runs.
_IDENTITY = (
    "recipe", "encoder", "labels", "split", "freeze", "early_stop", "watch", "patience",
    "class_weights", "lr", "schedule", "warmup", "batch_size", "accumulate", "epochs",
    "weight_decay", "eval_steps", "precision", "dropout", "mask_time", "mask_features", "start",
    "trim", "seconds", "fill", "augment", "noise", "pitch", "stretch", "mask", "probability",
    "seed", "limit", "network",
)  # fmt: skip


@dataclass(frozen=True)
class FinetuneConfig(Options):
    """Fine-tune an encoder and a classifier end to end, by a recipe or by options.

    Options without a value take the recipe's.
    """

    groups: ClassVar[Mapping[str, str]] = {
        "root": "the corpus", "encoder": "the network", "lr": "training",
        "early_stop": "stopping", "trim": "clips", "seed": "output",
    }  # fmt: skip

    recipe: Literal["crema21", "ravdess8", "mlp4", "stats8"]
    """crema21: wav2vec2-base, 21 classes, 5 s; ravdess8: xlsr-53-english, eight classes; mlp4:
    wav2vec2-base under a multi-layer perceptron, four classes, 6 s; stats8: mini under the default
    head of stage 2, eight classes, 3 s."""
    root: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the corpus, in any nesting."""
    corpus: str = ""
    """ravdess, ravdess-song, tess, urdu, crema-d, emo-db, savee, nemo, or demo."""
    csv: Path | None = None
    """A CSV with the header path,emotion[,speaker,gender,intensity,split,start,end] instead."""
    labels: str | None = None
    """sentiment3, emotion4, emotion8, intensity21, own (the clips' words), or a mapping file."""
    split: str = "speaker"
    """random (the recipes' own), speaker, kfold, loso, loco, given, or folds:FILE."""
    limit: int = 0
    """Only so many clips, spread evenly over the corpus; 0 for all."""
    encoder: str | None = None
    """Encoder by name, hub id or folder; mini ships and needs no network."""
    freeze: Freeze = "none"
    """0: the convolutions stay as they are; N: and the N lowest transformer layers; all: the
    whole encoder, for mlp4 and stats8 through cached features; none: all is trained."""
    dropout: float | None = None
    """Dropout of mlp4's and stats8's layers."""
    mask_time: float | None = None
    """Proportion of the frames that are masked inside the encoder while it trains (SpecAugment).
    Default: the recipe's, or what the encoder's configuration says."""
    mask_features: float | None = None
    """Proportion of the features that are masked there."""
    start: Start | None = None
    """new weights of the classifier, or probed: trained first on the encoder as it is, which
    spares the encoder the first steps of a random head; for mlp4 and stats8."""
    lr: float | None = None
    """Highest learning rate."""
    schedule: Literal["linear", "cosine", "constant"] | None = None
    """How the learning rate falls."""
    warmup: float | None = None
    """Proportion of the steps over which the learning rate first rises from zero."""
    batch_size: int | None = None
    """Clips per batch."""
    accumulate: int | None = None
    """Batches whose gradients make one step."""
    epochs: int | None = None
    """Passes over the training clips."""
    weight_decay: float | None = None
    """Weight decay of AdamW."""
    class_weights: Literal["balanced", "none"] = "none"
    """Weights of the classes in the loss."""
    precision: Precision | None = None
    """Arithmetic of training: fp32, bf16, fp16; auto: half precision where the hardware has it."""
    early_stop: bool = False
    """Stop when validation says so and keep the best; without it the last weights are kept."""
    watch: Literal["loss", "uar"] = "loss"
    """What early stopping watches on the validation part."""
    patience: int = 5
    """Evaluations without improvement before stopping."""
    eval_steps: int | None = None
    """Steps between two evaluations, at which the state is saved too; 0: once an epoch."""
    trim: bool = False
    """Cut the silence before and after the speech first."""
    seconds: float | None = None
    """Clip length in seconds, first part kept; 0 for whole clips."""
    fill: FillRule = "none"
    """How shorter clips are filled: sample, repeat, zero, none."""
    augment: tuple[Disturbance | Literal["none"], ...] | None = None
    """Disturbances of training clips: noise, pitch, stretch, mask, or none."""
    workers: int = 0
    """Processes that read clips while it trains; 0 for none."""
    seed: int | None = None
    """Seed of the split, the new weights, the order and the disturbances."""
    features_dir: Path = FEATURES_DIR
    """Where cached features are kept, with --freeze all."""
    runs_dir: Path = RUNS_DIR
    """Where runs are written."""
    name: str | None = None
    """Name of the run. Default: made from the settings and the data."""

    def resolve(self) -> Recipe:
        """Return the recipe with the options' values in place of its own.

        Raises:
            HeadError: A value that can't be, naming the option.
        """
        given = asdict(self)
        if self.augment is not None:
            given["augment"] = tuple(kind for kind in self.augment if kind != "none")
        recipe = fill_in(RECIPES[self.recipe], given)
        check(recipe)
        for name, bound in {"patience": 1, "workers": 0}.items():
            if given[name] < bound:
                raise HeadError(f"--{name} {given[name]}: at least {bound}")
        return recipe

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        """Return every option that changes a weight; the recipe's values are the resolved ones."""
        values = {**asdict(Augmentation(recipe.augment)), **asdict(self), **asdict(recipe)}
        return {name: values[name] for name in _IDENTITY}
