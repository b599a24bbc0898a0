"""Options of `python -m ser_embed.corpora`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ser_embed.command import Options

__all__ = ["CorporaConfig"]


@dataclass(frozen=True)
class CorporaConfig(Options):
    """Print what a corpus holds: clips, hours, speakers, emotions, duplicates, faults."""

    root: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the corpus."""
    corpus: str = ""
    """Which corpus the folder holds: ravdess, ravdess-song, tess, urdu, crema-d, emo-db, savee,
    nemo, or demo, which needs no folder."""
    csv: Path | None = None
    """A CSV with the header path,emotion[,speaker,gender,intensity,split,start,end], instead of a
    folder."""
