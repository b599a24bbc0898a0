"""Arrays to figures. Each function draws on `ax`, or on a new figure, and returns the axes.

Figures are made without pyplot, so no window system is needed and nothing global changes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["plot_confusion", "plot_groups", "plot_history", "plot_reliability", "save_plot"]

BLUE, ORANGE, GREY = "#2a6f97", "#e07a1f", "#8a8a8a"


def _axes(ax: Axes | None, width: float, height: float) -> Axes:
    if ax is not None:
        return ax
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def save_plot(ax: Axes, path: Path) -> None:
    """Write the figure of some axes as PNG."""
    figure = ax.get_figure()
    assert figure is not None
    figure.savefig(path, dpi=130)  # type: ignore[union-attr]


def plot_confusion(matrix: np.ndarray, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw a confusion matrix of counts (C, C), rows true, coloured by share of the row."""
    size = max(4.0, 1.2 + 0.75 * len(classes))
    ax = _axes(ax, size + 0.8, size)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        text = f"{count}\n{share[row, column]:.0%}"
        colour = "white" if share[row, column] > 0.55 else "black"
        ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    ax.set_yticks(range(len(classes)), classes)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title("Confusion matrix (clips, share of the true class)")
    return ax


def plot_reliability(
    confidence: np.ndarray, correct: np.ndarray, ece: float, ax: Axes | None = None, bins: int = 10
) -> Axes:
    """Draw accuracy against confidence, and how many clips stand behind each point.

    Args:
        confidence: Probability of the predicted class, (N,).
        correct: Whether it was right, (N,) bool.
        ece: Expected calibration error, for the title.
        ax: Where to draw.
        bins: Number of equal bins of confidence.
    """
    ax = _axes(ax, 5.2, 4.4)
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.digitize(confidence, edges) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    filled = counts > 0
    mean = np.bincount(which, confidence, bins)[filled] / counts[filled]
    accuracy = np.bincount(which, correct.astype(float), bins)[filled] / counts[filled]
    centres = (edges[:-1] + edges[1:]) / 2
    share = counts / counts.sum()
    ax.bar(centres, share, width=0.9 / bins, color=GREY, alpha=0.35, label="share of clips")
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
    ax.plot(mean, accuracy, marker="o", color=BLUE, label="this head")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    ax.set_title(f"Reliability on the test part (ECE {ece:.3f})")
    ax.legend(loc="upper left", fontsize=8)
    return ax


def plot_history(
    history: Mapping[str, Sequence[float]], best: int, ax: Axes | None = None, unit: str = "epoch"
) -> Axes:
    """Draw losses and validation UAR by epoch, marking the epoch whose weights were kept.

    Args:
        history: Columns `epoch`, `train_loss`, `val_loss`, `val_uar`.
        best: The epoch kept.
        ax: Where to draw.
        unit: Column that counts instead of epochs, for instance `step`.
    """
    ax = _axes(ax, 6.4, 4.0)
    epochs = history[unit]
    ax.plot(epochs, history["train_loss"], color=GREY, label="training loss")
    ax.plot(epochs, history["val_loss"], color=ORANGE, label="validation loss")
    ax.set_xlabel(unit)
    ax.set_ylabel("weighted cross-entropy")
    ax.set_ylim(bottom=0)
    right = ax.twinx()
    right.plot(epochs, history["val_uar"], color=BLUE, label="validation UAR")
    right.set_ylim(0, 1)
    right.set_ylabel("UAR")
    ax.axvline(best, color=GREY, linestyle=":", linewidth=1)
    lines = [*ax.get_lines()[:2], *right.get_lines()]
    # Below the axes: above or in them it would hide a curve sooner or later.
    names = [str(line.get_label()) for line in lines]
    ax.legend(lines, names, fontsize=8, ncol=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    ax.set_title(f"Training (weights of {unit} {best} kept)")
    return ax


def plot_groups(
    names: Sequence[str], uar: Sequence[float], overall: float, ax: Axes | None = None
) -> Axes:
    """Draw the recall of each group (speaker, corpus, ...) as bars around the overall UAR."""
    # The renderer refuses more than 65,535 pixels, which 2,100 speakers would take.
    ax = _axes(ax, 6.0, min(max(2.2, 0.24 * len(names) + 1.0), 100.0))
    places = np.arange(len(names))
    ax.barh(places, uar, color=BLUE)
    ax.axvline(overall, color=ORANGE, linestyle="--", linewidth=1, label=f"overall {overall:.3f}")
    ax.set_yticks(places, names, fontsize=8)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="mean recall over the classes it has")
    ax.legend(fontsize=8, loc="lower right")
    return ax
