"""Stage 1: from a corpus's clips to a store of their features, each clip encoded once.

`extract` takes the options of the command (`ExtractConfig`) and returns its outcome;
`extract_listing` takes one corpus and a loaded encoder and returns the counts and the store's
path. `Readers` are the processes that read clips: utterances in, waveforms float32 (n_samples,)
at 16 kHz or a reason out. `spread` takes some clips at even distances, and no more than
`LISTED_FAULTS` failed clips are named one by one.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.extract.corpus import extract, extract_listing
    from ser_embed.extract.encoding import LISTED_FAULTS, spread
    from ser_embed.extract.options import ExtractConfig
    from ser_embed.extract.reading import Readers
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "corpus": ["extract", "extract_listing"],
            "encoding": ["LISTED_FAULTS", "spread"],
            "options": ["ExtractConfig"],
            "reading": ["Readers"],
        },
    )

__all__ = ["LISTED_FAULTS", "ExtractConfig", "Readers", "extract", "extract_listing", "spread"]
