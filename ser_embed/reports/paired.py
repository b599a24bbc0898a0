"""Two runs on the same clips: whether one is better, or only looks so."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_embed.errors import HeadError
from ser_embed.reports.scores import Report, confusion, resampled, uar_of
from ser_embed.reports.tables import read_table, write_json

__all__ = ["Comparison", "compare", "mcnemar"]


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of McNemar's test (McNemar 1947, the binomial form).

    Args:
        only_first: Clips that only the first of two classifiers has right.
        only_second: Clips that only the second has right.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    term, total = 1, 0  # C(n, k), in whole numbers: exact however many clips there are
    for k in range(fewer + 1):
        total += term
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * total / 2**n)


@dataclass(frozen=True)
class Comparison:
    """One run against another, on the clips that both were tested on.

    Attributes:
        run: Name of the one.
        against: Name of the other.
        clips: Clips both were tested on.
        left_out: Clips that only one of them was tested on.
        uar: Of the one on these clips.
        against_uar: Of the other on them.
        difference: UAR of the one minus that of the other.
        difference_ci: 95 % interval of it, by resampling speakers.
        ci_by: What was resampled.
        share_better: Share of the resamples in which the one is better.
        only_run: Clips that only the one has right.
        only_against: Clips that only the other has right.
        mcnemar_p: Exact two-sided p of McNemar's test, which takes clips for independent.
        warnings: Sentences that belong beside it.
    """

    run: str
    against: str
    clips: int
    left_out: int
    uar: float
    against_uar: float
    difference: float
    difference_ci: tuple[float, float]
    ci_by: str
    share_better: float
    only_run: int
    only_against: int
    mcnemar_p: float
    warnings: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """The result in one line."""
        low, high = self.difference_ci
        told = f"UAR {self.difference:+.3f} [{low:+.3f}, {high:+.3f}], p {_p(self.mcnemar_p)}"
        if low > 0:
            return f"{self.run} is better than {self.against}: {told}"
        if high < 0:
            return f"{self.run} is worse than {self.against}: {told}"
        return f"no difference between {self.run} and {self.against} is shown: {told}"

    def to_markdown(self) -> str:
        """Return the comparison as Markdown."""
        lines = [f"# {self.run} against {self.against}", "", f"**{self.verdict}**", ""]
        lines += [f"> **Careful.** {warning}\n" for warning in self.warnings]
        lines += ["| | UAR | right where the other is wrong |", "|---|---|---|",
                  f"| {self.run} | {self.uar:.3f} | {self.only_run} |",
                  f"| {self.against} | {self.against_uar:.3f} | {self.only_against} |", "",
                  *self.explanation, ""]  # fmt: skip
        return "\n".join(lines)

    @property
    def explanation(self) -> list[str]:
        """What the numbers are, sentence by sentence."""
        told = [
            f"Both were tested on {self.clips} clips; {self.left_out} that only one was tested "
            "on are left out.",
            f"The interval is that of the difference when the {self.ci_by} are resampled, the "
            f"same for both; the first is ahead in {self.share_better:.1%} of the resamples.",
            f"McNemar's exact test of the {self.only_run + self.only_against} clips on which one "
            f"is right and the other wrong: p {_p(self.mcnemar_p)}. It takes clips for "
            "independent, which those of one speaker are not; where the two disagree, believe "
            "the interval.",
        ]
        return told

    def save(self, folder: Path) -> Path:
        """Write paired.md and paired.json into a folder; return the former."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "paired.json", asdict(self))
        (folder / "paired.md").write_text(self.to_markdown(), encoding="utf-8")
        return folder / "paired.md"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def compare(report: Report, predictions: pd.DataFrame, name: str, against: Path,
            seed: int) -> Comparison:  # fmt: skip
    """Compare predictions with those of another run.

    Args:
        report: Of the predictions.
        predictions: As `report.evaluate` takes them, with the clips' `sha256`.
        name: Of the run they are from.
        against: Folder of the other run, or of an evaluation of one, with its predictions.csv
            and report.json.
        seed: Of the resampling.

    Raises:
        HeadError: The other has no such files or other classes, or no clip is in both.
    """
    other = read_table(against / "predictions.csv")
    told = _report_of(against)
    if set(told["classes"]) != set(report.classes):
        raise HeadError(
            f"{against}: its classes are {', '.join(told['classes'])}, those of {name} are "
            f"{', '.join(report.classes)}; only runs with the same classes can be compared"
        )
    if "sha256" not in other:
        raise HeadError(
            f"{against / 'predictions.csv'}: doesn't say which clips it is about, as older "
            f"versions wrote it; run python -m ser_embed.evaluate {against} and name the "
            "evaluation's folder"
        )
    both = _pairs(predictions, other)
    if both.empty:
        raise HeadError(
            f"{against}: none of the {len(other)} clips it was tested on is among the "
            f"{len(predictions)} of {name}; give both the same split and seed, or score both on "
            "the same stores"
        )
    if (both["label"] != both["label_other"]).any():
        raise HeadError(
            f"{against}: labels {(both['label'] != both['label_other']).sum()} of the "
            f"{len(both)} common clips otherwise than {name}; its label scheme is another"
        )
    left_out = len(predictions) + len(other) - 2 * len(both)
    warnings = _warnings(name, report.leakage, str(against), told.get("leakage", {}))
    return _compared(both, report.classes, name, str(against), left_out, seed, warnings)


def _report_of(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return {**told, "classes": tuple(told["classes"])}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise HeadError(
            f"{folder / 'report.json'}: can't be read ({error}); train or evaluate again"
        ) from error


def _pairs(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Join two tables by the clips' bytes, so that folders may have been named otherwise."""
    keys = ["corpus", "sha256"]
    sides = []
    for table in (first, second):
        # Clips with the same bytes, and those of folds that overlap, pair up in their order.
        turn = table.groupby(keys).cumcount().rename("turn")
        sides.append(table[[*keys, "speaker", "label", "predicted"]].join(turn))
    return sides[0].merge(sides[1], on=[*keys, "turn"], suffixes=("", "_other"))


def _compared(both: pd.DataFrame, classes: tuple[str, ...], name: str, against: str,
              left_out: int, seed: int, warnings: list[str]) -> Comparison:  # fmt: skip
    index = {label: i for i, label in enumerate(classes)}
    truth, one, two = (
        both[column].map(index).to_numpy() for column in ("label", "predicted", "predicted_other")
    )
    n = len(classes)
    uar, against_uar = (float(uar_of(confusion(truth, told, n))) for told in (one, two))
    first, by = resampled(both["speaker"], truth, one, n, seed)
    second, _ = resampled(both["speaker"], truth, two, n, seed)
    differences = uar_of(first) - uar_of(second)
    low, high = np.percentile(differences, [2.5, 97.5])
    only_run = int(((one == truth) & (two != truth)).sum())
    only_against = int(((one != truth) & (two == truth)).sum())
    return Comparison(
        name, against, len(both), left_out, uar, against_uar, uar - against_uar,
        (float(low), float(high)), by, float((differences > 0).mean()), only_run, only_against,
        mcnemar(only_run, only_against), warnings,
    )  # fmt: skip


def _warnings(name: str, leakage: dict[str, int], against: str,
              other: dict[str, int]) -> list[str]:  # fmt: skip
    told = []
    for who, counts in ((name, leakage), (against, other)):
        for what, text in (("shared_speakers", "speakers"), ("duplicates", "clips"),
                           ("halves", "recordings")):  # fmt: skip
            if counts.get(what):
                told.append(
                    f"{who} was trained on {counts[what]} of the {text} it is tested on, which "
                    "flatters it."
                )
    return told
