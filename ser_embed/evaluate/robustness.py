"""A run's test clips once more, disturbed: what noise, a telephone or a room does to its score.

The clips' audio is found where the run's stores were extracted from; each clip is disturbed in
each way and classified as any other sound. Answers are kept, so that the same command goes on
where it stopped, and a second call is quick.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from ser_embed.audio import CONDITIONS, AudioFile
from ser_embed.command import DONE, SOME_CLIPS_FAILED, Outcome, command_line
from ser_embed.errors import AudioError, HeadError
from ser_embed.evaluate.options import RobustnessConfig
from ser_embed.heads import read_card
from ser_embed.predict import Classifier
from ser_embed.progress import progress
from ser_embed.reports import Comparison, Plot, Report, find_originals, read_table, write_json
from ser_embed.store import FeatureStore
from ser_embed.templates import render

__all__ = ["measure_robustness", "roots_of"]

log = logging.getLogger(__name__)

TEMPLATE = Path(__file__).with_name("robustness.md.j2")
LEAD_SECONDS = 10.0  # read beyond the clip length, as trimming may skip so much silence


def measure_robustness(config: RobustnessConfig) -> Outcome:
    """Disturb a run's test clips, classify them, and write the table.

    Raises:
        SerEmbedError: No run, no such condition, or none of the clips' audio is found.
    """
    names = _names(config)
    chosen, total = _folds(config)
    folds = _with_audio(config, chosen)
    clips = pd.concat([fold.test for fold in folds], ignore_index=True)
    missing = sum(len(fold.test) for fold in chosen) - len(clips)
    if missing:
        log.warning("the audio of %d test clips was not found: left out", missing)
    out = config.out or config.run / "robustness"
    answers = _Answers(out / "answers.jsonl")
    found = _classify_all(config, names, folds, answers)
    answers.file.close()
    card = folds[0].card
    classes = tuple(card["classes"])
    training = pd.concat([fold.training for fold in folds], ignore_index=True)
    scored = {name: _scored(clips, rows, classes, training, name)
              for name, rows in found.items() if rows}  # fmt: skip
    if "clean" not in scored:
        raise AudioError(f"{config.run}: none of its {len(clips)} test clips can be classified")
    clean = scored["clean"][0]
    command = command_line("python -m ser_embed.robustness", config)
    table: dict[str, Any] = {
        "run": config.run.name, "commands": [card["command"], command],
        "heads": [fold.card["weights_sha256"] for fold in folds], "clips": len(clips),
        "of": total, "missing": missing, "ci_by": clean.ci_by, "guess": clean.baseline,
        "conditions": _rows(scored, len(clips), classes),
    }  # fmt: skip
    rows = list(table["conditions"].values())
    plot = Plot.intervals([row["told"] for row in rows], [row["uar"] for row in rows],
                          [row["uar_ci"] for row in rows], clean.baseline)  # fmt: skip
    plot.save(out / "robustness.png")
    (out / "robustness.md").write_text(render(TEMPLATE, **table), encoding="utf-8")
    write_json(out / "robustness.json", table)
    if not config.json:
        for row in rows:
            low, high = row["uar_ci"]
            print(f"{row['told']:56} UAR {row['uar']:.3f} [{low:.3f}, {high:.3f}]")
        print(f"table: {out / 'robustness.md'}")
    failed = missing or any(row["failed"] for row in rows)
    return Outcome({**table, "run": str(config.run)}, SOME_CLIPS_FAILED if failed else DONE)


# --- the clips -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fold:
    """One head of a run, the clips it is tested on, and those that it was trained on."""

    folder: Path
    card: dict[str, Any]
    test: pd.DataFrame
    training: pd.DataFrame


def _names(config: RobustnessConfig) -> list[str]:
    unknown = [name for name in config.conditions if name not in CONDITIONS]
    if unknown:
        raise HeadError(f"no condition {unknown[0]!r}; there are {', '.join(CONDITIONS)}")
    if config.limit < 0:
        raise HeadError(f"--limit {config.limit}: at least 0")
    wanted = config.conditions or tuple(CONDITIONS)
    return [name for name in CONDITIONS if name == "clean" or name in wanted]


def _folds(config: RobustnessConfig) -> tuple[list[_Fold], int]:
    """Read what each head of a run was tested on; return the clips to take, and how many are."""
    folds = []
    for folder in Classifier.head_folders(config.run):
        card, parts = read_card(folder), read_table(folder / "clips.csv")
        parts = parts.assign(fold=card.get("fold", folder.name), gender="")
        test = parts[parts["part"] == "test"].reset_index(drop=True)
        folds.append(_Fold(folder, card, test, parts[parts["part"] != "test"]))
    total = sum(len(fold.test) for fold in folds)
    if config.limit and config.limit < total:
        columns = ["corpus", "speaker", "label", "sha256", "path", "fold"]
        ordered = pd.concat([fold.test for fold in folds])[columns].sort_values(columns)
        every = np.linspace(0, total - 1, config.limit).round().astype(int)
        chosen = ordered.iloc[every]
        folds = [replace(fold, test=fold.test.merge(chosen)) for fold in folds]
    return folds, total


def roots_of(folder: Path, corpora: Collection[str]) -> list[Path]:
    """Return where the corpora of a folder's stores were when they were extracted."""
    roots = []
    for path in FeatureStore.find(folder):
        with FeatureStore(path) as store:
            if store.corpus in corpora:
                roots.append(Path(store.root))
    return list(dict.fromkeys(roots))


def _with_audio(config: RobustnessConfig, folds: Sequence[_Fold]) -> list[_Fold]:
    """Return the folds with the test clips whose audio is there, and its `file`."""
    roots = list(config.roots) or roots_of(config.features_dir, folds[0].card["corpora"])
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


# --- the answers -----------------------------------------------------------------------------


class _Answers:
    """The probabilities of each clip in each condition, kept line by line as they are found.

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
                    row = json.loads(line)
                    self.known[(row["head"], row["condition"], row["clip"])] = row["p"]
                    if line.endswith(b"\n"):
                        whole += len(line)
                        continue
                break  # killed while it was written
        self.file: TextIO = path.open("a", encoding="utf-8")
        self.file.truncate(whole)

    def add(self, key: tuple[str, str, str], probabilities: list[float] | None) -> None:
        self.known[key] = probabilities
        row = dict(zip(("head", "condition", "clip"), key, strict=True))
        self.file.write(json.dumps({**row, "p": probabilities}) + "\n")
        self.file.flush()


def _classify_all(
    config: RobustnessConfig, names: Sequence[str], folds: Sequence[_Fold], answers: _Answers
) -> dict[str, dict[int, list[float]]]:
    """Return the probabilities by condition and clip, clips numbered over the folds."""
    found: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    total, start = sum(len(fold.test) for fold in folds), 0
    with progress("classify", total * len(names), "clip", config.quiet) as bar:
        for fold in folds:
            for name, row, probabilities in _classify_fold(config, names, fold, answers):
                bar.advance()
                if probabilities is not None:
                    found[name][start + row] = probabilities
            start += len(fold.test)
    return found


def _classify_fold(
    config: RobustnessConfig, names: Sequence[str], fold: _Fold, answers: _Answers
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
            yield name, row, answers.known[key]


def _classify(classifier: Classifier, samples: np.ndarray, rate: int) -> list[float] | None:
    try:
        probabilities = classifier.classify(samples, rate).probabilities
    except AudioError:
        return None
    return [round(probabilities[name], 6) for name in classifier.classes]


# --- the scores ------------------------------------------------------------------------------


def _scored(
    clips: pd.DataFrame, found: Mapping[int, list[float]], classes: Sequence[str],
    training: pd.DataFrame, title: str,
) -> tuple[Report, pd.DataFrame]:  # fmt: skip
    """Return the report of one condition, and its predictions by clip."""
    rows = sorted(found)
    probabilities = np.array([found[row] for row in rows])
    table = clips.iloc[rows].assign(
        predicted=np.array(classes, dtype=object)[probabilities.argmax(1)],
        raw_confidence=probabilities.max(1),
        **{f"p_{name}": probabilities[:, i] for i, name in enumerate(classes)},
    )
    predictions = table.reset_index(drop=True)
    return Report.of(title, predictions, classes, training=training, leakage={}), table


def _rows(
    scored: Mapping[str, tuple[Report, pd.DataFrame]], total: int, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the table's rows by condition; the change is on the clips that both have."""
    clean = scored["clean"][1]["predicted"].rename("predicted_other")
    rows = {}
    for name, (report, predictions) in scored.items():
        change = None
        if name != "clean":
            pairs = predictions.join(clean, how="inner")
            change = Comparison.of_pairs(pairs, classes, name, "clean")
        rows[name] = {
            "told": CONDITIONS[name].description, "clips": report.clips,
            "failed": total - report.clips, "uar": report.uar, "uar_ci": list(report.uar_ci),
            "wa": report.wa, "difference": change and change.difference,
            "difference_ci": change and list(change.difference_ci),
        }  # fmt: skip
    return rows
