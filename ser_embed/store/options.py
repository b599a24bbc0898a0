"""Options of `python -m ser_embed.store`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ser_embed.command import Options

__all__ = ["StoreConfig"]


@dataclass(frozen=True)
class StoreConfig(Options):
    """Say what a feature store holds."""

    file: Annotated[Path, tyro.conf.Positional]
    """The store."""
    verify: bool = False
    """Read every clip and compare it with its checksum."""
