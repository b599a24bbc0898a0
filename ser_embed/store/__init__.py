"""The feature store: one HDF5 file per corpus and settings."""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.store.builder import EncodedClip
    from ser_embed.store.index import IndexWriter
    from ser_embed.store.reader import FeatureStore, find_stores, store_path
    from ser_embed.store.settings import FeatureSettings
    from ser_embed.store.sharding import Shard, ShardFolder, read_shard, shard_name, write_shard
    from ser_embed.store.table import STORED, ClipRow, Identity, values_of
    from ser_embed.store.writer import StoreWriter, row_of
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "builder": ["EncodedClip"],
            "index": ["IndexWriter"],
            "reader": ["FeatureStore", "find_stores", "store_path"],
            "settings": ["FeatureSettings"],
            "sharding": ["Shard", "ShardFolder", "read_shard", "shard_name", "write_shard"],
            "table": ["ClipRow", "Identity", "STORED", "values_of"],
            "writer": ["StoreWriter", "row_of"],
        },
    )

__all__ = [
    "STORED",
    "ClipRow",
    "EncodedClip",
    "FeatureSettings",
    "FeatureStore",
    "Identity",
    "IndexWriter",
    "Shard",
    "ShardFolder",
    "StoreWriter",
    "find_stores",
    "read_shard",
    "row_of",
    "shard_name",
    "store_path",
    "values_of",
    "write_shard",
]
