"""Which clips there are and what is known of each.

`listing_of` takes a folder and a corpus's name, or a CSV, and gives a `Listing`: one `Utterance`
(path, speaker, gender, emotion, ...) a clip, and the files that can't be placed, with the reason.
`discover` lists every known corpus under a folder, `recognise` reads one file's name. `CORPORA`
are the naming rules by corpus. A `LabelScheme` turns emotions into class indices; `SCHEMES` are
the known ones. What can't be used is a CorpusError or LabelError that says why.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.corpora.labels import SCHEMES, LabelScheme
    from ser_embed.corpora.listing import Listing, discover, listing_of
    from ser_embed.corpora.naming import CORPORA, Utterance, recognise
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "labels": ["SCHEMES", "LabelScheme"],
            "listing": ["Listing", "discover", "listing_of"],
            "naming": ["CORPORA", "Utterance", "recognise"],
        },
    )

__all__ = [
    "CORPORA", "SCHEMES", "LabelScheme", "Listing", "Utterance", "discover", "listing_of",
    "recognise",
]  # fmt: skip
