"""Arrays to figures. Each function draws on `ax`, or on a new figure, and returns the axes.

Figures are made without pyplot, so no window system is needed and nothing global changes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = [
    "plot_confusion", "plot_groups", "plot_history", "plot_intervals", "plot_models",
    "plot_reliability", "plot_risk_coverage", "plot_transfer", "save_plot",
]  # fmt: skip

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
    confidence: np.ndarray, correct: np.ndarray, ece: float, ax: Axes | None = None,
    bins: int = 10, raw: np.ndarray | None = None,
) -> Axes:  # fmt: skip
    """Draw accuracy against confidence, and how many clips stand behind each point.

    Args:
        confidence: Probability of the predicted class, (N,).
        correct: Whether it was right, (N,) bool.
        ece: Expected calibration error, for the title.
        ax: Where to draw.
        bins: Number of equal bins of confidence.
        raw: Confidence before temperature scaling, (N,), to be drawn beside it.
    """
    ax = _axes(ax, 5.2, 4.4)
    edges = np.linspace(0, 1, bins + 1)
    mean, accuracy, counts = _binned(confidence, correct, edges)
    centres = (edges[:-1] + edges[1:]) / 2
    share = counts / counts.sum()
    ax.bar(centres, share, width=0.9 / bins, color=GREY, alpha=0.35, label="share of clips")
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
    if raw is not None:
        before = _binned(raw, correct, edges)
        ax.plot(*before[:2], marker="s", color=ORANGE, linestyle=":", label="before temperature")
    ax.plot(mean, accuracy, marker="o", color=BLUE, label="this head")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    ax.set_title(f"Reliability on the test part (ECE {ece:.3f})")
    ax.legend(loc="upper left", fontsize=8)
    return ax


def _binned(
    confidence: np.ndarray, correct: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean confidence and accuracy of the bins that hold a clip, and all bins' counts."""
    bins = len(edges) - 1
    which = np.clip(np.digitize(confidence, edges) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    filled = counts > 0
    mean = np.bincount(which, confidence, bins)[filled] / counts[filled]
    accuracy = np.bincount(which, correct.astype(float), bins)[filled] / counts[filled]
    return mean, accuracy, counts


def plot_risk_coverage(coverage: np.ndarray, risk: np.ndarray, ax: Axes | None = None) -> Axes:
    """Draw the share of wrong answers (n,) against the share of clips answered (n,)."""
    ax = _axes(ax, 5.2, 4.0)
    ax.plot(coverage, risk, color=BLUE, drawstyle="steps-post", label="surest first")
    ax.axhline(risk[-1], color=GREY, linestyle="--", linewidth=1, label="at random")
    ax.set(xlim=(0, 1), xlabel="share of clips answered", ylabel="share of answers wrong")
    ax.set_ylim(0, max(1.15 * float(risk.max()), 0.05))
    ax.set_title("Risk and coverage")
    ax.legend(fontsize=8, loc="lower right")
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


def plot_intervals(
    names: Sequence[str], values: Sequence[float], intervals: Sequence[tuple[float, float]],
    chance: float, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw a UAR with its interval per row, the first row's as a line to compare with.

    Args:
        names: Of the rows.
        values: UAR of each.
        intervals: Low and high of each.
        chance: UAR of guessing.
        ax: Where to draw.
    """
    ax = _axes(ax, 6.4, 0.34 * len(names) + 1.3)
    places = np.arange(len(names))
    low, high = np.array(intervals).T
    ax.hlines(places, low, high, color=BLUE, linewidth=2)
    ax.plot(values, places, "o", color=BLUE)
    ax.axvline(values[0], color=ORANGE, linestyle="--", linewidth=1, label=names[0])
    ax.axvline(chance, color=GREY, linestyle=":", linewidth=1, label="guessing")
    ax.set_yticks(places, names, fontsize=9)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="UAR, with its 95 % interval")
    ax.legend(fontsize=8, loc="upper center", ncol=2, bbox_to_anchor=(0.5, 1.13))
    return ax


def plot_models(
    names: Sequence[str], uar: Sequence[float], intervals: Sequence[tuple[float, float]],
    chance: float, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw the UAR of models as bars, each with its interval and its figure.

    Args:
        names: Of the models.
        uar: Of each.
        intervals: Low and high of each.
        chance: UAR of guessing.
        ax: Where to draw.
    """
    ax = _axes(ax, 7.2, 0.42 * len(names) + 1.2)
    places = np.arange(len(names))
    low, high = np.array(intervals).T
    ax.barh(places, uar, height=0.62, color=BLUE)
    ax.hlines(places, low, high, color=ORANGE, linewidth=2)
    for place, (value, end) in enumerate(zip(uar, high, strict=True)):
        ax.text(max(value, end) + 0.012, place, f"{100 * value:.1f}", va="center", fontsize=9)
    ax.axvline(chance, color=GREY, linestyle=":", linewidth=1)
    ax.annotate("guessing", (chance, 1.0), (0, 3), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", color=GREY, fontsize=8)  # fmt: skip
    ax.set_yticks(places, names, fontsize=9)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="UAR, with its 95 % interval by speakers")
    return ax


def plot_transfer(
    uar: np.ndarray, trained: Sequence[str], tested: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draw the UAR of corpora (n, m), rows trained on, columns tested on."""
    ax = _axes(ax, 2.4 + 0.95 * len(tested), 1.8 + 0.75 * len(trained))
    ax.imshow(uar, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(uar):
        colour = "white" if value > 0.55 else "black"
        weight = "bold" if trained[row] == tested[column] else "normal"
        ax.text(column, row, f"{100 * value:.1f}", ha="center", va="center", color=colour,
                fontweight=weight)  # fmt: skip
    ax.set_xticks(range(len(tested)), tested)
    ax.set_yticks(range(len(trained)), trained)
    ax.set(xlabel="tested on", ylabel="trained on")
    ax.set_title("UAR in %; within a corpus: other speakers", fontsize=10)
    return ax
