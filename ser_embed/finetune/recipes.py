"""Published settings of fine-tuning, as data: each is a starting point whose values are options.

- `crema21`: 21 classes of emotion and intensity, wav2vec2-base, on CREMA-D;
- `ravdess8`: the model card of wav2vec2-lg-xlsr-en-speech-emotion-recognition, on RAVDESS. Its
  Adam without weight decay is AdamW with a decay of zero;
- `mlp4`: a comparison of encoders under one head, four classes, clips of 6 s; these are the
  values of its wav2vec2-base;
- `stats8`: this project's own, stage 2's default head on `mini`, both trained.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from ser_embed.errors import CorpusError, HeadError

__all__ = [
    "RECIPES", "Augmentation", "Disturbance", "NetworkKind", "Precision", "Recipe", "Start",
    "check", "fill_in",
]  # fmt: skip

NetworkKind = Literal["classification", "mlp", "stats"]
Disturbance = Literal["noise", "pitch", "stretch", "mask"]
Start = Literal["new", "probed"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Augmentation:
    """How training clips are disturbed; nothing else ever is.

    Attributes:
        kinds: Which of the disturbances, each drawn by itself.
        noise: Lowest and highest amplitude of Gaussian noise.
        pitch: Semitones up or down, at most.
        stretch: Slowest and fastest rate of speech, without a change of pitch.
        mask: Largest share of the clip that is silenced.
        probability: Of each disturbance.
    """

    kinds: tuple[Disturbance, ...]
    noise: tuple[float, float] = (0.001, 0.015)
    pitch: float = 4.0
    stretch: tuple[float, float] = (0.8, 1.25)
    mask: float = 0.2
    probability: float = 0.5


@dataclass(frozen=True)
class Recipe:
    """Settings of a fine-tuning.

    Attributes:
        encoder: Key of `ENCODERS`, hub id or folder.
        network: What stands on the encoder, see `endtoend`.
        labels: Label scheme.
        seconds: Clip length.
        lr: Learning rate.
        batch_size: Clips a batch.
        accumulate: Batches whose gradients are summed to one step.
        epochs: Passes over the training clips.
        weight_decay: AdamW's.
        schedule: How the learning rate falls.
        warmup: Share of the steps over which it first rises from zero.
        eval_steps: Steps between two evaluations; 0 for once an epoch.
        precision: Arithmetic of training; auto is half precision where the hardware has it.
        dropout: Of the layers of the networks `mlp` and `stats`.
        mask_time: Share of the frames that are masked before the transformer, in training;
            None for what the encoder's configuration says.
        mask_features: Share of the features, likewise.
        start: What the classifier starts from: `new` weights, or `probed`, which were first
            trained on the encoder as it is (Kumar et al. 2022); not for `classification`.
        augment: Disturbances of training clips.
        seed: Of everything random.
    """

    encoder: str
    network: NetworkKind
    labels: str
    seconds: float
    lr: float
    batch_size: int
    accumulate: int
    epochs: int
    weight_decay: float
    schedule: Literal["linear", "cosine", "constant"]
    warmup: float
    eval_steps: int
    precision: Precision
    dropout: float
    mask_time: float | None
    mask_features: float | None
    start: Start
    augment: tuple[Disturbance, ...]
    seed: int


RECIPES: dict[str, Recipe] = {
    "crema21": Recipe(
        encoder="wav2vec2-base", network="classification", labels="intensity21", seconds=5.0,
        lr=1e-5, batch_size=4, accumulate=1, epochs=15, weight_decay=0.01, schedule="linear",
        warmup=0.0, eval_steps=500, precision="fp32", dropout=0.0, mask_time=None,
        mask_features=None, start="new", augment=("noise", "pitch", "stretch"), seed=0,
    ),
    "ravdess8": Recipe(
        encoder="xlsr-53-english", network="classification", labels="emotion8", seconds=5.0,
        lr=1e-4, batch_size=4, accumulate=2, epochs=3, weight_decay=0.0, schedule="linear",
        warmup=0.0, eval_steps=30, precision="auto", dropout=0.0, mask_time=None,
        mask_features=None, start="new", augment=(), seed=42,
    ),
    "mlp4": Recipe(
        encoder="wav2vec2-base", network="mlp", labels="emotion4", seconds=6.0,
        lr=1e-4, batch_size=32, accumulate=1, epochs=30, weight_decay=0.01, schedule="constant",
        warmup=0.0, eval_steps=0, precision="fp32", dropout=0.3, mask_time=None,
        mask_features=None, start="new", augment=("noise",), seed=0,
    ),
    "stats8": Recipe(
        encoder="mini", network="stats", labels="emotion8", seconds=3.0,
        lr=2e-4, batch_size=16, accumulate=1, epochs=6, weight_decay=0.01, schedule="linear",
        warmup=0.1, eval_steps=0, precision="auto", dropout=0.5, mask_time=0.1,
        mask_features=0.1, start="probed", augment=(), seed=0,
    ),
}  # fmt: skip
"""The recipes by name."""


def fill_in(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """Return the recipe with the values that are given, and not None, in place of its own."""
    known = {field.name for field in fields(Recipe)}
    return replace(recipe, **{k: v for k, v in given.items() if k in known and v is not None})


def check(recipe: Recipe) -> None:
    """Refuse values that can't be, by the names of their options.

    Raises:
        HeadError: A value is out of its bounds, or two don't go together.
        CorpusError: The clip length is.
    """
    values = asdict(recipe)
    for name, bound in _LEAST.items():
        if values[name] < bound:
            raise HeadError(f"{_option(name)} {values[name]}: at least {bound}")
    if not recipe.lr > 0:
        raise HeadError(f"--lr {recipe.lr}: must be greater than 0")
    if recipe.dropout >= 1:
        raise HeadError(f"--dropout {recipe.dropout}: less than 1")
    for name in ("mask_time", "mask_features", "warmup"):
        if not 0 <= (values[name] or 0) < 1:
            raise HeadError(f"{_option(name)} {values[name]}: 0 or more, less than 1")
    if recipe.seconds != 0 and not recipe.seconds >= 0.025:
        raise CorpusError(f"--seconds {recipe.seconds}: give 0 for whole clips, or 0.025 and more")
    if recipe.network != "classification" and recipe.batch_size < 2:
        raise HeadError("--batch-size 1: batch norm needs at least 2 clips")
    if recipe.network == "classification" and recipe.start == "probed":
        raise HeadError("--start probed: for mlp4 and stats8, not for transformers' own classifier")


_LEAST = {"batch_size": 1, "accumulate": 1, "epochs": 1, "eval_steps": 0, "weight_decay": 0,
          "dropout": 0, "seed": 0}  # fmt: skip


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
