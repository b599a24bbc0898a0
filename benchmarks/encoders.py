"""Clips per second of `mini` against wav2vec2-base's shape, side by side in one run.

`python benchmarks/encoders.py` writes artifacts/benchmarks/encoders.json. Both are ours, run by
the same backend on the same clips, all layers computed; speed doesn't depend on the weights, so
`random-base` stands for wav2vec2-base. Rounds alternate, so that a busy machine slows all alike.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

import common
import numpy as np
import tyro

from ser_embed import load_encoder


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    rounds: int = 7
    """Rounds; the median counts."""
    batch_size: int = 8
    """Clips a batch."""
    seconds: float = 3.0
    """Length of a clip."""


def backends() -> Iterator[tuple[str, str]]:
    """Yield backend and precision, as far as installed."""
    yield from (("torch", "fp32"), ("torch", "bf16"))
    if importlib.util.find_spec("openvino"):
        yield from (("openvino", "fp32"), ("openvino", "bf16"))


def main(settings: Settings) -> None:
    """Measure, print and write."""
    rng = np.random.default_rng(0)
    n = round(settings.seconds * 16_000)
    clips = [rng.standard_normal(n).astype(np.float32) for _ in range(settings.batch_size)]
    kinds = [(name, *how) for how in backends() for name in ("random-base", "mini")]
    encoders = {
        kind: load_encoder(kind[0], "all", backend=kind[1], precision=kind[2]) for kind in kinds
    }
    times = common.medians(
        common.alternate(
            {
                kind: lambda e=encoder: e.encode(clips) and None
                for kind, encoder in encoders.items()
            },
            settings.rounds,
        )
    )
    rows = []
    for backend, precision in backends():
        base, mini = (
            settings.batch_size / times[name, backend, precision]
            for name in ("random-base", "mini")
        )
        rows.append({"backend": backend, "precision": precision, "base": round(base, 2),
                     "mini": round(mini, 2), "ratio": round(mini / base, 2)})  # fmt: skip
        print(f"{backend:9s} {precision}  base {base:6.1f} clips/s  mini {mini:6.1f}  "
              f"{mini / base:.1f}x")  # fmt: skip
    common.write(
        "encoders", {"clips": f"{settings.batch_size} of {settings.seconds} s",
                     "rounds": settings.rounds, "unit": "clips/s, median", "results": rows},
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Settings))
