"""The reference without a network: openSMILE's functionals under a support vector machine.

eGeMAPS (Eyben et al. 2016) describes a clip by 88 numbers. They are standardised by the training
clips; the kernel is RBF, C is 1 and classes are weighted by the inverse of their counts, so
nothing is chosen and the machine is trained on training and validation clips alike. Only the
temperature of its probabilities is found on the validation clips, by a machine that wasn't
trained on them.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tqdm import tqdm

from ser_embed.audio import SAMPLE_RATE, Clip
from ser_embed.errors import MissingExtra
from ser_embed.finetune import Recordings
from ser_embed.heads import calibrated
from ser_embed.reports import write_json
from ser_embed.splits import Split
from ser_embed.store import FeatureSettings
from ser_embed.train import (
    finished_fold,
    finished_result,
    fold_folder,
    identity_of,
    predictions_table,
    report_of,
    temperature_of,
    timed,
)

__all__ = ["EGEMAPS", "Functionals", "SvmClassifier", "svm_settings", "train_svm"]

log = logging.getLogger(__name__)

EGEMAPS = "eGeMAPSv02"


class Functionals:
    """openSMILE's eGeMAPS of waveforms.

    Raises:
        MissingExtra: opensmile isn't installed.
    """

    def __init__(self) -> None:
        try:
            import opensmile
        except ImportError as error:
            raise MissingExtra("opensmile", "opensmile") from error
        self.version = opensmile.__version__
        self._smile = opensmile.Smile(
            opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals
        )

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return float64 (88,) of a waveform (n_samples,) at 16 kHz."""
        return self._smile(waveform, SAMPLE_RATE).reshape(-1).astype(np.float64)


def svm_settings(version: str, seconds: float, seed: int) -> FeatureSettings:
    """Return what the functionals depend on, in the form that every report's source has.

    Args:
        version: openSMILE's.
        seconds: Clip length.
        seed: Of the split.
    """
    return FeatureSettings(
        encoder=EGEMAPS, weights=hashlib.sha256(f"opensmile {version}".encode()).hexdigest(),
        layer=0, pool="mean", norm="none", trim=True, seconds=seconds, fill="none",
        dtype="float32", precision="fp32", seed=seed,
    )  # fmt: skip


class SvmClassifier:
    """A machine and the functionals it takes.

    Attributes:
        parameters: Numbers that the machine is made of.
    """

    def __init__(self, functionals: Functionals, machine: Pipeline, seconds: float) -> None:
        self.functionals, self.machine, self.seconds = functionals, machine, seconds
        svc = machine[-1]
        self.parameters = int(svc.support_vectors_.size + svc.dual_coef_.size + len(svc.intercept_))

    def classify(self, samples: np.ndarray) -> int:
        """Return the class index of a clip, float32 (n_samples,) at 16 kHz, not yet cut."""
        features = self.functionals(Clip.of(samples, self.seconds, trim=True).samples)
        return int(_log_probabilities(self.machine, features[None])[0].argmax())


def _machine(features: np.ndarray, labels: np.ndarray) -> Pipeline:
    machine = make_pipeline(StandardScaler(), SVC(C=1.0, kernel="rbf", class_weight="balanced"))
    return machine.fit(features, labels)


def _log_probabilities(machine: Pipeline, features: np.ndarray) -> np.ndarray:
    """Return log-softmax (n, C) of the machine's decisions, one against the rest."""
    told = machine.decision_function(features)
    if told.ndim == 1:  # of two classes there is one decision
        told = np.stack([-told, told], axis=1)
    return told - np.logaddexp.reduce(told, axis=1, keepdims=True)


def _described(clips: Recordings, functionals: Functionals, folder: Path,
               hide: bool | None) -> np.ndarray:  # fmt: skip
    """Return the functionals (N, 88) of all clips, kept for the next time."""
    kept = folder / f"functionals-{clips.digest[:12]}.safetensors"
    if kept.is_file():
        return load_file(kept)["functionals"]
    rows = tqdm(range(len(clips.table)), "openSMILE", unit="clip", disable=hide)
    found = np.stack([functionals(clips.waveform(row)) for row in rows])
    folder.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_suffix(".tmp")
    save_file({"functionals": found}, temporary)
    temporary.replace(kept)
    return found


def _score_fold(
    clips: Recordings, features: np.ndarray, split: Split, folder: Path
) -> None:  # fmt: skip
    labels = clips.table["label"].to_numpy()
    watched = _machine(features[split.train], labels[split.train])
    temperature = temperature_of(
        _log_probabilities(watched, features[split.val]), labels[split.val]
    )
    seen = np.concatenate([split.train, split.val])
    test = _log_probabilities(_machine(features[seen], labels[seen]), features[split.test])
    predictions = predictions_table(
        clips.table.iloc[split.test], clips.classes, calibrated(test, temperature), np.exp(test)
    )
    predictions.to_csv(folder / "predictions.csv", index=False, errors="surrogateescape")


def train_svm(
    clips: Recordings, splits: Sequence[Split], options: Mapping[str, Any], runs_dir: Path,
    hide: bool | None,
) -> tuple[Path, SvmClassifier]:  # fmt: skip
    """Train a machine on each split, and write the folder of a run: report, plots, predictions.

    Args:
        clips: The clips, by `svm_settings`.
        splits: One, or one a fold.
        options: What the run depends on beside the clips: `labels`, `split`, `seed`.
        runs_dir: Where the run and the functionals are written.
        hide: tqdm's `disable`.

    Returns:
        The run's folder, and the first split's classifier.

    Raises:
        MissingExtra: opensmile isn't installed.
    """
    functionals = Functionals()
    identity = identity_of(options, clips, "svm", splits)
    folder = runs_dir / f"egemaps-svm-{identity[:6]}"
    features = _described(clips, functionals, runs_dir, hide)
    labels = clips.table["label"].to_numpy()
    seen = np.concatenate([splits[0].train, splits[0].val])
    first = SvmClassifier(
        functionals, _machine(features[seen], labels[seen]), clips.settings.seconds
    )
    if finished_result(folder, identity) is not None:
        return folder, first
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "started.json", {"identity": identity})
    folds = []
    for split in splits:
        place = fold_folder(folder, split, len(splits))
        with timed(place):
            _score_fold(clips, features, split, place)
        folds.append(finished_fold(clips, split, place, 0))
    title = f"{EGEMAPS} under a support vector machine, split {options['split']}"
    report = report_of(folds, clips, title, options["seed"])
    report.save(folder, pd.concat([fold.predictions for fold in folds], ignore_index=True))
    write_json(folder / "result.json", {"identity": identity, "run": str(folder),
                                        "test": report.scores})  # fmt: skip
    log.info("%s: %s", folder, report.headline)
    return folder, first
