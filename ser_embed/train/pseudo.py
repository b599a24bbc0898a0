"""Pseudo-labels: clips whose labels nobody looks at, labelled by a head that is confident of them.

A fold's head is trained on its own clips, labels the others, and is trained anew with those
that it is confident of (Lee 2013). Clips of the test part's speakers are never among them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_embed.errors import StoreError
from ser_embed.heads import calibrated
from ser_embed.splits import Split, contents_of
from ser_embed.store import FeatureStore
from ser_embed.train.data import Features, LabelledClips, open_stores, table_of

__all__ = [
    "UNLABELLED", "Pseudo", "labelled_stores", "unlabelled_rows", "with_unlabelled",
]  # fmt: skip

log = logging.getLogger(__name__)

UNLABELLED = -1
"""Class index of a clip without a label."""


def labelled_stores(
    files: Sequence[Path], folder: Path, unlabelled: Sequence[Path]
) -> tuple[Path, ...]:
    """Return the stores to take labels from: those named, or the folder's other ones."""
    if files or not unlabelled:
        return tuple(files)
    without = {path.resolve() for path in unlabelled}
    return tuple(path for path in FeatureStore.find(folder) if path.resolve() not in without)


def with_unlabelled(clips: LabelledClips, files: Sequence[Path]) -> LabelledClips:
    """Append the clips of other stores behind the labelled ones, as class `UNLABELLED`.

    Clips that are among the labelled ones, by their bytes, are left out.

    Raises:
        StoreError: The stores have other settings, or mix the demo corpus with real speech.
    """
    if not files:
        return clips
    stores = open_stores(files, Path())
    first = clips.features.stores[0]
    for store in stores:
        if store.demo != clips.demo:
            raise StoreError(f"{store.path}: the synthetic demo corpus and real speech never mix")
        if differences := first.settings.differences(store.settings):
            raise StoreError(
                f"{store.path}: not the features of {first.path}; {'; '.join(differences)}"
            )
    known = len(clips.features.stores)
    table = table_of(stores, first=known)
    sound = contents_of(table)
    new = ~sound.isin(set(contents_of(clips.table))) & ~sound.duplicated()
    table = table[new].assign(label=UNLABELLED)
    members = np.concatenate([clips.features.members, table[["store", "row"]].to_numpy()])
    joined = pd.concat([clips.table, table[clips.table.columns]], ignore_index=True)
    return replace(
        clips, table=joined, features=Features([*clips.features.stores, *stores], members)
    )


def unlabelled_rows(clips: LabelledClips, split: Split) -> np.ndarray:
    """Return the rows (n,) without a label that have nothing in common with the test part.

    A clip without a named speaker is left out too: it may be anybody's.

    Raises:
        StoreError: There is none.
    """
    table, test = clips.table, clips.table.iloc[split.test]
    recordings = set(test["recording"]) - {""}
    fine = (
        (table["label"] == UNLABELLED) & (table["speaker"] != "")
        & ~table["speaker"].isin(set(test["speaker"]))
        & ~table["recording"].isin(recordings) & ~table["sha256"].isin(set(test["sha256"]))
    )  # fmt: skip
    rows = np.flatnonzero(fine)
    if not len(rows):
        raise StoreError(
            f"{split.name}: every unlabelled clip has a test speaker, or a speaker without a name"
        )
    return rows


@dataclass(frozen=True)
class Pseudo:
    """Clips that a head labelled.

    Attributes:
        rows: Their rows, int64 (m,).
        labels: Their class indices, int64 (m,).
        asked: How many clips the head was given.
    """

    rows: np.ndarray
    labels: np.ndarray
    asked: int

    @classmethod
    def of(
        cls, rows: np.ndarray, log_probs: np.ndarray, temperature: float, least: float
    ) -> "Pseudo":
        """Return the clips that a head is confident of.

        Args:
            rows: Rows of the clips it was given, (n,).
            log_probs: What it predicted, (n, C).
            temperature: The head's, so that its confidence is what validation says it is worth.
            least: Least confidence.
        """
        probabilities = calibrated(log_probs, temperature)
        sure = probabilities.max(1, initial=0) >= least
        log.info("confident of %d of %d unlabelled clips", sure.sum(), len(rows))
        return cls(rows[sure], probabilities[sure].argmax(1).astype(np.int64), len(rows))

    def labelled(self, clips: LabelledClips) -> LabelledClips:
        """Return the clips with these labels."""
        labels = clips.labels.copy()
        labels[self.rows] = self.labels
        return replace(clips, table=clips.table.assign(label=labels))

    def added(self, split: Split) -> Split:
        """Return a split that trains on these clips too."""
        return replace(split, train=np.concatenate([split.train, self.rows]))

    def facts(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return what a card says of them: how many were `asked`, and how many taken by class."""
        counts = np.bincount(self.labels, minlength=len(classes)).tolist()
        return {"asked": self.asked, "taken": dict(zip(classes, counts, strict=True))}
