"""Train on one corpus, test on each other: how far a score carries to recordings of another kind.

`python -m ser_embed.crosscorpus STORE...` cross-validates a head by speaker within each corpus,
and scores the heads of all folds, averaged, on every clip of each other corpus.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from ser_embed.command import (
    DONE,
    FEATURES_DIR,
    RUNS_DIR,
    SOME_CLIPS_FAILED,
    Options,
    Outcome,
    command_line,
    run_command,
)
from ser_embed.errors import SplitError, StoreError
from ser_embed.evaluate.stage import EvaluateConfig, score
from ser_embed.reports import Plot, Report, write_json
from ser_embed.train import TrainConfig, open_stores, train

__all__ = ["CrossCorpusConfig", "crosscorpus", "main"]

log = logging.getLogger(__name__)

PROG = "python -m ser_embed.crosscorpus"


@dataclass(frozen=True)
class CrossCorpusConfig(Options):
    """Train on each corpus and test on every other one.

    Without files: the stores in --features-dir.
    """

    stores: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Stores of two corpora or more."""
    labels: str = "sentiment3"
    """sentiment3, emotion4, emotion8, intensity21, or a mapping file: what all are mapped to."""
    split: Literal["kfold", "loso", "speaker"] = "kfold"
    """How a corpus is tested within itself; speakers are never on both sides."""
    head: str | None = None
    """conv, temporal, mlp, stats or layers. Default: what suits the features."""
    epochs: int = 60
    """At most so many; each head stops early."""
    ensemble: int = 1
    """Heads that are trained, each validated on other training speakers, and averaged."""
    seed: int = 0
    """Seed of the split, the weights, the order and dropout."""
    features_dir: Path = FEATURES_DIR
    """Where stores are looked for."""
    runs_dir: Path = RUNS_DIR
    """Where the table and its runs are written."""
    out: Path | None = None
    """Folder of the table and its runs. Default: cross-corpus-<labels> in --runs-dir."""


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
        "guess": report.baseline, "warnings": report.warnings,
    }  # fmt: skip


def _row(config: CrossCorpusConfig, corpora: Mapping[str, Sequence[Path]], trained: str,
         out: Path) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Train on one corpus and return its cells by tested corpus."""
    outcome = train(TrainConfig(
        stores=tuple(corpora[trained]), early_stop=True, labels=config.labels, split=config.split,
        head=config.head, epochs=config.epochs, ensemble=config.ensemble, seed=config.seed,
        runs_dir=out, json=True, quiet=config.quiet,
    ))  # fmt: skip
    run = Path(outcome.result["run"])
    cells = {}
    for tested, stores in corpora.items():
        folder = run
        if tested != trained:
            folder = run / f"evaluation-{tested}"
            score(EvaluateConfig(run=run, stores=tuple(stores), out=folder, json=True))
        cells[tested] = _cell(folder)
        log.info("%s on %s: UAR %.3f", trained, tested, cells[tested]["uar"])
    return cells


def crosscorpus(config: CrossCorpusConfig) -> Outcome:
    """Fill the table and write it.

    Raises:
        SerEmbedError: Fewer than two corpora, stores that disagree, or no corpus that can be
            trained on.
    """
    corpora = _by_corpus(config)
    out = config.out or config.runs_dir / f"cross-corpus-{Path(config.labels).stem}"
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    faults: dict[str, str] = {}
    for trained in corpora:
        try:
            rows[trained] = _row(config, corpora, trained, out)
        except SplitError as error:  # it can still be tested on
            faults[trained] = str(error)
            print(f"failed: training on {trained}: {error}", file=sys.stderr)
    if not rows:
        raise SplitError("none of these corpora can be trained on with --labels "
                         f"{config.labels} --split {config.split}")  # fmt: skip
    told = {
        "labels": Path(config.labels).stem, "split": config.split, "corpora": list(corpora),
        "command": command_line(PROG, config), "trained_on": rows, "not_trained_on": faults,
    }  # fmt: skip
    _write(out, told)
    if not config.json:
        print("\n".join(_table(told)))
        print(f"table: {out / 'cross-corpus.md'}")
    return Outcome(told, SOME_CLIPS_FAILED if faults else DONE)


def _table(told: Mapping[str, Any]) -> list[str]:
    names = told["corpora"]
    lines = [f"| trained on | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for trained, cells in told["trained_on"].items():
        texts = []
        for tested in names:
            low, high = cells[tested]["uar_ci"]
            text = f"{cells[tested]['uar']:.3f} [{low:.3f}, {high:.3f}]"
            texts.append(f"**{text}**" if tested == trained else text)
        lines.append(f"| {trained} | {' | '.join(texts)} |")
    return lines


def _markdown(told: Mapping[str, Any]) -> str:
    first = next(iter(told["trained_on"].values()))
    lines = [
        f"# Across corpora: {told['labels']}", "",
        "UAR of heads trained on one corpus (rows) and tested on each (columns). On the diagonal, "
        f"in bold: cross-validated within the corpus by speaker (`{told['split']}`). Elsewhere: "
        "every clip of the tested corpus, the heads of all folds averaged. In brackets the 2.5 to "
        "97.5 percentile of 2000 resamples of the tested speakers.", "",
        *_table(told), "", "| tested on | clips | speakers | classes | resampled |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for name in told["corpora"]:
        cell = first[name]
        lines.append(f"| {name} | {cell['clips']} | {cell['speakers']} | "
                     f"{', '.join(cell['classes'])} | {cell['ci_by']} |")  # fmt: skip
    lines += ["", "Over the classes that a corpus has, so always saying the same gives 1 over "
              "their number.", ""]  # fmt: skip
    lines += [f"- Not trained on {name}: {why}" for name, why in told["not_trained_on"].items()]
    for trained, cells in told["trained_on"].items():
        for tested, cell in cells.items():
            lines += [f"- {trained} on {tested}: {text}" for text in cell["warnings"]]
    lines += ["", "![UAR by corpus trained and tested on](cross-corpus.png)", "",
              f"    {told['command']}", ""]  # fmt: skip
    return "\n".join(lines)


def _write(out: Path, told: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = told["trained_on"]
    uar = np.array([[cells[name]["uar"] for name in told["corpora"]] for cells in rows.values()])
    Plot.transfer(uar, list(rows), told["corpora"]).save(out / "cross-corpus.png")
    (out / "cross-corpus.md").write_text(_markdown(told), encoding="utf-8")
    write_json(out / "cross-corpus.json", told)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.crosscorpus`."""
    return run_command(crosscorpus, CrossCorpusConfig, PROG, argv)


if __name__ == "__main__":
    raise SystemExit(main())
