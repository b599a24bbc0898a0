"""Stores to training data: one table of usable clips, their labels, and their features by batch."""

import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from sklearn.utils.class_weight import compute_class_weight

from ser_embed.corpora import LabelScheme, Utterance
from ser_embed.errors import HeadError, LabelError, StoreError
from ser_embed.heads import calibrated, load_head, read_card
from ser_embed.reports import read_table
from ser_embed.splits import Split, audit, contents_of, overlap
from ser_embed.store import FeatureSettings, FeatureStore
from ser_embed.train.loop import log_probabilities
from ser_embed.train.options import ClassWeights

__all__ = [
    "Features", "Labelled", "LabelledClips", "Scored", "load_clips", "open_stores", "table_of",
]  # fmt: skip

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.4  # of the machine's memory that features may fill before they stay on disk


class Features:
    """The features of some clips, in memory where they fit, else read batch by batch.

    Attributes:
        shape: Shape of one clip's features; time is the longest over the stores.
        frames: Valid frames of each clip, int64 (N,).
        pooled: Whether time was pooled at extraction.
    """

    def __init__(self, stores: Sequence[FeatureStore], members: np.ndarray) -> None:
        """Take the stores, and for each clip its (store, row) as an int array (N, 2)."""
        self.stores, self.members = list(stores), members
        self.pooled = stores[0].settings.pool != "none"
        shapes = np.array([store.shape for store in stores])
        self.shape: tuple[int, ...] = tuple(int(size) for size in shapes.max(0))
        lengths = [store.frames for store in stores]
        frames = [lengths[which][row] for which, row in members]
        self.frames = torch.as_tensor(np.array(frames), dtype=torch.int64)
        dtype = stores[0].dtype
        need = len(members) * int(np.prod(self.shape)) * dtype.itemsize
        self._memory: torch.Tensor | None = None
        if need <= MEMORY_SHARE * _machine_memory():
            self._memory = torch.from_numpy(self._read(np.arange(len(members))))
        else:
            log.info("%.0f GB of features: read from disk batch by batch", need / 1e9)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        dtype = self.stores[0].dtype
        out = np.zeros((len(rows), *self.shape), dtype=dtype)
        for number, store in enumerate(self.stores):
            found = np.flatnonzero(self.members[rows, 0] == number)
            if len(found):
                block = store.read(self.members[rows[found], 1])
                where: tuple[Any, ...] = (found, *(slice(size) for size in block.shape[1:]))
                out[where] = block
        return out

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (features float32 (B, ...), frames int64 (B,)) of some clips."""
        if self._memory is not None:
            features = self._memory[rows]
        else:
            features = torch.from_numpy(self._read(rows.numpy()))
        return features.float(), self.frames[rows]


def _machine_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return 8e9


PAPER_WEIGHTS = {"positive": 1.99, "neutral": 3.0, "negative": 1.0}

_OF_THE_CLIP = (
    "path", "corpus", "speaker", "gender", "emotion", "intensity", "seconds", "sha256", "start",
    "end",
)  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """Predictions of test clips, and what training knew of them.

    Attributes:
        predictions: From `Labelled.predictions`; with a column `fold` if of several.
        training: `label` and `speaker` of the clips that training saw.
        leakage: What the two have in common, from `splits.audit`.
        warnings: Sentences on classes that a part lacks.
    """

    predictions: pd.DataFrame
    training: pd.DataFrame
    leakage: dict[str, int]
    warnings: tuple[str, ...] = ()

    @classmethod
    def joined(cls, folds: Sequence["Scored"]) -> "Scored":
        """Return the folds of a run as one; a person who is in several of them counts once."""
        leakage = {name: sum(fold.leakage[name] for fold in folds) for name in folds[0].leakage}
        tested = [set(fold.predictions["speaker"]) - {""} for fold in folds]
        trained = [set(fold.training["speaker"]) for fold in folds]
        pairs = zip(tested, trained, strict=True)
        leakage["unnamed_training"] = max(fold.leakage["unnamed_training"] for fold in folds)
        leakage["test_speakers"] = len(set().union(*tested))
        leakage["shared_speakers"] = len(set().union(*(a & b for a, b in pairs)))
        return cls(
            pd.concat([fold.predictions for fold in folds], ignore_index=True),
            pd.concat([fold.training for fold in folds], ignore_index=True),
            leakage,
        )


@dataclass(frozen=True)
class Labelled(ABC):
    """Clips and their classes, whatever is trained on them.

    Attributes:
        table: One row a usable clip: the store's columns and `label`, the class index.
        settings: Settings that all the clips have.
        classes: Class names.
        trained: Whether the encoder's weights were trained.
        demo: Whether the clips are the synthetic demo corpus.
        left_out: How many clips the label scheme leaves out, by emotion.
        dropped: Classes of the scheme that no clip has.
    """

    table: pd.DataFrame
    settings: FeatureSettings
    classes: tuple[str, ...]
    trained: bool
    demo: bool
    left_out: dict[str, int]
    dropped: tuple[str, ...] = field(default=(), kw_only=True)

    source: ClassVar[str] = "stores"
    """What the clips are read from, for messages."""

    @property
    def labels(self) -> np.ndarray:
        """Class index of each clip, int64 (N,)."""
        return self.table["label"].to_numpy()

    @property
    def digest(self) -> str:
        """SHA-256 of which clips, features and labels these are, in which order."""
        columns = ["corpus", "path", "sha256", "checksum", "label", "speaker"]
        table = self.table.assign(sha256=contents_of(self.table))  # and the range, if it has one
        text = table[columns].to_csv(index=False) + self.settings.key
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    @abstractmethod
    def roots(self) -> list[Path]:
        """Folders that the clips' audio was read from."""

    @staticmethod
    def without_absent(
        labels: np.ndarray, scheme: LabelScheme, left_out: Iterable[str]
    ) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
        """Drop the classes of a scheme that no clip has.

        Args:
            labels: The scheme's class index of each clip, (N,).
            scheme: The scheme.
            left_out: Emotions that it has no class for, for the message.

        Returns:
            The clips' indices among the classes that are left, int64 (N,); these classes; and
            those that were dropped.

        Raises:
            LabelError: Fewer than two classes are left.
        """
        numbers, labels = np.unique(labels, return_inverse=True)
        kept = tuple(scheme.classes[number] for number in numbers)
        if len(kept) < 2:
            words = ", ".join(map(repr, sorted(left_out)))
            raise LabelError(
                f"all {len(labels)} clips are {', '.join(kept)} by the label scheme "
                f"{scheme.name!r}{f', which has no class for {words}' if words else ''}; a "
                "classifier needs two classes: add clips of others, or give another --labels"
            )
        return labels, kept, tuple(name for name in scheme.classes if name not in kept)

    @property
    def notes(self) -> list[str]:
        """What a report says of clips and classes that aren't in it."""
        notes = []
        if self.left_out:
            counts = ", ".join(f"{word} {count}" for word, count in self.left_out.items())
            notes.append(f"Clips left out by the label scheme: {counts}.")
        if self.dropped:
            notes.append(f"No clip is {', '.join(self.dropped)}: dropped from the classes.")
        return notes

    def absent(self, splits: Sequence[Split]) -> Iterator[str]:
        """Name the classes that no training or validation clip of a fold has, a sentence a part."""
        parts = (
            ("train", "training", "it can't be predicted, and its test clips count as wrong"),
            ("val", "validation", "nothing was watched or calibrated on it"),
        )
        for part, what, meaning in parts:
            lacking = {}
            for split in splits:
                found = set(self.labels[getattr(split, part)].tolist())
                if names := [name for i, name in enumerate(self.classes) if i not in found]:
                    lacking[split.name] = f"no clip of {', '.join(names)}"
            if not lacking:
                continue
            fold, names_of_first = next(iter(lacking.items()))
            if len(splits) > 1:
                yield (
                    f"In {len(lacking)} of {len(splits)} folds the {what} part lacks a class "
                    f"({fold}: {names_of_first}): {meaning}."
                )
            else:
                yield f"The {what} part has {names_of_first}: {meaning}."

    def named(self, rows: np.ndarray) -> np.ndarray:
        """Return the class names of some clips, (n,)."""
        return np.array(self.classes, dtype=object)[self.labels[rows]]

    def class_weights(self, rule: ClassWeights, rows: np.ndarray) -> np.ndarray:
        """Return the weight of each class in the loss, float64 (C,).

        Args:
            rule: `balanced`, by the inverse of the counts, so that the mean over the clips is 1
                (and 1 of a class that none of them has);
                `paper`, the two-stage paper's; `none`.
            rows: The training clips.

        Raises:
            HeadError: The paper's weights are asked for other classes than its three.
        """
        if rule == "none":
            return np.ones(len(self.classes))
        if rule == "balanced":
            weights = np.ones(len(self.classes))
            found = np.unique(self.labels[rows])
            weights[found] = compute_class_weight("balanced", classes=found, y=self.labels[rows])
            return weights
        if set(self.classes) != set(PAPER_WEIGHTS):
            raise HeadError(
                "--class-weights paper is for positive, neutral, negative (--labels sentiment3); "
                f"these classes are {', '.join(self.classes)}"
            )
        return np.array([PAPER_WEIGHTS[name] for name in self.classes])

    def predictions(
        self, rows: np.ndarray, probabilities: np.ndarray, raw: np.ndarray
    ) -> pd.DataFrame:
        """Join clips to what was predicted of them: what `Report.of` takes.

        Args:
            rows: The clips.
            probabilities: Calibrated, (n, C).
            raw: The same before calibration, (n, C).
        """
        table = self.table.iloc[rows][[name for name in _OF_THE_CLIP if name in self.table]].copy()
        table["label"] = self.named(rows)
        table["predicted"] = np.array(self.classes, dtype=object)[probabilities.argmax(1)]
        table["raw_confidence"] = raw.max(1)
        for number, name in enumerate(self.classes):
            table[f"p_{name}"] = probabilities[:, number]
        return table

    @abstractmethod
    def log_probabilities(
        self, folder: Path, rows: np.ndarray
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return log-probabilities float32 (n, C) by what a folder holds, and its card."""

    def score(self, folders: Sequence[Path], rows: np.ndarray) -> pd.DataFrame:
        """Return the `predictions` of some clips, averaged over heads or networks."""
        probabilities, raw = [], []
        for folder in folders:
            log_probs, card = self.log_probabilities(folder, rows)
            probabilities.append(calibrated(log_probs, card["temperature"]))
            raw.append(np.exp(log_probs))
        return self.predictions(rows, np.mean(probabilities, axis=0), np.mean(raw, axis=0))

    def own_test(self, folders: Sequence[Path]) -> Scored:
        """Score the test part of each of a run's folds with that fold's head or network.

        Raises:
            StoreError: Clips of a fold are not among these.
        """
        row_of = {key: row for row, key in enumerate(self._identities(self.table))}
        folds, splits = [], []
        for folder in folders:
            parts = read_table(folder / "clips.csv")
            parts = parts[parts["part"] != "pseudo"]  # of other stores, and none of the split
            rows = np.array([row_of.get(key, -1) for key in self._identities(parts)])
            if (rows < 0).any():
                again = "extract them again" if self.source == "stores" else "name the same ROOT"
                raise StoreError(
                    f"{folder / 'clips.csv'}: {(rows < 0).sum()} of its clips are not in the "
                    f"{self.source} any more; {again}"
                )
            part = parts["part"].to_numpy()
            split = Split(folder.name, *(rows[part == name] for name in ("train", "val", "test")))
            fold = read_card(folder).get("fold", folder.name)
            predictions = self.score([folder], split.test).assign(fold=fold)
            training = parts[part != "test"].assign(fold=fold)
            folds.append(Scored(predictions, training, audit(split, self.table)))
            splits.append(replace(split, name=fold))
        return replace(Scored.joined(folds), warnings=tuple(self.absent(splits)))

    def _identities(self, table: pd.DataFrame) -> list[tuple[Any, ...]]:
        """Return what says which clip each is."""
        return list(zip(table["corpus"], contents_of(table), table["path"], strict=True))

    def every_clip(self, folders: Sequence[Path]) -> Scored:
        """Score every clip, none of them of a run's own split, with the heads of all folds."""
        predictions = self.score(folders, np.arange(len(self.table)))
        tables = [read_table(folder / "clips.csv") for folder in folders]
        parts = pd.concat(tables, ignore_index=True)
        parts = parts[parts["part"] != "test"]
        training = parts[~pd.Series(self._identities(parts), index=parts.index).duplicated()]
        sizes = {"train": len(training), "test": len(predictions)}
        return Scored(predictions, training, {**sizes, **overlap(self.table, training)})


@dataclass(frozen=True)
class LabelledClips(Labelled):
    """Labelled clips with their cached features.

    Attributes:
        features: One clip's after the other, in the table's order.
    """

    features: Features

    @property
    def roots(self) -> list[Path]:
        """Folders that the clips' audio was read from."""
        return list(dict.fromkeys(Path(store.root) for store in self.features.stores))

    def log_probabilities(
        self, folder: Path, rows: np.ndarray
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return log-probabilities float32 (n, C) by the head in a folder, and its card.

        Raises:
            HeadError: No head there, or one of other features.
        """
        head, card = load_head(folder)
        if tuple(card["head"]["shape"])[-1] != self.features.shape[-1]:
            raise HeadError(f"{folder}: takes {card['head']['shape']}, not {self.features.shape}")
        return log_probabilities(head, self.features, rows), card

    def matrix(self) -> np.ndarray:
        """Return one row of features a clip, float32 (N, D): frames are averaged over time."""
        parts = []
        for rows in torch.arange(len(self.table)).split(256):
            features, frames = self.features.batch(rows)
            if not self.features.pooled:  # padding is zero
                shape = (-1, *[1] * (features.dim() - 2))
                features = features.sum(-2) / frames.view(shape)
            parts.append(features.flatten(1))
        return torch.cat(parts).numpy()


def open_stores(files: Sequence[Path], folder: Path) -> list[FeatureStore]:
    """Open the stores named, or all in the folder if none is.

    Raises:
        StoreError: There is none; they disagree in a setting (named); demo and real are mixed
            by name; or one can't be read.
    """
    paths = list(dict.fromkeys(files)) or FeatureStore.find(folder)
    if not paths:
        raise StoreError(
            f"no feature store in {folder}: make one with python -m ser_embed.extract, "
            "or name the files"
        )
    stores = [FeatureStore(path) for path in paths]
    if not files and any(not store.demo for store in stores):
        # The demo is there to try the commands; once there is real speech it has served.
        for store in stores:
            if store.demo:
                log.info("%s is the synthetic demo corpus: left out beside real ones", store.path)
        stores = [store for store in stores if not store.demo]
    first = stores[0]
    for store in stores[1:]:
        if store.demo != first.demo:
            raise StoreError(
                f"{first.path} and {store.path}: one is the synthetic demo corpus, the other real "
                "speech; they are never mixed. Name one kind"
            )
        differences = first.settings.differences(store.settings)
        if differences:
            raise StoreError(
                f"{first.path.name} and {store.path.name} differ in {'; '.join(differences)}. "
                f"Name the stores that belong together; in {first.path.parent} these do:\n"
                + _families(stores)
            )
    return stores


def _families(stores: Sequence[FeatureStore]) -> str:
    families: dict[str, list[str]] = {}
    for store in stores:
        families.setdefault(store.settings.key, []).append(str(store.path))
    return "\n".join("  " + " ".join(paths) for paths in families.values())


def table_of(stores: Sequence[FeatureStore], first: int = 0) -> pd.DataFrame:
    """Return the stored clips of some stores, `store` the store's number from the first one's on.

    Speakers are as today's tables name them, whenever the store was made.
    """
    tables = [store.stored_clips.assign(store=number) for number, store in enumerate(stores, first)]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(speaker=table["speaker"].map(Utterance.person))


def load_clips(
    stores: Sequence[FeatureStore], scheme: LabelScheme, every_class: bool = False
) -> LabelledClips:
    """Label the usable clips of some stores and bring in their features.

    Args:
        stores: The stores.
        scheme: What their emotions are made into.
        every_class: Whether classes that no clip has stay, since a head has them.

    Raises:
        LabelError: An emotion that a mapping file doesn't name, or clips of one class alone.
        StoreError: No clip is left.
    """
    table = table_of(stores)
    table["label"] = np.array(scheme.encode(table["emotion"], table["intensity"]), dtype=np.int64)
    out = table["label"] < 0
    left_out = {str(k): int(v) for k, v in table.loc[out, "emotion"].value_counts().items()}
    table = table[~out].reset_index(drop=True)
    if table.empty:
        raise StoreError(scheme.leaves_out_all(left_out))
    classes, dropped = scheme.classes, tuple[str, ...]()
    if not every_class:
        codes = table["label"].to_numpy()
        table["label"], classes, dropped = Labelled.without_absent(codes, scheme, left_out)
    features = Features(stores, table[["store", "row"]].to_numpy())
    return LabelledClips(
        table=table.drop(columns=["store", "row", "state", "reason"]),
        features=features,
        settings=stores[0].settings,
        classes=classes,
        trained=stores[0].trained,
        demo=stores[0].demo,
        left_out=left_out,
        dropped=dropped,
    )
