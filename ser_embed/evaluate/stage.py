"""The report again: of a run on its own test part, or on other stores.

`python -m ser_embed.evaluate RUN` scores the test part it was trained beside;
`python -m ser_embed.evaluate RUN STORE...` scores every clip of other stores, which says how the
run does on another corpus, and what of it training has heard. A fine-tuned run takes audio and
no stores: `python -m ser_embed.evaluate RUN --audio ROOT --corpus NAME`. `--html` makes a page of
it, `--against OTHER` says whether the run is better than another on the clips both were tested on.
"""

import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro

from ser_embed.command import FEATURES_DIR, Options, Outcome, hide_bar, run_command
from ser_embed.corpora import LabelScheme, listing_of
from ser_embed.errors import HeadError, StoreError
from ser_embed.finetune import Recordings, is_network, load_network, read_recordings, score_clips
from ser_embed.heads import calibrated, load_head, read_card
from ser_embed.predict import head_folders, settings_of
from ser_embed.reports import Comparison, Page, Report, read_table
from ser_embed.splits import Split, audit
from ser_embed.store import FeatureSettings, FeatureStore, find_stores
from ser_embed.train import LabelledClips, load_clips, log_probabilities, predictions_table

__all__ = ["EvaluateConfig", "main", "score"]

log = logging.getLogger(__name__)

AUDIO_BATCH = 8  # clips that a fine-tuned network is given at once


@dataclass(frozen=True)
class EvaluateConfig(Options):
    """Report on a run: on its own test part, or on the stores named.

    For a fine-tuned run name the audio instead: of a corpus that it was trained on its own test
    part is scored, of another every clip.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    stores: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Stores to score instead of the run's own test part."""
    audio: Path | None = None
    """For a fine-tuned run: folder of a corpus."""
    corpus: str = ""
    """Which it is: ravdess, tess, ..., or demo."""
    csv: Path | None = None
    """A CSV with the header path,emotion[,speaker,gender,intensity] instead."""
    features_dir: Path = FEATURES_DIR
    """Where the run's own stores are looked for."""
    out: Path | None = None
    """Folder of the report. Default: evaluation-<stores> in the run's folder."""
    html: bool = False
    """Write the report as one page too: page.html, with all its pictures inside."""
    roots: tuple[Path, ...] = ()
    """Folders in which the page finds the worst mistakes' audio. Default: where the stores were
    extracted from."""
    sound: bool = True
    """Whether the page holds the audio of the worst mistakes: it is others' voices."""
    against: Path | None = None
    """Folder of another run, or of an evaluation of one, to compare with."""


def _matching(paths: list[Path], settings: FeatureSettings, corpora: set[str]) -> list[Path]:
    """Return the stores in a folder that a run was trained on."""
    found = []
    for path in paths:
        store = FeatureStore(path)
        if store.corpus in corpora and not settings.differences(store.settings):
            found.append(path)
        store.close()
    return found


def _scheme(card: dict[str, Any]) -> LabelScheme:
    told = card["labels"]
    return LabelScheme(told["name"], tuple(card["classes"]), told["mapping"])


def _load_audio(config: EvaluateConfig, card: dict[str, Any]) -> Recordings:
    if config.stores:
        raise HeadError(f"{config.run}: a fine-tuned run, which takes --audio and no stores")
    if config.audio is None and config.csv is None and not config.corpus:
        raise HeadError(
            f"{config.run}: a fine-tuned run; its report is {config.run / 'report.md'}. To score "
            "it again, name audio: --audio ROOT --corpus NAME, or --csv FILE"
        )
    clips = read_recordings(
        listing_of(config.audio, config.corpus, config.csv), _scheme(card),
        settings_of(card, config.run), card["encoder_trained"], workers=0, hide=hide_bar(config),
    )  # fmt: skip
    for path, reason in clips.faults:
        print(f"failed: {path}: {reason}", file=sys.stderr)
    return clips


def _load(config: EvaluateConfig, card: dict[str, Any]) -> LabelledClips:
    settings = settings_of(card, config.run)
    if config.audio or config.csv or config.corpus:
        raise HeadError(f"{config.run}: a head on cached features, which takes stores and no audio")
    own = set(card["corpora"])
    paths = list(config.stores) or _matching(find_stores(config.features_dir), settings, own)
    if not paths:
        raise StoreError(
            f"{config.features_dir}: none of the stores that {config.run} was trained on "
            f"({', '.join(sorted(own))}, key {settings.key}) is there; extract them again or name "
            "stores"
        )
    stores = [FeatureStore(path) for path in paths]
    for store in stores:
        differences = settings.differences(store.settings)
        if differences:
            raise StoreError(
                f"{store.path}: not the features that {config.run} was trained on; "
                f"{'; '.join(differences)}"
            )
    return load_clips(stores, _scheme(card))


def _log_probabilities(
    folder: Path, clips: LabelledClips | Recordings, rows: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return what one head or network says of some clips, and its card."""
    if isinstance(clips, Recordings):
        network, card = load_network(folder)
        return score_clips(network, clips, rows, AUDIO_BATCH), card
    head, card = load_head(folder)
    if tuple(card["head"]["shape"])[-1] != clips.features.shape[-1]:
        raise HeadError(f"{folder}: takes {card['head']['shape']}, not {clips.features.shape}")
    return log_probabilities(head, clips.features, rows), card


def _probabilities(
    folders: list[Path], clips: LabelledClips | Recordings, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return calibrated and raw probabilities of some clips, averaged over the run's heads."""
    told, raw = [], []
    for folder in folders:
        log_probs, card = _log_probabilities(folder, clips, rows)
        told.append(calibrated(log_probs, card["temperature"]))
        raw.append(np.exp(log_probs))
    return np.mean(told, axis=0), np.mean(raw, axis=0)


@dataclass(frozen=True)
class _Scored:
    """Predictions, the clips that training saw, and what the two share."""

    predictions: pd.DataFrame
    training: pd.DataFrame
    leakage: dict[str, int]


def _own_test(folders: list[Path], clips: LabelledClips | Recordings) -> _Scored:
    """Score the test part of each of a run's folds with that fold's head."""
    keys = ["corpus", "sha256", "path"]
    place = {key: row for row, key in enumerate(clips.table[keys].itertuples(False, None))}
    where = "audio" if isinstance(clips, Recordings) else "stores"
    predictions, training, audits = [], [], []
    for folder in folders:
        parts = read_table(folder / "clips.csv")
        parts = parts[parts["part"] != "pseudo"]  # of other stores, and none of the split
        rows = np.array([place.get(key, -1) for key in parts[keys].itertuples(False, None)])
        if (rows < 0).any():
            raise StoreError(
                f"{folder / 'clips.csv'}: {(rows < 0).sum()} of its clips are not in the {where} "
                f"any more; {'extract them again' if where == 'stores' else 'name the same ROOT'}"
            )
        part = parts["part"].to_numpy()
        split = Split(folder.name, *(rows[part == name] for name in ("train", "val", "test")))
        probabilities, raw = _probabilities([folder], clips, split.test)
        table = predictions_table(clips.table.iloc[split.test], clips.classes, probabilities, raw)
        fold = read_card(folder).get("fold", folder.name)
        predictions.append(table.assign(fold=fold))
        training.append(parts[part != "test"].assign(fold=fold))
        audits.append(audit(split, clips.table))
    return _Scored(
        pd.concat(predictions, ignore_index=True),
        pd.concat(training, ignore_index=True),
        {name: sum(told[name] for told in audits) for name in audits[0]},
    )


def _all_clips(folders: list[Path], clips: LabelledClips | Recordings) -> _Scored:
    """Score every clip of other stores, with the heads of all folds averaged."""
    rows = np.arange(len(clips.table))
    probabilities, raw = _probabilities(folders, clips, rows)
    predictions = predictions_table(clips.table, clips.classes, probabilities, raw)
    parts = pd.concat([read_table(folder / "clips.csv") for folder in folders], ignore_index=True)
    training = parts[parts["part"] != "test"].drop_duplicates(["corpus", "path"])
    speakers = set(predictions["speaker"]) - {""}
    recordings = set(training["recording"]) - {""}
    leakage = {
        "train": len(training),
        "test": len(predictions),
        "test_speakers": len(speakers),
        "shared_speakers": len(speakers & set(training["speaker"])),
        "duplicates": int(clips.table["sha256"].isin(set(training["sha256"])).sum()),
        "halves": int(clips.table["recording"].isin(recordings).sum()),
    }
    return _Scored(predictions, training, leakage)


def score(config: EvaluateConfig) -> Outcome:
    """Score a run and write the report.

    Raises:
        SerEmbedError: No run, store or audio, or stores of other settings, naming the field.
    """
    folders = head_folders(config.run)
    cards = [read_card(folder) for folder in folders]
    card = cards[0]
    clips: LabelledClips | Recordings
    if is_network(card):
        clips = _load_audio(config, card)
        others = not set(clips.table["corpus"]) <= set(card["corpora"])
    else:
        clips = _load(config, card)
        others = bool(config.stores)
    if others:
        scored = _all_clips(folders, clips)
        names = "-".join(sorted(set(clips.table["corpus"])))
    else:
        scored = _own_test(folders, clips)
        names = "own-test"
    warnings = []
    if clips.demo or card["demo"]:
        warnings.append("Synthetic demo clips are involved: this says nothing about real speech.")
    if not clips.trained:
        warnings.append("The encoder has untrained, seeded weights: a control.")
    report = Report.of(
        f"{config.run.name} on {names}",
        scored.predictions,
        clips.classes,
        training=scored.training,
        leakage=scored.leakage,
        warnings=warnings,
        seed=card["split"]["seed"],
    )
    out = config.out or config.run / f"evaluation-{names}"
    report.save(out, scored.predictions)
    if not config.json:
        report.show(out / "report.md")
    told = Page(report, scored.predictions, scored.training, config.run, folders, cards,
                card["split"]["seed"])  # fmt: skip
    extras = _extras(config, told, out, _roots(clips))
    epochs: Any = [one["training"]["epochs"] for one in cards]
    epochs = epochs[0] if len(epochs) == 1 else epochs
    return Outcome({"run": str(config.run), "epochs": epochs, "test": report.scores, **extras})


def _roots(clips: LabelledClips | Recordings) -> list[Path]:
    if isinstance(clips, Recordings):
        return [clips.root]
    return list(dict.fromkeys(Path(store.root) for store in clips.features.stores))


def _extras(config: EvaluateConfig, told: Page, out: Path, roots: list[Path]) -> dict[str, Any]:
    """Compare with another run and write the page, as asked; return what `--json` says of it."""
    result: dict[str, Any] = {}
    comparison = None
    if config.against:
        comparison = Comparison.of(
            told.report, told.predictions, config.run.name, config.against, told.seed
        )
        path = comparison.save(out)
        result["against"] = asdict(comparison)
        if not config.json:
            print(f"{comparison.verdict}\ncomparison: {path}")
    if config.html:
        where = list(config.roots) or roots if config.sound else []
        played = told.write(out / "page.html", where, comparison)
        result["page"] = str(out / "page.html")
        if not config.json:
            print(f"page: {out / 'page.html'} (players: {played})")
    return result


def main(argv: list[str] | None = None) -> int:
    """Run `python -m ser_embed.evaluate`."""
    return run_command(score, EvaluateConfig, "python -m ser_embed.evaluate", argv)


if __name__ == "__main__":
    raise SystemExit(main())
