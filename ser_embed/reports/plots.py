"""Arrays to figures, without pyplot: no window system is needed and nothing global changes."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["Plot"]

BLUE, ORANGE, GREY = "#2a6f97", "#e07a1f", "#8a8a8a"


def _axes(ax: Axes | None, width: float, height: float) -> Axes:
    if ax is not None:
        return ax
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def _cells(ax: Axes, shares: np.ndarray, texts: np.ndarray, rows: Sequence[str],
           columns: Sequence[str]) -> None:  # fmt: skip
    """Draw a table of texts (n, m), each cell coloured by its share, 0 to 1."""
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.55 else "black"
        ax.text(column, row, texts[row, column], ha="center", va="center", color=colour)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)


def _rows(ax: Axes, names: Sequence[str], size: int, label: str) -> np.ndarray:
    """Name rows from the top, of values between 0 and 1; return where each is drawn."""
    positions = np.arange(len(names))
    ax.set_yticks(positions, names, fontsize=size)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel=label)
    return positions


@dataclass(frozen=True)
class Plot:
    """Axes with a figure. Every class method draws one, on `ax` or on a new figure."""

    ax: Axes

    def save(self, path: Path) -> None:
        """Write it as PNG."""
        self.ax.figure.savefig(path, dpi=130)  # type: ignore[union-attr]

    def svg(self) -> bytes:
        """Return it as SVG on a transparent ground; equal figures give equal bytes."""
        file = io.BytesIO()
        self.ax.figure.savefig(  # type: ignore[union-attr]
            file, format="svg", transparent=True, metadata={"Date": None}
        )
        return file.getvalue()

    @classmethod
    def confusion(
        cls, matrix: np.ndarray, classes: Sequence[str], ax: Axes | None = None
    ) -> "Plot":
        """Draw a confusion matrix of counts (C, C), rows true, coloured by share of the row."""
        size = max(4.0, 1.2 + 0.75 * len(classes))
        ax = _axes(ax, size + 0.8, size)
        shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        texts = np.array([f"{count}\n{share:.0%}" for count, share in zip(
            matrix.ravel(), shares.ravel(), strict=True)]).reshape(matrix.shape)  # fmt: skip
        _cells(ax, shares, texts, classes, classes)
        for text in ax.texts:
            text.set_fontsize(8)
        ax.tick_params("x", rotation=45)
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("right")
        ax.set(xlabel="predicted", ylabel="true")
        ax.set_title("Confusion matrix (clips, share of the true class)")
        return cls(ax)

    @classmethod
    def reliability(
        cls, confidence: np.ndarray, correct: np.ndarray, ece: float, ax: Axes | None = None,
        bins: int = 10, raw: np.ndarray | None = None,
    ) -> "Plot":  # fmt: skip
        """Draw accuracy against confidence, and the share of clips at each confidence.

        Args:
            confidence: Probability of the predicted class, (N,).
            correct: Whether it was right, (N,) bool.
            ece: Expected calibration error, for the title.
            ax: Where to draw.
            bins: Number of equal bins of confidence.
            raw: Confidence before temperature scaling, (N,), to be drawn too.
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
            ax.plot(
                *before[:2], marker="s", color=ORANGE, linestyle=":", label="before temperature"
            )
        ax.plot(mean, accuracy, marker="o", color=BLUE, label="this head")
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
        ax.set_title(f"Reliability on the test part (ECE {ece:.3f})")
        ax.legend(loc="upper left", fontsize=8)
        return cls(ax)

    @classmethod
    def risk_coverage(
        cls, coverage: np.ndarray, risk: np.ndarray, ax: Axes | None = None
    ) -> "Plot":
        """Draw the share of wrong answers (n,) against the share of clips answered (n,)."""
        ax = _axes(ax, 5.2, 4.0)
        label = "most confident first"
        ax.plot(coverage, risk, color=BLUE, drawstyle="steps-post", label=label)
        ax.axhline(risk[-1], color=GREY, linestyle="--", linewidth=1, label="at random")
        ax.set(xlim=(0, 1), xlabel="share of clips answered", ylabel="share of answers wrong")
        ax.set_ylim(0, max(1.15 * float(risk.max()), 0.05))
        ax.set_title("Risk-coverage curve")
        ax.legend(fontsize=8, loc="lower right")
        return cls(ax)

    @classmethod
    def history(
        cls, columns: Mapping[str, Sequence[float]], kept: int, ax: Axes | None = None,
        unit: str = "epoch",
    ) -> "Plot":  # fmt: skip
        """Draw losses and validation UAR by epoch, marking the epoch whose weights were kept.

        Args:
            columns: `train_loss`, `val_loss`, `val_uar`, and the unit's.
            kept: The epoch kept.
            ax: Where to draw.
            unit: Column that counts: `epoch`, or for instance `step`.
        """
        ax = _axes(ax, 6.4, 4.0)
        ax.plot(columns[unit], columns["train_loss"], color=GREY, label="training loss")
        ax.plot(columns[unit], columns["val_loss"], color=ORANGE, label="validation loss")
        ax.set(xlabel=unit, ylabel="weighted cross-entropy")
        ax.set_ylim(bottom=0)
        right = ax.twinx()
        right.plot(columns[unit], columns["val_uar"], color=BLUE, label="validation UAR")
        right.set(ylim=(0, 1), ylabel="UAR")
        ax.axvline(kept, color=GREY, linestyle=":", linewidth=1)
        lines = [*ax.get_lines()[:2], *right.get_lines()]
        # Below the axes: above or in them it would hide a curve sooner or later.
        names = [str(line.get_label()) for line in lines]
        ax.legend(lines, names, fontsize=8, ncol=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        ax.set_title(f"Training (weights of {unit} {kept} kept)")
        return cls(ax)

    @classmethod
    def groups(
        cls, names: Sequence[str], uar: Sequence[float], overall: float, ax: Axes | None = None
    ) -> "Plot":
        """Draw the recall of each group (speaker, corpus, ...) as bars around the overall UAR."""
        # The renderer refuses more than 65,535 pixels, which 2,100 speakers would take.
        ax = _axes(ax, 6.0, min(max(2.2, 0.24 * len(names) + 1.0), 100.0))
        ax.barh(_rows(ax, names, 8, "mean recall over the classes it has"), uar, color=BLUE)
        label = f"overall {overall:.3f}"
        ax.axvline(overall, color=ORANGE, linestyle="--", linewidth=1, label=label)
        ax.legend(fontsize=8, loc="lower right")
        return cls(ax)

    @classmethod
    def intervals(
        cls, names: Sequence[str], uar: Sequence[float], intervals: Sequence[tuple[float, float]],
        baseline: float, ax: Axes | None = None,
    ) -> "Plot":  # fmt: skip
        """Draw a UAR with its interval per row, the first row's as a line to compare with.

        Args:
            names: Of the rows.
            uar: Of each.
            intervals: Low and high of each.
            baseline: UAR without audio.
            ax: Where to draw.
        """
        ax = _axes(ax, 6.4, 0.34 * len(names) + 1.3)
        positions = _rows(ax, names, 9, "UAR, with its 95 % interval")
        ax.hlines(positions, *np.array(intervals).T, color=BLUE, linewidth=2)
        ax.plot(uar, positions, "o", color=BLUE)
        ax.axvline(uar[0], color=ORANGE, linestyle="--", linewidth=1, label=names[0])
        ax.axvline(baseline, color=GREY, linestyle=":", linewidth=1, label="no-audio baseline")
        ax.legend(fontsize=8, loc="upper center", ncol=2, bbox_to_anchor=(0.5, 1.13))
        return cls(ax)

    @classmethod
    def models(
        cls, names: Sequence[str], uar: Sequence[float], intervals: Sequence[tuple[float, float]],
        baseline: float, ax: Axes | None = None,
    ) -> "Plot":  # fmt: skip
        """Draw the UAR of models as bars with their figures; the arguments are `intervals`'s."""
        ax = _axes(ax, 7.2, 0.42 * len(names) + 1.2)
        positions = _rows(ax, names, 9, "UAR, with its 95 % interval by speakers")
        low, high = np.array(intervals).T
        ax.barh(positions, uar, height=0.62, color=BLUE)
        ax.hlines(positions, low, high, color=ORANGE, linewidth=2)
        for y, value, end in zip(positions, uar, high, strict=True):
            ax.text(max(value, end) + 0.012, y, f"{100 * value:.1f}", va="center", fontsize=9)
        ax.axvline(baseline, color=GREY, linestyle=":", linewidth=1)
        ax.annotate("no-audio baseline", (baseline, 1.0), (0, 3), textcoords="offset points",
                    xycoords=("data", "axes fraction"), ha="center", color=GREY,
                    fontsize=8)  # fmt: skip
        return cls(ax)

    @classmethod
    def transfer(
        cls, uar: np.ndarray, trained: Sequence[str], tested: Sequence[str], ax: Axes | None = None
    ) -> "Plot":
        """Draw the UAR of corpora (n, m), rows trained on, columns tested on; NaN: not tested."""
        ax = _axes(ax, 2.4 + 0.95 * len(tested), 1.8 + 0.75 * len(trained))
        texts = np.where(np.isnan(uar), "", np.char.mod("%.1f", 100 * uar))
        _cells(ax, uar, texts, trained, tested)
        for text in ax.texts:
            column, row = map(round, text.get_position())
            text.set_fontweight("bold" if trained[row] == tested[column] else "normal")
        ax.set(xlabel="tested on", ylabel="trained on")
        ax.set_title("UAR in %; within a corpus: other speakers", fontsize=10)
        return cls(ax)


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
