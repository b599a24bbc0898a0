"""Writing and reading features: our store against one .npy a clip and one pickle, in one run.

`python benchmarks/store.py` writes artifacts/benchmarks/store.json. `--before CHECKOUT` measures
the store of another checkout, each figure in a process of its own, in turns with this one. Reads
are random batches of 32 clips of (149, 768) float16 from files that the system has in memory.
"""

import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import tyro

HERE = Path(__file__).resolve().parent.parent
SHAPE = (149, 768)

# What a checkout is asked for; it prints one object. The interface of writers has changed.
MEASURE = """
import inspect, json, shutil, sys, time
from pathlib import Path
import numpy as np
from ser_embed.store import ClipRow, FeatureSettings, FeatureStore, StoreWriter
what, folder, n, batches = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
NOTHING = np.empty(0, np.float32)
PASSES_BATCHES = "clips" in inspect.signature(StoreWriter.add).parameters
if PASSES_BATCHES:
    from ser_embed.store import EncodedClip

def row(i):
    return ClipRow(f"Actor_{i % 24:02d}/03-01-05-01-{i:06d}.wav", "crema-d", f"crema-d:{i % 91}",
                   "female", "sad", "", "01", "", "", 2.5, f"{i * 7919:064x}", "stored", "", 0)

def add(writer, clips):
    if PASSES_BATCHES:
        writer.add([EncodedClip(row, features, NOTHING, n) for row, features, n in clips])
    else:
        for row, features, n in clips:
            writer.add(row, features, NOTHING, n)

def opened(path, pool="none", layer=6):
    settings = FeatureSettings(
        encoder="bench", weights="0" * 64, layer=layer, pool=pool, norm="none", trim=False,
        seconds=3.0, fill="none", dtype="float16", precision="fp32", seed=0)
    return StoreWriter.open(path, settings, "bench", folder, trained=False, demo=True)

def write(path, arrays, **options):
    pooled = "pool" in options
    with opened(path, **options) as writer:
        for start in range(0, len(arrays), 8):
            block = [(row(i), arrays[i], 149 if pooled else len(arrays[i]))
                     for i in range(start, min(start + 8, len(arrays)))]
            add(writer, block)
        for i in range(len(arrays)):
            writer.record(row(i))
        writer.finish()

class Same:  # of pooled clips, which need no memory of their own
    def __init__(self, n):
        self.n, self.array = n, rng.standard_normal((13, 768)).astype(np.float16)
    def __len__(self):
        return self.n
    def __getitem__(self, i):
        return self.array

rng = np.random.default_rng(0)
path = folder / "s.h5"
out = {}
if what in ("write", "read"):
    clips = list(rng.standard_normal((n, 149, 768), dtype=np.float32).astype(np.float16))
if what == "write":
    start = time.perf_counter()
    write(path, clips)
    out["ms_per_clip"] = (time.perf_counter() - start) / n * 1e3
if what == "read":
    orders = [rng.integers(1, n, size=32) for _ in range(batches)]
    for first in (149, 20, 1):
        write(path, [clips[0][:first], *clips[1:]])
        with FeatureStore(path) as store:
            seconds = []
            for _ in range(4):
                start = time.perf_counter()
                for order in orders:
                    store.read(order)
                seconds.append(time.perf_counter() - start)
        out[f"first clip of {first} frames"] = min(seconds) / (32 * batches) * 1e3
        path.unlink()
if what == "size":
    for name, lengths in (
        ("3 s each", [149] * 60), ("0.5 to 15 s", rng.integers(25, 750, 60).tolist()),
        ("3 s, one of 60 s first", [3000] + [149] * 60),
        ("60 s, one of 0.5 s first", [25] + [3000] * 6), ("0.5 s each", [25] * 120),
    ):
        arrays = [rng.standard_normal((t, 768)).astype(np.float16) for t in lengths]
        write(path, arrays)
        out[name] = path.stat().st_size / sum(one.nbytes for one in arrays)
        path.unlink()
if what == "add":
    many = Same(int(sys.argv[5]))
    write(path, many, pool="mean", layer="all")
    out["file to features"] = path.stat().st_size / (len(many) * many[0].nbytes)
    found = [row(i) for i in range(len(many) + 10)]
    identities = [one.identity for one in found]
    start, used = time.perf_counter(), time.process_time()
    with opened(path, pool="mean", layer="all") as writer:
        add(writer, [(one, many[0], 149) for one in found[-10:]])
        for one, identity in zip(found, identities):
            writer.is_new(identity)
            writer.record(one)
        writer.finish()
    out["seconds"] = time.perf_counter() - start
    out["processor seconds"] = time.process_time() - used
print(json.dumps(out))
"""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    before: Path | None = None
    """Another checkout, measured in turns with this one."""
    clips: int = 1000
    """Clips written."""
    pooled: int = 100_000
    """Pooled clips that ten are added to."""
    batches: int = 50
    """Batches of 32 read in a round."""
    rounds: int = 3
    """Rounds; the median counts."""


def measure(checkout: Path, what: str, settings: Settings) -> dict[str, float]:
    """Measure something of a checkout's store in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = map(str, (settings.clips, settings.batches, settings.pooled))
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, what, folder, *numbers], cwd=checkout, check=True,
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(checkout)},
        )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def others(settings: Settings) -> tuple[dict[str, float], dict[str, float]]:
    """Return what files of other kinds take to write and read, in ms a clip."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((settings.clips, *SHAPE), dtype=np.float32).astype(np.float16)
    orders = [rng.integers(settings.clips, size=32) for _ in range(settings.batches)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def write_npy() -> None:
            for number, clip in enumerate(features):
                np.save(folder / f"{number}.npy", clip)

        def write_pickle() -> None:  # all clips as one list, as many scripts do
            with (folder / "all.pkl").open("wb") as file:
                pickle.dump(list(features), file)

        def read_npy() -> None:
            for order in orders:
                np.stack([np.load(folder / f"{i}.npy") for i in order])

        def read_pickle() -> None:
            with (folder / "all.pkl").open("rb") as file:
                clips = pickle.load(file)
            for order in orders:
                np.stack([clips[i] for i in order])

        written = common.medians(common.alternate(
            {"npy": write_npy, "pickle": write_pickle}, settings.rounds
        ))  # fmt: skip
        read = common.medians(common.alternate(
            {"npy": read_npy, "pickle, whole first": read_pickle}, settings.rounds
        ))  # fmt: skip
    return (
        {name: value / settings.clips * 1e3 for name, value in written.items()},
        {name: value / (32 * settings.batches) * 1e3 for name, value in read.items()},
    )


def main(settings: Settings) -> None:
    """Measure, print and write."""
    checkouts = {"store": HERE} | ({"before": settings.before} if settings.before else {})
    found: dict[str, dict[str, dict[str, float]]] = {}
    for what in ("write", "read", "size", "add"):
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
        for _ in range(1 if what in ("size", "add") else settings.rounds):
            for name, checkout in checkouts.items():
                runs[name].append(measure(checkout, what, settings))
        found[what] = {
            name: {key: statistics.median(run[key] for run in of_one) for key in of_one[0]}
            for name, of_one in runs.items()
        }
        for key in found[what]["store"]:
            values = {name: figures[key] for name, figures in found[what].items()}
            ratio = f"  {values['before'] / values['store']:6.2f} times" if settings.before else ""
            told = "  ".join(f"{name} {value:8.3f}" for name, value in values.items())
            print(f"{what:6} {key:28} {told}{ratio}", flush=True)
    written, read = others(settings)
    print("npy, pickle:", json.dumps({"write": written, "read": read}))
    ours = (
        found["write"]["store"]["ms_per_clip"],
        found["read"]["store"]["first clip of 149 frames"],
    )
    common.write("store", {
        "clips": settings.clips, "shape": SHAPE,
        "write_ms_per_clip": {"store": ours[0], **written},
        "read_ms_per_clip": {"store": ours[1], **read},
        "write_ms": found["write"], "read_ms_by_first_clip": found["read"],
        "file_to_frames": found["size"],
        "ten_clips_added": {"to": settings.pooled, **found["add"]},
    })  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Settings))
