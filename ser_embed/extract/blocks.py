"""What the machines of a cluster do with a block of clips: decode it, encode it, write a shard.

A block travels as rows of an Arrow table: a text of JSON that says what the clips are, and their
samples. Nothing that is read from a folder is ever unpickled.
"""

import hashlib
import json
import socket
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.corpora import Utterance
from ser_embed.encoders import BackendName, Encoder, load_encoder
from ser_embed.errors import EncoderError, SerEmbedError
from ser_embed.extract.encoding import Batches, encode_batch
from ser_embed.extract.reading import ReadClip, Readers
from ser_embed.store import ClipRow, EncodedClip, FeatureSettings, ShardFolder

__all__ = ["WAVEFORM_BYTES", "BlockEncoder", "Digests", "Job", "decode_blocks", "write_plan"]

PLAN_FILES = 4096  # files of the plan at most, each of which is one task's input
WAVEFORM_BYTES = 2**28  # decoded clips that travel together, and their features, at most

_values = attrgetter(*(field.name for field in fields(Utterance)))


@dataclass(frozen=True)
class Job:
    """What every machine needs to know of an extraction.

    Attributes:
        settings: What features depend on.
        encoder: The encoder's name, or its folder on every machine.
        backend: What runs it.
        batch_size: Clips per batch; see `Batches`.
        base: Folder that relative paths of clips start from.
        root: Folder that the table's paths are relative to.
        header: Attributes of the store.
        folder: Where shards go.
        part_bytes: How many bytes of waveforms travel together, about.
    """

    settings: FeatureSettings
    encoder: str
    backend: BackendName
    batch_size: int | None
    base: Path
    root: Path
    header: dict[str, Any]
    folder: ShardFolder
    part_bytes: int


class Digests:
    """Which clips are known, in 16 bytes each, so that every machine can hold them.

    Args:
        digests: What `digest` gave, sorted; dtype S16.
    """

    def __init__(self, digests: np.ndarray) -> None:
        self.digests = digests

    @staticmethod
    def of(identities: Iterator[tuple[str, str]], n: int) -> np.ndarray:
        """Return the sorted digests of `n` clips."""
        return np.sort(np.fromiter(map(Digests.digest, identities), dtype="S16", count=n))

    @staticmethod
    def digest(identity: tuple[str, str]) -> bytes:
        """Return a clip's 16 bytes."""
        name, sha256 = identity
        text = f"{sha256} {name}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=16).digest()

    def __contains__(self, identity: object) -> bool:
        """Whether a clip is known."""
        # As an array has it: without zeros at the end.
        wanted = np.array(self.digest(identity), dtype="S16")[()]  # type: ignore[arg-type]
        index = int(np.searchsorted(self.digests, wanted))
        return index < len(self.digests) and bool(self.digests[index] == wanted)

    def __len__(self) -> int:
        """How many are known."""
        return len(self.digests)


def write_plan(folder: Path, utterances: Sequence[Utterance], block_clips: int) -> list[str]:
    """Write which clips make which block, as Parquet files; return their names.

    One row a block, so that the corpus is never in anybody's memory whole.
    """
    import pyarrow
    from pyarrow import parquet

    n_blocks = -(-len(utterances) // block_clips)
    by_file = -(-n_blocks // PLAN_FILES)
    rest, number, names = iter(utterances), 0, []
    while number < n_blocks:
        texts: list[str] = []
        while len(texts) < by_file and (block := list(islice(rest, block_clips))):
            clips = [[str(path), *words] for path, *words in map(_values, block)]
            texts.append(json.dumps({"number": number, "clips": clips}))
            number += 1
        names.append(f"{number:09d}.parquet")
        parquet.write_table(pyarrow.table({"block": texts}), folder / names[-1])
    return names


# --- decoding ----------------------------------------------------------------------------------


def decode_blocks(batch: Any, job: Job, system: Any, known: Any, done: Any) -> Iterator[Any]:
    """Read the clips of a file of the plan, as the local engine reads them.

    Args:
        batch: Arrow table of one row, the `file`.
        job: What to do.
        system: File system that the plan is on, None for the disk.
        known: Reference to the sorted digests of clips that are stored.
        done: Reference to bool (n_blocks,), the blocks that need nothing any more.

    Yields:
        Arrow tables of one row: clips and their samples, at most about `job.part_bytes`.
    """
    import ray
    from pyarrow import parquet

    plan = parquet.read_table(batch.column("file")[0].as_py(), filesystem=system)
    digests = Digests(ray.get(known))
    for text in plan.column("block").to_pylist():
        block = json.loads(text)
        if not ray.get(done)[block["number"]]:
            clips = [Utterance(Path(path), *words) for path, *words in block["clips"]]
            yield from _decoded(block["number"], clips, job, digests)


def _decoded(
    number: int, clips: Sequence[Utterance], job: Job, known: Container[tuple[str, str]]
) -> Iterator[Any]:
    """Yield a block's clips, read in a process that may die of one."""
    import pyarrow

    # By the path that this machine reads; the clip's own says how the corpus was named.
    placed = [replace(clip, path=job.base / clip.path) for clip in clips]
    named = dict(zip(placed, clips, strict=True))
    part, size = 0, 0
    read: list[Any] = []
    waveforms: list[np.ndarray] = []

    def table(last: bool) -> Any:
        text = json.dumps({"number": number, "part": part, "last": last, "clips": read})
        samples = np.concatenate([np.empty(0, np.float32), *waveforms]).tobytes()
        return pyarrow.table(
            {"block": [text], "samples": pyarrow.array([samples], pyarrow.large_binary())}
        )

    with Readers(1) as readers:
        for utterance, item in readers.read(placed, job.settings, known):
            if size >= job.part_bytes:
                yield table(last=False)
                part, size, read, waveforms = part + 1, 0, [], []
            path, *words = _values(named[utterance])
            n = -1 if item.waveform is None else len(item.waveform)
            read.append([[str(path), *words], item.sha256, item.seconds, item.fault, n])
            if item.waveform is not None:
                waveforms.append(item.waveform)
                size += item.waveform.nbytes
    yield table(last=True)


# --- encoding ----------------------------------------------------------------------------------


class BlockEncoder:
    """Encodes decoded blocks and writes a shard of each; holds the encoder.

    Args:
        job: What to do.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._encoder: Encoder | None = None

    def __call__(self, batch: Any) -> Any:
        """Encode a block: from an Arrow table of `decode_blocks` to one of a text of JSON.

        It has `number`, `part` and `last`; and `error`, or `shard` (its name, `shape`, `frames`
        and `rows`) and, rows of clips by what became of them: `failed`, `known`, `encoded` and
        `copies`.
        """
        import pyarrow

        block = json.loads(batch.column("block")[0].as_py())
        result = {name: block[name] for name in ("number", "part", "last")}
        try:
            buffer = batch.column("samples")[0].as_buffer()
            samples = np.frombuffer(buffer, np.float32) if len(buffer) else np.empty(0, np.float32)
            result |= self._encode(_clips(block["clips"], samples))
        except (SerEmbedError, OSError) as error:
            result["error"] = str(error)
        return pyarrow.table({"result": [json.dumps(result)]})

    def _encode(self, clips: Iterator[tuple[Utterance, ReadClip]]) -> dict[str, Any]:
        found: dict[str, list[ClipRow]] = {"failed": [], "known": [], "encoded": [], "copies": []}
        waiting: dict[tuple[str, str], tuple[Utterance, ReadClip]] = {}
        for utterance, item in clips:
            row = ClipRow.of(utterance, self.job.root, item.sha256, item.seconds, item.fault)
            if item.fault:
                found["failed"].append(row)
            elif item.waveform is None:
                found["known"].append(row)
            elif row.identity in waiting:
                found["copies"].append(row)
            else:
                waiting[row.identity] = utterance, item
        result: dict[str, Any] = {}
        if waiting:
            name = ShardFolder.name_of(self.job.settings, waiting)
            rows = [] if self.job.folder.exists(name) else self._write(name, waiting.values())
            if not rows or any(row.is_stored for row in rows):
                rows, shard = self.job.folder.read(name)
                result["shard"] = {
                    "name": name, "shape": shard.shape, "frames": shard.frames.tolist(),
                    "rows": [row.values for row in rows],
                }  # fmt: skip
            for row in rows:
                found["encoded" if row.is_stored else "failed"].append(row)
        return result | {name: [row.values for row in rows] for name, rows in found.items()}

    def _write(self, name: str, clips: Iterable[tuple[Utterance, ReadClip]]) -> list[ClipRow]:
        """Encode clips in batches as the local engine forms them, and write them by path."""
        encoder, job = self._loaded(), self.job
        batches = Batches(encoder, job.batch_size, job.settings.seconds)
        encoded: list[EncodedClip] = []
        for utterance, item in clips:
            batch = batches.add(utterance, item)
            encoded += encode_batch(encoder, job.settings, job.root, batch)
        for batch in batches.rest():
            encoded += encode_batch(encoder, job.settings, job.root, batch)
        # As the index will have them, which then is a few long runs.
        encoded.sort(key=lambda clip: clip.row.path.encode("utf-8", "surrogateescape"))
        if any(clip.row.is_stored for clip in encoded):
            job.folder.write(job.header, name, encoded)
        return [clip.row for clip in encoded]

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            job = self.job
            self._encoder = load_encoder(
                job.encoder, job.settings.layer, backend=job.backend,
                precision=job.settings.precision, seed=job.settings.seed,
                context=job.settings.context,
            )  # fmt: skip
        mine = self._encoder.weights, self._encoder.configuration
        if mine != (self.job.settings.weights, self.job.settings.configuration):
            raise EncoderError(
                f"{self.job.encoder}: on {socket.gethostname()} its weights or its configuration "
                "are others than where the command was given; have the same files on every machine"
            )
        return self._encoder


def _clips(clips: list[Any], samples: np.ndarray) -> Iterator[tuple[Utterance, ReadClip]]:
    """Yield clips as `Readers.read` does."""
    start = 0
    for (path, *words), sha256, seconds, fault, n in clips:
        waveform = None if n < 0 else samples[start : start + n]
        start += max(0, n)
        yield Utterance(Path(path), *words), ReadClip(sha256, seconds, waveform, fault)
