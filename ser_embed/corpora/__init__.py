"""Which clips there are and what is said of each: corpora, tables of clips, label schemes."""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.corpora.folders import discover, listing_of, read_corpus, read_demo
    from ser_embed.corpora.labels import SCHEMES, LabelScheme, load_scheme
    from ser_embed.corpora.naming import CORPORA, Utterance, recognise
    from ser_embed.corpora.tables import DEMO, Listing, read_csv
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "folders": ["discover", "listing_of", "read_corpus", "read_demo"],
            "labels": ["LabelScheme", "SCHEMES", "load_scheme"],
            "naming": ["CORPORA", "Utterance", "recognise"],
            "tables": ["DEMO", "Listing", "read_csv"],
        },
    )

__all__ = [
    "CORPORA",
    "DEMO",
    "SCHEMES",
    "LabelScheme",
    "Listing",
    "Utterance",
    "discover",
    "listing_of",
    "load_scheme",
    "read_corpus",
    "read_csv",
    "read_demo",
    "recognise",
]
