"""What an export says of itself: an ONNX file in its metadata, a folder on its model card."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ser_embed import __version__
from ser_embed.audio import SAMPLE_RATE
from ser_embed.bundled import BUNDLED_HEADS, HEADS_LICENCE
from ser_embed.predict import Classifier

__all__ = ["facts_of"]

PREPROCESSING = (
    "mono samples at 16 kHz; if trim, cut what lies 40 dB below the loudest 20 ms before the first "
    "and after the last sound, but for 60 ms, looking no further than window_seconds and 10 s from "
    "the start or from where sound begins if that is later; sound under 100 ms that is 25 dB above "
    "the loudest 0.3 s is a click and doesn't count; "
    "keep the first window_seconds (0: all); fill a shorter clip by the rule `fill`: none; zero; "
    "repeat (the clip again); sample (numpy's default_rng([seed, n]).integers draws the places of "
    "samples to repeat, n the first 16 hexadecimal digits of the file's SHA-256)"
)
BATCHES = (
    "every row of a batch is a clip of its own, all of one length: run clips of different lengths "
    "one by one, never padded"
)
LICENCE = (
    "Inherited: a model may be used as far as the licences of what it was made of allow. Which "
    "licence it gets is for whoever publishes it to settle."
)
BUNDLED_LICENCE = f"{HEADS_LICENCE}, for research, as the strictest of what it was made of asks."


def _longest(classifier: Classifier) -> dict[str, float]:
    """Return `longest_seconds`, what one pass of an export takes, where that is limited."""
    most = classifier.encoder.most_samples if classifier.encoder else None
    return {"longest_seconds": most / SAMPLE_RATE} if most else {}


def facts_of(classifier: Classifier) -> dict[str, Any]:
    """Return what is known of a classifier, but for how an export of it was checked.

    An encoder from a folder goes by the folder's name: where it lies is this machine's matter.
    """
    card, settings = classifier.card, classifier.settings
    folder = Path(settings.encoder)
    encoder = folder.name if folder.is_dir() else settings.encoder
    of_corpora = {corpus: card["corpus_licences"].get(corpus, "that of the corpus")
                  for corpus in card["corpora"]}  # fmt: skip
    return {
        "labels": list(classifier.classes),
        "sample_rate": SAMPLE_RATE,
        "window_seconds": settings.seconds,
        **_longest(classifier),
        "trim": settings.trim,
        "fill": settings.fill,
        "seed": settings.seed,
        "preprocessing": PREPROCESSING,
        "batches": BATCHES,
        "temperature": [card["temperature"] for _, card in classifier.heads],
        "encoder": encoder,
        "encoder_weights_sha256": settings.weights,
        "features": {**asdict(settings), "encoder": encoder},
        "head": {"name": card["head"]["name"], "members": card["head"]["members"],
                 "averaged": len(classifier.heads)},
        "trained_on": classifier.about.replace(settings.encoder, encoder),
        "corpora": card["corpora"],
        "licence": BUNDLED_LICENCE if classifier.run.parent == BUNDLED_HEADS else LICENCE,
        "sources": {f"encoder {encoder}": card["encoder_licence"], **of_corpora},
        "use": card["use"],
        "ser_embed": __version__,
    }  # fmt: skip
