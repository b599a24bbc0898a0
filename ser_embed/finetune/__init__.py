"""An encoder and a classifier trained end to end."""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.finetune.network import Network, count_parameters, is_network, load_network
    from ser_embed.finetune.recordings import Recordings, read_recordings
    from ser_embed.finetune.stage import FinetuneConfig, finetune
    from ser_embed.finetune.tuning import score_clips
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "network": ["Network", "count_parameters", "is_network", "load_network"],
            "recordings": ["Recordings", "read_recordings"],
            "stage": ["FinetuneConfig", "finetune"],
            "tuning": ["score_clips"],
        },
    )

__all__ = [
    "FinetuneConfig",
    "Network",
    "Recordings",
    "count_parameters",
    "finetune",
    "is_network",
    "load_network",
    "read_recordings",
    "score_clips",
]
