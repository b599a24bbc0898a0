"""An epoch of the paper's head on (149, 32) features: ours against a plain fp32 loop, in one run.

`python benchmarks/head.py` writes artifacts/benchmarks/head.json. The plain loop is what the
paper's code does: a DataLoader over samples, the same network and optimiser, fp32. Both start
from the same weights and see the same clips; the losses of both are written beside the times.
"""

import statistics
import time
from dataclasses import dataclass

import common
import numpy as np
import torch
import tyro
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from ser_embed.heads.checkpoint import build_head
from ser_embed.splits.rules import Split
from ser_embed.train.loop import FitSettings, fit

SHAPE, CLASSES = (149, 32), 3


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    clips: int = 800
    """Clips of training; a quarter as many of validation."""
    rounds: int = 5
    """Epochs timed of each, in turns; the median counts."""
    epochs: int = 4
    """Epochs of the runs that the losses are compared of."""


class InMemory:
    """Features as `data.Features` gives them."""

    shape = SHAPE

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features
        self.frames = torch.full((len(features),), SHAPE[0])

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (features, frames) of some clips."""
        return self.features[rows].float(), self.frames[rows]


def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features float16 (n, 149, 32), and labels that can be learnt from them."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    features = torch.rand(n, *SHAPE, generator=generator) * 2 - 1
    features[torch.arange(n), :, labels] += 0.5
    return features.half(), labels


def plain(
    features: torch.Tensor, labels: torch.Tensor, n_train: int, epochs: int, seed: int = 0
) -> list[tuple]:
    """Train as the paper's code does; return (seconds, training loss, validation loss)."""
    torch.manual_seed(seed)  # of shuffling and dropout; the first weights are the same
    head = build_head("conv", SHAPE, CLASSES, False, seed=0)
    adam = torch.optim.AdamW(head.parameters(), lr=1e-4)
    train = DataLoader(TensorDataset(features[:n_train], labels[:n_train]), 32, shuffle=True)
    val = DataLoader(TensorDataset(features[n_train:], labels[n_train:]), 32)
    told = []
    for _ in range(epochs):
        start = time.perf_counter()
        head.train()
        losses = []
        for batch, truth in train:
            loss = F.nll_loss(head(batch.float(), torch.full((len(batch),), SHAPE[0])), truth)
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
        head.eval()
        with torch.no_grad():
            val_losses = [
                F.nll_loss(head(b.float(), torch.full((len(b),), SHAPE[0])), t).item()
                for b, t in val
            ]
        seconds = time.perf_counter() - start
        told.append((seconds, statistics.mean(losses), statistics.mean(val_losses)))
    return told


def ours(features: torch.Tensor, labels: torch.Tensor, n_train: int, epochs: int) -> list[tuple]:
    """Train by `fit`; return the same."""
    head = build_head("conv", SHAPE, CLASSES, False, seed=0)
    rows = np.arange(len(features))
    split = Split("bench", rows[:n_train], rows[n_train:], rows[n_train:])
    settings = FitSettings(epochs, 32, 1e-4, 0.01, "adamw", None, 0)
    ends = [time.perf_counter()]
    history = fit(
        head, InMemory(features), labels.numpy(), split, np.ones(CLASSES), settings,
        on_epoch=lambda history: ends.append(time.perf_counter()),
    )  # fmt: skip
    return list(zip(np.diff(ends).tolist(), history.train_loss, history.val_loss, strict=True))


def main(settings: Settings) -> None:
    """Time single epochs in turns, then train both once for their losses; print and write."""
    features, labels = draw(settings.clips * 5 // 4)
    kinds = {"plain": plain, "ours": ours}
    seconds = common.medians(
        common.alternate(
            {name: lambda r=run: r(features, labels, settings.clips, 1)[0][0]
             for name, run in kinds.items()},
            settings.rounds,
        )
    )  # fmt: skip
    runs = {name: run(features, labels, settings.clips, settings.epochs)
            for name, run in kinds.items()}  # fmt: skip
    for seed in (1, 2):  # how far apart losses are that differ by the draw of clips alone
        runs[f"plain, seed {seed}"] = plain(features, labels, settings.clips, settings.epochs, seed)
    ratio = round(seconds["plain"] / seconds["ours"], 2)
    for name, value in seconds.items():
        print(f"{name:6} {value:6.2f} s an epoch")
    for name, rows in runs.items():
        print(f"{name:13} losses {[round(r[1], 4) for r in rows]}")
    print(f"{ratio}x")
    common.write(
        "head", {"clips": settings.clips, "batch_size": 32, "ratio": ratio, "seconds": seconds,
                 "losses": {name: [dict(zip(("train", "val"), row[1:], strict=True))
                                   for row in rows] for name, rows in runs.items()}},
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Settings))
