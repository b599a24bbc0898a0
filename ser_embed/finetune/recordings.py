"""The audio of a corpus as training data: a table of usable clips, and their waveforms by batch,
disturbed by audiomentations where a recipe says so.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from ser_embed.audio import SAMPLE_RATE, AudioFile, Clip
from ser_embed.corpora import LabelScheme, Listing
from ser_embed.errors import CorpusError, MissingExtra, SerEmbedError, StoreError
from ser_embed.extract import Readers
from ser_embed.finetune.network import Network, load_network
from ser_embed.finetune.recipes import Augmentation
from ser_embed.progress import track
from ser_embed.store import ClipRow, FeatureSettings
from ser_embed.train import Labelled

__all__ = ["Augment", "Collator", "Recordings", "Waveforms", "make_augment", "training_data"]

SCORED_BATCH = 8  # clips that a finished network is given at once
_REACH = 2.0  # times the clip length that are read of a clip that may be sped up

Augment = Callable[[np.ndarray, list[int]], np.ndarray]


def make_augment(settings: Augmentation) -> Augment:
    """Return a function from samples (n,) float32 at 16 kHz and a seed to disturbed samples (m,).

    The same samples and seed give the same result, in any process. A stretched clip is as much
    longer or shorter; cutting and filling come after.

    Raises:
        MissingExtra: audiomentations isn't installed.
        SerEmbedError: A range that it doesn't take.
    """
    try:
        chain = _chain(settings)
    except ImportError as error:
        raise MissingExtra("audiomentations", "finetune") from error
    except ValueError as error:
        raise SerEmbedError(f"augmentation: {error}") from error

    def augment(samples: np.ndarray, seed: list[int]) -> np.ndarray:
        with _seeded(seed):
            disturbed = chain(samples=samples, sample_rate=SAMPLE_RATE)
        # A clip of a few frames can't be stretched to less than an encoder takes.
        return disturbed if len(disturbed) >= Clip.MIN_SAMPLES else samples

    return augment


def _chain(settings: Augmentation) -> Any:
    import audiomentations

    p = settings.probability
    made = {
        "noise": lambda: audiomentations.AddGaussianNoise(*settings.noise, p=p),
        "pitch": lambda: audiomentations.PitchShift(-settings.pitch, settings.pitch, p=p),
        "stretch": lambda: audiomentations.TimeStretch(
            *settings.stretch, leave_length_unchanged=False, p=p
        ),
        "mask": lambda: audiomentations.TimeMask(max_band_part=settings.mask, p=p),
    }
    # Noise last, so that it isn't shifted or stretched with the voice.
    order = ("stretch", "pitch", "mask", "noise")
    return audiomentations.Compose([made[name]() for name in order if name in settings.kinds])


@contextmanager
def _seeded(seed: list[int]) -> Iterator[None]:
    """Seed the generators that audiomentations draws from, and put them back as they were."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    one, other = np.random.SeedSequence(seed).generate_state(2)
    random.seed(int(one))
    np.random.seed(int(other))  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


# --- the clips -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recordings(Labelled):
    """Labelled clips whose waveforms are read when they are needed.

    Attributes:
        root: Folder that the table's paths are relative to.
        faults: Path and reason of each clip that can't be used.
    """

    root: Path
    faults: tuple[tuple[Path, str], ...]

    source: ClassVar[str] = "audio"

    @classmethod
    def read(
        cls, listing: Listing, scheme: LabelScheme, settings: FeatureSettings, trained: bool,
        workers: int, quiet: bool, every_class: bool = False,
    ) -> "Recordings":  # fmt: skip
        """Read every clip once: hash it, and find out whether it can be used.

        Args:
            listing: The corpus.
            scheme: What its emotions are made into.
            settings: Clip length, trimming, filling, seed, and the encoder's name and weights.
            trained: Whether the encoder's weights were trained.
            workers: Processes that read; 0 for none.
            quiet: Whether progress is hidden.
            every_class: Whether classes that no clip has stay, since a network has them.

        Raises:
            LabelError: An emotion that a mapping file doesn't name, or clips of one class alone.
            CorpusError: No clip can be used.
            StoreError: The scheme leaves out every clip.
        """
        utterances = listing.utterances
        labels = scheme.encode((u.emotion for u in utterances), (u.intensity for u in utterances))
        pairs = list(zip(utterances, labels, strict=True))
        kept = [(utterance, label) for utterance, label in pairs if label >= 0]
        left_out = Counter(utterance.emotion for utterance, label in pairs if label < 0)
        if not kept:
            raise StoreError(scheme.leaves_out_all(left_out))
        rows, faults, seen = [], list(listing.faults), set()
        with Readers(workers) as readers:
            items = track(readers.read((u for u, _ in kept), settings),
                          f"reading {listing.corpus}", "clip", len(kept), quiet)  # fmt: skip
            for (utterance, item), (_, label) in zip(items, kept, strict=True):
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
                f"{listing.root}: none of its {len(faults)} clips can be used; the first is "
                f"{path}: {reason}"
            )
        table, classes, dropped = _table_of(rows), scheme.classes, tuple[str, ...]()
        if not every_class:
            codes = table["label"].to_numpy()
            table["label"], classes, dropped = Labelled.without_absent(codes, scheme, left_out)
        return cls(
            table=table, settings=settings, classes=classes, trained=trained,
            demo=listing.synthetic, left_out=dict(left_out.most_common()), dropped=dropped,
            root=listing.root, faults=tuple(faults),
        )  # fmt: skip

    @property
    def roots(self) -> list[Path]:
        """Folders that the clips' audio was read from."""
        return [self.root]

    def waveform(self, row: int, augment: Augment | None = None, epoch: int = 0) -> np.ndarray:
        """Return a clip cut or filled to its length, float32 (n_samples,), disturbed if wished.

        A disturbance depends on the clip's bytes, the seed and the epoch alone.

        Raises:
            AudioError: The file is gone, or has changed for the worse.
        """
        settings = self.settings
        path = self.root / str(self.table["path"].iat[row])
        start, end = (self.table[name].to_numpy(float)[row] for name in ("start", "end"))
        if augment is None:
            clip = AudioFile(path).read(settings.seconds, settings.trim, start, end or None)
        else:
            # Read long enough that what is sped up still has the clip's length, where it can.
            clip = AudioFile(path).read(
                settings.seconds * _REACH, settings.trim, start, end or None
            )
            seed = [settings.seed, epoch, int(clip.sha256[:16], 16)]
            clip = replace(clip, samples=augment(clip.samples, seed))
        return clip.fit(settings.seconds, settings.fill, settings.seed)

    def log_probabilities(
        self, folder: Path, rows: np.ndarray
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return log-probabilities float32 (n, C) by the network in a folder, and its card.

        Raises:
            HeadError: No network there.
        """
        network, card = load_network(folder)
        return self.by_network(network, rows, SCORED_BATCH), card

    def by_network(self, network: Network, rows: np.ndarray, batch_size: int) -> np.ndarray:
        """Return log-probabilities float32 (n, C) of some clips, undisturbed, on a GPU if there is
        one.

        Raises:
            SerEmbedError: The network's output isn't finite.
        """
        network.module.to("cuda" if torch.cuda.is_available() else "cpu")
        found = [
            network.log_probabilities([self.waveform(int(row)) for row in batch])
            for batch in np.split(rows, range(batch_size, len(rows), batch_size))
        ]
        log_probs = np.concatenate(found)
        if not np.isfinite(log_probs).all():
            raise SerEmbedError("the trained network's output is not finite: try a smaller --lr")
        return log_probs


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
