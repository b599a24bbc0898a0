"""Stage 2: models trained and scored on splits of labelled clips.

`train` trains a head on cached features as `TrainConfig` says. What it and every other trained
thing runs on is `Experiment`: it takes `Labelled` clips (one row a clip, with features of shape
(N, ...) by `load_clips` and `open_stores`), the splits, and a model with `fit` and
`predict_log_proba` or any classifier of scikit-learn, and gives the folder of a run with its
report. A model's `fit` hands back `Fitted`; `fit_tensor` trains a head on features in memory.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.train.data import Labelled, load_clips, open_stores
    from ser_embed.train.experiment import Experiment, Fitted
    from ser_embed.train.loop import fit_tensor
    from ser_embed.train.options import TrainConfig
    from ser_embed.train.training import train
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "data": ["Labelled", "load_clips", "open_stores"],
            "experiment": ["Experiment", "Fitted"],
            "loop": ["fit_tensor"],
            "options": ["TrainConfig"],
            "training": ["train"],
        },
    )

__all__ = [
    "Experiment", "Fitted", "Labelled", "TrainConfig", "fit_tensor", "load_clips", "open_stores",
    "train",
]  # fmt: skip
