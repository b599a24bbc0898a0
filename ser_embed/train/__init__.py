"""Stage 2: a head is trained on cached features and reported on."""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.train.data import Labelled, LabelledClips, load_clips, open_stores
    from ser_embed.train.loop import (
        EarlyStopping,
        FitSettings,
        balanced_weights,
        fit,
        has_bf16,
        log_probabilities,
        temperature_of,
    )
    from ser_embed.train.runs import (
        Fold,
        finished_fold,
        finished_result,
        fold_folder,
        identity_of,
        make_card,
        predictions_table,
        report_of,
        run_name,
        timed,
        training_time,
        write_misclassified,
        write_parts,
    )
    from ser_embed.train.stage import TrainConfig, train
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "data": ["Labelled", "LabelledClips", "load_clips", "open_stores"],
            "loop": [
                "EarlyStopping",
                "FitSettings",
                "balanced_weights",
                "fit",
                "has_bf16",
                "log_probabilities",
                "temperature_of",
            ],
            "runs": [
                "Fold",
                "finished_fold",
                "finished_result",
                "fold_folder",
                "identity_of",
                "make_card",
                "predictions_table",
                "report_of",
                "run_name",
                "timed",
                "training_time",
                "write_misclassified",
                "write_parts",
            ],
            "stage": ["TrainConfig", "train"],
        },
    )

__all__ = [
    "EarlyStopping",
    "FitSettings",
    "Fold",
    "Labelled",
    "LabelledClips",
    "TrainConfig",
    "balanced_weights",
    "finished_fold",
    "finished_result",
    "fit",
    "fold_folder",
    "has_bf16",
    "identity_of",
    "load_clips",
    "log_probabilities",
    "make_card",
    "open_stores",
    "predictions_table",
    "report_of",
    "run_name",
    "temperature_of",
    "timed",
    "train",
    "training_time",
    "write_misclassified",
    "write_parts",
]
