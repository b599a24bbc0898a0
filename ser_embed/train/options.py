"""The options of `python -m ser_embed.train`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from ser_embed.command import FEATURES_DIR, RUNS_DIR, Options
from ser_embed.errors import HeadError
from ser_embed.heads import HEADS

__all__ = ["ClassWeights", "SecondTaskName", "TrainConfig"]

ClassWeights = Literal["balanced", "paper", "none"]
SecondTaskName = Literal["none", "gender"]

# What a run's identity is made of, in the order of the first runs; what is gone has its last value.
_IDENTITY = (
    "early_stop", "stop_rule", "patience", "labels", "split", "head", "class_weights", "epochs",
    "batch_size", "lr", "optimizer", "mixup", "mask", "second_task", "second_weight", "ensemble",
    "search", "confidence", "weight_decay", "seed",
)  # fmt: skip
_GONE = {"mixup": 0.0, "mask": 0.0}


@dataclass(frozen=True)
class TrainConfig(Options):
    """Train a head on cached features; without files, on every store in --features-dir."""

    groups: ClassVar[Mapping[str, str]] = {
        "labels": "task",
        "epochs": "training",
        "search": "small gains\n"
                  "On RAVDESS (EmoBox's six folds, encoder mini, one head) the test UAR is 56.9 "
                  "without any of these; 57.9 with --search 12, in 33 times the time; 58.9 with "
                  "--unlabelled; and with five heads 59.8 with --second-task gender and 59.4 "
                  "without. All of these lie within each other's intervals.",
        "seed": "output",
    }  # fmt: skip

    stores: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Stores to train on."""
    features_dir: Path = FEATURES_DIR
    """Where stores are looked for."""
    labels: str = "sentiment3"
    """sentiment3, emotion4, emotion8, intensity21, own (the clips' words), or a mapping file."""
    split: str = "speaker"
    """random, speaker, kfold, loso, loco, given (the CSV's split column), or folds:FILE."""
    head: str | None = None
    """conv, temporal, mlp, stats, layers or cnn. Default: what suits the features."""
    class_weights: ClassWeights = "balanced"
    """Weights of the classes in the loss: balanced is the inverse of their counts; paper is
    positive 1.99, neutral 3, negative 1."""
    ensemble: int = 1
    """Heads that are trained, each validated on other training speakers, and averaged."""
    epochs: int = 60
    """At most so many."""
    early_stop: bool = False
    """Stop when validation says so; without it all epochs are trained and the last is kept."""
    stop_rule: Literal["patience", "paper"] = "patience"
    """patience watches validation UAR and keeps the best epoch; paper stops when the validation
    loss exceeds the training loss."""
    patience: int = 15
    """Epochs without improvement before stopping."""
    batch_size: int = 32
    """Clips per batch."""
    lr: float | None = None
    """Learning rate. Default: what suits the head (conv: the paper's 1e-4)."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """The paper's is adam."""
    weight_decay: float = 0.01
    """Weight decay; the paper's code has 1e-4."""
    search: int = 0
    """Settings of the head to try first, judged on validation speakers; 0 for none."""
    unlabelled: tuple[Path, ...] = ()
    """Stores that a trained head labels where it is confident, to be trained anew with them; their
    own labels are not looked at, and clips of test speakers are left out."""
    confidence: float = 0.9
    """Least confidence with which an unlabelled clip is labelled."""
    second_task: SecondTaskName = "none"
    """A second task that the head learns: the speakers' gender."""
    second_weight: float = 0.1
    """Weight of the second task's loss."""
    seed: int = 0
    """Seed of the split, the weights, the order and dropout."""
    runs_dir: Path = RUNS_DIR
    """Where runs are written."""
    name: str | None = None
    """Name of the run. Default: made from the settings and the data."""

    def check(self) -> None:
        """Refuse values that can't be.

        Raises:
            HeadError: Naming the option.
        """
        if self.head is not None and self.head not in HEADS:
            raise HeadError(f"no head {self.head!r}; there are {', '.join(HEADS)}")
        least = {"epochs": 1, "batch_size": 1, "patience": 1, "ensemble": 1, "weight_decay": 0,
                 "search": 0, "second_weight": 0}  # fmt: skip
        for name, bound in least.items():
            if (value := getattr(self, name)) < bound:
                raise HeadError(f"--{name.replace('_', '-')} {value}: at least {bound}")
        if self.lr is not None and self.lr <= 0:
            raise HeadError(f"--lr {self.lr}: must be greater than 0")
        if not 0 < self.confidence <= 1:
            raise HeadError(f"--confidence {self.confidence}: above 0, up to 1")
        if not 0 <= self.seed < 2**32:
            raise HeadError(f"--seed {self.seed}: 0 to 4294967295")
        if self.batch_size < 2:
            raise HeadError("--batch-size 1: batch norm needs at least 2 clips")

    @property
    def identity(self) -> dict[str, Any]:
        """Every option that changes a weight."""
        values = {**asdict(self), **_GONE}
        return {name: values[name] for name in _IDENTITY}
