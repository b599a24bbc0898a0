"""Stage 1 on a cluster: blocks of clips read by tasks, encoded by actors, stored by the driver.

The corpus is cut into blocks, which a Ray Data pipeline takes through two stages: tasks hash and
decode a block's clips as the local engine's readers do, actors encode them in batches as the
local engine forms them (`blocks.py`). What comes back to the driver it adds to the store, with
the writer of the local engine.
"""

import json
import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ser_embed.audio import SAMPLE_RATE
from ser_embed.corpora import Listing
from ser_embed.encoders import Encoder
from ser_embed.errors import ClusterError, MissingExtra, StoreError
from ser_embed.extract.blocks import (
    WAVEFORM_BYTES,
    BlockEncoder,
    Digests,
    Job,
    clips_of,
    decode_blocks,
    plan_of,
)
from ser_embed.extract.encoding import Tally, settings_of, spread
from ser_embed.extract.formats import Formats
from ser_embed.extract.options import ExtractConfig
from ser_embed.extract.owners import store_path
from ser_embed.extract.remote import RemoteFolder
from ser_embed.progress import progress
from ser_embed.store import ClipRow, FeatureSettings, StoreWriter

__all__ = ["cluster", "extract_ray"]

log = logging.getLogger(__name__)

_Block = list[dict[str, Any]]  # what `BlockEncoder` says of its parts

BLOCK_CLIPS = 256  # of one unit of work
TASKS = 4096  # that blocks are spread over at most
TRIES = 3  # how often a task or an actor may be lost before it is given up
CPU_FRACTION = 0.25  # of a processor that each process claims: all fit on what a loss leaves


@contextmanager
def cluster(address: str) -> Iterator[None]:
    """Connect to a Ray cluster, or start Ray on this machine for as long as the block lasts.

    Args:
        address: `auto`, `HOST:PORT`, or empty for this machine. A connection that the process
            has already is used and kept.

    Raises:
        MissingExtra: Ray isn't installed.
        ClusterError: No cluster can be reached there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_task_oom_retries", str(TRIES))  # endless otherwise
    try:
        import ray.data
    except ImportError:
        raise MissingExtra("ray", "ray") from None
    for chatty in ("ray", "ray.data"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    started = not ray.is_initialized()
    try:
        if started:
            if ":" in address:  # Ray itself tries for minutes
                host, _, port = address.removeprefix("ray://").rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            with _no_native_output():
                ray.init(
                    address=address or "local", include_dashboard=None if address else False,
                    log_to_driver=False, logging_level=logging.CRITICAL,
                )  # fmt: skip
    except Exception as error:  # of many kinds: refused, timed out, another version of Ray
        reason = (str(error) or repr(error)).splitlines()[0][:200]
        raise ClusterError(
            f"Ray at {address or 'this machine'}: {reason}; start it "
            "with 'ray start --head', name it with --address HOST:PORT, and have the same "
            "versions of Python and Ray everywhere"
        ) from error
    try:
        yield
    finally:
        if started:
            ray.shutdown()


@contextmanager
def _no_native_output() -> Iterator[None]:
    """Keep from the user what Ray's native part remarks of its own log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# --- the driver --------------------------------------------------------------------------------


def extract_ray(listing: Listing, encoder: Encoder, config: ExtractConfig) -> dict[str, Any]:
    """Encode one corpus's clips on the cluster; return the counts and where the store is.

    Args:
        listing: The clips, at paths that every machine sees.
        encoder: The encoder as this machine has it; the others load it by its name.
        config: Everything else; its corpus and encoder aren't looked at.

    Raises:
        SerEmbedError: The store is held by another process or can't be written, no clip can be
            used, or the cluster loses its workers again and again. What was stored stays.
    """
    if not config.url:
        return _extract_into(config.features_dir, listing, encoder, config)
    remote, settings = RemoteFolder(config.url), settings_of(config, encoder)
    with remote.working_copy(config.features_dir, settings, listing.corpus) as folder:
        return _extract_into(folder.local, listing, encoder, config, folder)


def _extract_into(
    folder: Path, listing: Listing, encoder: Encoder, config: ExtractConfig,
    remote: RemoteFolder | None = None,
) -> dict[str, Any]:  # fmt: skip
    started = time.perf_counter()
    settings = settings_of(config, encoder)
    path, listing = store_path(folder, settings, listing)
    with StoreWriter.open(
        path, settings, listing.corpus, listing.root,
        trained=encoder.trained, demo=listing.synthetic,
    ) as writer:  # fmt: skip
        job = Job(
            settings, _where_everyone_finds_it(encoder.name), config.backend, config.batch_size,
            Path.cwd(), listing.root, _part_bytes(encoder, settings),
        )  # fmt: skip
        tally = Tally(listing, writer)
        _Driver(job, tally, writer, config).run()
        totals = tally.finish(config.prune, bool(config.limit))
    store = str(path) if remote is None else remote.publish(path)
    seconds = time.perf_counter() - started
    tally.report(store, 0 if config.limit else totals["kept"])
    return tally.result(store, seconds)


def _part_bytes(encoder: Encoder, settings: FeatureSettings) -> int:
    """Return how many bytes of waveforms travel together: their features take no more."""
    if settings.pool != "none":
        return WAVEFORM_BYTES
    with torch.inference_mode():  # here, where nothing else is encoded: no GPU is taken for it
        states = encoder.network(torch.zeros(1, SAMPLE_RATE))  # a second: (1, L, T, D)
    features = states.numel() * np.dtype(settings.dtype).itemsize
    return WAVEFORM_BYTES * 4 * SAMPLE_RATE // max(4 * SAMPLE_RATE, features)


def _where_everyone_finds_it(encoder: str) -> str:
    return str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder


class _Driver:
    """Sends a corpus's blocks through the cluster and adds what comes back."""

    def __init__(self, job: Job, tally: Tally, writer: StoreWriter, config: ExtractConfig) -> None:
        self.job, self.tally, self.writer, self.quiet = job, tally, writer, config.quiet
        # Whether a file can be used shows elsewhere and late: none stands in for another.
        formats = Formats.of(tally.listing)
        self.utterances = spread(formats.first, config.limit)
        for path, others in formats.others.items():
            for utterance in others:
                tally.leave_out(utterance, Path(path))
        self.done = np.zeros(-(-len(self.utterances) // BLOCK_CLIPS), dtype=bool)

    def run(self) -> None:
        """Encode what isn't known yet."""
        corpus, total = self.tally.listing.corpus, len(self.utterances)
        try:
            with progress(f"encode {corpus}", total, "clip", self.quiet) as bar:
                # By number, so that of two copies the same one counts as locally.
                for block in _by_number(self._rounds()):
                    for part in block:
                        bar.advance(self._count(part))
        except KeyboardInterrupt:
            self.writer.flush()
            stored = f"{len(self.writer.known)} clips are stored"
            print(f"\n{corpus}: {stored}", file=sys.stderr)
            raise
        finally:
            self.writer.flush()

    def _count(self, part: dict[str, Any]) -> int:
        """Count what became of a block or of a part of one; return how many clips it has."""
        for row in _rows(part["failed"]):
            self.tally.add(row)
        for row in _rows(part["known"]):
            if self.tally.is_new(row):
                self.tally.reuse(row)
        for row in _rows(part["encoded"]):
            if self.tally.is_new(row):
                self.tally.add(row)
        for row in _rows(part["copies"]):
            self.tally.is_new(row)
        return sum(len(part[name]) for name in ("failed", "known", "encoded", "copies"))

    def _rounds(self) -> Iterator[_Block]:
        """Yield what became of every block.

        A round that a loss breaks off is followed by another for the rest, as long as each gets
        further than the one before.
        """
        import ray

        known = ray.put(Digests.of(iter(self.writer.known), len(self.writer.known)))
        plan = plan_of(self.utterances, BLOCK_CLIPS)
        while not self.done.all():
            before = int(self.done.sum())
            broken: Exception | None = None
            try:
                yield from self._round(plan, known)
            except ray.exceptions.RayError as error:
                broken = error
            if not self.done.all() and int(self.done.sum()) == before:
                raise self._given_up(broken)
            if broken:
                log.info("the cluster lost workers; %d blocks are left", int((~self.done).sum()))

    def _round(self, plan: list[dict[str, str]], known: Any) -> Iterator[_Block]:
        """Send what isn't done through the pipeline once; store what comes, as it comes."""
        import ray

        parts: dict[int, dict[int, dict[str, Any]]] = {}
        encoders = min(_encoders(), int((~self.done).sum()))
        pipeline = _pipeline(self.job, plan, known, ray.put(self.done), encoders)
        for table in pipeline.iter_batches(batch_size=1, batch_format="pyarrow"):
            part = json.loads(table.column("result")[0].as_py())
            if "error" in part:
                raise StoreError(part["error"])
            features = table.column("features")[0].as_buffer()
            self.writer.add(clips_of(part, features, self.job.settings.dtype))
            number = part["number"]
            block = parts.setdefault(number, {})
            block[part["part"]] = part
            if block[max(block)]["last"] and len(block) == max(block) + 1:
                self.done[number] = True
                yield [block[i] for i in sorted(parts.pop(number))]

    def _given_up(self, error: Exception | None) -> ClusterError:
        first = int(np.argmin(self.done)) * BLOCK_CLIPS
        reason = str(error or "").strip().splitlines()
        return ClusterError(
            f"{int((~self.done).sum())} of {len(self.done)} blocks, the first of which begins with "
            f"{self.utterances[first].path}, lost their processes {TRIES} times and more "
            f"({type(error).__name__}: {reason[0][:200] if reason else ''}). Machines that went "
            "away, or not enough memory: give a smaller --batch-size or shorter clips (--seconds). "
            "What is stored is kept, and the same command goes on from there"
        )


def _rows(values: list[Any]) -> list[ClipRow]:
    return [ClipRow(*one) for one in values]


def _by_number(blocks: Iterator[_Block]) -> Iterator[_Block]:
    """Yield blocks by number, whatever the order in which they come."""
    waiting: dict[int, _Block] = {}
    number = 0
    for block in blocks:
        waiting[block[0]["number"]] = block
        while number in waiting:
            yield waiting.pop(number)
            number += 1


def _processors() -> tuple[int, int]:
    """Return how many processors and how many GPUs the cluster has."""
    import ray

    machines = ray.cluster_resources()
    return int(machines.get("CPU", 1)), int(machines.get("GPU", 0))


def _encoders() -> int:
    """Return how many encoders run at the same time: one a GPU, without GPUs one a processor."""
    cpus, gpus = _processors()
    return max(1, gpus or cpus)


def _pipeline(job: Job, plan: list[dict[str, str]], known: Any, done: Any, encoders: int) -> Any:
    """Return the Ray Data pipeline from the plan to what became of its blocks."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    cpus, gpus = _processors()
    tasks = min(TASKS, len(plan))
    decode: Any = decode_blocks
    with warnings.catch_warnings():
        # There is no other way yet to say how often a loss is made good.
        warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
        return (
            ray.data.from_items(plan, override_num_blocks=tasks)
            .map_batches(
                decode, batch_size=1, batch_format="pyarrow", num_cpus=CPU_FRACTION,
                fn_kwargs={"job": job, "known": known, "done": done},
                compute=ray.data.TaskPoolStrategy(size=max(1, min(cpus, tasks))),
                ray_remote_args_fn=lambda: {"max_retries": TRIES},
            )
            .map_batches(
                BlockEncoder, batch_size=1, batch_format="pyarrow", num_cpus=CPU_FRACTION,
                num_gpus=1 if gpus else None, fn_constructor_args=(job,),
                # Down to one, so that one whose machine is lost finds room on another.
                compute=ray.data.ActorPoolStrategy(
                    min_size=1, max_size=encoders, initial_size=encoders
                ),
                ray_remote_args_fn=lambda: {
                    "max_restarts": TRIES, "max_task_retries": TRIES,
                    "scheduling_strategy": "SPREAD",
                },
            )
        )  # fmt: skip
