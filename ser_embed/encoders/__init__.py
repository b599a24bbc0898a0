"""Frozen speech encoders: from waveforms to hidden states, normalised and pooled."""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.encoders.backends import BackendName, Precision, TorchBackend
    from ser_embed.encoders.checkpoints import ENCODERS, fingerprint, load_checkpoint
    from ser_embed.encoders.frozen import (
        Encoder,
        count_frames,
        load_encoder,
        pad_batch,
        unit_variance,
    )
    from ser_embed.encoders.graph import Graph, HiddenStates
    from ser_embed.encoders.postprocess import Layer, Norm, Pool, denormalise, normalise
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "backends": ["BackendName", "Precision", "TorchBackend"],
            "checkpoints": ["ENCODERS", "fingerprint", "load_checkpoint"],
            "frozen": ["Encoder", "count_frames", "load_encoder", "pad_batch", "unit_variance"],
            "graph": ["Graph", "HiddenStates"],
            "postprocess": ["Layer", "Norm", "Pool", "denormalise", "normalise"],
        },
    )

__all__ = [
    "ENCODERS",
    "BackendName",
    "Encoder",
    "Graph",
    "HiddenStates",
    "Layer",
    "Norm",
    "Pool",
    "Precision",
    "TorchBackend",
    "count_frames",
    "denormalise",
    "fingerprint",
    "load_checkpoint",
    "load_encoder",
    "normalise",
    "pad_batch",
    "unit_variance",
]
