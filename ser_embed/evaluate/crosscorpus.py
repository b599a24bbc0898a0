"""Train on one corpus, test on each other: how far a score carries to recordings of another kind.

A head is cross-validated by speaker within each corpus, and the heads of all folds, averaged, are
scored on every clip of each other corpus.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.command import DONE, SOME_CLIPS_FAILED, Outcome, command_line
from ser_embed.errors import LabelError, SplitError, StoreError
from ser_embed.evaluate.evaluation import evaluate_run
from ser_embed.evaluate.options import CrossCorpusConfig, EvaluateConfig
from ser_embed.reports import Plot, Report, write_json
from ser_embed.templates import render
from ser_embed.train import TrainConfig, open_stores, train

__all__ = ["cross_corpus"]

log = logging.getLogger(__name__)

TEMPLATE = Path(__file__).with_name("cross-corpus.md.j2")


def _by_corpus(config: CrossCorpusConfig) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for store in open_stores(config.stores, config.features_dir):
        found.setdefault(store.corpus, []).append(store.path)
        store.close()
    if len(found) < 2:
        raise StoreError(
            f"{next(iter(found))}: the only corpus in these stores, and a cross-corpus table takes "
            "two or more; extract another with the same settings"
        )
    return dict(sorted(found.items()))


def _cell(folder: Path) -> dict[str, Any]:
    report = Report.load(folder)
    return {
        "uar": report.uar, "uar_ci": report.uar_ci, "ci_by": report.ci_by, "wa": report.wa,
        "clips": report.clips, "speakers": len(set(report.groups["speaker"]) - {"unknown"}),
        "classes": [name for name, row in report.per_class.items() if row["support"]],
        "guess": report.baseline, "warnings": [*report.warnings, *report.notes],
    }  # fmt: skip


def _row(
    config: CrossCorpusConfig, corpora: Mapping[str, Sequence[Path]], trained: str, out: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Train on one corpus; return its cells by tested corpus, and why others can't be tested."""
    outcome = train(TrainConfig(
        stores=tuple(corpora[trained]), early_stop=True, labels=config.labels, split=config.split,
        head=config.head, epochs=config.epochs, ensemble=config.ensemble, seed=config.seed,
        runs_dir=out, json=True, quiet=config.quiet,
    ))  # fmt: skip
    run = Path(outcome.result["run"])
    cells, faults = {}, {}
    for tested, stores in corpora.items():
        folder = run
        if tested != trained:
            folder = run / f"evaluation-{tested}"
            try:
                evaluate_run(EvaluateConfig(run=run, stores=tuple(stores), out=folder, json=True))
            except StoreError as error:  # none of its clips has a class of the run
                faults[tested] = str(error)
                continue
        cells[tested] = _cell(folder)
        log.info("%s on %s: UAR %.3f", trained, tested, cells[tested]["uar"])
    return cells, faults


def cross_corpus(config: CrossCorpusConfig) -> Outcome:
    """Fill the table and write it.

    Raises:
        SerEmbedError: Fewer than two corpora, stores that disagree, or no corpus that can be
            trained on.
    """
    corpora = _by_corpus(config)
    out = config.out or config.runs_dir / f"cross-corpus-{Path(config.labels).stem}"
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    faults: dict[str, str] = {}
    untested: dict[str, dict[str, str]] = {}
    for trained in corpora:
        try:
            rows[trained], untested[trained] = _row(config, corpora, trained, out)
        except (LabelError, SplitError, StoreError) as error:  # it may still be tested on
            faults[trained] = str(error)
            print(f"failed: training on {trained}: {error}", file=sys.stderr)
            continue
        for tested, why in untested[trained].items():
            print(f"failed: {trained} on {tested}: {why}", file=sys.stderr)
    if not rows:
        raise SplitError("none of these corpora can be trained on with --labels "
                         f"{config.labels} --split {config.split}")  # fmt: skip
    table = {
        "labels": Path(config.labels).stem, "split": config.split, "corpora": list(corpora),
        "command": command_line("python -m ser_embed.crosscorpus", config),
        "trained_on": rows, "not_trained_on": faults, "not_tested": untested,
    }  # fmt: skip
    _write(out, table)
    if not config.json:
        print(_grid(table))
        print(f"table: {out / 'cross-corpus.md'}")
    return Outcome(table, SOME_CLIPS_FAILED if faults or any(untested.values()) else DONE)


def _grid(table: Mapping[str, Any]) -> str:
    names = table["corpora"]
    lines = [f"| trained on | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for trained, cells in table["trained_on"].items():
        texts = []
        for tested in names:
            if tested not in cells:
                texts.append("")
                continue
            low, high = cells[tested]["uar_ci"]
            text = f"{cells[tested]['uar']:.3f} [{low:.3f}, {high:.3f}]"
            texts.append(f"**{text}**" if tested == trained else text)
        lines.append(f"| {trained} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _write(out: Path, table: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = table["trained_on"]
    uar = np.array([[cells[name]["uar"] if name in cells else np.nan for name in table["corpora"]]
                    for cells in rows.values()])  # fmt: skip
    Plot.transfer(uar, list(rows), table["corpora"]).save(out / "cross-corpus.png")
    # Of a corpus any row says what it is: the first that tested it.
    first = {name: next((cells[name] for cells in rows.values() if name in cells), None)
             for name in table["corpora"]}  # fmt: skip
    tested = {name: cell for name, cell in first.items() if cell}
    text = render(TEMPLATE, grid=_grid(table), tested=tested, **table)
    (out / "cross-corpus.md").write_text(text, encoding="utf-8")
    write_json(out / "cross-corpus.json", table)
