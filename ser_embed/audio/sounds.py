"""What every library that decodes is used as."""

from typing import Protocol

import numpy as np

__all__ = ["Sound", "read_away"]


class Sound(Protocol):
    """A file that is being decoded.

    Attributes:
        rate: Samples per second.
        channels: Channels.
        stated: Length in samples by the header, None if only its end tells.
    """

    rate: int
    channels: int
    stated: int | None

    def skip(self, n: int) -> int:
        """Leave out the first `n` samples, before anything is read; return how many there were."""

    def read(self, n: int) -> np.ndarray:
        """Return the next `n` samples, float32 (n, n_channels); fewer at the end alone."""


def read_away(sound: Sound, n: int) -> int:
    """Read the next `n` samples and forget them; return how many there were."""
    done = 0
    while done < n and (found := len(sound.read(min(n - done, sound.rate)))):
        done += found
    return done
