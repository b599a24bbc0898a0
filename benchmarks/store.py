"""Writing and reading features: our store against one .npy a clip and one pickle, in one run.

`python benchmarks/store.py` writes artifacts/benchmarks/store.json. Reads are random batches of
32 clips of (149, 768) float16 from files that the system has in memory.
"""

import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import tyro

from ser_embed.corpora.naming import Utterance
from ser_embed.store.reader import FeatureStore
from ser_embed.store.settings import FeatureSettings
from ser_embed.store.table import ClipRow
from ser_embed.store.writer import StoreWriter

SHAPE = (149, 768)


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    clips: int = 1000
    """Clips written."""
    batches: int = 50
    """Batches of 32 read in a round."""
    rounds: int = 5
    """Rounds; the median counts."""


def write_store(folder: Path, features: np.ndarray) -> Path:
    """Write a store as extraction does, checksums and syncs included."""
    settings = FeatureSettings(
        encoder="bench", weights="0" * 64, layer=6, pool="none", norm="none", trim=False,
        seconds=3.0, fill="sample", dtype="float16", precision="fp32", seed=0,
    )  # fmt: skip
    path = settings.path(folder, "bench")
    path.unlink(missing_ok=True)
    with StoreWriter.open(path, settings, "bench", folder, trained=False, demo=True) as writer:
        rows = []
        for number, clip in enumerate(features):
            utterance = Utterance(folder / f"{number}.wav", "bench", "a", "", "happy")
            rows.append(ClipRow.of(utterance, folder, f"{number:064d}", 3.0))
            writer.add(rows[-1], clip, np.empty(0, np.float32), SHAPE[0])
        writer.finish(rows)
    return path


def write_npy(folder: Path, features: np.ndarray) -> None:
    """Write one .npy a clip."""
    folder.mkdir(exist_ok=True)
    for number, clip in enumerate(features):
        np.save(folder / f"{number}.npy", clip)


def write_pickle(path: Path, features: np.ndarray) -> None:
    """Write all clips as one pickled list, as many scripts do."""
    with path.open("wb") as file:
        pickle.dump(list(features), file)


def main(settings: Settings) -> None:
    """Measure, print and write."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((settings.clips, *SHAPE), dtype=np.float32).astype(np.float16)
    orders = [rng.integers(settings.clips, size=32) for _ in range(settings.batches)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = common.medians(common.alternate({
            "store": lambda: write_store(folder, features) and None,
            "npy": lambda: write_npy(folder / "npy", features),
            "pickle": lambda: write_pickle(folder / "all.pkl", features),
        }, settings.rounds))  # fmt: skip
        with FeatureStore(write_store(folder, features)) as store:

            def read_store() -> None:
                for order in orders:
                    store.read(order)

            def read_npy() -> None:
                for order in orders:
                    np.stack([np.load(folder / "npy" / f"{i}.npy") for i in order])

            def read_pickle() -> None:
                with (folder / "all.pkl").open("rb") as file:
                    clips = pickle.load(file)
                for order in orders:
                    np.stack([clips[i] for i in order])

            read = common.medians(common.alternate(
                {"store": read_store, "npy": read_npy, "pickle, whole first": read_pickle},
                settings.rounds,
            ))  # fmt: skip
    per_clip = {name: value / (32 * settings.batches) * 1e3 for name, value in read.items()}
    for name, value in written.items():
        print(f"write {name:20} {value / settings.clips * 1e3:7.3f} ms a clip")
    for name, value in per_clip.items():
        print(f"read  {name:20} {value:7.3f} ms a clip")
    common.write(
        "store", {"clips": settings.clips, "shape": SHAPE,
                  "write_ms_per_clip": {k: v / settings.clips * 1e3 for k, v in written.items()},
                  "read_ms_per_clip": per_clip},
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Settings))
