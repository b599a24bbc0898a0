"""Size of the exported files, and time from a window of 3 s to its probabilities; one run.

`python benchmarks/export.py` writes artifacts/benchmarks/export.json: the bundled head
`sentiment3` on `mini`, and a head on wav2vec2-base's shape (seeded weights), by the torch
classifier and by ONNX Runtime, all with trimming and with the same threads.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import torch
import tyro
from latency import classifier_of

from ser_embed.audio.cutting import cut_clip
from ser_embed.audio.decoding import load_audio
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.export import OnnxClassifier, export_onnx
from ser_embed.predict.classifier import Classifier


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    rounds: int = 40
    """Windows of each; the median counts."""
    threads: int = 2
    """Threads of torch and of ONNX Runtime."""


def runner(file: Path, classifier: Classifier, window: np.ndarray) -> Callable[[], object]:
    """Return a call that classifies the window by an exported file."""
    run, told = OnnxClassifier(file), classifier.settings
    return lambda: run(cut_clip(window, told.seconds, told.trim)[None])


def timed(call: Callable[[], object]) -> float:
    """Return a call's seconds."""
    time.sleep(0.1)  # until the threads of the engine before have gone to sleep
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(settings: Settings) -> None:
    """Measure, print and write."""
    torch.set_num_threads(settings.threads)
    clips = sorted(DEMO_CORPUS.rglob("*.ogg"))[::24]
    window = np.concatenate([load_audio(path) for path in clips])[:48_000]
    contestants: dict[tuple[str, str], Callable[[], object]] = {}
    sizes: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        classifiers = {
            "mini": Classifier.load(Path("sentiment3")),
            "random-base": classifier_of("random-base", work, "torch"),
        }
        for encoder, classifier in classifiers.items():
            told = export_onnx(classifier, work / f"{encoder}.onnx", clips, int8=True)
            contestants[encoder, "torch"] = lambda c=classifier: c.classify(window)
            for precision, made in (("fp32", told), ("int8", told["int8"])):
                key = encoder, f"ONNX Runtime, {precision}"
                contestants[key] = runner(Path(made["onnx"]), classifier, window)
                sizes[key] = round(made["bytes"] / 1e6, 1)
        times = common.alternate(
            {key: lambda c=call: timed(c) for key, call in contestants.items()}, settings.rounds
        )
    rows = [
        {"encoder": key[0], "engine": key[1], "megabytes": sizes.get(key),
         "median_ms": round(1e3 * seconds, 1)}
        for key, seconds in common.medians(times).items()
    ]  # fmt: skip
    for row in rows:
        print(row)
    common.write("export", {"window_seconds": 3.0, "rounds": settings.rounds, "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Settings))
