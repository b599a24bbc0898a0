"""Frozen speech encoders: float32 waveforms at 16 kHz in, hidden states out.

`load_encoder` loads one by a key of `ENCODERS`, a hub id or a folder. An `Encoder` gives hidden
states float32 (L, T, D) a clip, or features: normalised to [-1, 1] (`Norm`), pooled over time
(`Pool`), of one `Layer` (T, D), of all (L, T, D), or pooled (L, D). `Graph` does the same with
the heads behind it as one torch module, for exports.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.encoders.frozen import Encoder, load_encoder
    from ser_embed.encoders.graph import Graph
    from ser_embed.encoders.registry import ENCODERS, BackendName, Layer, Norm, Pool
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "frozen": ["Encoder", "load_encoder"],
            "graph": ["Graph"],
            "registry": ["ENCODERS", "BackendName", "Layer", "Norm", "Pool"],
        },
    )

__all__ = ["ENCODERS", "BackendName", "Encoder", "Graph", "Layer", "Norm", "Pool", "load_encoder"]
