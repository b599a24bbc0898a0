"""What a fine-tuning did, evaluation by evaluation: history.csv, history.md, history.png."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ser_embed.reports import Plot

__all__ = ["Trace", "trace_table", "write_trace"]

_COLUMNS = ("step", "epoch", "train_loss", "val_loss", "val_wa", "val_uar", "val_macro_f1")


@dataclass(frozen=True)
class Trace:
    """What training did.

    Attributes:
        table: One row an evaluation, the columns of history.csv.
        steps: Optimiser steps that were taken.
        epochs: The same in passes over the training clips.
        kept: Step whose weights are kept.
    """

    table: pd.DataFrame
    steps: int
    epochs: float
    kept: int


def trace_table(history: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """Join what the Trainer logged of training and of validation, by step."""
    losses = {int(row["step"]): row["loss"] for row in history if "loss" in row}
    rows = [
        (int(row["step"]), row["epoch"], losses.get(int(row["step"]), math.nan),
         *(row[f"eval_{name}"] for name in ("loss", "wa", "uar", "macro_f1")))
        for row in history if "eval_loss" in row
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def write_trace(folder: Path, trace: Trace) -> None:
    """Write history.csv, history.md (the table of model cards) and history.png."""
    trace.table.to_csv(folder / "history.csv", index=False)
    lines = ["| training loss | epoch | step | validation loss | accuracy | UAR | macro-F1 |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in trace.table.itertuples(index=False):
        # The Trainer logs no loss of the steps after the last whole stretch.
        loss = f"{row.train_loss:.4f}".replace("nan", "no log")
        lines.append(
            f"| {loss} | {row.epoch:.2f} | {row.step} | {row.val_loss:.4f} | "
            f"{row.val_wa:.4f} | {row.val_uar:.4f} | {row.val_macro_f1:.4f} |"
        )
    (folder / "history.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = {name: trace.table[name].tolist() for name in _COLUMNS}
    Plot.history(columns, trace.kept, unit="step").save(folder / "history.png")
