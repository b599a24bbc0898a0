"""The feature store: one HDF5 file per corpus and settings, which survives being killed.

`FeatureSettings` is what features depend on besides the audio; its key names the file. A
`StoreWriter` adds `EncodedClip`s, a `ClipRow` each with features float16 or float32 (T, D),
(L, T, D) or pooled (L, D); a `FeatureStore` reads the table and the features. A row whose state is
`LEFT_OUT` says what another file has already. `PARTIAL` ends the name of an unfinished store.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.store.reader import PARTIAL, FeatureStore
    from ser_embed.store.settings import FeatureSettings
    from ser_embed.store.table import LEFT_OUT, ClipRow, EncodedClip
    from ser_embed.store.writer import StoreWriter
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "reader": ["PARTIAL", "FeatureStore"],
            "settings": ["FeatureSettings"],
            "table": ["LEFT_OUT", "ClipRow", "EncodedClip"],
            "writer": ["StoreWriter"],
        },
    )

__all__ = [
    "LEFT_OUT", "PARTIAL", "ClipRow", "EncodedClip", "FeatureSettings", "FeatureStore",
    "StoreWriter",
]  # fmt: skip
