"""An encoder and a classifier trained end to end, from waveforms to log-probabilities.

`finetune` does it on a corpus by a recipe, as `FinetuneConfig` says, and gives the folder of a run.
`load_network` reads a trained `Network` back: waveforms float32 (n_samples,) at 16 kHz in,
log-probabilities float32 (B, C) out; `is_network` tells its card from a head's. `Recordings` are
the labelled clips of a corpus as audio.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.finetune.network import Network, is_network, load_network
    from ser_embed.finetune.options import FinetuneConfig
    from ser_embed.finetune.recordings import Recordings
    from ser_embed.finetune.tuning import finetune
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "network": ["Network", "is_network", "load_network"],
            "options": ["FinetuneConfig"],
            "recordings": ["Recordings"],
            "tuning": ["finetune"],
        },
    )

__all__ = [
    "FinetuneConfig", "Network", "Recordings", "finetune", "is_network", "load_network",
]  # fmt: skip
