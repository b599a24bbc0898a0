"""The classifiers on cached features, and the format of their checkpoints."""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.heads.checkpoint import (
        HEADS,
        build_head,
        calibrated,
        check_weights,
        default_head,
        load_head,
        read_card,
        save_head,
        write_card,
    )
    from ser_embed.heads.networks import (
        CnnHead,
        ConvHead,
        Ensemble,
        LayersHead,
        MlpHead,
        StatsHead,
        TemporalHead,
    )
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "checkpoint": [
                "HEADS",
                "build_head",
                "calibrated",
                "check_weights",
                "default_head",
                "load_head",
                "read_card",
                "save_head",
                "write_card",
            ],
            "networks": [
                "CnnHead",
                "ConvHead",
                "Ensemble",
                "LayersHead",
                "MlpHead",
                "StatsHead",
                "TemporalHead",
            ],
        },
    )

__all__ = [
    "HEADS",
    "CnnHead",
    "ConvHead",
    "Ensemble",
    "LayersHead",
    "MlpHead",
    "StatsHead",
    "TemporalHead",
    "build_head",
    "calibrated",
    "check_weights",
    "default_head",
    "load_head",
    "read_card",
    "save_head",
    "write_card",
]
