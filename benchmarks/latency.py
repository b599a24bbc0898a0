"""Time from the end of a window of 3 s to its label, as the live display meets it.

`python benchmarks/latency.py` writes artifacts/benchmarks/latency.json: `mini` and
wav2vec2-base's shape (seeded weights) under head `stats`, preprocessing included.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import tyro

from ser_embed.audio import load_audio
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.extract import ExtractConfig, extract
from ser_embed.predict import Classifier
from ser_embed.train import TrainConfig, train


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    windows: int = 40
    """Windows of each."""
    backends: tuple[str, ...] = ("torch", "openvino")
    """Engines of the encoder."""


def classifier_of(encoder: str, work: Path, backend: str) -> Classifier:
    """Train a head for a moment on a few demo clips and load it."""
    stored = extract(
        ExtractConfig(DEMO_CORPUS, encoder=encoder, limit=60, features_dir=work, quiet=True,
                      json=True)
    ).result  # fmt: skip
    run = train(
        TrainConfig((Path(stored["store"]),), epochs=2, runs_dir=work / encoder, quiet=True,
                    json=True)
    ).result["run"]  # fmt: skip
    return Classifier.load(Path(run), backend=backend)


def main(settings: Settings) -> None:
    """Measure, print and write."""
    speech = np.concatenate([load_audio(path) for path in sorted(DEMO_CORPUS.rglob("*.ogg"))[:30]])
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for encoder in ("mini", "random-base"):
            for backend in settings.backends:
                classifier = classifier_of(encoder, Path(name), backend)
                times = []
                for number in range(settings.windows + 3):
                    start = number * 8000 % (len(speech) - 48_000)
                    window = speech[start : start + 48_000]
                    began = time.perf_counter()
                    classifier.classify(window)
                    times.append((time.perf_counter() - began) * 1e3)
                times = sorted(times[3:])  # the first ones compile
                rows.append({
                    "encoder": encoder, "backend": backend, "mean_ms": statistics.mean(times),
                    "median_ms": statistics.median(times), "p95_ms": times[int(0.95 * len(times))],
                })  # fmt: skip
                print(rows[-1], flush=True)
    common.write("latency", {"window_seconds": 3.0, "windows": settings.windows, "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Settings))
