"""Reading clips for the encoder: hashed, decoded, cut or filled in worker processes, batched."""

import itertools
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ser_embed.audio import AudioFile
from ser_embed.corpora import Utterance
from ser_embed.encoders import Encoder
from ser_embed.errors import AudioError
from ser_embed.extract.workers import Worker
from ser_embed.store import FeatureSettings, Identity

__all__ = ["Batches", "ReadClip", "Readers"]

CLIPS_AT_ONCE = 8  # clips that a worker takes at a time
GROUPS_AHEAD = 2  # such groups on their way, by worker
HASHED_AHEAD = 256  # unknown clips gathered before any is decoded


@dataclass(frozen=True)
class ReadClip:
    """What a worker makes of one clip: a waveform, a known hash, or a reason why neither.

    Attributes:
        sha256: Hash of the file's bytes, empty if they can't be read.
        seconds: Length of the whole file.
        waveform: float32 (n_samples,) at 16 kHz, cut or filled; None if the hash is known.
        fault: Why the clip can't be used.
    """

    sha256: str = ""
    seconds: float = 0.0
    waveform: np.ndarray | None = None
    fault: str = ""


_Read = Callable[[Path], ReadClip]


def _hash(path: Path) -> ReadClip:
    try:
        return ReadClip(AudioFile(path).sha256())
    except AudioError as error:
        return ReadClip(fault=str(error).removeprefix(f"{path}: "))


def _read(settings: FeatureSettings, path: Path) -> ReadClip:
    """Read one clip; a fault is returned, not raised."""
    try:
        clip = AudioFile(path).read(settings.seconds, settings.trim)
    except AudioError as error:
        return ReadClip(_hash(path).sha256, fault=str(error).removeprefix(f"{path}: "))
    waveform = clip.fit(settings.seconds, settings.fill, settings.seed)
    return ReadClip(clip.sha256, clip.seconds, waveform)


def _lost(path: Path) -> ReadClip:
    return ReadClip(
        fault="the process that read it was ended each time; the file crashes its decoder, or "
        "needs more memory than there is"
    )


class Readers:
    """Worker processes that hash, decode and cut clips.

    Start them before the encoder is loaded: a process forked from one that holds it costs a copy
    of every page of it that either writes to.

    Args:
        workers: How many processes; 0 reads in this one.
    """

    def __init__(self, workers: int) -> None:
        self._workers: list[Worker[Path, ReadClip]] = [Worker(_lost) for _ in range(workers)]

    def __enter__(self) -> "Readers":
        """Return the readers."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End the processes."""
        self.close()

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()

    def read(
        self,
        utterances: Iterable[Utterance],
        settings: FeatureSettings,
        known: Container[Identity] = (),
    ) -> Iterator[tuple[Utterance, ReadClip]]:
        """Yield what is read of each clip, known ones ahead of their turn.

        The order depends on the clips and on what is known, not on the number of workers.

        Args:
            utterances: The clips; taken one by one, as they are needed.
            settings: How a clip is cut and filled.
            known: Clips that need no decoding, by name and hash. If it is empty, no clip is
                hashed before it is decoded.
        """
        read = partial(_read, settings)
        if not known:
            yield from self._all(read, utterances)
            return
        unknown: list[Utterance] = []
        for utterance, item in self._all(_hash, utterances):
            if item.fault or (utterance.path.name, item.sha256) in known:
                yield utterance, item
                continue
            unknown.append(utterance)
            if len(unknown) == HASHED_AHEAD:
                yield from self._all(read, unknown)
                unknown = []
        yield from self._all(read, unknown)

    def _all(
        self, function: _Read, utterances: Iterable[Utterance]
    ) -> Iterator[tuple[Utterance, ReadClip]]:
        """Apply a function to every clip in the workers; a bounded number are on their way."""
        if not self._workers:
            for utterance in utterances:
                yield utterance, function(utterance.path)
            return
        pending: deque[tuple[list[Utterance], Worker[Path, ReadClip], int]] = deque()
        turns = itertools.cycle(self._workers)
        rest = iter(utterances)
        try:
            while group := list(itertools.islice(rest, CLIPS_AT_ONCE)):
                worker = next(turns)
                ticket = worker.send(function, [utterance.path for utterance in group])
                pending.append((group, worker, ticket))
                if len(pending) > GROUPS_AHEAD * len(self._workers):
                    yield from _first(pending)
            while pending:
                yield from _first(pending)
        finally:
            for _, worker, ticket in pending:
                worker.forget(ticket)


def _first(
    pending: deque[tuple[list[Utterance], Worker[Path, ReadClip], int]],
) -> Iterator[tuple[Utterance, ReadClip]]:
    """Yield the results of the group that was sent first."""
    group, worker, ticket = pending.popleft()
    yield from zip(group, worker.receive(ticket), strict=True)


class Batches:
    """Gathers clips into batches of equal, or where the encoder masks similar, length."""

    def __init__(self, encoder: Encoder, batch_size: int) -> None:
        self.encoder, self.batch_size = encoder, batch_size
        self.waiting: dict[int, list[tuple[Utterance, ReadClip]]] = {}
        self.most = 16 * batch_size  # whole clips may all differ in length: memory stays bounded

    def add(self, utterance: Utterance, item: ReadClip) -> list[tuple[Utterance, ReadClip]]:
        """Take a clip; return a batch when one is due, else an empty list."""
        assert item.waveform is not None
        n = len(item.waveform)
        key = -(-n // 8000) if self.encoder.masks else n  # half-second buckets
        self.waiting.setdefault(key, []).append((utterance, item))
        if len(self.waiting[key]) >= self.batch_size:
            return self.waiting.pop(key)
        if sum(map(len, self.waiting.values())) >= self.most:
            return self.waiting.pop(max(self.waiting, key=lambda k: len(self.waiting[k])))
        return []

    def rest(self) -> Iterator[list[tuple[Utterance, ReadClip]]]:
        """Yield what is left."""
        yield from self.waiting.values()
        self.waiting = {}
