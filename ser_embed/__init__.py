"""Speech emotion recognition in two stages.

Stage 1 encodes every clip of a corpus once with a frozen wav2vec2-family encoder and caches the
features; stage 2 trains a small head on the cache and reports a number that holds on new
speakers. The names below are the public face; each lives in a module of its own.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.audio.cutting import fit_length
    from ser_embed.audio.decoding import load_audio
    from ser_embed.corpora import CORPORA, SCHEMES, LabelScheme, Utterance
    from ser_embed.corpora.listing import read_corpus, read_csv
    from ser_embed.encoders import ENCODERS, load_encoder
    from ser_embed.encoders.frozen import denormalise, normalise
    from ser_embed.errors import SerEmbedError
    from ser_embed.heads import HEADS
    from ser_embed.predict import Classifier, Prediction
    from ser_embed.reports import Report
    from ser_embed.splits import SPLITS
    from ser_embed.store import FeatureSettings, FeatureStore
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "audio.cutting": ["fit_length"],
            "audio.decoding": ["load_audio"],
            "corpora": ["CORPORA", "SCHEMES", "LabelScheme", "Utterance"],
            "corpora.listing": ["read_corpus", "read_csv"],
            "encoders": ["ENCODERS", "load_encoder"],
            "encoders.frozen": ["denormalise", "normalise"],
            "errors": ["SerEmbedError"],
            "heads": ["HEADS"],
            "predict": ["Classifier", "Prediction"],
            "reports": ["Report"],
            "splits": ["SPLITS"],
            "store": ["FeatureSettings", "FeatureStore"],
        },
    )  # fmt: skip

__version__ = "0.1.0"

__all__ = [
    "CORPORA", "ENCODERS", "HEADS", "SCHEMES", "SPLITS", "Classifier", "FeatureSettings",
    "FeatureStore", "LabelScheme", "Prediction", "Report", "SerEmbedError", "Utterance",
    "denormalise", "fit_length", "load_audio", "load_encoder", "normalise", "read_corpus",
    "read_csv",
]  # fmt: skip
