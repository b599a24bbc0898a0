"""The audio of a corpus as training data: a table of usable clips, and their waveforms by batch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from ser_embed.audio import AudioFile
from ser_embed.corpora import LabelScheme, Listing
from ser_embed.errors import CorpusError, MissingExtra, StoreError
from ser_embed.extract import Readers
from ser_embed.finetune.augment import Augment
from ser_embed.finetune.network import Network
from ser_embed.store import ClipRow, FeatureSettings
from ser_embed.train import Labelled

__all__ = ["Collator", "Recordings", "Waveforms", "read_recordings", "training_data"]


@dataclass(frozen=True)
class Recordings(Labelled):
    """Labelled clips whose waveforms are read when they are needed.

    Attributes:
        root: Folder that the table's paths are relative to.
        faults: Path and reason of each clip that can't be used.
    """

    root: Path
    faults: tuple[tuple[Path, str], ...]

    def waveform(self, row: int, augment: Augment | None = None, epoch: int = 0) -> np.ndarray:
        """Return a clip cut or filled to its length, float32 (n_samples,), disturbed if wished.

        A disturbance depends on the clip's bytes, the seed and the epoch alone.

        Raises:
            AudioError: The file is gone, or has changed for the worse.
        """
        told = self.settings
        path = self.root / str(self.table["path"].iat[row])
        if augment is None:
            clip = AudioFile(path).read(told.seconds, told.trim)
        else:
            # Read long enough that what is sped up still has the clip's length, where it can.
            clip = AudioFile(path).read(told.seconds * _REACH, told.trim)
            seed = [told.seed, epoch, int(clip.sha256[:16], 16)]
            clip = replace(clip, samples=augment(clip.samples, seed))
        return clip.fit(told.seconds, told.fill, told.seed)


_REACH = 2.0  # times the clip length that are read of a clip that may be sped up


def read_recordings(
    listing: Listing,
    scheme: LabelScheme,
    settings: FeatureSettings,
    trained: bool,
    workers: int,
    hide: bool | None,
) -> Recordings:
    """Read every clip once: hash it, and find out whether it can be used.

    Args:
        listing: The corpus.
        scheme: What its emotions are made into.
        settings: Clip length, trimming, filling, seed, and the encoder's name and weights.
        trained: Whether the encoder's weights were trained.
        workers: Processes that read; 0 for none.
        hide: tqdm's `disable`.

    Raises:
        LabelError: An emotion that the scheme doesn't name.
        CorpusError: No clip can be used.
        StoreError: The scheme leaves out every clip.
    """
    utterances = listing.utterances
    labels = scheme.encode((u.emotion for u in utterances), (u.intensity for u in utterances))
    left_out = pd.Series([u.emotion for u, label in zip(utterances, labels, strict=True)
                          if label < 0], dtype=object).value_counts()  # fmt: skip
    kept = [(u, label) for u, label in zip(utterances, labels, strict=True) if label >= 0]
    if not kept:
        raise StoreError(f"the label scheme {scheme.name!r} leaves out every clip")
    rows, faults, seen = [], list(listing.faults), set()
    with Readers(workers) as readers:
        read = readers.read((u for u, _ in kept), settings)
        bar = tqdm(read, f"reading {listing.corpus}", len(kept), unit="clip", disable=hide)
        for (utterance, item), (_, label) in zip(bar, kept, strict=True):
            if item.fault:
                faults.append((utterance.path, item.fault))
                continue
            row = ClipRow.of(utterance, listing.root, item.sha256, item.seconds)
            if row.identity not in seen:  # downloads often hold the same folder twice
                seen.add(row.identity)
                rows.append({**asdict(row), "label": label})
    if not rows:
        path, reason = faults[0]
        raise CorpusError(
            f"{listing.root}: none of its {len(faults)} clips can be used; the first is {path}: "
            f"{reason}"
        )
    return Recordings(
        table=_table_of(rows),
        settings=settings, classes=scheme.classes, trained=trained, demo=listing.synthetic,
        left_out={str(k): int(v) for k, v in left_out.items()},
        root=listing.root, faults=tuple(faults),
    )  # fmt: skip


def _table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Text stays Python's own: pyarrow, where it is installed, refuses what isn't UTF-8."""
    kept = [name for name in rows[0] if name not in ("state", "reason")]
    texts = {name: object if isinstance(rows[0][name], str) else None for name in kept}
    return pd.DataFrame(
        {name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in texts.items()}
    )


class Waveforms:
    """Turns rows of a table into waveforms, when and where a batch of them is wanted.

    Attributes:
        epoch: Set before each epoch: what disturbances are drawn for.
    """

    def __init__(self, clips: Recordings, augment: Augment | None) -> None:
        self.clips, self.augment, self.epoch = clips, augment, 0

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        """Add each row's `waveform` to its `labels`."""
        rows = batch["row"]
        waveforms = [self.clips.waveform(row, self.augment, self.epoch) for row in rows]
        return {"waveform": waveforms, "labels": batch["labels"]}


def training_data(clips: Recordings, rows: np.ndarray, reader: Waveforms) -> Any:
    """Return a Hugging Face dataset of some clips that reads them as they are asked for.

    Raises:
        MissingExtra: datasets isn't installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "finetune") from error
    columns = {"row": rows.tolist(), "labels": clips.table["label"].to_numpy()[rows].tolist()}
    return datasets.Dataset.from_dict(columns).with_transform(reader)


class Collator:
    """Makes what a network takes of some clips."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_values`, where needed `attention_mask`, and `labels` (B,)."""
        batch = self.network.batch([item["waveform"] for item in items])
        return {**batch, "labels": torch.tensor([item["labels"] for item in items])}
