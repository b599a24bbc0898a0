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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from ser_embed.audio import CLIP_SECONDS, FillRule
from ser_embed.backends import BackendName, Precision
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
from ser_embed.corpora import discover, listing_of, read_demo
from ser_embed.encoder import Encoder, load_encoder
from ser_embed.errors import CorpusError
from ser_embed.features import FeatureSettings, Layer, Norm, Pool
from ser_embed.listing import DEMO, Listing
from ser_embed.naming import Utterance
from ser_embed.reading import CLIPS_AT_ONCE, Batches, ReadClip, Readers
from ser_embed.store import store_path
from ser_embed.writer import StoreWriter, row_of

__all__ = ["ExtractConfig", "extract", "extract_listing", "main", "spread"]

log = logging.getLogger(__name__)

LISTED_FAULTS = 20  # failed clips that are named one by one; the store's table has them all


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
    precision: Precision = "fp32"
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
    """Folder of the stores."""


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
        self.encoded = self.reused = self.copies = self.failed = 0
        self.first_faults: list[tuple[Path, str]] = []
        for path, reason in listing.faults:  # some have no place in the corpus at all
            self._fail(Utterance(path, listing.corpus, "", "", ""), reason)

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
            self._fail(utterance, item.fault, item.sha256)
            return
        identity = (utterance.path.name, item.sha256)
        if not self.writer.see(identity):
            self.copies += 1  # downloads often hold the same folder twice
            return
        if item.waveform is not None:
            self._encode(batches.add(utterance, item))
            return
        seconds = self.writer.known[identity].row.seconds
        self.writer.meet(row_of(utterance, self.listing.root, item.sha256, seconds))
        self.reused += 1

    def _fail(self, utterance: Utterance, reason: str, sha256: str = "") -> None:
        """Record a clip that can't be used; no hash if not even its bytes could be read."""
        self.writer.meet(row_of(utterance, self.listing.root, sha256, 0.0, reason))
        self.failed += 1
        if len(self.first_faults) < LISTED_FAULTS:
            self.first_faults.append((utterance.path, reason))

    def _encode(self, batch: list[tuple[Utterance, ReadClip]]) -> None:
        if not batch:
            return
        waveforms = [item.waveform for _, item in batch if item.waveform is not None]
        results = self.encoder.features(waveforms, self.config.norm, self.config.pool)
        for (utterance, item), waveform, (features, extrema) in zip(
            batch, waveforms, results, strict=True
        ):
            with np.errstate(over="ignore"):
                stored = features.astype(self.config.dtype)
            if not np.isfinite(stored).all():
                self._fail(utterance, _unfit(features, self.config.dtype), item.sha256)
                continue
            row = row_of(utterance, self.listing.root, item.sha256, item.seconds)
            frames = self.encoder.n_frames(len(waveform))
            self.writer.add(row, stored, extrema, frames)
            self.writer.meet(row)
            self.encoded += 1

    def finish(self) -> dict[str, int]:
        """Write the finished file."""
        if not self.encoded + self.reused:
            path, reason = self.first_faults[0]
            raise CorpusError(
                f"{self.listing.root}: none of its {self.failed} clips can be used; "
                f"the first is {path}: {reason}"
            )
        return self.writer.finish(prune=self.config.prune)


def _unfit(features: np.ndarray, dtype: str) -> str:
    """Return why features can't be stored."""
    if not np.isfinite(features).all():
        return "the encoder's output is not finite"
    return f"the encoder's output is beyond {dtype}; store it with --dtype float32"


def spread(utterances: Sequence[Utterance], limit: int) -> Sequence[Utterance]:
    """Return `limit` clips at even distances, so that every speaker and emotion is met."""
    if limit <= 0 or limit >= len(utterances):
        return utterances
    return tuple(utterances[i * len(utterances) // limit] for i in range(limit))


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
    demo = listing.corpus == DEMO
    with StoreWriter.open(
        path, settings, listing.corpus, listing.root, trained=encoder.trained, demo=demo
    ) as writer:
        run = _Run(listing, encoder, config, writer)
        run.run(readers)
        totals = run.finish()
    seconds = time.perf_counter() - started
    _report(run, totals, path)
    return {
        "store": str(path),
        "clips": run.encoded + run.reused + run.failed,
        "stored": run.encoded,
        "reused": run.reused,
        "failed": run.failed,
        "seconds": round(seconds, 3),
        "clips_per_second": round(run.encoded / seconds, 2),
    }


def _report(run: _Run, totals: dict[str, int], path: Path) -> None:
    counts = f"{run.encoded} clips encoded, {run.reused} already there, {run.failed} failed"
    log.info("%s: %s -> %s", run.listing.corpus, counts, path)
    if run.copies:
        log.info("%d files have the name and bytes of another; each clip is kept once", run.copies)
    if totals["kept"] and not run.config.limit:
        log.info(
            "%d clips of earlier runs are not in %s any more and are kept; --prune drops them",
            totals["kept"],
            run.listing.root,
        )
    for clip, reason in run.first_faults:
        print(f"failed: {clip}: {reason}", file=sys.stderr)
    if run.failed > LISTED_FAULTS:
        print(
            f"... and {run.failed - LISTED_FAULTS} more; python -m ser_embed.store {path}",
            file=sys.stderr,
        )


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
    return [read_demo()]


def extract(config: ExtractConfig) -> Outcome:
    """Encode the corpora that the options name.

    Raises:
        SerEmbedError: No corpus, encoder or usable clip; a store held by another process; a
            disk that can't be written. What was stored stays.
    """
    _check(config)
    listings = _listings(config)
    clips = sum(len(listing.utterances) for listing in listings)
    with Readers(min(config.workers, -(-clips // CLIPS_AT_ONCE))) as readers:
        encoder = load_encoder(
            config.encoder,
            config.layer,
            backend=config.backend,
            precision=config.precision,
            seed=config.seed,
        )
        log.info("encoder %s, layer %s, %s", encoder.name, encoder.layer, encoder.backend.name)
        stores = [extract_listing(listing, encoder, config, readers) for listing in listings]
    result: dict[str, Any] = dict(stores[0])
    if len(stores) > 1:
        result["store"] = [one["store"] for one in stores]
        for name in ("clips", "stored", "reused", "failed", "seconds"):
            result[name] = sum(one[name] for one in stores)
        result["clips_per_second"] = round(result["stored"] / result["seconds"], 2)
    return Outcome(result, SOME_CLIPS_FAILED if result["failed"] else DONE)


def _check(config: ExtractConfig) -> None:
    if config.seconds != 0 and not 0.025 <= config.seconds < math.inf:
        raise CorpusError(f"--seconds {config.seconds}: give 0 for whole clips, or 0.025 and more")
    if config.batch_size < 1:
        raise CorpusError(f"--batch-size {config.batch_size}: at least 1")
    if config.workers < 0:
        raise CorpusError(f"--workers {config.workers}: give 0 for none, or more")
    if not 0 <= config.seed < 2**63:
        raise CorpusError(f"--seed {config.seed}: from 0 to 2^63 - 1")


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.extract`."""
    return run_command(extract, ExtractConfig, "python -m ser_embed.extract", argv)


if __name__ == "__main__":
    raise SystemExit(main())
