"""A trained run as a classifier of waveforms, files, long recordings and streams.

`Classifier.load` takes a run's folder; the classifier takes mono float32 samples or a file and
gives a `Prediction`: a label, and a calibrated probability for each class. `Recording.of_file`
cuts a file of any length at its pauses into `Segment`s: start and end in seconds, label,
probabilities. A `Segmenter` does the same for a stream, by `SegmentSettings`. Times are shown by
`clock`.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.predict.classifier import Classifier, Prediction
    from ser_embed.predict.options import SegmentSettings
    from ser_embed.predict.recording import Recording
    from ser_embed.predict.segmenter import Segmenter
    from ser_embed.predict.segments import Segment, clock
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "classifier": ["Classifier", "Prediction"],
            "options": ["SegmentSettings"],
            "recording": ["Recording"],
            "segmenter": ["Segmenter"],
            "segments": ["Segment", "clock"],
        },
    )

__all__ = [
    "Classifier",
    "Prediction",
    "Recording",
    "Segment",
    "SegmentSettings",
    "Segmenter",
    "clock",
]
