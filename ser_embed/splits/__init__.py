"""Who is trained on and who is tested, and the audit of it.

`make_splits` takes the table of usable clips (one row a clip) and a rule's name, a key of
`SPLITS`, and gives one `Split` a fold: row numbers of its training, validation and test part.
`rotations` gives the splits of an ensemble; `audit` counts what a test part shares with training,
`overlap` what any two tables of clips do, `contents_of` says which clips are the same sound.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.splits.names import SPLITS
    from ser_embed.splits.people import Split, audit, contents_of, overlap
    from ser_embed.splits.rules import make_splits, rotations
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "names": ["SPLITS"],
            "people": ["Split", "audit", "contents_of", "overlap"],
            "rules": ["make_splits", "rotations"],
        },
    )

__all__ = [
    "SPLITS", "Split", "audit", "contents_of", "make_splits", "overlap", "rotations",
]  # fmt: skip
