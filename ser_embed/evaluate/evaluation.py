"""A run scored on its own test part, or on every clip of other stores or folders."""

import sys
from dataclasses import asdict, replace
from typing import Any

from ser_embed.command import Outcome
from ser_embed.corpora import LabelScheme, listing_of
from ser_embed.errors import HeadError, LabelError, StoreError
from ser_embed.evaluate.options import EvaluateConfig
from ser_embed.finetune import Recordings, is_network
from ser_embed.heads import read_card
from ser_embed.predict import Classifier
from ser_embed.reports import Comparison, Page, Report
from ser_embed.store import FeatureStore
from ser_embed.train import Labelled, load_clips

__all__ = ["evaluate_run"]


def evaluate_run(config: EvaluateConfig) -> Outcome:
    """Score a run and write the report.

    Raises:
        SerEmbedError: No run, store or audio, or stores of other settings, naming the field.
    """
    folders = Classifier.head_folders(config.run)
    cards = [read_card(folder) for folder in folders]
    card, seed = cards[0], cards[0]["split"]["seed"]
    scheme = _scheme(config, card)
    clips: Labelled
    if is_network(card):
        clips = _read_audio(config, card, scheme)
        other = not set(clips.table["corpus"]) <= set(card["corpora"])
    else:
        clips = _open_stores(config, card, scheme)
        other = bool(config.stores)
    if config.labels and not other:
        raise HeadError(
            "--labels maps the emotions of stores that the run wasn't trained on: name them"
        )
    name = "-".join(sorted(set(clips.table["corpus"]))) if other else "own-test"
    scored = clips.every_clip(folders) if other else clips.own_test(folders)
    warnings = []
    if clips.demo or card["demo"]:
        warnings.append("Synthetic demo clips are involved: this says nothing about real speech.")
    if not clips.trained:
        warnings.append("The encoder has untrained, seeded weights: a control.")
    warnings += scored.warnings
    report = Report.of(
        f"{config.run.name} on {name}", scored.predictions, clips.classes,
        training=scored.training, leakage=scored.leakage, warnings=warnings,
        notes=clips.notes, seed=seed,
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
        roots = (list(config.roots) or clips.roots) if config.sound else []
        played = page.write(out / "page.html", roots, comparison)
        result["page"] = str(out / "page.html")
        if not config.json:
            print(f"page: {out / 'page.html'} (players: {played})")
    return Outcome(result)


# --- the clips -------------------------------------------------------------------------------


def _scheme(config: EvaluateConfig, card: dict[str, Any]) -> LabelScheme:
    """Return what makes the clips' emotions into the run's classes: its own scheme, or --labels.

    Raises:
        LabelError: --labels names no class of the run, or a mapping file one that it doesn't have.
    """
    classes, labels = tuple(card["classes"]), card["labels"]
    if not config.labels:
        return LabelScheme(labels["name"], classes, labels["mapping"])
    scheme = LabelScheme.load(config.labels).fit(classes)
    strange = [name for name in scheme.classes if name not in classes]
    if strange and (scheme.complete or len(strange) == len(scheme.classes)):
        raise LabelError(
            f"--labels {config.labels}: {', '.join(strange)} is no class of {config.run}, which "
            f"has {', '.join(classes)}"
        )
    return replace(scheme, classes=classes)


def _read_audio(config: EvaluateConfig, card: dict[str, Any], scheme: LabelScheme) -> Recordings:
    if config.stores:
        raise HeadError(f"{config.run}: a fine-tuned run, which takes --audio and no stores")
    if config.audio is None and config.csv is None and not config.corpus:
        raise HeadError(
            f"{config.run}: a fine-tuned run; its report is {config.run / 'report.md'}. To score "
            "it again, name audio: --audio ROOT --corpus NAME, or --csv FILE"
        )
    clips = Recordings.read(
        listing_of(config.audio, config.corpus, config.csv), scheme,
        Classifier.settings_of(card, config.run), card["encoder_trained"], workers=0,
        quiet=config.quiet, every_class=True,
    )  # fmt: skip
    for path, reason in clips.faults:
        print(f"failed: {path}: {reason}", file=sys.stderr)
    return clips


def _open_stores(config: EvaluateConfig, card: dict[str, Any], scheme: LabelScheme) -> Labelled:
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
    return load_clips(stores, scheme, every_class=True)
