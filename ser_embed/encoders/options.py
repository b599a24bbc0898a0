"""Options of `python -m ser_embed.encoders`."""

from dataclasses import dataclass

from ser_embed.command import Options

__all__ = ["EncodersConfig"]


@dataclass(frozen=True)
class EncodersConfig(Options):
    """List the encoders that have a name: size, layers, licence, where from, if here."""
