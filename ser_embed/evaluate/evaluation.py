"""A run scored on its own test part, or on every clip of other stores or folders."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_embed.command import Outcome, hide_bar
from ser_embed.corpora import LabelScheme, listing_of
from ser_embed.errors import HeadError, StoreError
from ser_embed.evaluate.options import EvaluateConfig
from ser_embed.finetune import Recordings, is_network, load_network, read_recordings, score_clips
from ser_embed.heads import calibrated, load_head, read_card
from ser_embed.predict import Classifier
from ser_embed.reports import Comparison, Page, Report, read_table
from ser_embed.splits import Split, audit
from ser_embed.store import FeatureStore
from ser_embed.train import LabelledClips, load_clips, log_probabilities, predictions_table

__all__ = ["evaluate_run"]

AUDIO_BATCH = 8  # clips that a fine-tuned network is given at once


def evaluate_run(config: EvaluateConfig) -> Outcome:
    """Score a run and write the report.

    Raises:
        SerEmbedError: No run, store or audio, or stores of other settings, naming the field.
    """
    folders = Classifier.head_folders(config.run)
    cards = [read_card(folder) for folder in folders]
    card, seed = cards[0], cards[0]["split"]["seed"]
    clips: LabelledClips | Recordings
    if is_network(card):
        clips = _read_audio(config, card)
        other = not set(clips.table["corpus"]) <= set(card["corpora"])
        roots = [clips.root]
    else:
        clips = _open_stores(config, card)
        other = bool(config.stores)
        roots = list(dict.fromkeys(Path(store.root) for store in clips.features.stores))
    name = "-".join(sorted(set(clips.table["corpus"]))) if other else "own-test"
    scored = _all_clips(folders, clips) if other else _own_test(folders, clips)
    warnings = []
    if clips.demo or card["demo"]:
        warnings.append("Synthetic demo clips are involved: this says nothing about real speech.")
    if not clips.trained:
        warnings.append("The encoder has untrained, seeded weights: a control.")
    report = Report.of(
        f"{config.run.name} on {name}", scored.predictions, clips.classes,
        training=scored.training, leakage=scored.leakage, warnings=warnings, seed=seed,
    )  # fmt: skip
    out = config.out or config.run / f"evaluation-{name}"
    report.save(out, scored.predictions)
    if not config.json:
        report.show(out / "report.md")
    epochs: Any = [one["training"]["epochs"] for one in cards]
    epochs = epochs[0] if len(epochs) == 1 else epochs
    result = {"run": str(config.run), "epochs": epochs, "test": report.scores}
    comparison = None
    if config.against:
        comparison = Comparison.of(
            report, scored.predictions, config.run.name, config.against, seed
        )
        path = comparison.save(out)
        result["against"] = asdict(comparison)
        if not config.json:
            print(f"{comparison.verdict}\ncomparison: {path}")
    if config.html:
        page = Page(report, scored.predictions, scored.training, config.run, folders, cards, seed)
        roots = (list(config.roots) or roots) if config.sound else []
        played = page.write(out / "page.html", roots, comparison)
        result["page"] = str(out / "page.html")
        if not config.json:
            print(f"page: {out / 'page.html'} (players: {played})")
    return Outcome(result)


# --- the clips -------------------------------------------------------------------------------


def _scheme(card: dict[str, Any]) -> LabelScheme:
    labels = card["labels"]
    return LabelScheme(labels["name"], tuple(card["classes"]), labels["mapping"])


def _read_audio(config: EvaluateConfig, card: dict[str, Any]) -> Recordings:
    if config.stores:
        raise HeadError(f"{config.run}: a fine-tuned run, which takes --audio and no stores")
    if config.audio is None and config.csv is None and not config.corpus:
        raise HeadError(
            f"{config.run}: a fine-tuned run; its report is {config.run / 'report.md'}. To score "
            "it again, name audio: --audio ROOT --corpus NAME, or --csv FILE"
        )
    clips = read_recordings(
        listing_of(config.audio, config.corpus, config.csv), _scheme(card),
        Classifier.settings_of(card, config.run), card["encoder_trained"], workers=0,
        hide=hide_bar(config),
    )  # fmt: skip
    for path, reason in clips.faults:
        print(f"failed: {path}: {reason}", file=sys.stderr)
    return clips


def _open_stores(config: EvaluateConfig, card: dict[str, Any]) -> LabelledClips:
    """Open the stores named, else those in --features-dir that the run was trained on."""
    settings, own = Classifier.settings_of(card, config.run), set(card["corpora"])
    if config.audio or config.csv or config.corpus:
        raise HeadError(f"{config.run}: a head on cached features, which takes stores and no audio")
    stores = []
    for path in config.stores or FeatureStore.find(config.features_dir):
        store = FeatureStore(path)
        differences = settings.differences(store.settings)
        if not config.stores and (differences or store.corpus not in own):
            store.close()
        elif differences:
            raise StoreError(
                f"{path}: not the features that {config.run} was trained on; "
                f"{'; '.join(differences)}"
            )
        else:
            stores.append(store)
    if not stores:
        raise StoreError(
            f"{config.features_dir}: none of the stores that {config.run} was trained on "
            f"({', '.join(sorted(own))}, key {settings.key}) is there; extract them again or name "
            "stores"
        )
    return load_clips(stores, _scheme(card))


# --- the scores ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scored:
    """Predictions, the clips that were trained on, and what the two have in common."""

    predictions: pd.DataFrame
    training: pd.DataFrame
    leakage: dict[str, int]


def _predict(
    folders: Sequence[Path], clips: LabelledClips | Recordings, rows: np.ndarray
) -> pd.DataFrame:
    """Return the predictions of some clips, probabilities averaged over heads or networks."""
    probabilities, raw = [], []
    for folder in folders:
        if isinstance(clips, Recordings):
            network, card = load_network(folder)
            log_probs = score_clips(network, clips, rows, AUDIO_BATCH)
        else:
            head, card = load_head(folder)
            shape = card["head"]["shape"]
            if tuple(shape)[-1] != clips.features.shape[-1]:
                raise HeadError(f"{folder}: takes {shape}, not {clips.features.shape}")
            log_probs = log_probabilities(head, clips.features, rows)
        probabilities.append(calibrated(log_probs, card["temperature"]))
        raw.append(np.exp(log_probs))
    return predictions_table(
        clips.table.iloc[rows], clips.classes, np.mean(probabilities, axis=0), np.mean(raw, axis=0)
    )


def _own_test(folders: Sequence[Path], clips: LabelledClips | Recordings) -> _Scored:
    """Score the test part of each of a run's folds with that fold's head."""
    keys = ["corpus", "sha256", "path"]
    row_of = {key: row for row, key in enumerate(clips.table[keys].itertuples(False, None))}
    predictions, training, audits = [], [], []
    for folder in folders:
        parts = read_table(folder / "clips.csv")
        parts = parts[parts["part"] != "pseudo"]  # of other stores, and none of the split
        rows = np.array([row_of.get(key, -1) for key in parts[keys].itertuples(False, None)])
        if (rows < 0).any():
            where, what_to_do = (
                ("audio", "name the same ROOT") if isinstance(clips, Recordings)
                else ("stores", "extract them again")
            )  # fmt: skip
            raise StoreError(
                f"{folder / 'clips.csv'}: {(rows < 0).sum()} of its clips are not in the {where} "
                f"any more; {what_to_do}"
            )
        part = parts["part"].to_numpy()
        split = Split(folder.name, *(rows[part == name] for name in ("train", "val", "test")))
        fold = read_card(folder).get("fold", folder.name)
        predictions.append(_predict([folder], clips, split.test).assign(fold=fold))
        training.append(parts[part != "test"].assign(fold=fold))
        audits.append(audit(split, clips.table))
    return _Scored(
        pd.concat(predictions, ignore_index=True),
        pd.concat(training, ignore_index=True),
        {name: sum(counts[name] for counts in audits) for name in audits[0]},
    )


def _all_clips(folders: Sequence[Path], clips: LabelledClips | Recordings) -> _Scored:
    """Score every clip of other stores, with the heads of all folds averaged."""
    predictions = _predict(folders, clips, np.arange(len(clips.table)))
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
