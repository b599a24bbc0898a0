"""Draw and tabulate what the benchmarks wrote.

`python benchmarks/plot.py` -> artifacts/benchmarks/speed.png and README.md
"""

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
    ours = ("ours", "store", "mini")
    colours = [OURS if any(word in name for word in ours) else OTHERS for name in names]
    drawn = axes.barh(names, values, color=colours)
    axes.bar_label(drawn, [f"{value:.3g}" for value in values], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def table(title: str, header: list[str], rows: list[list[object]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in [header, ["---"] * len(header), *rows]]
    return f"## {title}\n\n" + "\n".join(lines) + "\n"


def tabulate() -> str:
    """Return all figures as Markdown."""
    extraction, store, head = read("extraction"), read("store"), read("head")
    facts = extraction["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
    parts = [
        "# Benchmarks\n\nMade by `make bench`; each table is one run in which the contestants took "
        f"turns, medians. {facts['processor']}, {facts['cores']} cores, {facts['capability']}, "
        f"{versions}.\n\n![the same as bars](speed.png)\n",
        table(
            "Stage 1: wav2vec2-base's shape, 3 s FLAC clips to features on disk",
            ["", "clips/s", "times the first"],
            [[r["what"], r["clips_per_second"], r["times_the_first"]]
             for r in extraction["median_rows"]],
        ),
        "This processor's own rates, as torch multiplies matrices of the encoder's sizes in the "
        "same run: "
        + ", ".join(f"{k} {v:.0f} GFLOP/s" for k, v in extraction["matrix_gflops"].items())
        + ". A clip takes about 41 GFLOP through all twelve layers.\n",
        table(
            "Deviation from transformers fp32, one clip at a time (full-size configurations)",
            ["family", "backend", "precision", "largest of a clip", "limit"],
            [[r["family"], r["backend"], r["precision"], f"{r['deviation']:.1e}", r["limit"]]
             for r in read("parity")["rows"]],
        ),
        table(
            "Encoder alone: `mini` against wav2vec2-base's shape, all layers, clips/s",
            ["", "base", "mini", "ratio"],
            [[f"{r['backend']} {r['precision']}", r["base"], r["mini"], r["ratio"]]
             for r in read("encoders")["results"]],
        ),
        table(
            "A clip of (149, 768) float16, ms",
            ["", "write", "read, random batches of 32"],
            [[name, f"{store['write_ms_per_clip'].get(name.split(',')[0], 0):.3f}", f"{ms:.3f}"]
             for name, ms in store["read_ms_per_clip"].items()],
        ),
        table(
            "The store's file, bytes by bytes of its frames, and the layout before this one",
            ["lengths of clips", *store["file_to_frames"]],
            [[case, *(f"{figures[case]:.3f}" for figures in store["file_to_frames"].values())]
             for case in store["file_to_frames"]["store"]],
        ),
        table(
            f"Ten clips added to {store['ten_clips_added'].pop('to')} pooled ones, not encoded",
            ["", "seconds", "processor seconds"],
            [[name, f"{row['seconds']:.2f}", f"{row['processor seconds']:.2f}"]
             for name, row in store["ten_clips_added"].items()],
        ),
        table(
            "Stage 1 by `mini` against the number of clips of 1 s, each row fresh processes",
            ["clips", "seconds", "clips/s", "peak MB", "second run, seconds", "times faster"],
            [[r[k] for k in ("clips", "seconds", "clips_per_second", "peak_mb",
                             "second_run_seconds", "second_run_times_faster")]
             for r in read("scaling")["by_size"]],
        ),
        table(
            "Stage 1 by `mini` against the length of 60 whole clips",
            ["seconds a clip", "clips/s", "seconds of audio per second", "peak MB"],
            [[r[k] for k in ("length", "clips_per_second", "audio_seconds_per_second", "peak_mb")]
             for r in read("scaling")["by_length"]],
        ),
        f"## An epoch of head `conv` on {head['clips']} clips of (149, 32)\n\n{head['ratio']} "
        "times as fast as a plain fp32 loop of the same network on the same clips, from the same "
        "weights.\n",
        table(
            "From the end of a 3 s window to its label, ms",
            ["", "mean", "median", "95 %"],
            [[f"{r['encoder']}, {r['backend']} {r['precision']}",
              *(f"{r[k]:.1f}" for k in ("mean_ms", "median_ms", "p95_ms"))]
             for r in read("latency")["rows"]],
        ),
    ]  # fmt: skip
    return "\n".join(parts)


def main() -> None:
    """Draw all of them and write the tables."""
    (common.OUT / "README.md").write_text(tabulate(), encoding="utf-8")
    figure, axes = plt.subplots(3, 2, figsize=(13, 12), layout="constrained")
    rows = [r for r in read("extraction")["median_rows"] if "once more" not in r["what"]]
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
    place.set(xscale="log", ylim=(0, 1.2 * max(place.get_ylim())))
    place.set(xlabel="clips of 1 s", ylabel="peak memory, MB")
    place.set_title("Memory of stage 1, mini", fontsize=10, loc="left")
    place.spines[["top", "right"]].set_visible(False)
    rows = read("latency")["rows"]
    bars(axes[2, 1], [f"{row['encoder']}, {row['backend']} {row['precision']}" for row in rows],
         [row["mean_ms"] for row in rows], "Window of 3 s to label, mean", "ms")  # fmt: skip
    figure.savefig(common.OUT / "speed.png", dpi=110)
    print(f"-> {common.OUT / 'speed.png'}")


if __name__ == "__main__":
    main()
