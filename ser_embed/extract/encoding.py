"""From a batch of waveforms to clips as a store takes them, and the count of what became of each.

Both ways of extraction, in one process and on a cluster, encode and count by this.
"""

import heapq
import logging
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.audio import SAMPLE_RATE, AudioFile
from ser_embed.corpora import Listing, Utterance
from ser_embed.encoders import Encoder
from ser_embed.errors import AudioError, CorpusError, OutOfMemory
from ser_embed.extract.options import ExtractConfig
from ser_embed.extract.reading import ReadClip
from ser_embed.store import LEFT_OUT, ClipRow, EncodedClip, FeatureSettings, StoreWriter

__all__ = ["LISTED_FAULTS", "Batches", "Tally", "encode_batch", "settings_of", "spread"]

log = logging.getLogger(__name__)

WAITING_BYTES = 2**28  # of waveforms that wait for a batch, about
WHOLE_SECONDS = 5.0  # that a clip of a batch may have on average, where clips stay whole
LISTED_FAULTS = 20  # failed clips that are named one by one; the store's table has them all


def settings_of(config: ExtractConfig, encoder: Encoder) -> FeatureSettings:
    """Return what features depend on by some options and an encoder."""
    return FeatureSettings(
        encoder=encoder.name, weights=encoder.weights, layer=encoder.layer, pool=config.pool,
        norm=config.norm, trim=config.trim, seconds=config.seconds,
        fill=config.fill, dtype=config.dtype, precision=config.precision, seed=config.seed,
        configuration=encoder.configuration, context=encoder.context,
    )  # fmt: skip


class Batches:
    """Gathers clips of similar length into batches of so many samples in all.

    Args:
        batch_size: Clips of the length that is asked for; shorter ones are more to a batch, longer
            ones fewer. None for what suits the encoder's device.
        seconds: That length; 0 for whole clips.
    """

    def __init__(self, encoder: Encoder, batch_size: int | None, seconds: float) -> None:
        batch_size = batch_size or encoder.clips_at_once
        self.samples = round(batch_size * (seconds or WHOLE_SECONDS) * SAMPLE_RATE)  # of a batch
        self.waiting: dict[int, list[tuple[Utterance, ReadClip]]] = {}
        # Whole clips may all differ in length, and may be long: memory stays bounded.
        self.most, self.most_samples = 16 * batch_size, WAITING_BYTES // 4
        self.n_clips = self.n_samples = 0  # of what waits

    def add(self, utterance: Utterance, item: ReadClip) -> list[tuple[Utterance, ReadClip]]:
        """Add a clip; return a batch when one is due, else an empty list."""
        assert item.waveform is not None
        n = len(item.waveform)
        key = -(-n // 8000)  # half-second buckets
        self.waiting.setdefault(key, []).append((utterance, item))
        self.n_clips, self.n_samples = self.n_clips + 1, self.n_samples + n
        if n * (len(self.waiting[key]) + 1) > self.samples:  # another one would be too many
            return self._pop(key)
        if self.n_clips >= self.most:
            return self._pop(max(self.waiting, key=lambda k: len(self.waiting[k])))
        if self.n_samples >= self.most_samples:
            return self._pop(max(self.waiting, key=lambda k: _n_samples(self.waiting[k])))
        return []

    def _pop(self, key: int) -> list[tuple[Utterance, ReadClip]]:
        batch = self.waiting.pop(key)
        self.n_clips -= len(batch)
        self.n_samples -= _n_samples(batch)
        return batch

    def rest(self) -> Iterator[list[tuple[Utterance, ReadClip]]]:
        """Yield what is left."""
        for key in list(self.waiting):
            yield self._pop(key)


def _n_samples(batch: Sequence[tuple[Utterance, ReadClip]]) -> int:
    return sum(len(item.waveform) for _, item in batch if item.waveform is not None)


def encode_batch(
    encoder: Encoder,
    settings: FeatureSettings,
    root: Path,
    batch: Sequence[tuple[Utterance, ReadClip]],
) -> Iterator[EncodedClip]:
    """Yield the clips of a batch, encoded, in its order; one that can't be stored is failed.

    A batch that there is no memory for is halved, until one clip alone is failed for that.

    Args:
        encoder: The encoder.
        settings: How its output is normalised, pooled and stored.
        root: Folder that the table's paths are relative to.
        batch: Clips with their waveforms.
    """
    if not batch:
        return
    waveforms = [item.waveform for _, item in batch if item.waveform is not None]
    refused = ""
    try:
        results = encoder.features(waveforms, settings.norm, settings.pool)
    except OutOfMemory as error:
        refused = str(error).removeprefix(f"{encoder.name}: ")
    if refused:  # out of the handler, whose traceback holds the batch's tensors
        encoder.free_memory()
        if len(batch) > 1:
            log.info("not enough memory for a batch of %d clips: halved", len(batch))
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                yield from encode_batch(encoder, settings, root, half)
        else:
            utterance, item = batch[0]
            row = ClipRow.of(utterance, root, item.sha256, 0.0, refused)
            yield EncodedClip(row, np.empty(0), np.empty(0), 0)
        return
    for (utterance, item), waveform, (features, extrema) in zip(
        batch, waveforms, results, strict=True
    ):
        with np.errstate(over="ignore"):
            stored = features.astype(settings.dtype)
        if not np.isfinite(stored).all():
            row = ClipRow.of(utterance, root, item.sha256, 0.0, _unfit(features, settings.dtype))
            yield EncodedClip(row, np.empty(0), np.empty(0), 0)
            continue
        row = ClipRow.of(utterance, root, item.sha256, item.seconds)
        yield EncodedClip(row, stored, extrema, encoder.n_frames(len(waveform)))


def _unfit(features: np.ndarray, dtype: str) -> str:
    """Return why features can't be stored."""
    if not np.isfinite(features).all():
        return "the encoder's output is not finite"
    return f"the encoder's output is beyond {dtype}; store it with --dtype float32"


def _hash(path: Path) -> str:
    try:
        return AudioFile(path).sha256() if path.is_file() else ""  # a pipe would be waited for
    except AudioError:
        return ""


def spread(utterances: Sequence[Utterance], limit: int) -> Sequence[Utterance]:
    """Return `limit` clips at even distances, so that every speaker and emotion is among them."""
    if limit <= 0 or limit >= len(utterances):
        return utterances
    return tuple(utterances[i * len(utterances) // limit] for i in range(limit))


class Tally:
    """What became of a corpus's clips, handed to the writer and counted.

    Attributes:
        encoded: Clips encoded by this run.
        reused: Clips that were there.
        copies: Files with the name and bytes of an earlier one.
        failed: Clips that can't be used.
        left_out: Files with the utterance of another in another format.
    """

    first_left_out: ClipRow

    def __init__(self, listing: Listing, writer: StoreWriter) -> None:
        self.listing, self.writer = listing, writer
        self.encoded = self.reused = self.copies = self.failed = self.left_out = 0
        self.first_faults: list[tuple[Path, str]] = []
        self.seconds = array("d")  # of each clip
        self.longest: list[tuple[float, str]] = []
        for path, reason in listing.faults:  # some have no place in the corpus at all
            # By its hash: what was stored of a file that is left out now must not be kept.
            self.fail(Utterance(path, listing.corpus, "", "", ""), reason, _hash(path))

    def is_new(self, row: ClipRow) -> bool:
        """Return whether a clip comes for the first time; downloads often hold it twice.

        The file of one that doesn't is in the table as left out.
        """
        if self.writer.is_new(row.identity):
            return True
        self.copies += 1
        reason = "has the name and the bytes of another file, which is kept"
        out = replace(row, state=LEFT_OUT, reason=reason, seconds=0.0, checksum=0)
        self.writer.record(out)
        return False

    def leave_out(self, utterance: Utterance, path: Path) -> None:
        """Note that a file holds the utterance of another in another format."""
        self.left_out += 1
        kept = ClipRow.of(replace(utterance, path=path), self.listing.root, "", 0.0).path
        reason = f"the same utterance as {kept}, in another format"
        row = ClipRow.of(utterance, self.listing.root, "", 0.0, reason, LEFT_OUT)
        self.writer.record(row)
        if self.left_out == 1:
            self.first_left_out = row

    def add(self, row: ClipRow) -> None:
        """Count a clip as encoded, or as failed if its row says so."""
        self.writer.record(row)
        if row.is_stored:
            self.encoded += 1
            self._measure(row)
            return
        self.failed += 1
        if len(self.first_faults) < LISTED_FAULTS:
            self.first_faults.append((self.listing.root / row.path, row.reason))

    def fail(self, utterance: Utterance, reason: str, sha256: str = "") -> None:
        """Count a clip that can't be used; no hash if not even its bytes could be read."""
        self.add(ClipRow.of(utterance, self.listing.root, sha256, 0.0, reason))

    def reuse(self, row: ClipRow) -> None:
        """Count a clip that is stored already; all but its length is in the row."""
        seconds = self.writer.known[row.identity].row.seconds
        self.writer.record(replace(row, seconds=seconds))
        self._measure(replace(row, seconds=seconds))
        self.reused += 1

    def _measure(self, row: ClipRow) -> None:
        self.seconds.append(row.seconds)
        push = heapq.heappush if len(self.longest) < LISTED_FAULTS else heapq.heappushpop
        push(self.longest, (row.seconds, row.path))

    def finish(self, prune: bool, partial: bool) -> dict[str, int]:
        """Write the finished file; see `StoreWriter.finish`.

        Raises:
            CorpusError: No clip can be used.
        """
        if not self.encoded + self.reused:
            path, reason = self.first_faults[0]
            raise CorpusError(
                f"{self.listing.root}: none of its {self.failed} clips can be used; "
                f"the first is {path}: {reason}"
            )
        return self.writer.finish(prune=prune, partial=partial)

    def report(self, store: str, kept: int) -> None:
        """Say what was done, and name the failed clips.

        Args:
            store: Where the store is.
            kept: Clips of earlier runs that are to be named.
        """
        counts = f"{self.encoded} clips encoded, {self.reused} already there, {self.failed} failed"
        log.info("%s: %s -> %s", self.listing.corpus, counts, store)
        if self.copies:
            log.info(
                "%d files have the name and bytes of another; each clip is kept once", self.copies
            )
        if self.left_out:
            log.info(
                "%d files hold an utterance that another file has in another format, for instance "
                "%s: %s; each utterance is kept once",
                self.left_out, self.first_left_out.path, self.first_left_out.reason,
            )  # fmt: skip
        usual = Listing.longest_usual(self.seconds)
        for seconds, clip_path in sorted(self.longest, reverse=True):
            if seconds > usual:
                log.warning(
                    "%s: %.1f s, far longer than the others of %s; is it a clip or a whole "
                    "recording?", clip_path, seconds, self.listing.corpus,
                )  # fmt: skip
        if kept:
            log.info(
                "%d clips of earlier runs are not in %s any more and are kept; --prune drops them",
                kept,
                self.listing.root,
            )
        for clip, reason in self.first_faults:
            print(f"failed: {clip}: {reason}", file=sys.stderr)
        if self.failed > LISTED_FAULTS:
            print(
                f"... and {self.failed - LISTED_FAULTS} more; python -m ser_embed.store {store}",
                file=sys.stderr,
            )

    def result(self, store: str, seconds: float) -> dict[str, Any]:
        """Return the counts as extraction hands them back."""
        return {
            "store": store,
            "clips": self.encoded + self.reused + self.failed,
            "stored": self.encoded,
            "reused": self.reused,
            "failed": self.failed,
            "seconds": round(seconds, 3),
            "clips_per_second": round(self.encoded / seconds, 2),
        }
