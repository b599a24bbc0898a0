"""The options of what is scored: `evaluate`, `compare`, `crosscorpus`, `robustness`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ser_embed.command import FEATURES_DIR, RUNS_DIR, Options
from ser_embed.encoders import BackendName

__all__ = ["MODELS", "CompareConfig", "CrossCorpusConfig", "EvaluateConfig", "RobustnessConfig"]


@dataclass(frozen=True)
class EvaluateConfig(Options):
    """Report on a run: on its own test part, or on the stores named.

    For a fine-tuned run name the audio instead: of a corpus that it was trained on its own test
    part is scored, of another every clip.
    """

    groups: ClassVar[Mapping[str, str]] = {
        "audio": "clips", "out": "report", "against": "comparison",
    }  # fmt: skip

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    stores: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Stores to score instead of the run's own test part."""
    audio: Path | None = None
    """For a fine-tuned run: folder of a corpus."""
    corpus: str = ""
    """Which it is: ravdess, tess, ..., or demo."""
    csv: Path | None = None
    """A CSV with the header path,emotion[,speaker,gender,intensity,start,end] instead."""
    labels: str = ""
    """A mapping file from the clips' emotions to the run's classes, or sentiment3, emotion4,
    emotion8, intensity21, own. Default: the scheme that the run was trained with."""
    features_dir: Path = FEATURES_DIR
    """Where the run's own stores are looked for."""
    out: Path | None = None
    """Folder of the report. Default: evaluation-<corpora> in the run's folder."""
    html: bool = False
    """Write the report as one page too: page.html, with all its pictures inside."""
    roots: tuple[Path, ...] = ()
    """Folders with the audio that the page plays. Default: where the stores were extracted from."""
    sound: bool = True
    """Leave out the audio of the most confident errors, which are other people's voices."""
    against: Path | None = None
    """Folder of another run, or of an evaluation of one, to compare with."""


@dataclass(frozen=True)
class CrossCorpusConfig(Options):
    """Train on each corpus and test on every other one.

    Without files: the stores in --features-dir.
    """

    groups: ClassVar[Mapping[str, str]] = {
        "labels": "training", "features_dir": "folders",
    }  # fmt: skip

    stores: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Stores of two corpora or more."""
    labels: str = "sentiment3"
    """What labels are mapped to: sentiment3, emotion4, emotion8, intensity21, own, or a file."""
    split: Literal["kfold", "loso", "speaker"] = "kfold"
    """How a corpus is tested within itself; speakers are never on both sides."""
    head: str | None = None
    """conv, temporal, mlp, stats or layers. Default: what suits the features."""
    epochs: int = 60
    """At most so many; each head stops early."""
    ensemble: int = 1
    """Heads that are trained, each validated on other training speakers, and averaged."""
    seed: int = 0
    """Seed of the split, the weights, the order and dropout."""
    features_dir: Path = FEATURES_DIR
    """Where stores are looked for."""
    runs_dir: Path = RUNS_DIR
    """Where the table and its runs are written."""
    out: Path | None = None
    """Folder of the table and its runs. Default: cross-corpus-<labels> in --runs-dir."""


@dataclass(frozen=True)
class RobustnessConfig(Options):
    """Score a run's test clips again under noise, a telephone band, codecs and rooms."""

    groups: ClassVar[Mapping[str, str]] = {
        "conditions": "clips and conditions", "features_dir": "folders and engine",
    }  # fmt: skip

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    roots: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders with the corpora's audio. Default: where the stores were extracted from."""
    conditions: tuple[str, ...] = ()
    """noise20, noise10, noise0, telephone, mp3, reverberation, quiet, loud, first1, first2; clean
    is always among them. Default: all."""
    limit: int = 0
    """Take so many of the test clips, spread evenly over corpora, speakers and classes; 0: all."""
    features_dir: Path = FEATURES_DIR
    """Where the run's own stores are, which say where the audio is."""
    backend: BackendName = "torch"
    """Engine of the encoder."""
    out: Path | None = None
    """Folder of the table and of the answers. Default: robustness in the run's folder."""


MODELS = (
    "base-cnn", "random-mini", "random-base", "mini:temporal", "mini:layers", "mini:mlp", "mini",
    "egemaps-svm",
)  # fmt: skip
"""What is compared unless models are named; without a GPU `mini:finetuned` takes an hour and
`mini:conv` several, so they are there by name."""


@dataclass(frozen=True)
class CompareConfig(Options):
    """Train models on one corpus and the same split, and set them side by side.

    A model is base-cnn (a CNN on log-mel spectrograms), egemaps-svm (openSMILE and an SVM),
    ENCODER or ENCODER:HEAD (frozen), ENCODER:finetuned, or the folder of a finished run.
    """

    groups: ClassVar[Mapping[str, str]] = {
        "root": "the corpus", "models": "models", "features_dir": "folders and engine",
    }  # fmt: skip

    root: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the corpus, in any nesting."""
    corpus: str = ""
    """ravdess, ravdess-song, tess, urdu, crema-d, emo-db, savee, nemo, or demo."""
    csv: Path | None = None
    """A CSV with the header path,emotion[,speaker,gender,intensity,split,start,end] instead."""
    limit: int = 0
    """Only so many clips, spread evenly over the corpus; 0 for all."""
    models: tuple[str, ...] = MODELS
    """Which, in the table's order. Without a GPU mini:finetuned takes one hour, mini:conv more."""
    labels: str = "sentiment3"
    """sentiment3, emotion4, emotion8, intensity21, own (the clips' words), or a mapping file."""
    split: str = "speaker"
    """random, speaker, kfold, loso, given, or folds:FILE."""
    epochs: int | None = None
    """At most so many. Default: 60 of a head, 100 of base-cnn, 10 of fine-tuning."""
    ensemble: int = 1
    """Heads that are averaged on each frozen encoder."""
    seed: int = 0
    """Seed of the split, the weights, the order and dropout."""
    retime: bool = False
    """Measure the speed of models anew whose other figures are kept."""
    features_dir: Path = FEATURES_DIR
    """Where features are cached."""
    runs_dir: Path = RUNS_DIR / "comparison"
    """Where the models' runs are written."""
    out: Path = Path("artifacts/comparison")
    """Folder of the table and the plot."""
    backend: BackendName = "auto"
    """Engine of frozen encoders."""
    workers: int = 0
    """Processes that read clips."""
