"""The runner of everything that is trained and scored on splits of labelled clips.

It does all that is not the model: the run's identity and folder, one fold after the other,
temperatures, predictions, times, the report. A run that was interrupted goes on with the fold it
stopped in; one that is finished is not trained again.
"""

import hashlib
import json
import logging
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ser_embed import __version__
from ser_embed.corpora import CORPORA
from ser_embed.encoders import ENCODERS
from ser_embed.errors import HeadError, SplitError
from ser_embed.heads import calibrated
from ser_embed.reports import Report, read_table, write_json
from ser_embed.splits import Split, audit
from ser_embed.train.data import Labelled, Scored
from ser_embed.train.loop import temperature_of

__all__ = ["Experiment", "Fitted", "Model"]

log = logging.getLogger(__name__)

TIMES = "training-time.json"
_OTHER_FOLDERS = frozenset({
    "", "tensorboard", "robustness",  # in a run
    "con", "nul", "aux", "prn",  # devices on Windows
})  # fmt: skip
USE = (
    "Emotion inferred from a voice is uncertain and depends on culture and context. Not "
    "for decisions about people. In the EU, inferring emotions at work and in "
    "education is prohibited (AI Act, article 5) save for medical or safety reasons."
)


@dataclass(frozen=True)
class Fitted:
    """What training a model on one fold gave.

    Attributes:
        log_probs: Log-probabilities (n, C) of clips that the model wasn't trained on, to find the
            temperature on; each member of an ensemble may give its own.
        labels: Their class indices, (n,).
        epochs: Epochs that were trained.
        training: What the card says of it.
        added: Rows, and class indices, of clips that were trained on with labels of a model's.
    """

    log_probs: np.ndarray
    labels: np.ndarray
    epochs: float
    training: Mapping[str, Any] = field(default_factory=dict)
    added: tuple[np.ndarray, np.ndarray] = (np.empty(0, int), np.empty(0, int))


class Model(Protocol):
    """What an experiment trains: anew on each fold, by `fit`."""

    def fit(self, clips: Any, split: Split, folder: Path) -> Fitted:
        """Train on a split's training part; the test part is never looked at.

        Args:
            clips: All clips, `Labelled`.
            split: Rows of each part.
            folder: The fold's, for what the model keeps to go on from and to show.
        """

    def predict_log_proba(self, rows: np.ndarray) -> np.ndarray:
        """Return log-probabilities (n, C) of some clips."""

    def save(self, folder: Path, card: dict[str, Any]) -> None:
        """Write the weights, then the card: a fold with a card is done."""


class _Estimator:
    """A classifier of scikit-learn as a model: it has nothing to watch on the validation part.

    The temperature is found by an estimator that was trained on the training part alone; the one
    that is tested was trained on training and validation part.
    """

    def __init__(self, estimator: Any, features: np.ndarray) -> None:
        self.estimator, self.features = estimator, features

    def fit(self, clips: Labelled, split: Split, folder: Path) -> Fitted:
        from sklearn.base import clone

        self.n_classes = len(clips.classes)
        fitted = clone(self.estimator).fit(self.features[split.train], clips.labels[split.train])
        log_probs = _log_probabilities(fitted, self.features[split.val], self.n_classes)
        seen = np.concatenate([split.train, split.val])
        self.estimator = clone(self.estimator).fit(self.features[seen], clips.labels[seen])
        return Fitted(log_probs, clips.labels[split.val], epochs=0)

    def predict_log_proba(self, rows: np.ndarray) -> np.ndarray:
        return _log_probabilities(self.estimator, self.features[rows], self.n_classes)

    def save(self, folder: Path, card: dict[str, Any]) -> None:
        """Keep nothing: it is trained in seconds, and pickles aren't read."""


def _log_probabilities(estimator: Any, features: np.ndarray, n_classes: int) -> np.ndarray:
    """Return an estimator's log-probabilities (n, C): of its decisions, one against the rest, the
    log-softmax if it has no probabilities. A class that it never saw has next to none.
    """
    if hasattr(estimator, "predict_proba"):
        found = np.log(np.maximum(estimator.predict_proba(features), 1e-12))
    else:
        decisions = estimator.decision_function(features)
        if decisions.ndim == 1:  # of two classes there is one decision
            decisions = np.stack([-decisions, decisions], axis=1)
        found = decisions - np.logaddexp.reduce(decisions, axis=1, keepdims=True)
    log_probs = np.full((len(features), n_classes), np.log(1e-12))
    log_probs[:, estimator.classes_] = found
    return log_probs


@dataclass(frozen=True)
class Experiment:
    """Something to be trained and scored on every split of labelled clips, and its run's folder.

    Attributes:
        clips: The clips.
        splits: One, or one a fold.
        model: What the model is called in the run's name.
        options: Every option that changes a weight; `labels`, `split` and `seed` among them.
        title: Of the report.
        runs_dir: Where the run's folder is made.
        name: Of the folder. Default: made from the options and the data.
        card: What a model's card says of it before it is trained: `head`, `labels`, `command`.
        report: Whether the report is printed.
    """

    clips: Labelled
    splits: Sequence[Split]
    model: str
    options: Mapping[str, Any]
    title: str
    runs_dir: Path
    name: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    report: bool = False

    @cached_property
    def identity(self) -> str:
        """What makes two runs the same: data, splits, and every option that changes a weight."""
        parts = [
            hashlib.sha256(
                np.concatenate([s.train, [-1], s.val, [-1], s.test]).tobytes()
            ).hexdigest()
            for s in self.splits
        ]
        text = json.dumps(
            [self.options, self.model, self.clips.digest, self.clips.classes, parts], default=str
        )
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def folder(self) -> Path:
        """The run's folder."""
        if self.name:
            return self.runs_dir / self.name
        rule, clips = self.options["split"], self.clips
        split = f"folds-{Path(rule[6:]).stem}" if rule.startswith("folds:") else rule
        encoder = Path(clips.settings.encoder).name.lower()
        parts = [Path(self.options["labels"]).stem, split, self.model,
                 "".join(c if c.isalnum() else "-" for c in encoder),
                 f"s{self.options['seed']}", self.identity[:6]]  # fmt: skip
        return self.runs_dir / "-".join([*(["demo"] if clips.demo else []), *parts])

    def run(self, model: Any, features: np.ndarray | None = None) -> dict[str, Any]:
        """Train and score on every fold, and write and print the report.

        Args:
            model: A `Model`, or a classifier of scikit-learn.
            features: What a classifier of scikit-learn is trained on, (N, D); None for the
                clips' cached ones.

        Returns:
            `run` (the folder), `epochs` and the scores of `test`.

        Raises:
            HeadError: The folder holds a run of other data or options.
        """
        if (result := self._finished()) is not None:
            return result
        if hasattr(model, "get_params"):
            clips: Any = self.clips
            model = _Estimator(model, clips.matrix() if features is None else features)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "started.json", {"identity": self.identity})
        self._announce()
        started = time.perf_counter()
        folds, epochs = [], []
        for split in self.splits:
            one, trained = self._fold(model, split)
            folds.append(one)
            epochs.append(trained)
        scored = Scored.joined(folds)
        without = ["fold"] if len(folds) == 1 else []
        report = Report.of(
            self.title, scored.predictions.drop(columns=without), self.clips.classes,
            training=scored.training.drop(columns=without), leakage=scored.leakage,
            warnings=self._warnings(), notes=self.clips.notes, seed=self.options["seed"],
        )  # fmt: skip
        report.save(self.folder, scored.predictions)
        wrong = _write_misclassified(self.folder, scored.predictions, self.clips)
        one_or_all: Any = epochs[0] if len(epochs) == 1 else epochs
        result = {"run": str(self.folder), "epochs": one_or_all, "test": report.scores}
        write_json(self.folder / "result.json", {"identity": self.identity, **result})
        log.info("trained in %.0f s -> %s", time.perf_counter() - started,
                 self.folder / "report.md")  # fmt: skip
        if self.report:
            report.show(self.folder / "report.md")
            if wrong is not None:
                print(f"misclassified: {wrong} clips, {self.folder / 'misclassified.csv'}")
        return result

    def _finished(self) -> dict[str, Any] | None:
        """Return the result of a finished run, None if there is none."""
        marker, done = self.folder / "started.json", self.folder / "result.json"
        if not marker.is_file():
            return None
        if json.loads(marker.read_text())["identity"] != self.identity:
            raise HeadError(
                f"{self.folder}: holds a run of other data or options; give another --name, or "
                "delete it"
            )
        if not done.is_file():
            log.info("%s: going on where it stopped", self.folder)
            return None
        log.info("%s: trained before with the same data and options; nothing to do", self.folder)
        (self.folder / "report.json").touch()  # it is the newest run again
        if self.report:
            print(f"report: {self.folder / 'report.md'}")
        return {k: v for k, v in json.loads(done.read_text()).items() if k != "identity"}

    def _announce(self) -> None:
        clips, counts = self.clips, self.clips.table["label"].value_counts()
        classes = ", ".join(f"{name} {counts.get(i, 0)}" for i, name in enumerate(clips.classes))
        log.info("%d clips (%s), %s, encoder %s", len(clips.table), classes, self.model,
                 clips.settings.encoder)  # fmt: skip
        for note in clips.notes:
            log.info("%s", note)
        if len(self.splits) == 1:
            s = self.splits[0]
            log.info("train %d, validation %d, test %d", len(s.train), len(s.val), len(s.test))

    @cached_property
    def _fold_names(self) -> dict[str, str]:
        """The name of each fold's folder: no two alike on any file system, nor one that is taken.

        Raises:
            SplitError: Two folds of one name.
        """
        found: dict[str, str] = {}
        for split in self.splits:
            if split.name in found:
                raise SplitError(
                    f"two folds are called {split.name!r}: give them names of their own"
                )
            plain = re.sub(r"[^\w.-]", "_", split.name)
            taken = {name.casefold() for name in found.values()} | _OTHER_FOLDERS
            usable = plain.strip(".") == plain and len(plain.encode()) < 100
            if not usable or plain.casefold() in taken or plain.startswith("evaluation-"):
                digest = hashlib.sha256(split.name.encode("utf-8", "surrogateescape")).hexdigest()
                plain = f"{plain.strip('.')[:24]}-{digest[:8]}"
            found[split.name] = plain
        return found

    # --- one fold ----------------------------------------------------------------------------

    def _fold(self, model: Model, split: Split) -> tuple[Scored, float]:
        """Train on one split, or read back what was trained before; return the epochs too."""
        folder = self.folder
        if len(self.splits) > 1:
            folder /= self._fold_names[split.name]
        card = folder / "card.json"
        if card.is_file():  # done before the run was stopped
            epochs = json.loads(card.read_text(encoding="utf-8"))["training"]["epochs"]
        else:
            with _timed(folder):
                epochs = self._train(model, split, folder)
        training = self.clips.table.iloc[np.concatenate([split.train, split.val])]
        training = training[["label", "speaker"]].assign(
            label=self.clips.named(np.concatenate([split.train, split.val])), fold=split.name
        )
        predictions = read_table(folder / "predictions.csv").assign(fold=split.name)
        return Scored(predictions, training, audit(split, self.clips.table)), epochs

    def _train(self, model: Model, split: Split, folder: Path) -> float:
        fitted = model.fit(self.clips, split, folder)
        temperature = temperature_of(fitted.log_probs, fitted.labels)
        test = model.predict_log_proba(split.test)
        predictions = self.clips.predictions(
            split.test, calibrated(test, temperature), np.exp(test)
        )
        predictions.to_csv(folder / "predictions.csv", index=False, errors="surrogateescape")
        self._write_parts(folder, split, *fitted.added)
        card = self._card()
        training = {**fitted.training, "epochs": fitted.epochs}
        model.save(folder, {**card, "temperature": temperature, "training": training,
                            "fold": split.name})  # fmt: skip
        return fitted.epochs

    def _write_parts(
        self, folder: Path, split: Split, added: np.ndarray, added_labels: np.ndarray
    ) -> None:
        """Write who was trained on and who tested, so that later reports can say."""
        columns = ["corpus", "path", "start", "end", "sha256", "speaker", "recording", "emotion",
                   "seconds"]  # fmt: skip
        table = self.clips.table[[name for name in columns if name in self.clips.table]].copy()
        labels = self.clips.labels.copy()
        labels[added] = added_labels
        table["label"] = np.array(self.clips.classes, dtype=object)[labels]
        table["part"] = ""
        for name in ("train", "val", "test"):
            table.loc[table.index[getattr(split, name)], "part"] = name
        table.loc[table.index[added], "part"] = "pseudo"
        table[table["part"] != ""].to_csv(
            folder / "clips.csv", index=False, errors="surrogateescape"  # any file name
        )  # fmt: skip

    def _card(self) -> dict[str, Any]:
        """Return what a card says before training."""
        clips = self.clips
        corpora = clips.table["corpus"].value_counts().sort_index()
        spec = ENCODERS.get(clips.settings.encoder)
        licences = {name: CORPORA[name].licence for name in corpora.index if name in CORPORA}
        versions = {name: metadata.version(name) for name in ("torch", "transformers", "numpy")}
        return {
            "identity": self.identity,
            **self.card,
            "classes": list(clips.classes),
            "features": asdict(clips.settings),
            "encoder_trained": clips.trained,
            "encoder_licence": spec.licence if spec else "that of the checkpoint",
            "corpora": {str(k): int(v) for k, v in corpora.items()},
            "corpus_licences": licences,
            "demo": clips.demo,
            "left_out": clips.left_out,
            "split": {"rule": self.options["split"], "seed": self.options["seed"]},
            "data_sha256": clips.digest,
            "versions": {
                "ser_embed": __version__, "python": platform.python_version(), **versions
            },
            "use": USE,
        }  # fmt: skip

    # --- the report --------------------------------------------------------------------------

    def _warnings(self) -> list[str]:
        warnings = []
        if self.clips.demo:
            warnings.append(
                "These are synthetic demo clips: the score says nothing about real speech."
            )
        if not self.clips.trained:
            encoder = self.clips.settings.encoder
            warnings.append(f"The encoder {encoder} has untrained, seeded weights: a control.")
        return [*warnings, *self.clips.absent(self.splits)]


def _write_misclassified(folder: Path, predictions: pd.DataFrame, clips: Labelled) -> int | None:
    """List misclassified clips in misclassified.csv, the most confident first; return how many.

    Of clips that are read from stores nothing is written: their audio may be elsewhere.
    """
    if clips.source == "stores":
        return None
    (root,) = clips.roots
    wrong = predictions[predictions["label"] != predictions["predicted"]]
    names = ["file", "speaker", "emotion", "intensity", "label", "predicted", "p_label",
             "p_predicted"]  # fmt: skip
    if (wrong[["start", "end"]] != 0).any(axis=None):  # several clips of one file
        names[1:1] = ["start", "end"]
    rows = [
        {
            "file": str((root / row["path"]).resolve()),
            **{name: row[name] for name in names[1:-2]},
            "p_label": row[f"p_{row['label']}"], "p_predicted": row[f"p_{row['predicted']}"],
        }
        for row in wrong.to_dict("records")
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=names).sort_values(
        "p_predicted", ascending=False, kind="stable"
    )
    table.to_csv(folder / "misclassified.csv", index=False, errors="surrogateescape")
    return len(rows)


@contextmanager
def _timed(folder: Path) -> Iterator[None]:
    """Add what the block takes to a fold's training-time.json, whether or not it comes to its end.

    So a training that was interrupted and went on is timed as a whole; what a kill cuts short is
    not counted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wall, processor = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        path, taken = folder / TIMES, {"seconds": 0.0, "cpu_seconds": 0.0}
        if path.is_file():
            taken = json.loads(path.read_text())
        taken["seconds"] += time.perf_counter() - wall
        taken["cpu_seconds"] += time.process_time() - processor
        write_json(path, taken)
