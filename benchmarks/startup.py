"""How soon a command answers where nothing has to be computed: help, version, wrong usage.

`python benchmarks/startup.py` writes artifacts/benchmarks/startup.json: seconds, processor seconds
and peak memory of whole processes, medians of seven rounds in which all take turns. `--before
FOLDER` measures another checkout in the same run.
"""

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from common import write

HERE = Path(__file__).resolve().parent.parent

# What a reading worker imports, and one real 48 kHz clip read.
READER = """
import sys
try:
    from ser_embed.extract.reading import AudioFile
    read = lambda path: AudioFile(path).read(3.0, True)
except ImportError:
    import ser_embed.reading
    from pathlib import Path
    read = lambda path: ser_embed.reading.read_clip(Path(path), 3.0, True)
import numpy, soundfile, tempfile
with tempfile.NamedTemporaryFile(suffix=".wav") as file:
    soundfile.write(file.name, numpy.random.default_rng(0).normal(0, .1, 144000), 48000)
    assert len(read(file.name).samples) == 48000
"""

CASES = {
    "a reading worker": ["-c", READER],
    "import ser_embed": ["-c", "import ser_embed"],
    "python -m ser_embed": ["-m", "ser_embed"],
    "--version": ["-m", "ser_embed", "--version"],
    "extract --help": ["-m", "ser_embed.extract", "--help"],
    "train --help": ["-m", "ser_embed.train", "--help"],
    "predict --help": ["-m", "ser_embed.predict", "--help"],
    "Main.py --help": ["Main.py", "--help"],
    "web --help": ["-m", "ser_embed.web", "--help"],
    "train --no-such-option": ["-m", "ser_embed.train", "--no-such-option"],
    "--completion bash": ["-m", "ser_embed", "--completion", "bash"],
}

MEASURE = """
import json, os, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([time.perf_counter() - start, used.ru_utime + used.ru_stime,
                  used.ru_maxrss / 1024]))
"""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    before: Path | None = None
    """Another checkout, measured in turns with this one."""
    rounds: int = 7
    """Rounds; the medians count."""


def measure(checkout: Path, args: list[str]) -> list[float]:
    """Run one process to its end: seconds, processor seconds, peak memory in MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, sys.executable, *args], cwd=checkout, check=True,
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(checkout)},
    )  # fmt: skip
    return json.loads(done.stdout)


def main(settings: Settings) -> None:
    """Measure, print and write."""
    checkouts = {"now": HERE} | ({"before": settings.before} if settings.before else {})
    runs: dict[tuple[str, str], list[list[float]]] = {}
    for _ in range(settings.rounds + 1):  # the first warms the disk's cache
        for case, args in CASES.items():
            for name, checkout in checkouts.items():
                runs.setdefault((case, name), []).append(measure(checkout, args))
    rows = []
    for (case, name), values in runs.items():
        medians = [statistics.median(column) for column in zip(*values[1:], strict=True)]
        rows.append(
            {
                "case": case,
                "checkout": name,
                "seconds": round(medians[0], 3),
                "processor_seconds": round(medians[1], 3),
                "megabytes": round(medians[2]),
            }
        )
        print(f"{case:26} {name:7} {medians[0]:6.2f} s {medians[1]:6.2f} s cpu "
              f"{medians[2]:6.0f} MB", flush=True)  # fmt: skip
    write("startup", {"rounds": settings.rounds, "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Settings))
