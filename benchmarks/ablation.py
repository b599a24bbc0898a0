"""What each choice is worth: RAVDESS, eight emotions, EmoBox's six speaker-disjoint folds.

`python benchmarks/ablation.py RAVDESS FOLDS.csv` extracts and trains every variant, one choice
away from the first, and writes artifacts/encoders/mini/ablation.json and a Markdown table.
Choices are made by the validation column: speakers of the training folds, who never include the
fold's test speakers. The last line chooses anew inside every fold and is blind to its test. A
variant that is done is not done again.
"""

import json
import os
import statistics
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from ser_embed.errors import SerEmbedError
from ser_embed.extract import ExtractConfig, extract
from ser_embed.train import TrainConfig, train

# What all variants share beside the defaults of both commands.
STORE: Mapping[str, Any] = {"layer": "all", "pool": "stats"}
HEAD: Mapping[str, Any] = {"ensemble": 5}
FRAMES = {"layer": None, "pool": "none"}

# Name: what differs at extraction, and in training.
VARIANTS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "mini, every layer's mean and deviation, five heads `stats`": ({}, {}),
    "encoder `mini-open`": ({"encoder": "mini-open"}, {}),
    "encoder `random-mini` (untrained control)": ({"encoder": "random-mini"}, {}),
    "layer 2 alone": ({"layer": 2}, {}),
    "layer 3 alone": ({"layer": 3}, {}),
    "layer 4 alone": ({"layer": 4}, {}),
    "layer 5 alone": ({"layer": 5}, {}),
    "layer 6 alone": ({"layer": 6}, {}),
    "min-max per frame": ({"norm": "frame"}, {}),
    "min-max per clip": ({"norm": "clip"}, {}),
    "no trimming of silence": ({"trim": False}, {}),
    "no trimming, filled with random samples": ({"trim": False, "fill": "sample"}, {}),
    "whole clips": ({"seconds": 0.0}, {}),
    "means without deviations, head `layers`": ({"pool": "mean"}, {"head": "layers"}),
    "frames of the default layer, one head `stats`": (FRAMES, {"ensemble": 1}),
    "frames of the default layer, one head `temporal`": (
        FRAMES, {"head": "temporal", "ensemble": 1}),
    "one head": ({}, {"ensemble": 1}),
    "no class weights": ({}, {"class_weights": "none"}),
}  # fmt: skip

MEASURED_BEFORE = ("mixup 0.4",)
"""Variants of options that gained nothing and are gone."""


@dataclass(frozen=True)
class Settings:
    """Where the corpus and the folds are."""

    corpus: Annotated[Path, tyro.conf.Positional]
    """RAVDESS's folder."""
    folds: Annotated[Path, tyro.conf.Positional]
    """EmoBox's folds of it, a CSV with fold_1 to fold_6."""
    out: Path = Path("artifacts/encoders/mini/ablation.json")
    """File for the figures."""
    work: Path = Path(tempfile.gettempdir()) / "ser_embed-ablation"
    """Folder of the stores and runs."""
    jobs: int = os.cpu_count() or 1
    """Variants that are trained at the same time; set OMP_NUM_THREADS=1 for more than one."""


def store_of(settings: Settings, name: str) -> Path:
    """Extract a variant's features and return the store."""
    config = ExtractConfig(
        settings.corpus, "ravdess", quiet=True, json=True,
        features_dir=settings.work / "features", **{**STORE, **VARIANTS[name][0]},
    )  # fmt: skip
    return Path(extract(config).result["store"])


def measure(settings: Settings, name: str, store: Path) -> dict[str, Any]:
    """Train a variant on the six folds and return its figures."""
    options = TrainConfig(
        (store,), early_stop=True, labels="emotion8", split=f"folds:{settings.folds}",
        runs_dir=settings.work / "runs", quiet=True, json=True,
    )  # fmt: skip
    run = Path(train(replace(options, **{**HEAD, **VARIANTS[name][1]})).result["run"])
    report = json.loads((run / "report.json").read_text())
    cards = [json.loads(path.read_text()) for path in sorted(run.glob("*/card.json"))]
    return {
        "validation_uar": [
            round(statistics.mean(card["training"]["val_uar"]), 4) for card in cards
        ],
        "test_uar": [round(report["folds"][card["fold"]], 4) for card in cards],
        "head_parameters": cards[0]["head"]["parameters"],
        "store_bytes": store.stat().st_size,
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| | validation UAR % | test UAR % | store MB |", "|---|---|---|---|"]
    for name, row in results.items():
        val, test = (statistics.mean(row[key]) for key in ("validation_uar", "test_uar"))
        size = row["store_bytes"] / 1e6
        lines.append(f"| {name} | {100 * val:.1f} | {100 * test:.1f} | {size:.0f} |")
    nested = statistics.mean(nested_choice(results))
    lines.append(f"| chosen anew inside each fold, among five heads | | {100 * nested:.1f} | |")
    return "\n".join(lines)


def nested_choice(results: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """Return each fold's test UAR of the variant that its own validation prefers.

    Among variants of five heads: these are validated on the same clips, a single head on fewer.
    """
    rows = [
        row
        for name, row in results.items()
        if name in MEASURED_BEFORE or "ensemble" not in VARIANTS[name][1]
    ]
    best = [
        max(rows, key=lambda row: row["validation_uar"][fold])
        for fold in range(len(rows[0]["test_uar"]))
    ]
    return [row["test_uar"][fold] for fold, row in enumerate(best)]


def main(settings: Settings) -> None:
    """Measure every variant that isn't measured yet."""
    results = json.loads(settings.out.read_text()) if settings.out.is_file() else {}
    missing = [name for name in VARIANTS if name not in results]
    try:
        stores = {name: store_of(settings, name) for name in missing}
        with ProcessPoolExecutor(settings.jobs) as pool:
            jobs = {pool.submit(measure, settings, name, stores[name]): name for name in missing}
            for job in as_completed(jobs):
                results[jobs[job]] = job.result()
                ordered = {key: results[key] for key in VARIANTS if key in results}
                settings.out.parent.mkdir(parents=True, exist_ok=True)
                settings.out.write_text(json.dumps(ordered, indent=1) + "\n")
                print(jobs[job], results[jobs[job]], flush=True)
    except SerEmbedError as error:
        raise SystemExit(str(error)) from error
    print(table({key: results[key] for key in VARIANTS if key in results}))


if __name__ == "__main__":
    main(tyro.cli(Settings))
