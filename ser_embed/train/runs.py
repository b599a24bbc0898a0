"""The folder of a run: its name and identity, the card of its head, and its tables."""

import csv
import hashlib
import json
import logging
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_embed import __version__
from ser_embed.corpora import CORPORA, LabelScheme
from ser_embed.encoders import ENCODERS
from ser_embed.errors import HeadError
from ser_embed.reports import Plot, Report, read_table, write_json
from ser_embed.splits import Split, audit
from ser_embed.train.data import Labelled
from ser_embed.train.loop import History

__all__ = [
    "Fold", "finished_fold", "finished_result", "fold_folder", "identity_of", "make_card",
    "predictions_table", "report_of", "run_name", "timed", "training_time",
    "write_history", "write_misclassified", "write_parts",
]  # fmt: skip

log = logging.getLogger(__name__)

_OF_THE_CLIP = (
    "path", "corpus", "speaker", "gender", "emotion", "intensity", "seconds", "sha256",
)  # fmt: skip
# Options that change no weight.
_IRRELEVANT = {
    "json", "quiet", "stores", "unlabelled", "features_dir", "runs_dir", "name", "root", "corpus",
    "csv", "workers",
}  # fmt: skip


def identity_of(
    options: Mapping[str, Any], clips: Labelled, head: str, splits: Sequence[Split]
) -> str:
    """Return what makes two runs the same: data, split, and every option that changes a weight."""
    options = {k: v for k, v in options.items() if k not in _IRRELEVANT}
    parts = [
        hashlib.sha256(np.concatenate([s.train, [-1], s.val, [-1], s.test]).tobytes()).hexdigest()
        for s in splits
    ]
    told = json.dumps([options, head, clips.digest, clips.classes, parts], default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def run_name(options: Mapping[str, Any], clips: Labelled, head: str, identity: str) -> str:
    """Return the name a run gets if the user gives none."""
    rule = options["split"]
    split = Path(rule.removeprefix("folds:")).stem
    split = f"folds-{split}" if rule.startswith("folds:") else rule
    kind = "demo-" if clips.demo else ""
    encoder = "".join(c if c.isalnum() else "-" for c in Path(clips.settings.encoder).name.lower())
    labels = Path(options["labels"]).stem
    return f"{kind}{labels}-{split}-{head}-{encoder}-s{options['seed']}-{identity[:6]}"


def finished_result(folder: Path, identity: str) -> dict[str, Any] | None:
    """Return the result of a finished run, None if there is none.

    Raises:
        HeadError: The folder holds a run of other data or options.
    """
    marker = folder / "started.json"
    if not marker.is_file():
        return None
    if json.loads(marker.read_text())["identity"] != identity:
        raise HeadError(
            f"{folder}: holds a run of other data or options; give another --name, or delete it"
        )
    done = folder / "result.json"
    if not done.is_file():
        log.info("%s: going on where it stopped", folder)
        return None
    return {k: v for k, v in json.loads(done.read_text()).items() if k != "identity"}


def make_card(
    options: Mapping[str, Any],
    clips: Labelled,
    head: Mapping[str, Any],
    scheme: LabelScheme,
    identity: str,
    command: str,
) -> dict[str, Any]:
    """Return what a head's card says before training; training adds what it found.

    Args:
        options: Every option of the command.
        clips: What it is trained on.
        head: What builds the head again, its `name` among it.
        scheme: The label scheme.
        identity: From `identity_of`.
        command: The command line that gives this run.
    """
    corpora = clips.table["corpus"].value_counts().sort_index()
    spec = ENCODERS.get(clips.settings.encoder)
    licences = {name: CORPORA[name].licence for name in corpora.index if name in CORPORA}
    return {
        "identity": identity,
        "head": dict(head),
        "classes": list(clips.classes),
        "labels": {"name": scheme.name, "mapping": dict(scheme.mapping)},
        "features": asdict(clips.settings),
        "encoder_trained": clips.trained,
        "encoder_licence": spec.licence if spec else "that of the checkpoint",
        "corpora": {str(k): int(v) for k, v in corpora.items()},
        "corpus_licences": licences,
        "demo": clips.demo,
        "left_out": clips.left_out,
        "split": {"rule": options["split"], "seed": options["seed"]},
        "data_sha256": clips.digest,
        "command": command,
        "versions": {
            "ser_embed": __version__, "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "transformers", "numpy")},
        },
        "use": "Emotion inferred from a voice is uncertain and depends on culture and context. Not "
               "for decisions about people. In the EU, inferring emotions at work and in "
               "education is prohibited (AI Act, article 5) save for medical or safety reasons.",
    }  # fmt: skip


def predictions_table(
    table: pd.DataFrame, classes: Sequence[str], probabilities: np.ndarray, raw: np.ndarray
) -> pd.DataFrame:
    """Join clips to what was predicted of them.

    Args:
        table: The clips, with `label` as class index.
        classes: Class names.
        probabilities: Calibrated, (n, C).
        raw: The same before calibration, (n, C).

    Returns:
        What `Report.of` takes.
    """
    names = np.array(classes, dtype=object)
    told = table[[*_OF_THE_CLIP]].copy()
    told["label"] = names[table["label"].to_numpy()]
    told["predicted"] = names[probabilities.argmax(1)]
    told["raw_confidence"] = raw.max(1)
    for i, name in enumerate(classes):
        told[f"p_{name}"] = probabilities[:, i]
    return told


def write_misclassified(folder: Path, predictions: pd.DataFrame, root: Path) -> int:
    """List the clips that were misclassified in misclassified.csv, the surest first.

    Args:
        folder: The run's.
        predictions: From `predictions_table`.
        root: Folder that the clips' paths are relative to.

    Returns:
        How many they are.
    """
    rows = []
    for row in predictions[predictions["label"] != predictions["predicted"]].to_dict("records"):
        rows.append({
            "file": str((root / row["path"]).resolve()), "speaker": row["speaker"],
            "emotion": row["emotion"], "intensity": row["intensity"], "label": row["label"],
            "predicted": row["predicted"], "p_label": row[f"p_{row['label']}"],
            "p_predicted": row[f"p_{row['predicted']}"],
        })  # fmt: skip
    with (folder / "misclassified.csv").open(
        "w", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        names = ("file", "speaker", "emotion", "intensity", "label", "predicted", "p_label",
                 "p_predicted")  # fmt: skip
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: -row["p_predicted"]))
    return len(rows)


def write_parts(
    folder: Path, clips: Labelled, split: Split, pseudo: np.ndarray | None = None,
    pseudo_labels: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Write who was trained on and who tested, so that later reports can tell.

    Args:
        folder: The fold's.
        clips: All clips.
        split: Rows of each part.
        pseudo: Rows (m,) that were trained on with labels of a head's: the part `pseudo`.
        pseudo_labels: Those labels, class indices (m,).
    """
    told = clips.table[["corpus", "path", "sha256", "speaker", "recording"]].copy()
    labels = clips.table["label"].to_numpy(copy=True)
    if pseudo is not None:
        labels[pseudo] = pseudo_labels
    told["label"] = np.array(clips.classes, dtype=object)[labels]
    told["part"] = ""
    for name in ("train", "val", "test"):
        told.loc[told.index[getattr(split, name)], "part"] = name
    if pseudo is not None:
        told.loc[told.index[pseudo], "part"] = "pseudo"
    told[told["part"] != ""].to_csv(
        folder / "clips.csv",
        index=False,
        errors="surrogateescape",  # any file name
    )


def write_history(folder: Path, histories: Sequence[History]) -> None:
    """Write history.csv, one member of an ensemble after the other, and the first's plot."""
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["member", *histories[0].columns])
        for number, history in enumerate(histories, start=1):
            writer.writerows([number, *row] for row in zip(*history.columns.values(), strict=True))
    first = histories[0]
    Plot.history(first.columns, first.best).save(folder / "history.png")


@dataclass
class Fold:
    """What training one split gave.

    Attributes:
        predictions: Of its test part, from `predictions_table`, with the `fold`'s name.
        training: `label` and `speaker` of the clips that training saw.
        leakage: What the two share, from `splits.audit`.
        epochs: Epochs that were trained.
    """

    predictions: pd.DataFrame
    training: pd.DataFrame
    leakage: dict[str, int]
    epochs: float


def fold_folder(run: Path, split: Split, n_splits: int) -> Path:
    """Return the folder of one split: the run's own, or one in it where there are several."""
    return run if n_splits == 1 else run / re.sub(r"[^\w.-]", "_", split.name)


def finished_fold(clips: Labelled, split: Split, folder: Path, epochs: float) -> Fold:
    """Read back what a trained split's folder says."""
    training = clips.table.iloc[np.concatenate([split.train, split.val])][["label", "speaker"]]
    names = np.array(clips.classes, dtype=object)
    return Fold(
        predictions=read_table(folder / "predictions.csv").assign(fold=split.name),
        training=training.assign(label=names[training["label"].to_numpy()], fold=split.name),
        leakage=audit(split, clips.table),
        epochs=epochs,
    )


def report_of(folds: Sequence[Fold], clips: Labelled, title: str, seed: int) -> Report:
    """Score the folds of a run together."""
    leakage = {name: sum(fold.leakage[name] for fold in folds) for name in folds[0].leakage}
    warnings = []
    if clips.demo:
        warnings.append("These are synthetic demo clips: the score says nothing about real speech.")
    if not clips.trained:
        warnings.append(
            f"The encoder {clips.settings.encoder} has untrained, seeded weights: a control."
        )
    predictions = pd.concat([fold.predictions for fold in folds], ignore_index=True)
    training = pd.concat([fold.training for fold in folds], ignore_index=True)
    if len(folds) == 1:
        predictions, training = predictions.drop(columns="fold"), training.drop(columns="fold")
    return Report.of(
        title, predictions, clips.classes,
        training=training, leakage=leakage, warnings=warnings, seed=seed,
    )  # fmt: skip


TIMES = "training-time.json"


@contextmanager
def timed(folder: Path) -> Iterator[None]:
    """Add what the block takes to a fold's training-time.json, whether or not it comes to its end.

    So a training that was interrupted and went on is timed as a whole; what a kill cuts short is
    not counted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wall, processor = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        path, told = folder / TIMES, {"seconds": 0.0, "cpu_seconds": 0.0}
        if path.is_file():
            told = json.loads(path.read_text())
        told["seconds"] += time.perf_counter() - wall
        told["cpu_seconds"] += time.process_time() - processor
        write_json(path, told)


def training_time(run: Path) -> dict[str, float] | None:
    """Return `seconds` and `cpu_seconds` that a run's folds took together; None if untold."""
    found = [json.loads(path.read_text()) for path in [*run.glob(TIMES), *run.glob(f"*/{TIMES}")]]
    return {name: sum(told[name] for told in found) for name in found[0]} if found else None
