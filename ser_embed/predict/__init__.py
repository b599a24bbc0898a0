"""A trained run as a classifier of waveforms, files and long recordings."""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.predict.classifier import Classifier, Prediction, head_folders, settings_of
    from ser_embed.predict.segmenter import Recording, Segmenter, SegmentSettings, segment_file
    from ser_embed.predict.segments import (
        NO_SPEECH,
        UNSURE,
        Piece,
        Segment,
        clock,
        judge,
        mean_of,
        merge_pieces,
        write_audacity,
        write_csv,
        write_json,
        write_table,
    )
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "classifier": ["Classifier", "Prediction", "head_folders", "settings_of"],
            "segmenter": ["Recording", "SegmentSettings", "Segmenter", "segment_file"],
            "segments": [
                "NO_SPEECH",
                "Piece",
                "Segment",
                "UNSURE",
                "clock",
                "judge",
                "mean_of",
                "merge_pieces",
                "write_audacity",
                "write_csv",
                "write_json",
                "write_table",
            ],
        },
    )

__all__ = [
    "NO_SPEECH",
    "UNSURE",
    "Classifier",
    "Piece",
    "Prediction",
    "Recording",
    "Segment",
    "SegmentSettings",
    "Segmenter",
    "clock",
    "head_folders",
    "judge",
    "mean_of",
    "merge_pieces",
    "segment_file",
    "settings_of",
    "write_audacity",
    "write_csv",
    "write_json",
    "write_table",
]
