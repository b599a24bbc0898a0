"""Two sets of predictions of the same clips: whether one is better, or only looks so."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ser_embed.errors import HeadError
from ser_embed.reports.scores import Report, resampled, scores_of, uar_of
from ser_embed.reports.tables import read_table, write_json
from ser_embed.splits import contents_of
from ser_embed.templates import render

__all__ = ["Comparison", "mcnemar"]

TEMPLATE = Path(__file__).with_name("paired.md.j2")


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of McNemar's test (McNemar 1947, the binomial form).

    Args:
        only_first: Clips that only the first of two classifiers has right.
        only_second: Clips that only the second has right.
    """
    from scipy.stats import binomtest

    n = only_first + only_second
    return float(binomtest(only_first, n).pvalue) if n else 1.0


@dataclass(frozen=True)
class Comparison:
    """One run compared with another, on the clips that both were tested on.

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
        warnings: Sentences that belong next to it.
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

    @classmethod
    def of(
        cls, report: Report, predictions: pd.DataFrame, name: str, against: Path, seed: int
    ) -> "Comparison":
        """Compare predictions with those of another run.

        Args:
            report: Of the predictions.
            predictions: As `Report.of` takes them, with the clips' `sha256`.
            name: Of the run they are from.
            against: Folder of the other run, or of an evaluation of one, with its predictions.csv
                and report.json.
            seed: Of the resampling.

        Raises:
            HeadError: The other has no such files or other classes, or no clip is in both.
        """
        other, other_report = read_table(against / "predictions.csv"), Report.load(against)
        if set(other_report.classes) != set(report.classes):
            raise HeadError(
                f"{against}: its classes are {', '.join(other_report.classes)}, those of {name} "
                f"are {', '.join(report.classes)}; only runs with the same classes can be compared"
            )
        if "sha256" not in other:
            raise HeadError(
                f"{against / 'predictions.csv'}: doesn't say which clips it is about, as older "
                f"versions wrote it; run python -m ser_embed.evaluate {against} and name the "
                "evaluation's folder"
            )
        pairs = _pairs(predictions, other)
        if pairs.empty:
            raise HeadError(
                f"{against}: none of the {len(other)} clips it was tested on is among the "
                f"{len(predictions)} of {name}; give both the same split and seed, or score both "
                "on the same stores"
            )
        differing = int((pairs["label"] != pairs["label_other"]).sum())
        if differing:
            raise HeadError(
                f"{against}: labels {differing} of the {len(pairs)} common clips otherwise than "
                f"{name}; its label scheme is another"
            )
        return cls.of_pairs(
            pairs, report.classes, name, str(against), seed,
            left_out=len(predictions) + len(other) - 2 * len(pairs),
            warnings=[*_warnings(name, report.leakage),
                      *_warnings(str(against), other_report.leakage)],
        )  # fmt: skip

    @classmethod
    def of_pairs(
        cls, pairs: pd.DataFrame, classes: Sequence[str], run: str, against: str, seed: int = 0,
        left_out: int = 0, warnings: Sequence[str] = (),
    ) -> "Comparison":  # fmt: skip
        """Compare two predictions of each clip.

        Args:
            pairs: One row a clip: `speaker`, `label`, `predicted` and `predicted_other`.
            classes: Class names.
            run: What predicted `predicted`.
            against: What predicted `predicted_other`.
            seed: Of the resampling.
            left_out: Clips that are not in the table.
            warnings: Sentences that belong next to it.
        """
        index, n = {label: i for i, label in enumerate(classes)}, len(classes)
        truth, one, two = (
            pairs[column].map(index).to_numpy()
            for column in ("label", "predicted", "predicted_other")
        )
        uar, against_uar = (scores_of(truth, predicted, n)["uar"] for predicted in (one, two))
        first, by = resampled(pairs["speaker"], truth, one, n, seed)
        second, _ = resampled(pairs["speaker"], truth, two, n, seed)
        differences = uar_of(first) - uar_of(second)
        low, high = np.percentile(differences, [2.5, 97.5])
        only_run = int(((one == truth) & (two != truth)).sum())
        only_against = int(((one != truth) & (two == truth)).sum())
        return cls(
            run, against, len(pairs), left_out, uar, against_uar, uar - against_uar,
            (float(low), float(high)), by, float((differences > 0).mean()), only_run, only_against,
            mcnemar(only_run, only_against), list(warnings),
        )  # fmt: skip

    @property
    def verdict(self) -> str:
        """The result in one line."""
        low, high = self.difference_ci
        numbers = f"UAR {self.difference:+.3f} [{low:+.3f}, {high:+.3f}], p {_p(self.mcnemar_p)}"
        if low > 0:
            return f"{self.run} is better than {self.against}: {numbers}"
        if high < 0:
            return f"{self.run} is worse than {self.against}: {numbers}"
        return f"no difference between {self.run} and {self.against} is shown: {numbers}"

    @property
    def explanation(self) -> list[str]:
        """What the numbers are, sentence by sentence."""
        return [
            f"Both were tested on {self.clips} clips; {self.left_out} that only one was tested "
            "on are left out.",
            f"The interval is that of the difference when the {self.ci_by} are resampled, the "
            f"same for both; the first is ahead in {self.share_better:.1%} of the resamples.",
            f"McNemar's exact test of the {self.only_run + self.only_against} clips on which one "
            f"is right and the other wrong: p {_p(self.mcnemar_p)}. It takes clips for "
            "independent, which those of one speaker are not; where the two disagree, believe "
            "the interval.",
        ]

    def save(self, folder: Path) -> Path:
        """Write paired.md and paired.json into a folder; return the former."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "paired.json", asdict(self))
        text = render(TEMPLATE, comparison=self)
        (folder / "paired.md").write_text(text, encoding="utf-8")
        return folder / "paired.md"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _pairs(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Join two tables by the clips' bytes, so that folders may have been named otherwise."""
    keys = ["corpus", "sha256"]
    sides = []
    for table in (first, second):
        # Several clips may be ranges of one file.
        table = table.assign(sha256=contents_of(table))
        # Clips with the same bytes, and those of folds that overlap, pair up in their order.
        number = table.groupby(keys).cumcount().rename("number")
        sides.append(table[[*keys, "speaker", "label", "predicted"]].join(number))
    return sides[0].merge(sides[1], on=[*keys, "number"], suffixes=("", "_other"))


def _warnings(name: str, leakage: Mapping[str, int]) -> list[str]:
    return [
        f"{name} was trained on {leakage[what]} of the {text} it is tested on, which flatters it."
        for what, text in (("shared_speakers", "speakers"), ("duplicates", "clips"),
                           ("near_duplicates", "clips, in other formats,"),
                           ("halves", "recordings"))
        if leakage.get(what)
    ]  # fmt: skip
