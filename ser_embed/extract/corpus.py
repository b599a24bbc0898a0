"""Extraction of one corpus on this machine, and of all that the options name."""

import logging
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from ser_embed.command import DONE, SOME_CLIPS_FAILED, Outcome, data_folder
from ser_embed.corpora import Listing, Utterance, discover, listing_of
from ser_embed.encoders import BackendName, Encoder, load_encoder
from ser_embed.errors import CorpusError
from ser_embed.extract.cluster import cluster, extract_ray
from ser_embed.extract.encoding import Batches, Tally, encode_batch, settings_of, spread
from ser_embed.extract.formats import Formats
from ser_embed.extract.options import ExtractConfig
from ser_embed.extract.owners import store_path
from ser_embed.extract.reading import CLIPS_AT_ONCE, ReadClip, Readers
from ser_embed.progress import track
from ser_embed.store import ClipRow, StoreWriter

__all__ = ["extract", "extract_listing"]

log = logging.getLogger(__name__)


class _Run:
    """One corpus on its way into its store."""

    def __init__(
        self, listing: Listing, encoder: Encoder, config: ExtractConfig, writer: StoreWriter
    ) -> None:
        self.listing, self.encoder, self.config, self.writer = listing, encoder, config, writer
        self.formats = Formats.of(listing)
        self.utterances = spread(self.formats.first, config.limit)
        self.settings = settings_of(config, encoder)
        self.tally = Tally(listing, writer)
        self.unusable: set[str] = set()  # files that can't be read

    def run(self, readers: Readers) -> None:
        """Encode what isn't known yet."""
        batches = Batches(self.encoder, self.config.batch_size, self.config.seconds)
        clips = readers.read(self.utterances, self.settings, self.writer.known)
        what, total = f"encode {self.listing.corpus}", len(self.utterances)
        try:
            for utterance, item in track(clips, what, "clip", total, self.config.quiet):
                self._add(utterance, item, batches)
            for utterance, item in readers.read(self._stand_ins(), self.settings):
                self._add(utterance, item, batches)
            for batch in batches.rest():
                self._encode(batch)
        except KeyboardInterrupt:
            self.writer.flush()
            stored = f"{len(self.writer.known)} clips are stored"
            print(f"\n{self.listing.corpus}: {stored}", file=sys.stderr)
            raise
        finally:
            self.writer.flush()

    def _stand_ins(self) -> list[Utterance]:
        """Return the files to take for those that can't be used; leave out the others."""
        wanted = []
        for path, others in self.formats.others.items():
            if path in self.unusable:
                wanted += others[:1]
                path, others = str(others[0].path), others[1:]
            for utterance in others:
                self.tally.leave_out(utterance, Path(path))
        return wanted

    def _add(self, utterance: Utterance, item: ReadClip, batches: Batches) -> None:
        row = ClipRow.of(utterance, self.listing.root, item.sha256, item.seconds)
        if item.fault:
            self.unusable.add(str(utterance.path))
            self.tally.fail(utterance, item.fault, item.sha256)
        elif not self.tally.is_new(row):
            return
        elif item.waveform is not None:
            self._encode(batches.add(utterance, item))
        else:
            self.tally.reuse(row)

    def _encode(self, batch: list[tuple[Utterance, ReadClip]]) -> None:
        clips = list(encode_batch(self.encoder, self.settings, self.listing.root, batch))
        self.writer.add([clip for clip in clips if clip.row.is_stored])
        for clip in clips:
            self.tally.add(clip.row)


def extract_listing(
    listing: Listing, encoder: Encoder, config: ExtractConfig, readers: Readers
) -> dict[str, Any]:
    """Encode one corpus's clips into its store; return the counts and the store's path.

    Args:
        listing: The clips.
        encoder: The encoder, loaded.
        config: Everything else; its corpus and encoder aren't looked at.
        readers: Processes that read the clips.

    Raises:
        SerEmbedError: The store is held by another process or can't be written, or no clip can
            be used.
    """
    settings = settings_of(config, encoder)
    path, listing = store_path(config.features_dir, settings, listing)
    started = time.perf_counter()
    demo = listing.synthetic
    with StoreWriter.open(
        path, settings, listing.corpus, listing.root, trained=encoder.trained, demo=demo
    ) as writer:
        run = _Run(listing, encoder, config, writer)
        run.run(readers)
        totals = run.tally.finish(config.prune, bool(config.limit))
    seconds = time.perf_counter() - started
    run.tally.report(str(path), 0 if config.limit else totals["kept"])
    return run.tally.result(str(path), seconds)


# --- every corpus that the options name -------------------------------------------------------


def _listings(config: ExtractConfig) -> list[Listing]:
    if config.root or config.csv or config.corpus:
        return [listing_of(config.root, config.corpus, config.csv)]
    folder = data_folder()
    found = discover(folder) if folder.is_dir() else []
    if found:
        log.info("%s holds %s", folder, ", ".join(listing.corpus for listing in found))
        return found
    if "SER_EMBED_DATA" in os.environ:
        raise CorpusError(f"SER_EMBED_DATA={folder}: no known corpus found there")
    log.info(
        "No corpus under ./data: encoding the synthetic demo corpus that ships with ser_embed. "
        "Its scores say nothing about real speech."
    )
    return [listing_of(None, "demo", None)]


def extract(config: ExtractConfig) -> Outcome:
    """Encode the corpora that the options name.

    Raises:
        SerEmbedError: No corpus, encoder or usable clip; a store held by another process; a
            disk that can't be written. What was stored stays.
    """
    _check(config)
    listings = _listings(config)
    stores = _on_cluster(config, listings) if config.engine == "ray" else _here(config, listings)
    result: dict[str, Any] = dict(stores[0])
    if len(stores) > 1:
        result["store"] = [one["store"] for one in stores]
        for name in ("clips", "stored", "reused", "failed", "seconds"):
            result[name] = sum(one[name] for one in stores)
        result["clips_per_second"] = round(result["stored"] / result["seconds"], 2)
    return Outcome(result, SOME_CLIPS_FAILED if result["failed"] else DONE)


def _here(config: ExtractConfig, listings: list[Listing]) -> list[dict[str, Any]]:
    clips = sum(len(listing.utterances) for listing in listings)
    with Readers(min(config.workers, -(-clips // CLIPS_AT_ONCE))) as readers:
        encoder = _load(config, config.backend)
        log.info("encoder %s, layer %s, %s", encoder.name, encoder.layer, encoder.backend.name)
        return [extract_listing(listing, encoder, config, readers) for listing in listings]


def _on_cluster(config: ExtractConfig, listings: list[Listing]) -> list[dict[str, Any]]:
    with cluster(config.address):
        encoder = _load(config, "torch")  # here it only says what the features depend on
        return [extract_ray(listing, encoder, config) for listing in listings]


def _load(config: ExtractConfig, backend: BackendName) -> Encoder:
    return load_encoder(
        config.encoder, config.layer, backend=backend, precision=config.precision,
        seed=config.seed, context=config.context,
    )  # fmt: skip


def _check(config: ExtractConfig) -> None:
    if config.seconds != 0 and not 0.025 <= config.seconds < math.inf:
        raise CorpusError(f"--seconds {config.seconds}: give 0 for whole clips, or 0.025 and more")
    if config.batch_size is not None and config.batch_size < 1:
        raise CorpusError(f"--batch-size {config.batch_size}: at least 1")
    if config.workers < 0:
        raise CorpusError(f"--workers {config.workers}: give 0 for none, or more")
    if config.engine == "local" and (config.url or config.address):
        raise CorpusError("--url and --address are for --engine ray; add it")
    if not 0 <= config.seed < 2**63:
        raise CorpusError(f"--seed {config.seed}: from 0 to 2^63 - 1")
