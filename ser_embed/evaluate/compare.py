"""Models side by side on the same split: one table, one plot.

`python -m ser_embed.compare ROOT --corpus NAME` trains a plain CNN on spectrograms, heads on
frozen and on untrained encoders, and an SVM on openSMILE's functionals, and writes
`artifacts/comparison/`: Markdown, CSV, JSON and a picture. Each model's figures are kept as soon as
they are there, and the same command does what is missing.
"""

import csv
import hashlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.command import (
    DONE,
    SOME_CLIPS_FAILED,
    Outcome,
    command_line,
)
from ser_embed.corpora import LabelScheme, Listing, listing_of
from ser_embed.errors import HeadError, SerEmbedError
from ser_embed.evaluate.contestants import Contestant, Terms, contestant_of, enter
from ser_embed.evaluate.options import MODELS, CompareConfig
from ser_embed.extract import spread
from ser_embed.reports import Plot, read_table, write_json
from ser_embed.splits import contents_of
from ser_embed.templates import render

__all__ = ["compare_models"]

log = logging.getLogger(__name__)

PROG = "python -m ser_embed.compare"
TIMES = "training-time.json"


# --- one model -------------------------------------------------------------------------------


def _terms(config: CompareConfig, listing: Listing) -> Terms:
    # A store keeps what earlier calls encoded, so that fewer clips need one of their own.
    features = config.features_dir / f"limit-{config.limit}" if config.limit else None
    return Terms(
        listing=listing, source={"root": config.root, "corpus": config.corpus, "csv": config.csv},
        labels=config.labels, split=config.split, epochs=config.epochs, ensemble=config.ensemble,
        seed=config.seed, limit=config.limit, backend=config.backend, workers=config.workers,
        features_dir=features or config.features_dir, runs_dir=config.runs_dir,
        quiet=config.quiet,
    )  # fmt: skip


def _key(contestant: Contestant, config: CompareConfig, listing: Listing) -> str:
    """Return what a model's figures depend on, as far as one can tell without training it."""
    facts: list[Any] = [asdict(contestant), asdict(LabelScheme.load(config.labels)), config.split]
    facts += [config.epochs, config.ensemble, config.seed, config.limit, config.backend]
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    for utterance in listing.utterances:
        state = utterance.path.stat()
        digest.update(f"{utterance} {state.st_size} {state.st_mtime_ns}".encode(errors="replace"))
    files = [Path(config.split.removeprefix("folds:"))]
    if contestant.kind == "run":
        files.append(Path(contestant.encoder) / "report.json")
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _row(contestant: Contestant, terms: Terms) -> dict[str, Any]:
    """Train a model and return its line of the table."""
    entry = enter(contestant, terms)
    report = json.loads((entry.run / "report.json").read_text(encoding="utf-8"))
    if contestant.kind == "run":  # all others were trained with these labels
        _check_classes(entry.run, report["classes"], terms)
    folds = list(report["folds"].values())
    tested = read_table(entry.run / "predictions.csv")
    clips = sorted(contents_of(tested)) if "sha256" in tested else []
    files = [entry.run / TIMES, *entry.run.glob(f"*/{TIMES}")]  # a fold each
    times = [json.loads(file.read_text()) for file in files if file.is_file()]
    return {
        "uar": float(np.mean(folds)) if folds else report["uar"], "uar_ci": report["uar_ci"],
        "ci_by": report["ci_by"], "folds": report["folds"], "wa": report["wa"],
        "macro_f1": report["macro_f1"], "clips": report["clips"],
        "encoder_parameters": entry.encoder_parameters, "head_parameters": entry.head_parameters,
        "training_seconds": sum(one["seconds"] for one in times) if times else None,
        "training_cpu_seconds": sum(one["cpu_seconds"] for one in times) if times else None,
        "clips_per_second": entry.clips_per_second,
        "guess": max(scores["uar"] for scores in report["baselines"].values()),
        "warnings": [*report["warnings"], *report.get("notes", [])], "run": str(entry.run),
        "tested": hashlib.sha256("".join(clips).encode()).hexdigest(),
    }  # fmt: skip


def _check_classes(run: Path, classes: Sequence[str], terms: Terms) -> None:
    """Refuse a finished run whose classes aren't those that the clips have."""
    clips = terms.listing.utterances
    scheme = LabelScheme.load(terms.labels).fit(u.emotion for u in clips)
    codes = set(scheme.encode((u.emotion for u in clips), (u.intensity for u in clips)))
    wanted = [name for number, name in enumerate(scheme.classes) if number in codes]
    if list(classes) not in (wanted, list(scheme.classes)):
        raise HeadError(
            f"{run}: its classes are {', '.join(classes)}, not those of --labels {terms.labels}, "
            f"{', '.join(wanted)}"
        )


# --- what is written -------------------------------------------------------------------------


def _number(value: float | None, form: str = ",.0f") -> str:
    return "" if value is None else f"{value:{form}}"


def _notes(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is to be said beside the figures, once where it holds of all."""
    first_name, first = next(iter(rows.items()))
    shared = [text for text in first["warnings"]
              if all(text in row["warnings"] for row in rows.values())]  # fmt: skip
    notes = [f"- {text}" for text in shared]
    for name, row in rows.items():
        notes += [f"- {name}: {text}" for text in row["warnings"] if text not in shared]
        if row["tested"] != first["tested"]:
            notes.append(f"- {name}: tested on other clips than {first_name}: don't compare them.")
    return notes


TEMPLATE = Path(__file__).with_name("comparison.md.j2")
_COLUMNS = (
    "uar", "uar_low", "uar_high", "wa", "macro_f1", "clips", "encoder_parameters",
    "head_parameters", "training_seconds", "training_cpu_seconds", "clips_per_second", "run",
)  # fmt: skip


def _write(out: Path, facts: dict[str, Any]) -> None:
    rows = facts["models"]
    with (out / "comparison.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("model", *_COLUMNS), extrasaction="ignore")
        writer.writeheader()
        for name, row in rows.items():
            low, high = row["uar_ci"]
            writer.writerow({"model": name, **row, "uar_low": low, "uar_high": high})
    values = list(rows.values())
    plot = Plot.models(list(rows), [row["uar"] for row in values],
                       [row["uar_ci"] for row in values], values[0]["guess"])  # fmt: skip
    plot.ax.set_title(facts["title"], fontsize=10, pad=14)
    plot.save(out / "comparison.png")
    text = render(TEMPLATE, notes=_notes(rows), number=_number, **facts)
    (out / "comparison.md").write_text(text, encoding="utf-8")


# --- the command -----------------------------------------------------------------------------


def _known(path: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of earlier calls, by key."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["known"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _check(config: CompareConfig) -> None:
    for name, least in (("epochs", 1), ("ensemble", 1), ("limit", 0), ("workers", 0)):
        value = getattr(config, name)
        if value is not None and value < least:
            raise HeadError(f"--{name} {value}: at least {least}")
    if not config.models:
        raise HeadError(f"--models: name one or more, for instance {' '.join(MODELS)}")


def _named(contestants: Sequence[Contestant]) -> list[Contestant]:
    """Call finished runs by their folder's name, where no other has it."""
    short = [Path(c.name).resolve().name if c.kind == "run" else c.name for c in contestants]
    return [replace(c, name=name) if short.count(name) == 1 else c
            for c, name in zip(contestants, short, strict=True)]  # fmt: skip


def compare_models(config: CompareConfig) -> Outcome:
    """Fill the table and write it.

    Raises:
        SerEmbedError: No corpus, no such head, or none of the models could be trained.
    """
    _check(config)
    contestants = _named([contestant_of(name) for name in dict.fromkeys(config.models)])
    whole = listing_of(config.root, config.corpus, config.csv)
    kept = spread(whole.utterances, config.limit)
    listing = Listing(whole.corpus, whole.root, tuple(kept), whole.faults)
    terms = _terms(config, listing)
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / "comparison.json"
    known = _known(path)
    rows: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    folds = "folds of " if config.split.startswith("folds:") else ""
    facts: dict[str, Any] = {
        "title": f"{Path(config.labels).stem} on {listing.corpus}, split {folds}"
                 f"{Path(config.split).name}",
        "command": command_line(PROG, config), "models": rows, "failed": failed, "known": known,
    }  # fmt: skip
    for contestant in contestants:
        key = _key(contestant, config, listing)
        try:
            if key not in known:
                log.info("%s", contestant.name)
                known[key] = _row(contestant, terms)
            elif config.retime:
                speed = enter(contestant, terms).clips_per_second
                known[key] = {**known[key], "clips_per_second": speed}
        except SerEmbedError as error:
            failed[contestant.name] = str(error)
            print(f"{contestant.name} failed: {error}", file=sys.stderr)
            continue
        rows[contestant.name] = known[key]
        write_json(path, facts)
    return _finish(config, facts, contestants)


def _finish(
    config: CompareConfig, facts: dict[str, Any], contestants: Sequence[Contestant]
) -> Outcome:
    rows, failed = facts["models"], facts["failed"]
    if not rows:
        raise HeadError(
            f"none of {len(contestants)} models could be trained; the first, "
            f"{contestants[0].name}: {failed[contestants[0].name]}"
        )
    _write(config.out, facts)
    write_json(config.out / "comparison.json", facts)
    if not config.json:
        width = max(map(len, rows))
        for name, row in rows.items():
            low, high = row["uar_ci"]
            print(f"{name:{width}}  UAR {row['uar']:.3f} [{low:.3f}, {high:.3f}]  "
                  f"WA {row['wa']:.3f}  {row['clips_per_second']:.1f} clips/s")  # fmt: skip
        print(f"table: {config.out / 'comparison.md'}")
    result = {name: value for name, value in facts.items() if name != "known"}
    return Outcome({**result, "out": str(config.out)}, SOME_CLIPS_FAILED if failed else DONE)
