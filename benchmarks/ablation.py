"""What each choice is worth: RAVDESS, eight emotions, EmoBox's six speaker-disjoint folds.

`python benchmarks/ablation.py RAVDESS FOLDS.csv` extracts and trains every variant and writes
artifacts/encoders/mini/ablation.json and a Markdown table to standard output. Choices are made by
the validation column (speakers of the training folds); the test column is looked at last. A
variant that is done is not done again.
"""

import json
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from ser_embed.errors import SerEmbedError
from ser_embed.extract import ExtractConfig, extract
from ser_embed.train import TrainConfig, train

# Name: what differs from the defaults at extraction, and in training.
VARIANTS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {}),
    "encoder random-mini (control)": ({"encoder": "random-mini"}, {}),
    "encoder mini-open": ({"encoder": "mini-open"}, {}),
    "no trimming": ({"trim": False}, {}),
    "no trimming, filled with samples": ({"trim": False, "fill": "sample"}, {}),
    "whole clips": ({"seconds": 0.0}, {}),
    "min-max per frame": ({"norm": "frame"}, {}),
    "min-max per clip": ({"norm": "clip"}, {}),
    "layer 0": ({"layer": 0}, {}),
    "layer 3": ({"layer": 3}, {}),
    "layer 6": ({"layer": 6}, {}),
    "one head": ({}, {"ensemble": 1}),
    "no mixup": ({}, {"mixup": 0.0}),
    "no class weights": ({}, {"class_weights": "none"}),
    "mean alone, head layers": ({"layer": "all", "pool": "mean"}, {"head": "layers"}),
    "frames of layer 3, head temporal": ({"pool": "none", "layer": 3}, {"head": "temporal"}),
    "frames of layer 3, head stats": ({"pool": "none", "layer": 3}, {"head": "stats"}),
}


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
    only: tuple[str, ...] = ()
    """Variants, default all."""


def measure(settings: Settings, at: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    """Return one variant's figures."""
    features = settings.work / "features"
    stored = extract(
        replace(ExtractConfig(settings.corpus, "ravdess", quiet=True, features_dir=features), **at)
    ).result
    options = TrainConfig(
        (Path(stored["store"]),), early_stop=True, labels="emotion8",
        split=f"folds:{settings.folds}", runs_dir=settings.work / "runs", quiet=True, json=True,
    )  # fmt: skip
    run = Path(train(replace(options, **head)).result["run"])
    report = json.loads((run / "report.json").read_text())
    cards = [json.loads(path.read_text()) for path in sorted(run.glob("*/card.json"))]
    val = [statistics.mean(card["training"]["val_uar"]) for card in cards]
    test = list(report["folds"].values())
    return {
        "validation_uar": round(statistics.mean(val), 4),
        "test_uar": round(statistics.mean(test), 4),
        "test_uar_std": round(statistics.stdev(test), 4),
        "parameters": cards[0]["head"]["parameters"],
        "store_bytes": Path(stored["store"]).stat().st_size,
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| variant | validation UAR % | test UAR % | store MB |", "|---|---|---|---|"]
    for name, row in results.items():
        lines.append(
            f"| {name} | {100 * row['validation_uar']:.1f} | {100 * row['test_uar']:.1f} | "
            f"{row['store_bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def main(settings: Settings) -> None:
    """Measure every variant that isn't measured yet."""
    results = json.loads(settings.out.read_text()) if settings.out.is_file() else {}
    for name, (at, head) in VARIANTS.items():
        if name in results or (settings.only and name not in settings.only):
            continue
        try:
            results[name] = measure(settings, at, head)
        except SerEmbedError as error:
            raise SystemExit(f"{name}: {error}") from error
        ordered = {key: results[key] for key in VARIANTS if key in results}
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        settings.out.write_text(json.dumps(ordered, indent=1) + "\n")
        print(name, results[name], flush=True)
    print(table(results))


if __name__ == "__main__":
    main(tyro.cli(Settings))
