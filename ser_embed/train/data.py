"""Stores to training data: one table of usable clips, their labels, and their features by batch."""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from ser_embed.corpora import LabelScheme
from ser_embed.errors import StoreError
from ser_embed.store import FeatureSettings, FeatureStore

__all__ = ["Batches", "Features", "Labelled", "LabelledClips", "load_clips", "open_stores"]

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.4  # of the machine's memory that features may fill before they stay on disk


class Batches(Protocol):
    """What a head is trained on."""

    @property
    def pooled(self) -> bool:
        """Whether time is pooled."""

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (features float32 (B, ...), frames int64 (B,)) of some clips."""


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
        dtype = stores[0].file["features"].dtype
        need = len(members) * int(np.prod(self.shape)) * dtype.itemsize
        self._memory: torch.Tensor | None = None
        if need <= MEMORY_SHARE * _machine_memory():
            self._memory = torch.from_numpy(self._read(np.arange(len(members))))
        else:
            log.info("%.0f GB of features: read from disk batch by batch", need / 1e9)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        dtype = self.stores[0].file["features"].dtype
        out = np.zeros((len(rows), *self.shape), dtype=dtype)
        for number, store in enumerate(self.stores):
            places = np.flatnonzero(self.members[rows, 0] == number)
            if len(places):
                block = store.read(self.members[rows[places], 1])
                where: tuple[Any, ...] = (places, *(slice(size) for size in block.shape[1:]))
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


@dataclass(frozen=True)
class Labelled:
    """Clips and their classes, whatever is trained on them.

    Attributes:
        table: One row a usable clip: the store's columns and `label`, the class index.
        settings: Settings that all the clips share.
        classes: Class names.
        trained: Whether the encoder's weights were trained.
        demo: Whether the clips are the synthetic demo corpus.
        left_out: How many clips the label scheme leaves out, by emotion.
    """

    table: pd.DataFrame
    settings: FeatureSettings
    classes: tuple[str, ...]
    trained: bool
    demo: bool
    left_out: dict[str, int]

    @property
    def digest(self) -> str:
        """SHA-256 of which clips, features and labels these are, in which order."""
        columns = ["corpus", "path", "sha256", "checksum", "label", "speaker"]
        text = self.table[columns].to_csv(index=False) + self.settings.key
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class LabelledClips(Labelled):
    """Labelled clips with their cached features.

    Attributes:
        features: One clip's after the other, in the table's order.
    """

    features: Features


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


def load_clips(stores: Sequence[FeatureStore], scheme: LabelScheme) -> LabelledClips:
    """Label the usable clips of some stores and bring in their features.

    Raises:
        LabelError: An emotion that the scheme doesn't name.
        StoreError: No clip is left.
    """
    tables = [store.stored_clips.assign(store=number) for number, store in enumerate(stores)]
    table = pd.concat(tables, ignore_index=True)
    table["label"] = scheme.encode(table["emotion"], table["intensity"])
    out = table["label"] < 0
    left_out = {str(k): int(v) for k, v in table.loc[out, "emotion"].value_counts().items()}
    table = table[~out].reset_index(drop=True)
    if table.empty:
        raise StoreError(f"the label scheme {scheme.name!r} leaves out every clip of these stores")
    features = Features(stores, table[["store", "row"]].to_numpy())
    return LabelledClips(
        table=table.drop(columns=["store", "row", "state", "reason"]),
        features=features,
        settings=stores[0].settings,
        classes=scheme.classes,
        trained=stores[0].trained,
        demo=stores[0].demo,
        left_out=left_out,
    )
