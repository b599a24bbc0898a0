"""The classifiers on cached features, and the format of their checkpoints.

`build_head` makes a kind of `HEADS` for features of one clip's shape, (T, D), (L, T, D) or pooled
(L, D): a module from features float32 (B, ...) and valid frames int64 (B,) to log-probabilities
(B, C). `save_head`, `load_head` and `read_card` are its folder: weights and `card.json`, which says
what builds the head again and what its features are; `calibrated` turns log-probabilities into
probabilities at the card's temperature. `assemble` needs torch alone: exported folders build heads
by it. `HeadSpec` describes a head of your own.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.heads.checkpoint import (
        build_head,
        calibrated,
        load_head,
        read_card,
        save_head,
    )
    from ser_embed.heads.kinds import HEADS, HeadSpec
    from ser_embed.heads.networks import assemble
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "checkpoint": ["build_head", "calibrated", "load_head", "read_card", "save_head"],
            "kinds": ["HEADS", "HeadSpec"],
            "networks": ["assemble"],
        },
    )

__all__ = [
    "HEADS", "HeadSpec", "assemble", "build_head", "calibrated", "load_head", "read_card",
    "save_head",
]  # fmt: skip
