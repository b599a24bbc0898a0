"""Speech emotion recognition in two stages.

Stage 1 encodes every clip of a corpus once with a frozen wav2vec2-family encoder and caches the
features; stage 2 trains a small head on the cache and reports a number that holds on new
speakers. The names below are the public face; each lives in a module of its own.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Classifier": "predict",
    "CORPORA": "naming",
    "ENCODERS": "checkpoints",
    "FeatureDataset": "store",
    "FeatureSettings": "features",
    "FeatureStore": "store",
    "HEADS": "heads",
    "LabelScheme": "labels",
    "Prediction": "predict",
    "Report": "report",
    "SCHEMES": "labels",
    "SPLITS": "splits",
    "SerEmbedError": "errors",
    "Utterance": "naming",
    "denormalise": "features",
    "fit_length": "audio",
    "load_audio": "audio",
    "load_encoder": "encoder",
    "normalise": "features",
    "read_corpus": "corpora",
    "read_csv": "corpora",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use: torch takes seconds to load."""
    if name not in _HOME:
        raise AttributeError(f"module 'ser_embed' has no attribute {name!r}")
    return getattr(import_module(f"ser_embed.{_HOME[name]}"), name)
