"""Predictions to numbers, plots and a page."""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.reports.originals import find_originals, roots_of
    from ser_embed.reports.page import Evaluated, write_page
    from ser_embed.reports.paired import compare
    from ser_embed.reports.plots import (
        plot_history,
        plot_intervals,
        plot_models,
        plot_transfer,
        save_plot,
    )
    from ser_embed.reports.scores import Report, confusion, evaluate, resampled, uar_of
    from ser_embed.reports.tables import read_table, write_json
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "originals": ["find_originals", "roots_of"],
            "page": ["Evaluated", "write_page"],
            "paired": ["compare"],
            "plots": [
                "plot_history",
                "plot_intervals",
                "plot_models",
                "plot_transfer",
                "save_plot",
            ],
            "scores": ["Report", "confusion", "evaluate", "resampled", "uar_of"],
            "tables": ["read_table", "write_json"],
        },
    )

__all__ = [
    "Evaluated",
    "Report",
    "compare",
    "confusion",
    "evaluate",
    "find_originals",
    "plot_history",
    "plot_intervals",
    "plot_models",
    "plot_transfer",
    "read_table",
    "resampled",
    "roots_of",
    "save_plot",
    "uar_of",
    "write_json",
    "write_page",
]
