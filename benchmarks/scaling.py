"""Stage 1's cost against the number and the length of clips, by `mini`, each in a fresh process.

`python benchmarks/scaling.py` writes artifacts/benchmarks/scaling.json: seconds, peak memory of
the main process and of its largest worker, and the time of a second run over the same corpus.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import tyro

# Runs in a process of its own, so that its peak memory is its own.
CHILD = """
import json, resource, sys
from ser_embed.extract.__main__ import main
sys.argv = ["extract", *sys.argv[1:]]
main()
peaks = [resource.getrusage(who).ru_maxrss for who in
         (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps(peaks))
"""


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    sizes: tuple[int, ...] = (100, 1000, 10_000)
    """Numbers of clips of 1 s."""
    lengths: tuple[float, ...] = (1, 3, 10, 30)
    """Lengths in seconds of 60 clips, encoded whole."""
    encoder: str = "mini"
    """Encoder."""


def run(root: Path, store: Path, encoder: str, *options: str) -> dict[str, Any]:
    """Extract in a fresh process; return its result with its peak memory in MB."""
    command = [
        sys.executable, "-c", CHILD, str(root), "--corpus", "ravdess", "--encoder", encoder,
        "--features-dir", str(store), "--json", "--quiet", *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *_, told, peaks = done.stdout.strip().splitlines()
    result = json.loads(told)
    main, worker = (round(kilobytes / 1024, 1) for kilobytes in json.loads(peaks))
    return {"clips": result["clips"], "seconds": result["seconds"],
            "clips_per_second": result["clips_per_second"], "peak_mb": main,
            "worker_peak_mb": worker}  # fmt: skip


def main(settings: Settings) -> None:
    """Measure, print and write."""
    by_size, by_length = [], []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for size in settings.sizes:
            root = common.make_clips(work / f"n{size}", size, 1.0)
            row = run(root, work / f"s{size}", settings.encoder)
            again = run(root, work / f"s{size}", settings.encoder)
            row["second_run_seconds"] = again["seconds"]
            row["second_run_times_faster"] = round(row["seconds"] / again["seconds"], 1)
            by_size.append(row)
            print(row, flush=True)
        for length in settings.lengths:
            root = common.make_clips(work / f"l{length}", 60, length)
            row = run(root, work / f"t{length}", settings.encoder, "--seconds", "0")
            row["audio_seconds_per_second"] = round(60 * length / row["seconds"], 1)
            by_length.append({"length": length, **row})
            print(by_length[-1], flush=True)
    common.write(
        "scaling", {"encoder": settings.encoder, "by_size": by_size, "by_length": by_length}
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
