"""A run's test clips once more, disturbed: what noise, a telephone or a room does to its score.

`python -m ser_embed.robustness RUN` finds the clips' audio where the run's stores were extracted
from, disturbs each clip in each way and classifies it as any other sound. Answers are kept, so
that the same command goes on where it stopped, and a second call is quick.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import pandas as pd
import tyro
from tqdm import tqdm

from ser_embed.audio import CONDITIONS, AudioFile
from ser_embed.command import (
    DONE,
    FEATURES_DIR,
    SOME_CLIPS_FAILED,
    Options,
    Outcome,
    command_line,
    hide_bar,
    run_command,
)
from ser_embed.encoders import BackendName
from ser_embed.errors import AudioError, HeadError
from ser_embed.heads import read_card
from ser_embed.predict import Classifier, head_folders
from ser_embed.reports import Comparison, Plot, Report, find_originals, read_table, write_json
from ser_embed.store import FeatureStore, find_stores

__all__ = ["RobustnessConfig", "main", "robustness"]

log = logging.getLogger(__name__)

PROG = "python -m ser_embed.robustness"
LEAD_SECONDS = 10.0  # read beyond the clip length, as trimming may skip so much silence


@dataclass(frozen=True)
class RobustnessConfig(Options):
    """Score a run's test clips again under noise, a telephone band, codecs and rooms."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    roots: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders with the corpora's audio. Default: where the stores were extracted from."""
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    """Which, by name; the clean one is always among them."""
    limit: int = 0
    """Take so many of the test clips, spread evenly over corpora, speakers and classes; 0: all."""
    features_dir: Path = FEATURES_DIR
    """Where the run's own stores are, which say where the audio is."""
    backend: BackendName = "torch"
    """Engine of the encoder."""
    out: Path | None = None
    """Folder of the table and of the answers. Default: robustness in the run's folder."""


# --- the clips -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fold:
    """One head of a run, the clips it is tested on, and those that it was trained on."""

    folder: Path
    card: dict[str, Any]
    test: pd.DataFrame
    training: pd.DataFrame


def _folds(config: RobustnessConfig) -> tuple[list[_Fold], int]:
    """Read what each head of a run was tested on; return the clips to take, and how many are."""
    folds = []
    for folder in head_folders(config.run):
        card, parts = read_card(folder), read_table(folder / "clips.csv")
        name = card.get("fold", folder.name)
        parts = parts.assign(fold=name, gender="")
        test = parts[parts["part"] == "test"].reset_index(drop=True)
        folds.append(_Fold(folder, card, test, parts[parts["part"] != "test"]))
    total = sum(len(fold.test) for fold in folds)
    if config.limit and config.limit < total:
        chosen = _spread(pd.concat([fold.test for fold in folds]), config.limit)
        folds = [replace(fold, test=fold.test.merge(chosen)) for fold in folds]
    return folds, total


def _spread(clips: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return which clips are every n-th when sorted by corpus, speaker and class."""
    columns = ["corpus", "speaker", "label", "sha256", "path", "fold"]
    ordered = clips[columns].sort_values(columns)
    return ordered.iloc[np.linspace(0, len(ordered) - 1, limit).round().astype(int)]


# --- the answers -----------------------------------------------------------------------------


class _Answers:
    """What was said of each clip in each condition, kept line by line as it is found.

    A line names the head by its weights, the condition by its description, the clip by its
    bytes, and so holds wherever those are the same.
    """

    def __init__(self, path: Path) -> None:
        self.known: dict[tuple[str, str, str], list[float] | None] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = 0
        if path.is_file():
            for line in path.read_bytes().splitlines(keepends=True):
                with suppress(ValueError, LookupError, TypeError):
                    told = json.loads(line)
                    self.known[(told["head"], told["condition"], told["clip"])] = told["p"]
                    if line.endswith(b"\n"):
                        whole += len(line)
                        continue
                break  # killed while it was written
        self.file: TextIO = path.open("a", encoding="utf-8")
        self.file.truncate(whole)

    def add(self, key: tuple[str, str, str], probabilities: list[float] | None) -> None:
        self.known[key] = probabilities
        told = dict(zip(("head", "condition", "clip"), key, strict=True))
        self.file.write(json.dumps({**told, "p": probabilities}) + "\n")
        self.file.flush()


def _ask(
    config: RobustnessConfig, names: Sequence[str], fold: _Fold, answers: _Answers, bar: tqdm
) -> Iterator[tuple[str, int, list[float] | None]]:
    """Yield (condition, row, probabilities), None for a clip that can't be classified so."""
    classifier: Classifier | None = None
    head = fold.card["weights_sha256"]
    for row, file in enumerate(fold.test["file"]):
        sha256, samples = str(fold.test["sha256"].iat[row]), None
        for name in names:
            condition = CONDITIONS[name]
            key = (head, condition.description, sha256)
            if key not in answers.known:
                if classifier is None:
                    classifier = Classifier.load(fold.folder, backend=config.backend)
                if samples is None:
                    seconds = classifier.seconds and classifier.seconds + LEAD_SECONDS
                    samples = AudioFile(file).read(seconds).samples
                # Seeded by the clip's bytes: the same noise at every call, whatever the order.
                rng = np.random.default_rng(int(sha256[:16], 16))
                answers.add(key, _classify(classifier, *condition.disturb(samples, rng)))
            bar.update()
            yield name, row, answers.known[key]


def _classify(classifier: Classifier, samples: np.ndarray, rate: int) -> list[float] | None:
    try:
        told = classifier.classify(samples, rate).probabilities
    except AudioError:
        return None
    return [round(told[name], 6) for name in classifier.classes]


# --- the scores ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answered:
    """The predictions in one condition, by clip."""

    predictions: pd.DataFrame
    report: Report


def _scored(clips: pd.DataFrame, said: Mapping[int, list[float]], classes: Sequence[str],
            training: pd.DataFrame, title: str) -> _Answered:  # fmt: skip
    rows = sorted(said)
    probabilities = np.array([said[row] for row in rows])
    told = clips.iloc[rows].copy()
    told["predicted"] = np.array(classes, dtype=object)[probabilities.argmax(1)]
    told["raw_confidence"] = probabilities.max(1)
    for i, name in enumerate(classes):
        told[f"p_{name}"] = probabilities[:, i]
    report = Report.of(title, told.reset_index(drop=True), classes, training=training, leakage={})
    return _Answered(told, report)


def _loss(
    clean: _Answered, other: _Answered, classes: Sequence[str]
) -> tuple[float, tuple[float, float]]:
    """Return the UAR gained against the clean clips, with its interval, on the same clips."""
    before = clean.predictions["predicted"].rename("predicted_other")
    found = Comparison.of_pairs(
        other.predictions.join(before, how="inner"), classes, "disturbed", "clean"
    )
    return found.difference, found.difference_ci


def _table(
    answered: Mapping[str, _Answered], total: int, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    table = {}
    for name, one in answered.items():
        difference, interval = (
            (None, None) if name == "clean" else _loss(answered["clean"], one, classes)
        )
        table[name] = {
            "told": CONDITIONS[name].description, "clips": one.report.clips,
            "failed": total - one.report.clips, "uar": one.report.uar,
            "uar_ci": list(one.report.uar_ci), "wa": one.report.wa, "difference": difference,
            "difference_ci": list(interval) if interval else None,
        }  # fmt: skip
    return table


def _markdown(told: Mapping[str, Any]) -> str:
    lines = [f"# {told['run']}, disturbed", "",
             f"{told['clips']} of the run's {told['of']} test clips, classified again in each "
             "condition by heads that were not trained on them. In brackets the 2.5 to 97.5 "
             f"percentile of 2000 resamples of the test {told['ci_by']}; the difference is on the "
             f"same clips. No-audio baseline: UAR {told['guess']:.3f}.", "",
             "| condition | UAR | accuracy | UAR against clean | clips |",
             "|---|---|---|---|---|"]  # fmt: skip
    for row in told["conditions"].values():
        low, high = row["uar_ci"]
        against = ""
        if row["difference"] is not None:
            against = "{:+.3f} [{:+.3f}, {:+.3f}]".format(row["difference"], *row["difference_ci"])
        lines.append(
            f"| {row['told']} | {row['uar']:.3f} [{low:.3f}, {high:.3f}] | {row['wa']:.3f} | "
            f"{against} | {row['clips']} |"
        )
    lines += ["", "![UAR by condition](robustness.png)", ""]
    lines += [*(f"    {command}" for command in told["commands"]), ""]
    return "\n".join(lines)


# --- the command -----------------------------------------------------------------------------


def robustness(config: RobustnessConfig) -> Outcome:
    """Disturb a run's test clips, classify them, and write the table.

    Raises:
        SerEmbedError: No run, no such condition, or none of the clips' audio is found.
    """
    names = _names(config)
    chosen, whole = _folds(config)
    folds = _found(config, chosen)
    clips = pd.concat([fold.test for fold in folds], ignore_index=True)
    missing = sum(len(fold.test) for fold in chosen) - len(clips)
    if missing:
        log.warning("the audio of %d test clips was not found: left out", missing)
    out = config.out or config.run / "robustness"
    said = _said(config, names, folds, _Answers(out / "answers.jsonl"))
    card = folds[0].card
    classes = tuple(card["classes"])
    training = pd.concat([fold.training for fold in folds], ignore_index=True)
    answered = {name: _scored(clips, rows, classes, training, name)
                for name, rows in said.items() if rows}  # fmt: skip
    if "clean" not in answered:
        raise AudioError(f"{config.run}: none of its {len(clips)} test clips can be classified")
    clean = answered["clean"].report
    told: dict[str, Any] = {
        "run": config.run.name, "commands": [card["command"], command_line(PROG, config)],
        "heads": [fold.card["weights_sha256"] for fold in folds], "clips": len(clips),
        "of": whole, "missing": missing, "ci_by": clean.ci_by,
        "guess": clean.baseline,
        "conditions": _table(answered, len(clips), classes),
    }  # fmt: skip
    _write(out, told)
    if not config.json:
        for row in told["conditions"].values():
            low, high = row["uar_ci"]
            print(f"{row['told']:56} UAR {row['uar']:.3f} [{low:.3f}, {high:.3f}]")
        print(f"table: {out / 'robustness.md'}")
    failed = missing or any(row["failed"] for row in told["conditions"].values())
    return Outcome({**told, "run": str(config.run)}, SOME_CLIPS_FAILED if failed else DONE)


def _roots_of(folder: Path, corpora: Collection[str]) -> list[Path]:
    """Return where the corpora of a folder's stores were when they were extracted."""
    roots = []
    for path in find_stores(folder):
        with FeatureStore(path) as store:
            if store.corpus in corpora:
                roots.append(Path(store.root))
    return list(dict.fromkeys(roots))


def _found(config: RobustnessConfig, folds: Sequence[_Fold]) -> list[_Fold]:
    """Return the folds with the test clips whose audio is there, and its place."""
    roots = list(config.roots) or _roots_of(config.features_dir, folds[0].card["corpora"])
    found = []
    for fold in folds:
        test = fold.test.assign(file=pd.Series(find_originals(fold.test, roots), dtype=object))
        found.append(replace(fold, test=test[test["file"].notna()].reset_index(drop=True)))
    if not sum(len(fold.test) for fold in found):
        raise AudioError(
            f"{config.run}: the audio of none of its test clips was found in "
            f"{', '.join(map(str, roots)) or config.features_dir}; name the corpora's folders "
            "after the run"
        )
    return found


def _names(config: RobustnessConfig) -> list[str]:
    unknown = [name for name in config.conditions if name not in CONDITIONS]
    if unknown:
        raise HeadError(f"no condition {unknown[0]!r}; there are {', '.join(CONDITIONS)}")
    if config.limit < 0:
        raise HeadError(f"--limit {config.limit}: at least 0")
    return [name for name in CONDITIONS if name == "clean" or name in config.conditions]


def _said(
    config: RobustnessConfig, names: Sequence[str], folds: Sequence[_Fold], answers: _Answers
) -> dict[str, dict[int, list[float]]]:
    """Return the probabilities by condition and clip, clips numbered over the folds."""
    said: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    total, start = sum(len(fold.test) for fold in folds), 0
    with tqdm(total=total * len(names), unit="clip", disable=hide_bar(config)) as bar:
        for fold in folds:
            for name, row, probabilities in _ask(config, names, fold, answers, bar):
                if probabilities is not None:
                    said[name][start + row] = probabilities
            start += len(fold.test)
    answers.file.close()
    return said


def _write(out: Path, told: dict[str, Any]) -> None:
    rows = list(told["conditions"].values())
    plot = Plot.intervals([row["told"] for row in rows], [row["uar"] for row in rows],
                          [row["uar_ci"] for row in rows], told["guess"])  # fmt: skip
    plot.save(out / "robustness.png")
    (out / "robustness.md").write_text(_markdown(told), encoding="utf-8")
    write_json(out / "robustness.json", told)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.robustness`."""
    return run_command(robustness, RobustnessConfig, PROG, argv)


if __name__ == "__main__":
    raise SystemExit(main())
