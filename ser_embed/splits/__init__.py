"""Who is trained on and who is tested, and the audit of it."""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.splits.rules import SPLITS, Split, audit, make_splits, rotations
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "rules": ["SPLITS", "Split", "audit", "make_splits", "rotations"],
        },
    )

__all__ = ["SPLITS", "Split", "audit", "make_splits", "rotations"]
