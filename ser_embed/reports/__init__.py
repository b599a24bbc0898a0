"""Predictions to numbers, plots and a page.

`Report.of` scores a table of predictions, one row a test clip (class names, probabilities,
speaker, corpus), with intervals by resampling speakers, calibration, leakage and no-audio
baselines; `Comparison.of` compares it with another run's on the same clips, `Page` writes it as
one HTML file and `Plot` draws. `scores_of` takes class indices (N,) alone. `read_table`,
`write_json` and `find_originals` are for the files of a run's folder.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.reports.page import Page
    from ser_embed.reports.paired import Comparison
    from ser_embed.reports.plots import Plot
    from ser_embed.reports.scores import Report, scores_of
    from ser_embed.reports.tables import find_originals, read_table, write_json
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "page": ["Page"],
            "paired": ["Comparison"],
            "plots": ["Plot"],
            "scores": ["Report", "scores_of"],
            "tables": ["find_originals", "read_table", "write_json"],
        },
    )

__all__ = [
    "Comparison", "Page", "Plot", "Report", "find_originals", "read_table", "scores_of",
    "write_json",
]  # fmt: skip
