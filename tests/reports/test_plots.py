"""The figures: they draw what they are given, anywhere, and touch no global state."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ser_embed.reports.plots import Plot

CLASSES = ("positive", "neutral", "negative")
MATRIX = np.array([[8, 1, 1], [0, 0, 0], [3, 2, 15]])
HISTORY = {"epoch": [1, 2, 3], "train_loss": [1.1, 0.9, 0.8], "val_loss": [1.2, 1.0, 1.1],
           "val_uar": [0.4, 0.6, 0.5]}  # fmt: skip
PROBABLE = np.array([0.95, 0.96, 0.55, 0.52, 1.0])
RIGHT = np.array([True, True, False, True, True])


def draw(kind: str, ax: Axes | None = None) -> Axes:
    pairs = [(0.7, 0.9), (0.5, 0.7)]
    plots: dict[str, Callable[[], Plot]] = {
        "confusion": lambda: Plot.confusion(MATRIX, CLASSES, ax=ax),
        "reliability": lambda: Plot.reliability(PROBABLE, RIGHT, 0.123, ax=ax),
        "history": lambda: Plot.history(HISTORY, 2, ax=ax),
        "risk": lambda: Plot.risk_coverage(np.array([0.2, 0.6, 1]), np.array([0, 0.1, 0.3]), ax=ax),
        "intervals": lambda: Plot.intervals(["clean", "noise"], [0.8, 0.6], pairs, 0.3, ax=ax),
        "models": lambda: Plot.models(["mini", "wavlm"], [0.8, 0.6], pairs, 0.3, ax=ax),
        "transfer": lambda: Plot.transfer(np.array([[0.9, 0.4, 0.3]]), ["a"], list("abc"), ax=ax),
        "groups": lambda: Plot.groups(["a", "b"], [0.4, 0.8], 0.6, ax=ax),
    }
    return plots[kind]().ax


KINDS = ["confusion", "reliability", "history", "groups", "risk", "intervals", "models", "transfer"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_plot_is_a_png(kind: str, tmp_path: Path) -> None:
    Plot(draw(kind)).save(tmp_path / "x.png")
    image = matplotlib.image.imread(tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert image.shape[0] > 200
    assert image.shape[1] > 400
    assert image[..., :3].std() > 0.01  # something is drawn


@pytest.mark.parametrize("kind", KINDS)
def test_every_plot_draws_on_the_axes_it_is_given(kind: str) -> None:
    ax = Figure().add_subplot()
    assert draw(kind, ax) is ax
    assert ax.has_data()


def test_confusion_shows_counts_and_shares_of_the_row() -> None:
    texts = [text.get_text() for text in draw("confusion").texts]
    assert texts == ["8\n80%", "1\n10%", "1\n10%", "0\n0%", "0\n0%", "0\n0%",
                     "3\n15%", "2\n10%", "15\n75%"]  # fmt: skip
    ax = draw("confusion")
    assert [label.get_text() for label in ax.get_yticklabels()] == list(CLASSES)
    np.testing.assert_allclose(
        ax.images[0].get_array(), [[0.8, 0.1, 0.1], [0] * 3, [0.15, 0.1, 0.75]]
    )


def test_reliability_is_accuracy_against_mean_confidence() -> None:
    ax = draw("reliability")
    line = next(line for line in ax.lines if line.get_label() == "this head")
    # Two filled bins of ten: 0.5 to 0.6 and 0.9 to 1, whose upper end belongs to it.
    np.testing.assert_allclose(line.get_xdata(), [0.535, 0.97])
    np.testing.assert_allclose(line.get_ydata(), [0.5, 1.0])
    heights = [patch.get_height() for patch in ax.patches]
    np.testing.assert_allclose(heights, [0, 0, 0, 0, 0, 0.4, 0, 0, 0, 0.6])
    assert "0.123" in ax.get_title()


def test_history_marks_the_epoch_kept() -> None:
    ax = draw("history")
    assert "weights of epoch 2 kept" in ax.get_title()
    drawn = {str(line.get_label()): list(line.get_ydata()) for line in ax.lines}
    assert drawn["training loss"] == HISTORY["train_loss"]
    assert drawn["validation loss"] == HISTORY["val_loss"]
    assert [2, 2] in [list(line.get_xdata()) for line in ax.lines]


def test_groups_are_bars_from_above() -> None:
    ax = draw("groups")
    assert [patch.get_width() for patch in ax.patches] == [0.4, 0.8]
    assert ax.yaxis_inverted()


def test_the_plot_of_many_speakers_stops_growing() -> None:
    """At 130 pixels an inch the renderer refuses more than 504 inches."""
    ax = Plot.groups([f"s{i}" for i in range(500)], [0.5] * 500, 0.5).ax
    assert ax.figure.get_size_inches()[1] == 100  # type: ignore[union-attr]


def test_no_window_system_is_asked_for() -> None:
    code = "import sys, ser_embed.reports.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reliability_draws_both_sides_of_the_temperature() -> None:
    ax = Plot.reliability(PROBABLE, RIGHT, 0.1, raw=np.array([0.35, 0.36, 0.32, 0.31, 0.39])).ax
    before, after = ax.get_lines()[1:]
    assert before.get_xdata() == pytest.approx([(0.35 + 0.36 + 0.32 + 0.31 + 0.39) / 5])
    assert before.get_ydata() == pytest.approx([4 / 5])
    assert after.get_xdata() == pytest.approx([0.535, 0.97])


def test_transfer_has_trained_in_rows_and_tested_in_columns() -> None:
    ax = draw("transfer")
    cells = {(round(t.get_position()[0]), round(t.get_position()[1])): t for t in ax.texts}
    assert [cells[column, 0].get_text() for column in range(3)] == ["90.0", "40.0", "30.0"]
    assert [cells[column, 0].get_fontweight() for column in range(3)] == [
        "bold",
        "normal",
        "normal",
    ]
    assert ax.get_xlabel() == "tested on"
