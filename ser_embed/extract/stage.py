"""Stage 1: encode every clip of a corpus once, and keep the features.

`python -m ser_embed.extract ROOT --corpus ravdess` makes or completes
`artifacts/features/ravdess-<encoder>-<key>.h5`. Run it again after a kill, or after clips were
added or changed, and it does only what is missing.
"""

import logging
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tqdm import tqdm

from ser_embed.audio import CLIP_SECONDS, FillRule
from ser_embed.command import (
    DONE,
    FEATURES_DIR,
    SOME_CLIPS_FAILED,
    Options,
    Outcome,
    data_folder,
    hide_bar,
    run_command,
)
from ser_embed.corpora import Listing, Utterance, discover, listing_of
from ser_embed.encoders import BackendName, Encoder, Layer, Norm, Pool, load_encoder
from ser_embed.errors import CorpusError
from ser_embed.extract.cluster import ClusterOptions, cluster, extract_ray
from ser_embed.extract.encoding import Tally, encode_batch, spread
from ser_embed.extract.reading import CLIPS_AT_ONCE, Batches, ReadClip, Readers
from ser_embed.store import STORED, FeatureSettings, StoreWriter, row_of, store_path

__all__ = ["ExtractConfig", "extract", "extract_listing", "main"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractConfig(Options):
    """Encode a corpus with a frozen encoder and cache the features.

    Without ROOT: every known corpus found under ./data or $SER_EMBED_DATA, each once; if there
    is none, the synthetic demo corpus that ships with the project.
    """

    root: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the corpus, in any nesting."""
    corpus: str = ""
    """ravdess, ravdess-song, tess, urdu, crema-d, emo-db, savee, nemo, or demo."""
    csv: Path | None = None
    """A CSV with the header path,emotion[,speaker,gender,intensity,split] instead."""
    encoder: str = "mini"
    """Encoder by name, hub id or folder. random-base is the untrained control."""
    layer: Layer | None = None
    """Hidden layer N, all, or logits (CTC). Default: the middle layer."""
    pool: Pool = "none"
    """mean keeps each layer's mean over time only, stats its mean and standard deviation."""
    trim: bool = True
    """Silence before and after the speech is cut first; this keeps it."""
    seconds: float = CLIP_SECONDS
    """Clip length in seconds, first part kept; 0 for whole clips."""
    fill: FillRule | None = None
    """How shorter clips are filled: sample (random samples of the clip), repeat, zero, none.
    Default: none where the encoder masks what is missing, else sample."""
    norm: Norm = "none"
    """Min-max to [-1, 1] per frame (the paper's) or per clip, or none."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type that features are stored in."""
    backend: BackendName = "auto"
    """auto picks by hardware: CUDA, OpenVINO on x86 processors if installed, else torch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder; bf16 is faster and its features differ by up to 2 percent."""
    batch_size: int = 8
    """Clips per batch."""
    workers: int = max(1, min(16, (os.cpu_count() or 1) - 1))
    """Processes that hash and decode; 0 does it in the main process."""
    limit: int = 0
    """Only so many clips, spread evenly over the corpus; 0 for all."""
    prune: bool = False
    """Drop clips of earlier runs that are no longer in the corpus."""
    seed: int = 0
    """Seed of the random fill, and of the weights of untrained encoders."""
    features_dir: Path = FEATURES_DIR
    """Folder of the stores. With --engine ray every machine has to see it."""
    engine: Literal["local", "ray"] = "local"
    """ray encodes on a cluster: shards in <store>.shards, and the store is an index over them."""
    address: str = ""
    """Ray cluster: auto, or HOST:PORT. Default: Ray is started on this machine."""
    url: str = ""
    """Write the store behind a URL of fsspec (s3://BUCKET/FOLDER, gs://, file://), with ray."""
    block_clips: int = 256
    """Clips a shard, with ray."""
    actors: int = 0
    """Encoders at the same time, with ray; 0 for one a GPU, without GPUs one a processor."""


# --- one corpus ------------------------------------------------------------------------------


def _settings(config: ExtractConfig, encoder: Encoder) -> FeatureSettings:
    return FeatureSettings(
        encoder=encoder.name,
        weights=encoder.weights,
        layer=encoder.layer,
        pool=config.pool,
        norm=config.norm,
        trim=config.trim,
        seconds=config.seconds,
        # Without a mask only clips of equal length share a batch.
        fill=config.fill or ("none" if encoder.masks else "sample"),
        dtype=config.dtype,
        precision=config.precision,
        seed=config.seed,
    )


class _Run:
    """One corpus's way into its store."""

    def __init__(
        self, listing: Listing, encoder: Encoder, config: ExtractConfig, writer: StoreWriter
    ) -> None:
        self.listing, self.encoder, self.config, self.writer = listing, encoder, config, writer
        self.utterances = spread(listing.utterances, config.limit)
        self.settings = _settings(config, encoder)
        self.tally = Tally(listing, writer)

    def run(self, readers: Readers) -> None:
        """Encode what isn't known yet."""
        batches = Batches(self.encoder, self.config.batch_size)
        bar = tqdm(
            readers.read(self.utterances, self.settings, self.writer.known),
            desc=self.listing.corpus,
            total=len(self.utterances),
            unit="clip",
            disable=hide_bar(self.config),
            smoothing=0.05,
        )
        try:
            for utterance, item in bar:
                self._take(utterance, item, batches)
            for batch in batches.rest():
                self._encode(batch)
        except KeyboardInterrupt:
            self.writer.flush()
            stored = f"{len(self.writer.known)} clips are stored"
            print(f"\n{self.listing.corpus}: {stored}", file=sys.stderr)
            raise
        finally:
            self.writer.flush()

    def _take(self, utterance: Utterance, item: ReadClip, batches: Batches) -> None:
        if item.fault:
            self.tally.fail(utterance, item.fault, item.sha256)
        elif not self.tally.is_new((utterance.path.name, item.sha256)):
            return
        elif item.waveform is not None:
            self._encode(batches.add(utterance, item))
        else:
            self.tally.reuse(row_of(utterance, self.listing.root, item.sha256, 0.0))

    def _encode(self, batch: list[tuple[Utterance, ReadClip]]) -> None:
        for clip in encode_batch(self.encoder, self.settings, self.listing.root, batch):
            if clip.row.state == STORED:
                self.writer.add(*clip)
            self.tally.take(clip.row)


def extract_listing(
    listing: Listing, encoder: Encoder, config: ExtractConfig, readers: Readers
) -> dict[str, Any]:
    """Encode one corpus's clips into its store; return the counts and the store's path.

    Args:
        listing: The clips.
        encoder: The encoder, loaded.
        config: Everything else; its corpus and encoder aren't looked at.
        readers: Processes that read the clips, started before the encoder was loaded.

    Raises:
        SerEmbedError: The store is held by another process or can't be written, or no clip can
            be used.
    """
    settings = _settings(config, encoder)
    path = store_path(config.features_dir, listing.corpus, settings)
    started = time.perf_counter()
    demo = listing.synthetic
    with StoreWriter.open(
        path, settings, listing.corpus, listing.root, trained=encoder.trained, demo=demo
    ) as writer:
        run = _Run(listing, encoder, config, writer)
        run.run(readers)
        totals = run.tally.finish(config.prune)
    seconds = time.perf_counter() - started
    run.tally.report(str(path), 0 if config.limit else totals["kept"])
    return run.tally.result(str(path), seconds)


# --- the command -----------------------------------------------------------------------------


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
    options = ClusterOptions(
        config.url, config.block_clips, config.actors, config.backend, config.batch_size,
        config.limit, config.prune, hide_bar(config),
    )  # fmt: skip
    with cluster(config.address):
        encoder = _load(config, "torch")  # here it only tells what the features depend on
        settings = _settings(config, encoder)
        return [
            extract_ray(listing, encoder, settings, config.features_dir, options)
            for listing in listings
        ]


def _load(config: ExtractConfig, backend: BackendName) -> Encoder:
    return load_encoder(
        config.encoder, config.layer, backend=backend, precision=config.precision,
        seed=config.seed,
    )  # fmt: skip


def _check(config: ExtractConfig) -> None:
    if config.seconds != 0 and not 0.025 <= config.seconds < math.inf:
        raise CorpusError(f"--seconds {config.seconds}: give 0 for whole clips, or 0.025 and more")
    if config.batch_size < 1:
        raise CorpusError(f"--batch-size {config.batch_size}: at least 1")
    if config.workers < 0:
        raise CorpusError(f"--workers {config.workers}: give 0 for none, or more")
    if config.engine == "local" and (config.url or config.address):
        raise CorpusError("--url and --address are for --engine ray; add it")
    if config.block_clips < 1:
        raise CorpusError(f"--block-clips {config.block_clips}: at least 1")
    if config.actors < 0:
        raise CorpusError(f"--actors {config.actors}: give 0 for one a GPU or processor, or more")
    if not 0 <= config.seed < 2**63:
        raise CorpusError(f"--seed {config.seed}: from 0 to 2^63 - 1")


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.extract`."""
    return run_command(extract, ExtractConfig, "python -m ser_embed.extract", argv)


if __name__ == "__main__":
    raise SystemExit(main())
