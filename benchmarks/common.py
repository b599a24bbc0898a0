"""What every benchmark shares: alternating rounds, facts of the machine, clips, the file."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile
import torch

from ser_embed.audio.decoding import load_audio
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.progress import track

Name = TypeVar("Name", bound=Hashable)
OUT = Path("artifacts/benchmarks")


def machine() -> dict[str, object]:
    """Return what the figures depend on."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = lines[0].split(":", 1)[1].strip() if lines else processor
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": processor, "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(), "gpu": gpu,
        "python": platform.python_version(),
        "versions": {name: version for name in ("torch", "transformers", "openvino", "onnxruntime")
                     if (version := _version(name))},
    }  # fmt: skip


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def alternate(
    contestants: Mapping[Name, Callable[[], float | None]], rounds: int
) -> dict[Name, list[float]]:
    """Run all contestants in turn, so that a busy machine slows all alike.

    Args:
        contestants: Name to a call; its return value counts as its seconds, None for the time
            that the call took.
        rounds: Rounds that count; one more goes before to warm up.

    Returns:
        Seconds of each round by contestant.
    """
    times: dict[Name, list[float]] = {name: [] for name in contestants}
    for number in track(range(rounds + 1), "measure", "round"):
        for name, call in contestants.items():
            start = time.perf_counter()
            told = call()
            seconds = time.perf_counter() - start if told is None else told
            if number:
                times[name].append(seconds)
    return times


def medians(times: Mapping[Name, Iterable[float]]) -> dict[Name, float]:
    """Return each contestant's median."""
    return {name: statistics.median(values) for name, values in times.items()}


def make_clips(folder: Path, n: int, seconds: float = 3.0) -> Path:
    """Write FLAC files of that length, each different, from the demo's synthetic voices.

    Their names are RAVDESS's, so the folder is a corpus for `extract`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    voices = [load_audio(path) for path in sorted(DEMO_CORPUS.rglob("*.ogg"))[::30]]
    size = round(seconds * 16_000)
    for number in range(n):
        path = folder / _name(number)
        if path.is_file():
            continue
        path.parent.mkdir(exist_ok=True)
        rng = np.random.default_rng(number)
        voice = np.resize(voices[number % len(voices)], size)
        noisy = 0.8 * voice + 0.01 * rng.standard_normal(size).astype(np.float32)
        soundfile.write(path, np.clip(noisy, -1, 1), 16_000, subtype="PCM_16")
    return folder


def _name(number: int) -> str:
    """Return a name that follows RAVDESS's rule; the repetition tells equal ones apart."""
    emotion, actor, take = number % 8 + 1, number // 8 % 24 + 1, number // 192
    folder = Path(f"{take:03d}")
    name = f"03-01-{emotion:02d}-01-01-01-{actor:02d}.flac"
    return (folder / name).as_posix()


def write(name: str, told: Mapping[str, Any]) -> None:
    """Write a benchmark's figures with the machine's facts."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **told}, indent=1) + "\n")
    print(f"-> {path}")
