"""The models that `compare` sets side by side: what each is, how it is trained and timed.

One is without a network: openSMILE's eGeMAPS (Eyben et al. 2016), 88 numbers a clip, standardised
by the training clips, under a support vector machine. The kernel is RBF, C is 1 and classes are
weighted by the inverse of their counts, so nothing is chosen.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ser_embed.audio import CLIP_SECONDS, SAMPLE_RATE, AudioFile, Clip
from ser_embed.corpora import LabelScheme, Listing
from ser_embed.encoders import BackendName
from ser_embed.errors import AudioError, HeadError, MissingExtra
from ser_embed.extract import ExtractConfig, extract
from ser_embed.finetune import FinetuneConfig, Recordings, finetune, is_network, load_network
from ser_embed.heads import HEADS, read_card
from ser_embed.predict import Classifier
from ser_embed.progress import track
from ser_embed.splits import make_splits
from ser_embed.store import FeatureSettings
from ser_embed.train import Experiment, TrainConfig, train

__all__ = ["Contestant", "Entry", "Terms", "contestant_of", "enter"]

FINETUNED = "finetuned"
TIMED_CLIPS = 16
ROUNDS = 3

# What each head is trained on, as options of extraction.
_FEATURES: Mapping[str, Mapping[str, Any]] = {
    "conv": {}, "temporal": {}, "cnn": {}, "mlp": {"pool": "mean"},
    "layers": {"layer": "all", "pool": "mean"}, "stats": {"layer": "all", "pool": "stats"},
}  # fmt: skip
# The baseline's own: what a comparison of wav2vec2 models with a plain CNN printed of it.
_BASE_CNN: Mapping[str, Any] = {
    "optimizer": "adam", "batch_size": 128, "epochs": 100, "weight_decay": 1e-5,
}  # fmt: skip
_TUNING: Mapping[str, Any] = {
    "recipe": "stats8", "freeze": 0, "early_stop": True, "watch": "uar", "patience": 10,
    "trim": True,
}  # fmt: skip


@dataclass(frozen=True)
class Contestant:
    """A model of the comparison.

    Attributes:
        name: As it was asked for.
        kind: `frozen` encoder and head, `finetuned` encoder, `svm`, or a finished `run`.
        encoder: Encoder by name, hub id or folder; of a run its folder.
        head: Of a frozen encoder.
        training: Options of `train` or `finetune` that aren't at their defaults.
    """

    name: str
    kind: Literal["frozen", "finetuned", "svm", "run"]
    encoder: str = ""
    head: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """What all models have in common.

    Attributes:
        listing: The corpus.
        source: `root`, `corpus` and `csv`, as the commands take them.
        labels: Label scheme.
        split: Rule of the split.
        epochs: At most, of every model; None for what each of them is known by.
        ensemble: Heads that are averaged on a frozen encoder.
        seed: Of everything random.
        limit: Clips to take; 0 for all.
        backend: Engine of frozen encoders.
        workers: Processes that read clips.
        features_dir: Where features are cached.
        runs_dir: Where runs are written.
        quiet: Whether to hide progress.
    """

    listing: Listing
    source: Mapping[str, Any]
    labels: str
    split: str
    epochs: int | None
    ensemble: int
    seed: int
    limit: int
    backend: BackendName
    workers: int
    features_dir: Path
    runs_dir: Path
    quiet: bool


@dataclass(frozen=True)
class Entry:
    """A trained contestant.

    Attributes:
        run: Its folder.
        encoder_parameters: Of the encoder, as far as it is run.
        head_parameters: Of what stands on it; of one fold.
        clips_per_second: Classified one after the other, from samples in memory.
    """

    run: Path
    encoder_parameters: int
    head_parameters: int
    clips_per_second: float


def contestant_of(name: str) -> Contestant:
    """Return the model that a name stands for.

    Args:
        name: `base-cnn`, `egemaps-svm`, ENCODER, ENCODER:HEAD, ENCODER:finetuned, or the folder
            of a finished run.

    Raises:
        HeadError: No such head.
    """
    if name == "base-cnn":
        return Contestant(name, "frozen", "log-mel", "cnn", _BASE_CNN)
    if name == "egemaps-svm":
        return Contestant(name, "svm")
    if (Path(name) / "report.json").is_file():
        return Contestant(name, "run", name)
    encoder, _, head = name.partition(":")
    if head == FINETUNED:
        return Contestant(name, "finetuned", encoder, training=_TUNING)
    head = head or "stats"
    if head not in HEADS:
        raise HeadError(
            f"--models {name}: no head {head!r}; there are {', '.join(HEADS)} and {FINETUNED}"
        )
    return Contestant(name, "frozen", encoder, head)


def enter(contestant: Contestant, terms: Terms) -> Entry:
    """Train a contestant, or go on with it, and time it.

    Raises:
        SerEmbedError: Whatever extraction, training or fine-tuning raise.
    """
    if contestant.kind == "svm":
        return _enter_svm(terms)
    if contestant.kind == "run":
        run = Path(contestant.encoder)
    else:
        run = (_train_head if contestant.kind == "frozen" else _finetune)(contestant, terms)
    folder = Classifier.head_folders(run)[0]
    card = read_card(folder)
    classifier = Classifier.load(folder, backend=terms.backend)
    speed = _speed(classifier.classify, terms)
    if is_network(card):
        return Entry(run, *load_network(folder)[0].parameters, speed)
    network: Any = getattr(classifier.encoder, "backend", None)
    encoder = sum(parameter.numel() for parameter in network.network.parameters())
    return Entry(run, encoder, card["head"]["parameters"], speed)


def _training(contestant: Contestant, terms: Terms) -> dict[str, Any]:
    bound = {} if terms.epochs is None else {"epochs": terms.epochs}
    return {**contestant.training, **bound}


def _train_head(contestant: Contestant, terms: Terms) -> Path:
    stored = extract(ExtractConfig(
        **terms.source, encoder=contestant.encoder, **_FEATURES[contestant.head],
        backend=terms.backend, workers=terms.workers, limit=terms.limit, seed=terms.seed,
        features_dir=terms.features_dir, json=True, quiet=terms.quiet,
    ))  # fmt: skip
    return Path(train(TrainConfig(
        stores=(Path(stored.result["store"]),), early_stop=True, labels=terms.labels,
        split=terms.split, head=contestant.head, ensemble=terms.ensemble, seed=terms.seed,
        runs_dir=terms.runs_dir, json=True, quiet=terms.quiet, **_training(contestant, terms),
    )).result["run"])  # fmt: skip


def _finetune(contestant: Contestant, terms: Terms) -> Path:
    return Path(finetune(FinetuneConfig(
        **terms.source, encoder=contestant.encoder, labels=terms.labels, split=terms.split,
        seed=terms.seed, limit=terms.limit, workers=terms.workers, runs_dir=terms.runs_dir,
        json=True, quiet=terms.quiet, **_training(contestant, terms),
    )).result["run"])  # fmt: skip


# --- openSMILE and a support vector machine --------------------------------------------------


def _enter_svm(terms: Terms) -> Entry:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    functionals, version = _functionals()
    settings = FeatureSettings(
        encoder="eGeMAPSv02", weights=hashlib.sha256(f"opensmile {version}".encode()).hexdigest(),
        layer=0, pool="mean", norm="none", trim=True, seconds=CLIP_SECONDS, fill="none",
        dtype="float32", precision="fp32", seed=terms.seed,
    )  # fmt: skip
    scheme = LabelScheme.load(terms.labels).fit(u.emotion for u in terms.listing.utterances)
    clips = Recordings.read(terms.listing, scheme, settings, True, terms.workers, terms.quiet)
    splits = make_splits(terms.split, clips.table, clips.classes, terms.seed)
    features = _described(clips, functionals, terms)
    machine = make_pipeline(StandardScaler(), SVC(C=1.0, kernel="rbf", class_weight="balanced"))
    experiment = Experiment(
        clips, splits, "svm", {"labels": terms.labels, "split": terms.split, "seed": terms.seed},
        f"eGeMAPSv02 under a support vector machine, split {terms.split}", terms.runs_dir,
    )  # fmt: skip
    experiment = replace(experiment, name=f"egemaps-svm-{experiment.identity[:6]}")
    experiment.run(machine, features)
    # Timed and counted is the first split's.
    seen = np.concatenate([splits[0].train, splits[0].val])
    machine.fit(features[seen], clips.labels[seen])
    svc = machine[-1]
    parameters = int(svc.support_vectors_.size + svc.dual_coef_.size + len(svc.intercept_))

    def classify(samples: np.ndarray) -> Any:
        clip = Clip.of(samples, CLIP_SECONDS, trim=True).samples
        return machine.decision_function(functionals(clip)[None])

    return Entry(experiment.folder, 0, parameters, _speed(classify, terms))


def _functionals() -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Return a function from a waveform (n_samples,) at 16 kHz to its eGeMAPS, float64 (88,), and
    openSMILE's version.

    Raises:
        MissingExtra: opensmile isn't installed.
    """
    try:
        import opensmile
    except ImportError as error:
        raise MissingExtra("opensmile", "opensmile") from error
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    return lambda w: smile(w, SAMPLE_RATE).reshape(-1).astype(np.float64), opensmile.__version__


def _described(
    clips: Recordings, functionals: Callable[[np.ndarray], np.ndarray], terms: Terms
) -> np.ndarray:
    """Return the functionals (N, 88) of all clips, kept for the next time."""
    from safetensors.numpy import load_file, save_file

    kept = terms.runs_dir / f"functionals-{clips.digest[:12]}.safetensors"
    if kept.is_file():
        return load_file(kept)["functionals"]
    rows = track(range(len(clips.table)), "openSMILE", "clip", quiet=terms.quiet)
    found = np.stack([functionals(clips.waveform(row)) for row in rows])
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_file({"functionals": found}, kept.with_suffix(".tmp"))
    kept.with_suffix(".tmp").replace(kept)
    return found


# --- speed -----------------------------------------------------------------------------------


def _speed(classify: Callable[[np.ndarray], Any], terms: Terms) -> float:
    """Return clips a second of the quickest of three rounds, so that others' work counts least."""
    every = max(1, len(terms.listing.utterances) // TIMED_CLIPS)
    clips = []
    for utterance in terms.listing.utterances[::every][:TIMED_CLIPS]:
        with suppress(AudioError):  # such clips were reported when they were encoded
            clip = AudioFile(utterance.path).read().samples
            classify(clip)
            clips.append(clip)
    seconds = []
    for _ in range(ROUNDS if clips else 0):
        started = time.perf_counter()
        for clip in clips:
            classify(clip)
        seconds.append(time.perf_counter() - started)
    return len(clips) / min(seconds, default=1.0)
