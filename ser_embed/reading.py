"""Reading clips for the encoder: hashed, decoded, cut or filled in worker processes, batched."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from ser_embed.audio import fit_clip, hash_file, read_clip
from ser_embed.encoder import Encoder
from ser_embed.errors import AudioError
from ser_embed.features import FeatureSettings
from ser_embed.naming import Utterance

__all__ = ["Batches", "ClipReader", "ReadClip", "clip_loader"]


@dataclass(frozen=True)
class ReadClip:
    """What a worker makes of one clip: a waveform, a known hash, or a reason why neither.

    Attributes:
        index: Its place among the utterances.
        sha256: Hash of the file's bytes, empty if they can't be read.
        seconds: Length of the whole file.
        waveform: float32 (n_samples,) at 16 kHz, cut or filled; None if the hash is known.
        fault: Why the clip can't be used.
    """

    index: int
    sha256: str = ""
    seconds: float = 0.0
    waveform: np.ndarray | None = None
    fault: str = ""


class ClipReader(Dataset[ReadClip]):
    """The clips of a listing, hashed, and decoded and cut or filled unless they are known."""

    def __init__(
        self,
        utterances: tuple[Utterance, ...],
        settings: FeatureSettings,
        known: frozenset[tuple[str, str]],
    ) -> None:
        self.utterances, self.settings, self.known = utterances, settings, known

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.utterances)

    def __getitem__(self, index: int) -> ReadClip:
        """Read one clip; a fault is returned, not raised."""
        path = self.utterances[index].path
        settings, sha256 = self.settings, ""
        try:
            if self.known:
                sha256 = hash_file(path)
                if (path.name, sha256) in self.known:
                    return ReadClip(index, sha256)
            clip = read_clip(path, settings.seconds, settings.trim)
        except AudioError as error:
            return ReadClip(index, sha256, fault=str(error).removeprefix(f"{path}: "))
        waveform = fit_clip(clip, settings.seconds, settings.fill, settings.seed)
        return ReadClip(index, clip.sha256, clip.seconds, waveform)


def clip_loader(clips: ClipReader, workers: int) -> DataLoader[ReadClip]:
    """Return the clips in their order, read by so many processes (0: by this one)."""
    return DataLoader(
        clips,
        batch_size=None,
        num_workers=min(workers, len(clips)),
        collate_fn=_unchanged,
        worker_init_fn=_leave_interrupts,
    )


def _leave_interrupts(worker: int) -> None:
    """A terminal's Ctrl-C reaches the workers as well; the main process ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unchanged(item: Any) -> Any:
    return item


class Batches:
    """Gathers clips into batches of equal, or where the encoder masks similar, length."""

    def __init__(self, encoder: Encoder, batch_size: int) -> None:
        self.encoder, self.batch_size = encoder, batch_size
        self.waiting: dict[int, list[ReadClip]] = {}
        self.most = 16 * batch_size  # whole clips may all differ in length: memory stays bounded

    def add(self, item: ReadClip) -> list[ReadClip]:
        """Take a clip; return a batch when one is due, else an empty list."""
        assert item.waveform is not None
        n = len(item.waveform)
        key = -(-n // 8000) if self.encoder.masks else n  # half-second buckets
        self.waiting.setdefault(key, []).append(item)
        if len(self.waiting[key]) >= self.batch_size:
            return self.waiting.pop(key)
        if sum(map(len, self.waiting.values())) >= self.most:
            return self.waiting.pop(max(self.waiting, key=lambda k: len(self.waiting[k])))
        return []

    def rest(self) -> Iterator[list[ReadClip]]:
        """Yield what is left."""
        yield from self.waiting.values()
        self.waiting = {}
