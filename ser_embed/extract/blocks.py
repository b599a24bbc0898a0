"""What the machines of a cluster do with a block of clips: decode it and encode it.

A block travels as rows of an Arrow table: a text of JSON that says what the clips are, and their
samples or features. Nothing that is read from a folder is ever unpickled.
"""

import hashlib
import json
import socket
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.corpora import Utterance
from ser_embed.encoders import BackendName, Encoder, load_encoder
from ser_embed.errors import EncoderError, SerEmbedError
from ser_embed.extract.encoding import Batches, encode_batch
from ser_embed.extract.reading import ReadClip, Readers
from ser_embed.store import ClipRow, EncodedClip, FeatureSettings

__all__ = [
    "WAVEFORM_BYTES", "BlockEncoder", "Digests", "Job", "clips_of", "decode_blocks", "plan_of",
]  # fmt: skip

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
        part_bytes: How many bytes of waveforms travel together, about.
    """

    settings: FeatureSettings
    encoder: str
    backend: BackendName
    batch_size: int | None
    base: Path
    root: Path
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


def plan_of(utterances: Sequence[Utterance], block_clips: int) -> list[dict[str, str]]:
    """Return which clips make which block, one row of a text of JSON a block."""
    rows = []
    for number, start in enumerate(range(0, len(utterances), block_clips)):
        values = map(_values, utterances[start : start + block_clips])
        clips = [[str(path), *words] for path, *words in values]
        rows.append({"block": json.dumps({"number": number, "clips": clips})})
    return rows


# --- decoding ----------------------------------------------------------------------------------


def decode_blocks(batch: Any, job: Job, known: Any, done: Any) -> Iterator[Any]:
    """Read the clips of a row of the plan, as the local engine reads them.

    Args:
        batch: Arrow table of one row, the `block`.
        job: What to do.
        known: Reference to the sorted digests of clips that are stored.
        done: Reference to bool (n_blocks,), the blocks that need nothing any more.

    Yields:
        Arrow tables of one row: clips and their samples, at most about `job.part_bytes`.
    """
    import ray

    digests = Digests(ray.get(known))
    for text in batch.column("block").to_pylist():
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
    """Encodes decoded blocks; holds the encoder.

    Args:
        job: What to do.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._encoder: Encoder | None = None

    def __call__(self, batch: Any) -> Any:
        """Encode a block: from an Arrow table of `decode_blocks` to one of a row.

        It has a text of JSON, `result`, with `number`, `part` and `last`; and `error`, or, rows of
        clips by what became of them, `failed`, `known`, `encoded` and `copies`, and `arrays`,
        shapes and frames of the encoded ones that are stored, whose bytes are in `features`.
        """
        import pyarrow

        block = json.loads(batch.column("block")[0].as_py())
        result = {name: block[name] for name in ("number", "part", "last")}
        features = b""
        try:
            buffer = batch.column("samples")[0].as_buffer()
            samples = np.frombuffer(buffer, np.float32) if len(buffer) else np.empty(0, np.float32)
            rows, features = self._encode(_clips(block["clips"], samples))
            result |= rows
        except (SerEmbedError, OSError) as error:
            result["error"] = str(error)
        return pyarrow.table({
            "result": [json.dumps(result)],
            "features": pyarrow.array([features], pyarrow.large_binary()),
        })  # fmt: skip

    def _encode(self, clips: Iterator[tuple[Utterance, ReadClip]]) -> tuple[dict[str, Any], bytes]:
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
        encoded = self._encoded(waiting.values()) if waiting else []
        for clip in encoded:
            found["encoded" if clip.row.is_stored else "failed"].append(clip.row)
        stored = [clip for clip in encoded if clip.row.is_stored]
        result: dict[str, Any] = {
            name: [row.values for row in rows] for name, rows in found.items()
        }
        result["arrays"] = [(c.features.shape, c.extrema.shape, c.frames) for c in stored]
        pieces = (array.tobytes() for clip in stored for array in (clip.features, clip.extrema))
        return result, b"".join(pieces)

    def _encoded(self, clips: Iterable[tuple[Utterance, ReadClip]]) -> list[EncodedClip]:
        """Encode clips in batches as the local engine forms them."""
        encoder, job = self._loaded(), self.job
        batches = Batches(encoder, job.batch_size, job.settings.seconds)
        encoded: list[EncodedClip] = []
        for utterance, item in clips:
            batch = batches.add(utterance, item)
            encoded += encode_batch(encoder, job.settings, job.root, batch)
        for batch in batches.rest():
            encoded += encode_batch(encoder, job.settings, job.root, batch)
        return encoded

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


def clips_of(result: dict[str, Any], features: Any, dtype: str) -> list[EncodedClip]:
    """Return the stored clips of what `BlockEncoder` gave; `features` is a buffer."""
    clips, start = [], 0
    for values, (*shapes, frames) in zip(result["encoded"], result["arrays"], strict=True):
        arrays = []
        for shape, kind in zip(shapes, (dtype, "float32"), strict=True):
            array = np.empty(shape, kind)  # of its own: Ray's memory is limited
            array.reshape(-1)[:] = np.frombuffer(features, kind, array.size, start)
            start += array.nbytes
            arrays.append(array)
        clips.append(EncodedClip(ClipRow(*values), arrays[0], arrays[1], frames))
    return clips
