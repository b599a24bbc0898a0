"""Several channels at any rate to one at 16 kHz: whole, or block by block.

Windowed-sinc interpolation with a Hann window (torchaudio), which filters before it decimates.
torch is imported when something has to be resampled, not before.
"""

from fractions import Fraction
from math import ceil
from typing import ClassVar

import numpy as np

from ser_embed.audio.cutting import SAMPLE_RATE

__all__ = ["Resampler", "resample", "to_mono"]

_MAX_DENOMINATOR = 1000  # of the ratio between two sampling rates, see `_ratio`


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Average the channels: (n_samples,) or (n_samples, n_channels) -> (n_samples,) float32."""
    if samples.ndim == 1:
        return np.ascontiguousarray(samples, dtype=np.float32)
    return samples.mean(axis=1, dtype=np.float64).astype(np.float32)


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Resample mono float32 samples of shape (n_samples,) from `rate` to 16 kHz.

    Returns:
        float32 of shape (ceil(n_samples * 16000 / rate),), at most 0.05 % shorter for a rate
        whose ratio to 16 kHz is rounded.
    """
    if rate == SAMPLE_RATE or not len(samples):
        return samples
    import torch
    import torchaudio.functional

    ratio = _ratio(rate)
    resampled = torchaudio.functional.resample(
        torch.from_numpy(samples), ratio.numerator, ratio.denominator
    )
    return resampled.numpy()[: -(-len(samples) * SAMPLE_RATE // rate)]


def _ratio(rate: int) -> Fraction:
    # The filter is a table of as many rows as the ratio's denominator: TESS's 24,414 Hz is
    # 12207/8000, 2 GB and 5 s a clip. 1091/715 is within 1e-6 of it, the usual rates are exact.
    return Fraction(rate, SAMPLE_RATE).limit_denominator(_MAX_DENOMINATOR)


class Resampler:
    """From sound at `rate` Hz to mono float32 at 16 kHz, whole or block by block.

    Blocks of any length give together what the whole would. A few milliseconds are held back,
    because the filter looks to both sides of a sample.
    """

    METHOD: ClassVar[str] = "torchaudio.sinc_interp_hann.v1"  # part of a store's key

    def __init__(self, rate: int) -> None:
        self.rate, self.ratio = rate, _ratio(rate)
        # A cycle is the time after which a sample of the stream and one at 16 kHz coincide.
        reach = 8 / min(rate, SAMPLE_RATE)  # seconds; the filter has six zero crossings a side
        self.margin = ceil(reach * rate / self.ratio.numerator)  # in cycles
        self._held = np.empty(0, dtype=np.float32)
        self._given = 0  # cycles at the start of what is held that have been handed out

    def whole(self, samples: np.ndarray) -> np.ndarray:
        """Convert all of a sound, (n,) or (n, n_channels), by itself; the stream isn't touched."""
        return resample(to_mono(samples), self.rate)

    def push(self, block: np.ndarray) -> np.ndarray:
        """Add the next block, (n,) or (n, n_channels), and return what it completes at 16 kHz."""
        mono = to_mono(block)
        if self.rate == SAMPLE_RATE:
            return mono
        self._held = np.concatenate([self._held, mono])
        ready = len(self._held) // self.ratio.numerator - self.margin
        if ready <= self._given:
            return np.empty(0, dtype=np.float32)
        resampled = resample(self._held, self.rate)
        resampled = resampled[self._given * self.ratio.denominator :]
        resampled = resampled[: (ready - self._given) * self.ratio.denominator]
        forget = max(0, ready - self.margin)
        self._held = self._held[forget * self.ratio.numerator :]
        self._given = ready - forget
        return resampled

    def finish(self) -> np.ndarray:
        """Return what is left."""
        return resample(self._held, self.rate)[self._given * self.ratio.denominator :]
