"""A run's test clips once more, disturbed: what noise, a telephone or a room does to its score.

The clips' audio is found where the run's stores were extracted from; each clip is disturbed in
each way and classified as any other sound. Answers are kept, so that the same command goes on
where it stopped, and a second call is quick.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
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
from ser_embed.splits import contents_of
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
    folders = Classifier.head_folders(config.run)
    cards = [read_card(folder) for folder in folders]
    parts = _parts(folders, cards)
    test, training = parts[parts["part"] == "test"], parts[parts["part"] != "test"]
    chosen = _chosen(test, config.limit)
    clips = _with_audio(config, chosen, cards[0]["corpora"])
    missing = len(chosen) - len(clips)
    if missing:
        log.warning("the audio of %d test clips was not found: left out", missing)
    out = config.out or config.run / "robustness"
    answers = _Answers(out / "answers.jsonl")
    found: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    with progress("classify", len(clips) * len(names), "clip", config.quiet) as bar:
        for number, (folder, card) in enumerate(zip(folders, cards, strict=True)):
            part = clips[clips["head"] == number]
            for name, row, probabilities in _classify(config, names, folder, card, part, answers):
                bar.advance()
                if probabilities is not None:
                    found[name][row] = probabilities
    answers.file.close()
    classes = tuple(cards[0]["classes"])
    scored = {name: _scored(clips, rows, classes, training, name)
              for name, rows in found.items() if rows}  # fmt: skip
    if "clean" not in scored:
        raise AudioError(f"{config.run}: none of its {len(clips)} test clips can be classified")
    clean = scored["clean"][0]
    command = command_line("python -m ser_embed.robustness", config)
    table: dict[str, Any] = {
        "run": config.run.name, "commands": [cards[0]["command"], command],
        "heads": [card["weights_sha256"] for card in cards], "clips": len(clips),
        "of": len(test), "missing": missing, "ci_by": clean.ci_by, "guess": clean.baseline,
        "conditions": _rows(scored, len(clips), classes),
    }  # fmt: skip
    _write(out, table)
    rows = table["conditions"].values()
    if not config.json:
        for row in rows:
            low, high = row["uar_ci"]
            print(f"{row['told']:56} UAR {row['uar']:.3f} [{low:.3f}, {high:.3f}]")
        print(f"table: {out / 'robustness.md'}")
    failed = missing or any(row["failed"] for row in rows)
    return Outcome({**table, "run": str(config.run)}, SOME_CLIPS_FAILED if failed else DONE)


# --- the clips -------------------------------------------------------------------------------


def _names(config: RobustnessConfig) -> list[str]:
    unknown = [name for name in config.conditions if name not in CONDITIONS]
    if unknown:
        raise HeadError(f"no condition {unknown[0]!r}; there are {', '.join(CONDITIONS)}")
    if config.limit < 0:
        raise HeadError(f"--limit {config.limit}: at least 0")
    wanted = config.conditions or tuple(CONDITIONS)
    return [name for name in CONDITIONS if name == "clean" or name in wanted]


def _parts(folders: Sequence[Path], cards: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the clips that each head of a run was trained and tested on, `head` its number."""
    tables = []
    for number, (folder, card) in enumerate(zip(folders, cards, strict=True)):
        fold, table = card.get("fold", folder.name), read_table(folder / "clips.csv")
        tables.append(table.assign(head=number, fold=fold, gender=""))
    return pd.concat(tables, ignore_index=True)


def _chosen(clips: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return so many clips (0: all), spread evenly over corpora, speakers and classes."""
    if not limit or limit >= len(clips):
        return clips
    ordered = clips.sort_values(["corpus", "speaker", "label", "sha256", "path", "fold"])
    every = np.linspace(0, len(clips) - 1, limit).round().astype(int)
    return ordered.iloc[every].sort_index()


def roots_of(folder: Path, corpora: Collection[str]) -> list[Path]:
    """Return where the corpora of a folder's stores were when they were extracted."""
    roots = []
    for path in FeatureStore.find(folder):
        with FeatureStore(path) as store:
            if store.corpus in corpora:
                roots.append(Path(store.root))
    return list(dict.fromkeys(roots))


def _with_audio(
    config: RobustnessConfig, clips: pd.DataFrame, corpora: Collection[str]
) -> pd.DataFrame:
    """Return the clips whose audio is there, numbered from 0, with its `file`."""
    roots = list(config.roots) or roots_of(config.features_dir, corpora)
    files = pd.Series(find_originals(clips, roots), clips.index, dtype=object)
    found = clips.assign(file=files)[files.notna()].reset_index(drop=True)
    if found.empty:
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


def _classify(
    config: RobustnessConfig, names: Sequence[str], folder: Path, card: Mapping[str, Any],
    clips: pd.DataFrame, answers: _Answers,
) -> Iterator[tuple[str, int, list[float] | None]]:  # fmt: skip
    """Yield (condition, row, probabilities) by one head, None where a clip can't be classified."""
    classifier: Classifier | None = None
    columns = clips.assign(sound=contents_of(clips))[["file", "sha256", "sound", "start", "end"]]
    for row, file, sha256, sound, start, end in columns.itertuples(name=None):
        samples = None
        for name in names:
            condition = CONDITIONS[name]
            key = (card["weights_sha256"], condition.description, sound)
            if key not in answers.known:
                if classifier is None:
                    classifier = Classifier.load(folder, backend=config.backend)
                if samples is None:
                    seconds = classifier.seconds and classifier.seconds + LEAD_SECONDS
                    samples = AudioFile(file).read(seconds, start=start, end=end or None).samples
                # Seeded by the clip's bytes: the same noise at every call, whatever the order.
                rng = np.random.default_rng(int(sha256[:16], 16))
                disturbed, rate = condition.disturb(samples, rng)
                probabilities = None
                with suppress(AudioError):
                    found = classifier.classify(disturbed, rate).probabilities
                    probabilities = [round(found[label], 6) for label in classifier.classes]
                answers.add(key, probabilities)
            yield name, row, answers.known[key]


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


def _write(out: Path, table: dict[str, Any]) -> None:
    rows = table["conditions"].values()
    plot = Plot.intervals([row["told"] for row in rows], [row["uar"] for row in rows],
                          [row["uar_ci"] for row in rows], table["guess"])  # fmt: skip
    plot.save(out / "robustness.png")
    (out / "robustness.md").write_text(render(TEMPLATE, **table), encoding="utf-8")
    write_json(out / "robustness.json", table)
