"""A report as one page: a single HTML file that loads nothing and runs no script.

Pictures and sounds are inside it. The sounds are other people's voices: the page is for the
machine it was made on.
"""

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import soundfile
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ser_embed.audio import SAMPLE_RATE, AudioFile
from ser_embed.errors import AudioError
from ser_embed.reports.breakdown import (
    abstention,
    corpus_facts,
    groups_of,
    length_of,
    mistakes,
    risk_coverage,
)
from ser_embed.reports.originals import find_originals
from ser_embed.reports.paired import Comparison
from ser_embed.reports.plots import plot_history, plot_reliability, plot_risk_coverage
from ser_embed.reports.scores import Report
from ser_embed.reports.tables import read_table
from ser_embed.store import FeatureSettings

__all__ = ["Evaluated", "write_page"]

PLAYED_SECONDS = 6.0  # of a mistake's clip, where the run takes whole clips
MOST_SPEAKERS = 60  # on the page: those with the lowest recall; the report has all
TEMPLATE = Path(__file__).with_name("page.html.j2")

_LIGHT, _DARK = "#1d2830", "#d8dee3"  # ink on either ground


@dataclass(frozen=True)
class Evaluated:
    """What a page is made from.

    Attributes:
        report: The scores.
        predictions: One row a test clip, with `seconds` and `sha256`.
        training: What the baselines are computed from, as `report.evaluate` takes it.
        run: Folder of the run.
        folders: Folders of its heads.
        cards: Their cards.
        seed: Of the resampling.
    """

    report: Report
    predictions: pd.DataFrame
    training: pd.DataFrame
    run: Path
    folders: Sequence[Path]
    cards: Sequence[Mapping[str, Any]]
    seed: int


def write_page(
    path: Path, told: Evaluated, roots: Sequence[Path] = (), comparison: Comparison | None = None
) -> int:
    """Write the page.

    Args:
        path: The file.
        told: What it is about.
        roots: Folders in which the audio of the worst mistakes is looked for; none for no sound.
        comparison: With another run.

    Returns:
        How many clips can be played on it.
    """
    report = told.report
    worst = _mistakes(told, roots)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    html = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        verdict=_verdict(report),
        leaks=_leaks(report.leakage),
        comparison=comparison,
        corpora=_corpora(told),
        groups=_groups(told),
        ranked_speakers=MOST_SPEAKERS,
        figures=dict(_figures(told)),
        abstention=_abstention(told),
        mistakes=worst,
        wrong=int((told.predictions["label"] != told.predictions["predicted"]).sum()),
        training=_training(told.cards),
        robustness=_robustness(told),
        card=told.cards[0],
        settings=list(_settings(told.cards[0])),
        digests=_digests(told),
    )
    # A file's name may hold bytes that are no text.
    path.write_text(html, encoding="utf-8", errors="backslashreplace")
    return sum(one["sound"] is not None for one in worst)


# --- the numbers -----------------------------------------------------------------------------


def _verdict(report: Report) -> dict[str, str]:
    """Say in a sentence or two what the score is worth."""
    low, high = report.uar_ci
    guess = max(scores["uar"] for scores in report.baselines.values())
    shared, speakers = report.leakage.get("shared_speakers", 0), report.leakage["test_speakers"]
    score = (
        f"UAR {100 * report.uar:.1f} % [{100 * low:.1f}, {100 * high:.1f}] on {report.clips} clips "
        f"of {speakers or 'unknown'} speakers; guessing without listening gives {100 * guess:.1f} %"
    )
    if low <= guess:
        return {"kind": "bad", "score": score, "text": "Not shown to be better than guessing."}
    if shared or not speakers:
        who = f"{shared} of {speakers} test speakers were" if shared else "The test speakers may be"
        rest = "trained on" if shared else "among those trained on"
        return {"kind": "careful", "score": score,
                "text": f"{who} {rest}: a new speaker would get less."}  # fmt: skip
    return {"kind": "good", "score": score,
            "text": "Better than guessing, on speakers it never heard."}  # fmt: skip


_LEAKS = (
    ("shared_speakers", "test speakers who were trained on"),
    ("duplicates", "test clips byte-identical to training clips"),
    ("halves", "test clips cut from a recording whose other part was trained on"),
)


def _leaks(leakage: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {"text": text, "count": leakage.get(name, 0),
         "of": leakage["test_speakers"] if name == "shared_speakers" else leakage["test"]}
        for name, text in _LEAKS
    ]  # fmt: skip


def _all_clips(told: Evaluated) -> pd.DataFrame:
    """Return every clip of the run and of the test, each once."""
    columns = ["corpus", "path", "speaker", "label"]
    tables = [read_table(folder / "clips.csv")[columns] for folder in told.folders]
    clips = pd.concat([*tables, told.predictions[columns]], ignore_index=True)
    return clips.drop_duplicates(["corpus", "path"])


def _corpora(told: Evaluated) -> list[dict[str, Any]]:
    scores = _grouped(told, told.predictions["corpus"])
    facts = {one.corpus: one for one in corpus_facts(_all_clips(told), told.report.classes, 0)}
    return [
        {"report": one, "facts": facts[name],
         "guess": max(scores["uar"] for scores in one.baselines.values())}
        for name, one in scores.items()
    ]  # fmt: skip


def _grouped(told: Evaluated, names: pd.Series) -> dict[str, Report]:
    return groups_of(told.predictions, names, told.report.classes, told.training, told.seed)


def _groups(told: Evaluated) -> dict[str, list[Report]]:
    """Return the reports of the groups that the page shows; of many speakers the lowest."""
    lowest = sorted(told.report.groups["speaker"].items(), key=lambda one: one[1]["uar"])
    names = {"" if name == "unknown" else name for name, _ in lowest[:MOST_SPEAKERS]}
    rows = told.predictions["speaker"].isin(names)
    part = told.predictions[rows].reset_index(drop=True)
    speakers = groups_of(part, part["speaker"], told.report.classes, told.training, told.seed)
    return {
        "gender": list(_grouped(told, told.predictions["gender"]).values()),
        "clip length": list(_grouped(told, length_of(told.predictions["seconds"])).values()),
        "speaker": sorted(speakers.values(), key=lambda one: one.uar),
    }


def _confidence(told: Evaluated) -> tuple[np.ndarray, np.ndarray]:
    names = [f"p_{name}" for name in told.report.classes]
    right = told.predictions["label"] == told.predictions["predicted"]
    return told.predictions[names].to_numpy().max(1), right.to_numpy()


def _abstention(told: Evaluated) -> dict[str, Any]:
    index = {name: i for i, name in enumerate(told.report.classes)}
    truth, predicted = (told.predictions[c].map(index).to_numpy() for c in ("label", "predicted"))
    confidence, right = _confidence(told)
    _, coverage, risk = risk_coverage(confidence, right)
    return {
        "rows": abstention(confidence, truth, predicted, len(index)),
        # Risk averaged over the coverages (Geifman and El-Yaniv 2017).
        "area": float(np.sum(risk * np.diff(coverage, prepend=0))),
    }


def _training(cards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    def listed(value: Any) -> str:
        values = value if isinstance(value, list) else [value]
        return ", ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in values)

    return [
        {"fold": card.get("fold", ""), "epochs": listed(card["training"].get("epochs", "")),
         "kept": listed(card["training"].get("kept", "")),
         "val_uar": listed(card["training"].get("val_uar", "")),
         "temperature": f"{card['temperature']:.2f}"}
        for card in cards
    ]  # fmt: skip


def _settings(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a card says, a line each: names and values."""
    for name in ("command", "labels", "corpora", "corpus_licences", "left_out", "features",
                 "encoder_licence", "head", "split", "training", "versions"):  # fmt: skip
        value: Any = card.get(name)
        if name in ("labels", "features", "head", "split", "training"):
            for inner, one in value.items():
                yield f"{name} {inner}".replace("_", " "), _line(one)
        elif value:
            yield name.replace("_", " "), _line(value)


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _digests(told: Evaluated) -> dict[str, str]:
    card = told.cards[0]
    weights = [str(one.get("weights_sha256", "")) for one in told.cards]
    return {
        "clips, labels and features": str(card.get("data_sha256", "")),
        "encoder": str(card["features"]["weights"]),
        "head" if len(weights) == 1 else "heads": " ".join(weights),
        "run": str(card.get("identity", "")),
    }


def _robustness(told: Evaluated) -> dict[str, Any] | None:
    """Return what ser_embed.robustness found of these very heads, if it has been run."""
    try:
        found = json.loads((told.run / "robustness" / "robustness.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    same = found.get("heads") == [card.get("weights_sha256") for card in told.cards]
    return found if same else None


# --- pictures and sounds ---------------------------------------------------------------------


def _figures(told: Evaluated) -> Iterator[tuple[str, dict[str, str]]]:
    confidence, right = _confidence(told)
    raw = told.predictions["raw_confidence"].to_numpy()
    yield (
        "reliability",
        _picture(lambda: plot_reliability(confidence, right, told.report.ece, raw=raw)),
    )
    _, coverage, risk = risk_coverage(confidence, right)
    yield "risk", _picture(lambda: plot_risk_coverage(coverage, risk))
    history = _history(told.folders[0], told.cards[0])
    if history is not None:
        columns, kept = history
        # Fine-tuning counts steps, of which an epoch has many.
        unit = "step" if "step" in columns else "epoch"
        yield "history", _picture(lambda: plot_history(columns, kept, unit=unit))


def _history(folder: Path, card: Mapping[str, Any]) -> tuple[dict[str, list[float]], int] | None:
    """Return the first head's history and the epoch kept, None where there is no such table."""
    try:
        table = pd.read_csv(folder / "history.csv")
        if "member" in table:
            table = table[table["member"] == 1]
        columns = {str(name): table[name].tolist() for name in table}
        if not {"epoch", "train_loss", "val_loss", "val_uar"} <= set(columns):
            return None
        return columns, int(np.atleast_1d(card["training"]["kept"])[0])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _picture(draw: Callable[[], Axes]) -> dict[str, str]:
    """Draw a figure as SVG for a light and for a dark page."""
    found = {}
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    for name, ink in (("light", _LIGHT), ("dark", _DARK)):
        colours: dict[Any, str] = dict.fromkeys(inked, ink)
        colours |= dict.fromkeys(("axes.facecolor", "legend.facecolor"), "none")
        with rc_context({**colours, "svg.hashsalt": name}):
            figure = draw().get_figure()
            assert isinstance(figure, Figure)
            file = io.BytesIO()
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        found[name] = _data("image/svg+xml", file.getvalue())
    return found


def _mistakes(told: Evaluated, roots: Sequence[Path]) -> list[dict[str, Any]]:
    worst = mistakes(told.predictions)
    clips = told.predictions.iloc[[one.row for one in worst]]
    files = find_originals(clips, roots) if roots else [None] * len(worst)
    settings = FeatureSettings(**told.cards[0]["features"])
    return [
        {"told": one, "clip": clip, "sound": _sound(file, settings) if file else None}
        for one, clip, file in zip(worst, clips.to_dict("records"), files, strict=True)
    ]


def _sound(file: Path, settings: FeatureSettings) -> str | None:
    """Return a clip as the classifier takes it, before it is filled: FLAC, 16 kHz, mono."""
    try:
        clip = AudioFile(file).read(settings.seconds or PLAYED_SECONDS, settings.trim)
    except AudioError:
        return None
    memory = io.BytesIO()
    samples = clip.samples[: int(PLAYED_SECONDS * SAMPLE_RATE)]
    soundfile.write(memory, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return _data("audio/flac", memory.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
