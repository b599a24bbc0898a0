"""Stage 1: every clip of a corpus is encoded once and its features kept."""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.extract.encoding import LISTED_FAULTS, spread
    from ser_embed.extract.reading import Readers
    from ser_embed.extract.stage import ExtractConfig, extract, extract_listing
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "encoding": ["LISTED_FAULTS", "spread"],
            "reading": ["Readers"],
            "stage": ["ExtractConfig", "extract", "extract_listing"],
        },
    )

__all__ = ["LISTED_FAULTS", "ExtractConfig", "Readers", "extract", "extract_listing", "spread"]
