"""Draw what the benchmarks wrote: `python benchmarks/plot.py` -> artifacts/benchmarks/speed.png."""

import json
from typing import Any

import common
import matplotlib
from matplotlib.axes import Axes

matplotlib.use("Agg")
from matplotlib import pyplot as plt

OURS, OTHERS = "#1f6f8b", "#b0b7bd"


def read(name: str) -> dict[str, Any]:
    """Return a benchmark's figures."""
    return json.loads((common.OUT / f"{name}.json").read_text())


def bars(axes: Axes, names: list[str], values: list[float], title: str, unit: str) -> None:
    """Draw horizontal bars, ours in colour, each with its value."""
    colours = [OURS if "ours" in name or name in ("store", "mini") else OTHERS for name in names]
    drawn = axes.barh(names, values, color=colours)
    axes.bar_label(drawn, [f"{value:.3g}" for value in values], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw all of them."""
    figure, axes = plt.subplots(3, 2, figsize=(13, 12), layout="constrained")
    rows = read("extraction")["median_rows"]
    bars(axes[0, 0], [row["what"] for row in rows], [row["clips_per_second"] for row in rows],
         "Stage 1, wav2vec2-base's shape, 3 s clips", "clips/s")  # fmt: skip
    rows = read("encoders")["results"]
    names = [f"{row['backend']} {row['precision']}: {which}"
             for row in rows for which in ("base", "mini")]  # fmt: skip
    bars(axes[0, 1], [name.replace(": mini", ": mini (ours)") for name in names],
         [row[which] for row in rows for which in ("base", "mini")],
         "Encoder alone, all layers", "clips/s")  # fmt: skip
    told = read("store")
    for place, what in ((axes[1, 0], "write"), (axes[1, 1], "read")):
        values = told[f"{what}_ms_per_clip"]
        bars(place, list(values), list(values.values()),
             f"To {what} a clip of (149, 768) float16", "ms a clip")  # fmt: skip
    scaling = read("scaling")
    place = axes[2, 0]
    sizes = [row["clips"] for row in scaling["by_size"]]
    place.plot(sizes, [row["peak_mb"] for row in scaling["by_size"]], "o-", color=OURS)
    place.set(xscale="log", ylim=(0, None), xlabel="clips of 1 s", ylabel="peak memory, MB")
    place.set_title("Memory of stage 1, mini", fontsize=10, loc="left")
    place.spines[["top", "right"]].set_visible(False)
    rows = read("latency")["rows"]
    bars(axes[2, 1], [f"{row['encoder']}, {row['backend']}" for row in rows],
         [row["mean_ms"] for row in rows], "Window of 3 s to label, mean", "ms")  # fmt: skip
    figure.savefig(common.OUT / "speed.png", dpi=110)
    print(f"-> {common.OUT / 'speed.png'}")


if __name__ == "__main__":
    main()
