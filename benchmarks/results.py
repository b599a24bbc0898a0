"""Every result that the README quotes, from the real corpora: `make results DATA=FOLDER`.

`python benchmarks/results.py DATA` wants ravdess/, tess/ and urdu/ in DATA, and in emobox/ the
folds of EmoBox as CSVs with the columns file and fold_1, fold_2 ... It extracts, trains and
scores what is missing, copies reports, cards and plots to artifacts/results/, and writes the
README's tables anew. What is done is not done again, so a run that was stopped goes on. One
thread, because sums in another order are another score: two threads moved one by 1.5 points.
"""

import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from ser_embed.command import RUNS_DIR, data_folder
from ser_embed.errors import SerEmbedError
from ser_embed.evaluate import (
    CrossCorpusConfig,
    RobustnessConfig,
    cross_corpus,
    measure_robustness,
)
from ser_embed.extract import ExtractConfig, extract
from ser_embed.finetune import FinetuneConfig, finetune
from ser_embed.train import TrainConfig, train

OUT = Path("artifacts/results")
CONTROL = "random-mini"  # mini's shape with untrained, seeded weights
THREE = ("ravdess", "tess", "urdu")
PUBLISHED = ("report.md", "report.json", "confusion.png", "reliability.png")


# The published model card's 80/20, as EmoBox's folds are told.
RANDOM = OUT / "emotion8-ravdess-random-finetuned/split.csv"


@dataclass(frozen=True)
class Experiment:
    """What is trained and scored, and its row in the README.

    Attributes:
        told: What the row says.
        corpora: What it is trained and tested on.
        options: Of `TrainConfig` or `FinetuneConfig`; in a split, {emobox} is the folder of the
            folds.
        encoder: What the features come from.
        control: Whether the same is measured with untrained weights.
        tuned: Whether the encoder is trained too.
    """

    told: str
    corpora: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    encoder: str = "mini"
    control: bool = True
    tuned: bool = False


EXPERIMENTS = {
    "sentiment3-random": Experiment(
        "the paper's classes and random split", THREE, {"split": "random"}),
    "sentiment3-speaker": Experiment("the same, test speakers never heard", THREE),
    "emotion8-ravdess-folds": Experiment(
        "RAVDESS, eight emotions, EmoBox's six folds", ("ravdess",),
        {"labels": "emotion8", "split": "folds:{emobox}/ravdess.csv"}),
    "emotion8-ravdess-folds-mini-open": Experiment(
        "the same, encoder `mini-open`", ("ravdess",),
        {"labels": "emotion8", "split": "folds:{emobox}/ravdess.csv"}, "mini-open", False),
    "emotion8-ravdess-folds-finetuned": Experiment(
        "the same, `mini` fine-tuned", ("ravdess",),
        {"split": "folds:{emobox}/ravdess.csv", "freeze": 3},
        control=False, tuned=True),
    "emotion8-ravdess-random": Experiment(
        "RAVDESS, eight emotions, random 80/20", ("ravdess",),
        {"labels": "emotion8", "split": f"folds:{RANDOM}"}),
    "emotion8-ravdess-random-finetuned": Experiment(
        "the same, `mini` fine-tuned", ("ravdess",),
        {"split": f"folds:{RANDOM}", "freeze": 0, "lr": 5e-4, "epochs": 20, "watch": "loss"},
        control=False, tuned=True),
    "emotion7-tess-folds": Experiment(
        "TESS, seven emotions, EmoBox's fold", ("tess",),
        {"labels": "benchmarks/emotion7.csv", "split": "folds:{emobox}/tess.csv"}),
    "emotion4-urdu-folds": Experiment(
        "URDU, four emotions, EmoBox's fold", ("urdu",),
        {"labels": "emotion4", "split": "folds:{emobox}/urdu.csv"}),
}  # fmt: skip
"""By the name of the folder in artifacts/results."""

CONDITIONS = {
    "clean": "clean", "noise10": "noise, 10 dB", "noise0": "noise, 0 dB", "telephone": "telephone",
    "mp3": "MP3", "reverberation": "reverberation", "first1": "first second alone",
}  # fmt: skip
"""Those of the robustness table that the README shows, and their headings."""


@dataclass(frozen=True)
class Settings:
    """Where the corpora are, and what is wanted of the results."""

    data: Annotated[Path, tyro.conf.Positional] = field(default_factory=data_folder)
    """Folder with ravdess/, tess/, urdu/ and emobox/. Default: $SER_EMBED_DATA, else ./data."""
    only: tuple[str, ...] = ()
    """Names of some results; default all."""
    tables: bool = False
    """Write the README's tables from what is there, and train nothing."""


# --- what is measured ------------------------------------------------------------------------


def store_of(settings: Settings, corpus: str, encoder: str) -> Path:
    """Extract a corpus, if it isn't yet, and return its store."""
    options = ExtractConfig(
        settings.data / corpus, corpus, encoder=encoder, layer="all", pool="stats", json=True,
    )  # fmt: skip
    return Path(extract(options).result["store"])


def trained(settings: Settings, one: Experiment, encoder: str, **options: Any) -> Path:
    """Train an experiment's heads on an encoder's features, or both, and return the run."""
    given = {**one.options, **options}
    if "split" in given:
        given["split"] = given["split"].format(emobox=settings.data / "emobox")
    if one.tuned:
        corpus = one.corpora[0]
        return Path(finetune(FinetuneConfig(
            "stats8", settings.data / corpus, corpus, early_stop=True,
            patience=10, trim=True, json=True, **{"watch": "uar", **given},
        )).result["run"])  # fmt: skip
    stores = tuple(store_of(settings, corpus, encoder) for corpus in one.corpora)
    return Path(train(TrainConfig(stores, early_stop=True, json=True, **given)).result["run"])


def publish(run: Path, name: str) -> None:
    """Copy what a run found; of several folds the card of the first."""
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in PUBLISHED:
        shutil.copyfile(run / file, folder / file)
    card = sorted([*run.glob("card.json"), *run.glob("*/card.json")])[0]
    shutil.copyfile(card, folder / "card.json")


def _robust(settings: Settings, encoder: str) -> None:
    """One head: the answers of an ensemble take five times as long and move alike."""
    run = RUNS_DIR / ("sentiment3-speaker" + _suffix(encoder))
    trained(settings, EXPERIMENTS["sentiment3-speaker"], encoder, name=run.name)
    measure_robustness(RobustnessConfig(run, limit=480, json=True))
    _copy(run / "robustness", "robustness", encoder)


def _crossed(settings: Settings, encoder: str) -> None:
    stores = tuple(store_of(settings, corpus, encoder) for corpus in THREE)
    out = RUNS_DIR / ("cross-corpus-sentiment3" + _suffix(encoder))
    cross_corpus(CrossCorpusConfig(stores, out=out if encoder == CONTROL else None, json=True))
    _copy(out, "cross-corpus", encoder)


def _suffix(encoder: str) -> str:
    return f"-{CONTROL}" if encoder == CONTROL else ""


def _copy(folder: Path, name: str, encoder: str) -> None:
    place = OUT / (name + _suffix(encoder))
    place.mkdir(parents=True, exist_ok=True)
    for ending in (".json", ".md", ".png"):
        shutil.copyfile(folder / f"{name}{ending}", place / f"{name}{ending}")


def measure(settings: Settings) -> None:
    """Make every result that is wanted."""
    wanted = settings.only or (*EXPERIMENTS, "cross-corpus", "robustness")
    for name in wanted:
        print(f"== {name}", flush=True)
        if name in EXPERIMENTS:
            one = EXPERIMENTS[name]
            for encoder in (one.encoder, CONTROL) if one.control else (one.encoder,):
                more = {} if one.tuned else {"ensemble": 5}
                publish(trained(settings, one, encoder, **more), name + _suffix(encoder))
        elif name in ("cross-corpus", "robustness"):
            for encoder in ("mini", CONTROL):
                (_crossed if name == "cross-corpus" else _robust)(settings, encoder)
        else:
            known = ", ".join([*EXPERIMENTS, "cross-corpus", "robustness"])
            raise SystemExit(f"no result {name!r}; there are {known}")


# --- what the README says --------------------------------------------------------------------


def _read(name: str, file: str = "report.json") -> dict[str, Any]:
    told: dict[str, Any] = json.loads((OUT / name / file).read_text(encoding="utf-8"))
    return told


def uar_of(report: Mapping[str, Any]) -> float:
    """Return the mean over the folds where there are several, as EmoBox reports it."""
    return statistics.mean(report["folds"].values()) if report["folds"] else report["uar"]


def _rows(lines: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = [f"| {' | '.join(cells)} |" for cells in lines]
    return [head, "|---" * len(lines[0]) + "|", *rest]


def scores() -> list[str]:
    """Return the table of the experiments, each beside its control."""
    lines = [("", "UAR % [95 % by speaker]", "WA %", "untrained control, UAR %",
              "no-audio baseline, UAR %", "speaker overlap")]  # fmt: skip
    for name, one in EXPERIMENTS.items():
        report = _read(name)
        low, high = report["uar_ci"]
        guess = max(scores["uar"] for scores in report["baselines"].values())
        leakage, control = report["leakage"], ""
        if one.control:
            folder = name + _suffix(CONTROL)
            control = f"[{100 * uar_of(_read(folder)):.1f}](artifacts/results/{folder}/report.md)"
        lines.append((
            f"[{one.told}](artifacts/results/{name}/report.md)",
            f"{100 * uar_of(report):.1f} [{100 * low:.1f}, {100 * high:.1f}]",
            f"{100 * report['wa']:.1f}", control, f"{100 * guess:.1f}",
            f"{leakage['shared_speakers']} of {leakage['test_speakers']}",
        ))  # fmt: skip
    return _rows(lines)


def transfer() -> list[str]:
    """Return UAR by the corpus that is trained and the one that is tested on."""
    told = _read("cross-corpus", "cross-corpus.json")
    control = _read("cross-corpus" + _suffix(CONTROL), "cross-corpus.json")
    lines = [("trained on", *(f"tested on {name}" for name in told["corpora"]))]
    for trained_on, cells in told["trained_on"].items():
        texts = [
            f"{100 * cells[name]['uar']:.1f} "
            f"({100 * control['trained_on'][trained_on][name]['uar']:.1f})"
            for name in told["corpora"]
        ]
        lines.append((trained_on, *texts))
    return _rows(lines)


def disturbed() -> list[str]:
    """Return UAR under some disturbances."""
    lines = [("encoder", *CONDITIONS.values())]
    for encoder in ("mini", CONTROL):
        if not (OUT / ("robustness" + _suffix(encoder))).is_dir():  # its control takes longest
            continue
        told = _read("robustness" + _suffix(encoder), "robustness.json")["conditions"]
        lines.append((f"`{encoder}`", *(f"{100 * told[name]['uar']:.1f}" for name in CONDITIONS)))
    return _rows(lines)


def blocks() -> dict[str, str]:
    """Return what stands between each pair of markers in the README."""
    parts = {"scores": scores, "cross-corpus": transfer, "robustness": disturbed}
    return {name: "\n".join(part()) for name, part in parts.items()}


def quoted(text: str) -> str:
    """Return the README with its tables made anew."""
    for name, block in blocks().items():
        start, end = f"<!-- results: {name} -->\n\n", f"\n\n<!-- end: {name} -->"
        before, _, rest = text.partition(start)
        _, mark, after = rest.partition(end)
        if not mark:
            raise SystemExit(f"README.md: no markers {start.strip()} and {end.strip()}")
        text = before + start + block + end + after
    return text


def main(settings: Settings) -> None:
    """Measure what is wanted, then write the tables."""
    torch.set_num_threads(1)
    try:
        if not settings.tables:
            measure(settings)
        readme = Path("README.md")
        readme.write_text(quoted(readme.read_text(encoding="utf-8")), encoding="utf-8")
    except SerEmbedError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main(tyro.cli(Settings))
