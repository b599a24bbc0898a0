"""A long extraction whose memory and open files must stay flat: 200,000 clips of 0.1 s.

`make soak` (off by default, about ten minutes) writes artifacts/benchmarks/soak.json and
soak.png. The clips are listed in a CSV and run through a wav2vec2 of a few thousand seeded
weights, so what is measured is everything around the encoder. Afterwards a second run over the
unchanged corpus hashes all and encodes nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import matplotlib
import numpy as np
import soundfile
import torch
import transformers
import tyro

matplotlib.use("Agg")
from matplotlib import pyplot as plt

EVERY = 2.0  # seconds between two looks at the process
DISTINCT = 2000  # contents; the other clips are links to them under names of their own


@dataclass(frozen=True)
class Settings:
    """How long it is."""

    clips: int = 200_000
    """Clips."""
    minutes: float = 30.0
    """It is stopped after so long, and what was reached is written."""


def make_encoder(folder: Path) -> None:
    """Save a checkpoint of a few thousand weights."""
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def make_corpus(folder: Path, n: int) -> Path:
    """Write the clips and the CSV that lists them."""
    rng = np.random.default_rng(0)
    for number in range(DISTINCT):
        noise = rng.normal(0, 0.1, 1600).astype(np.float32)
        soundfile.write(folder / f"source-{number}.wav", noise, 16_000)
    table = folder / "soak.csv"
    with table.open("w", encoding="utf-8") as file:
        file.write("path,emotion,speaker\n")
        for number in range(n):
            place = folder / f"{number // 1000:04d}"
            place.mkdir(exist_ok=True)
            os.link(folder / f"source-{number % DISTINCT}.wav", place / f"{number}.wav")
            emotion = ("sad", "happy", "angry")[number % 3]
            file.write(f"{place.name}/{number}.wav,{emotion},{number % 97}\n")
    return table


def look(process: int) -> tuple[float, int]:
    """Return a process's resident memory in MB and how many files it has open."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(
        list(Path(f"/proc/{process}/fd").iterdir())
    )


def run(table: Path, encoder: Path, store: Path, minutes: float) -> dict[str, Any]:
    """Extract in a process of its own and look at it every two seconds."""
    command = [
        sys.executable, "-m", "ser_embed.extract", "--csv", str(table), "--encoder", str(encoder),
        "--backend", "torch", "--seconds", "0.1", "--batch-size", "64", "--features-dir",
        str(store), "--quiet", "--json",
    ]  # fmt: skip
    curve, start = [], time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            if time.monotonic() - start > 60 * minutes:
                process.terminate()
                break
            try:
                memory, files = look(process.pid)
            except OSError:  # it ended meanwhile
                break
            curve.append((round(time.monotonic() - start, 1), round(memory, 1), files))
            time.sleep(EVERY)
        out = process.stdout.read() if process.stdout else ""
    told = json.loads(out.splitlines()[-1]) if process.returncode == 0 else {}
    return {"result": {k: v for k, v in told.items() if k != "store"}, "curve": curve}


def draw(runs: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw memory and open files against time."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
    for name, told in runs.items():
        seconds, memory, files = zip(*told["curve"], strict=True)
        top.plot(seconds, memory, label=name)
        bottom.plot(seconds, files, label=name)
    top.set(ylabel="resident memory, MB", ylim=(0, None))
    bottom.set(ylabel="open files", xlabel="seconds", ylim=(0, None))
    top.legend(frameon=False)
    top.set_title("200,000 clips through a tiny encoder", loc="left", fontsize=11)
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main(settings: Settings) -> None:
    """Run twice, print and write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "encoder").mkdir()
        make_encoder(folder / "encoder")
        (folder / "clips").mkdir()
        table = make_corpus(folder / "clips", settings.clips)
        runs = {
            what: run(table, folder / "encoder", folder / "store", settings.minutes)
            for what in ("first run", "second run")
        }
    for what, told in runs.items():
        memory = [row[1] for row in told["curve"]]
        quarter = memory[len(memory) // 4]
        told["peak_mb"], told["mb_after_a_quarter"] = max(memory), quarter
        told["open_files"] = max(row[2] for row in told["curve"])
        print(f"{what}: {told['result']}; memory after a quarter {quarter} MB, peak {max(memory)} "
              f"MB; at most {told['open_files']} open files")  # fmt: skip
    common.write("soak", {"clips": settings.clips, "runs": runs})
    draw(runs, common.OUT / "soak.png")


if __name__ == "__main__":
    main(tyro.cli(Settings))
