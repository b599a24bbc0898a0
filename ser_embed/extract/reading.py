"""Reading clips: hashed, decoded, cut or filled in worker processes.

A worker imports this file, so it needs no more than numpy and soundfile.
"""

import itertools
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ser_embed.audio import SAMPLE_RATE, AudioFile
from ser_embed.corpora import Utterance
from ser_embed.errors import AudioError
from ser_embed.extract.workers import Worker

if TYPE_CHECKING:
    from ser_embed.store import FeatureSettings

__all__ = ["ReadClip", "Readers"]

CLIPS_AT_ONCE = 8  # clips that a worker takes at a time
GROUPS_AHEAD = 2  # such groups on their way, by worker
GROUP_BYTES = 2**25  # of a group's waveforms, about; one clip may have more
BYTES_AHEAD = 2**28  # of all that are on their way
SHORT_SECONDS = 30.0  # of clips that are all taken to be as long as that
HASHED_AHEAD = 256  # unknown clips gathered before any is decoded


@dataclass(frozen=True)
class ReadClip:
    """What a worker makes of one clip: a waveform, a known hash, or a reason why neither.

    Attributes:
        sha256: Hash of the file's bytes, empty if they can't be read.
        seconds: Length of the whole file, or of the range of it.
        waveform: float32 (n_samples,) at 16 kHz, cut or filled; None if the hash is known.
        fault: Why the clip can't be used.
    """

    sha256: str = ""
    seconds: float = 0.0
    waveform: np.ndarray | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Source:
    """What of an utterance a worker needs: the file, and the range of it."""

    path: Path
    start: float | None
    end: float | None

    @property
    def is_whole(self) -> bool:
        return self.start is None and self.end is None


_Read = Callable[[_Source], ReadClip]

_TOO_LARGE = "needs more memory than there is; a clip length (--seconds) bounds it"


def _hash(source: _Source) -> ReadClip:
    try:
        return ReadClip(AudioFile(source.path).sha256())
    except AudioError as error:
        return ReadClip(fault=str(error).removeprefix(f"{source.path}: "))


def _read(seconds: float, trim: bool, fill: str, seed: int, source: _Source) -> ReadClip:
    """Read one clip; a fault is returned, not raised."""
    try:
        clip = AudioFile(source.path).read(seconds, trim, source.start, source.end)
    except AudioError as error:
        fault = str(error).removeprefix(f"{source.path}: ")
        return ReadClip(_hash(source).sha256, fault=fault)
    except MemoryError:
        return ReadClip(_hash(source).sha256, fault=_TOO_LARGE)
    waveform = clip.fit(seconds, fill, seed)
    return ReadClip(clip.sha256, clip.seconds, waveform)


def _lost(source: _Source) -> ReadClip:
    return ReadClip(
        fault="the process that read it was ended each time; the file crashes its decoder, or "
        "needs more memory than there is"
    )


class Readers:
    """Worker processes that hash, decode and cut clips.

    Args:
        workers: How many processes; 0 reads in this one.
    """

    def __init__(self, workers: int) -> None:
        self._workers: list[Worker[_Source, ReadClip]] = [Worker(_lost) for _ in range(workers)]

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
        settings: "FeatureSettings",
        known: Container[tuple[str, str]] = (),
    ) -> Iterator[tuple[Utterance, ReadClip]]:
        """Yield what is read of each clip, known ones ahead of the others.

        The order depends on the clips and on what is known, not on the number of workers.

        Args:
            utterances: The clips; taken one by one, as they are needed.
            settings: How a clip is cut and filled.
            known: Clips that need no decoding, by name and hash. If it is empty, no clip is
                hashed before it is decoded.
        """
        from ser_embed.store import ClipRow  # needs HDF5, which a worker doesn't

        read = partial(_read, settings.seconds, settings.trim, settings.fill, settings.seed)
        size = partial(_waveform_bytes, settings.seconds)
        if not known:
            yield from self._all(read, utterances, size)
            return
        unknown: list[Utterance] = []
        for utterance, item in self._all(_hash, utterances):
            if item.fault or ClipRow.identity_of(utterance, item.sha256) in known:
                yield utterance, item
                continue
            unknown.append(utterance)
            if len(unknown) == HASHED_AHEAD:
                yield from self._all(read, unknown, size)
                unknown = []
        yield from self._all(read, unknown, size)

    def _all(
        self,
        function: _Read,
        utterances: Iterable[Utterance],
        size: Callable[[Utterance], int] = lambda utterance: 0,
    ) -> Iterator[tuple[Utterance, ReadClip]]:
        """Apply a function to every clip in the workers.

        A bounded number are on their way, and of waveforms, by their `size`, a bounded number of
        bytes.
        """
        if not self._workers:
            for utterance in utterances:
                yield utterance, function(_source(utterance))
            return
        pending: deque[tuple[list[Utterance], Worker[_Source, ReadClip], int]] = deque()
        sizes: deque[int] = deque()  # of the groups that are pending
        workers = itertools.cycle(self._workers)
        try:
            for group, n_bytes in _groups(utterances, size):
                while pending and sum(sizes) + n_bytes > BYTES_AHEAD:
                    sizes.popleft()
                    yield from _first(pending)
                worker = next(workers)
                ticket = worker.send(function, [_source(one) for one in group])
                pending.append((group, worker, ticket))
                sizes.append(n_bytes)
                if len(pending) > GROUPS_AHEAD * len(self._workers):
                    sizes.popleft()
                    yield from _first(pending)
            while pending:
                yield from _first(pending)
        finally:
            for _, worker, ticket in pending:
                worker.forget(ticket)


def _source(utterance: Utterance) -> _Source:
    return _Source(utterance.path, utterance.start, utterance.end)


def _waveform_bytes(seconds: float, utterance: Utterance) -> int:
    """Return about how many bytes a clip's waveform takes at most."""
    if utterance.end:
        own = utterance.end - (utterance.start or 0.0)
        seconds = min(seconds, own) if seconds > 0 else own
    cut = int(seconds * SAMPLE_RATE * 4)
    if 0 < seconds <= SHORT_SECONDS:
        return cut
    try:
        # An MP3 of 64 kbit/s has 8 kB a second, its waveform 64 kB.
        whole = 8 * utterance.path.stat().st_size
    except OSError:
        return 0
    return min(whole, cut) if seconds > 0 else whole


def _groups(
    utterances: Iterable[Utterance], size: Callable[[Utterance], int]
) -> Iterator[tuple[list[Utterance], int]]:
    """Yield what a worker takes at a time, and its bytes."""
    group: list[Utterance] = []
    total = 0
    for utterance in utterances:
        n_bytes = size(utterance)
        if group and total + n_bytes > GROUP_BYTES:
            yield group, total
            group, total = [], 0
        group.append(utterance)
        total += n_bytes
        if len(group) == CLIPS_AT_ONCE:
            yield group, total
            group, total = [], 0
    if group:
        yield group, total


def _first(
    pending: deque[tuple[list[Utterance], Worker[_Source, ReadClip], int]],
) -> Iterator[tuple[Utterance, ReadClip]]:
    """Yield the results of the group that was sent first."""
    group, worker, ticket = pending.popleft()
    yield from zip(group, worker.receive(ticket), strict=True)
