"""Stage 1 end to end, FLAC files to HDF5, against what is commonly done; one run, one machine.

`python benchmarks/extraction.py` writes artifacts/benchmarks/extraction.json. All encode the same
3 s clips with wav2vec2-base's shape (seeded weights: speed doesn't depend on them). The first
reference is the loop of most feature extractors: one file, one forward pass, one .npy.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import soundfile
import torch
import transformers
import tyro

from ser_embed import load_encoder
from ser_embed.audio.decoding import load_audio
from ser_embed.corpora.listing import read_corpus
from ser_embed.encoders.checkpoints import load_checkpoint
from ser_embed.encoders.frozen import Encoder
from ser_embed.extract.corpus import extract_listing
from ser_embed.extract.options import ExtractConfig
from ser_embed.extract.reading import Readers


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    rounds: int = 5
    """Rounds; the median counts."""
    clips: int = 32
    """Clips a round."""
    batch_size: int = 8
    """Clips a batch, for all that batch."""


Contestants = dict[str, Callable[[], float | None]]


def batches(files: list[Path], size: int) -> Iterator[list[Path]]:
    """Yield the files in groups."""
    for start in range(0, len(files), size):
        yield files[start : start + size]


def references(files: list[Path], size: int, work: Path) -> Contestants:
    """Return what others do: transformers, and engines around an exported network."""
    loaded = load_checkpoint("random-base", 0, 0)
    model = loaded.model.eval()
    prepare = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)

    def naive(at_once: int) -> None:
        with torch.no_grad():
            for group in batches(files, at_once):
                waves = [soundfile.read(file, dtype="float32")[0] for file in group]
                inputs = prepare(waves, sampling_rate=16_000, return_tensors="pt")
                states = model(inputs.input_values).last_hidden_state
                for file, state in zip(group, states, strict=True):
                    np.save(work / f"{file.parent.name}-{file.stem}.npy", state.numpy())

    found: Contestants = {
        "transformers, one clip at a time": lambda: naive(1),
        f"transformers, batches of {size}": lambda: naive(size),
    }
    if (session := onnx_session(model, work)) is not None:

        def onnx() -> None:
            for group in batches(files, size):
                waves = np.stack([soundfile.read(file, dtype="float32")[0] for file in group])
                waves -= waves.mean(1, keepdims=True)
                waves /= np.sqrt(waves.var(1, keepdims=True) + 1e-7)
                for file, state in zip(group, session.run(None, {"waves": waves})[0], strict=True):
                    np.save(work / f"{file.parent.name}-{file.stem}.npy", state)

        found[f"ONNX Runtime, batches of {size}"] = onnx
    return found


def onnx_session(model: torch.nn.Module, work: Path) -> object | None:
    """Export the network and open it in ONNX Runtime; None where that isn't installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    path = work / "base.onnx"
    noise = torch.randn(2, 48_000)
    torch.onnx.export(
        model, (noise,), str(path), input_names=["waves"], output_names=["states"],
        dynamic_axes={"waves": {0: "batch", 1: "samples"}}, dynamo=False,
    )  # fmt: skip
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def ours(root: Path, files: list[Path], size: int, work: Path, readers: Readers) -> Contestants:
    """Return our encoder alone on decoded clips, and extraction end to end."""
    listing = read_corpus(root, "ravdess")
    waves = [load_audio(file) for file in files]
    found: Contestants = {}

    def alone(encoder: Encoder) -> None:
        for start in range(0, len(waves), size):
            encoder.encode(waves[start : start + size])

    def whole(encoder: Encoder, name: str, again: bool = False) -> float:
        store = work / "features" / name
        if not again:
            shutil.rmtree(store, ignore_errors=True)
        config = ExtractConfig(
            root, "ravdess", encoder="random-base", trim=False, batch_size=size,
            precision=encoder.precision, features_dir=store, quiet=True, json=True,
        )  # fmt: skip
        return float(extract_listing(listing, encoder, config, readers)["seconds"])

    for precision, layer in (("fp32", 12), ("bf16", 12), ("bf16", 6)):
        encoder = load_encoder("random-base", layer, precision=precision)
        told = f"{precision}, layer {layer} of 12, {encoder.backend.name}"
        found[f"ours, encoder alone, {told}"] = lambda e=encoder: alone(e)
        found[f"ours, end to end, {told}"] = lambda e=encoder, n=told: whole(e, n)
        if layer == 12:  # hash and skip
            found[f"ours, the same once more, {told}"] = lambda e=encoder, n=told: whole(e, n, True)
    return found


def _multiply(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.nn.functional.linear(left, right)


def matrix_rates() -> dict[str, float]:
    """Return GFLOP/s of matrix products of the sizes of the encoder's, the processor's ceiling."""
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = torch.randn(1192, 768).to(dtype), torch.randn(3072, 768).to(dtype)
        seconds = common.medians(
            common.alternate({name: lambda a=left, b=right: _multiply(a, b)}, 30)
        )[name]
        rates[name] = 2 * 1192 * 768 * 3072 / seconds / 1e9
    return rates


def main(settings: Settings) -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        root = common.make_clips(work / "clips", settings.clips)
        files = sorted(root.rglob("*.flac"))
        with Readers(ExtractConfig().workers) as readers:  # before any encoder, as `extract` does
            contestants = references(files, settings.batch_size, work)
            contestants |= ours(root, files, settings.batch_size, work, readers)
            seconds = common.medians(common.alternate(contestants, settings.rounds))
    first = next(iter(seconds.values()))
    rows = [
        {"what": name, "clips_per_second": round(settings.clips / value, 2),
         "times_the_first": round(first / value, 2)}
        for name, value in seconds.items()
    ]  # fmt: skip
    for row in rows:
        told = f"{row['clips_per_second']:7.2f} clips/s {row['times_the_first']:6.2f}x"
        print(f"{row['what']:60} {told}")
    common.write(
        "extraction", {"clips": settings.clips, "seconds": 3.0, "rounds": settings.rounds,
                       "matrix_gflops": matrix_rates(), "median_rows": rows},
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Settings))
