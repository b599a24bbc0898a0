"""Several channels at any rate to one at 16 kHz: whole, or block by block.

Windowed-sinc interpolation with a Hann window, which filters before it decimates: torchaudio's
`sinc_interp_hann` with its defaults, tap for tap, in numpy, so that reading needs no torch.
"""

import functools
from fractions import Fraction
from math import ceil
from typing import ClassVar

import numpy as np

from ser_embed.audio.cutting import SAMPLE_RATE

__all__ = ["Resampler", "resample", "to_mono"]

_MAX_DENOMINATOR = 1000  # of the ratio between two sampling rates, see `_ratio`
_ZERO_CROSSINGS = 6  # of the sinc, on either side
_ROLL_OFF = 0.99  # cut-off, as a part of the lower Nyquist frequency
_CANCELLED = 0.1  # of the power that unrelated channels would leave in their mean
_CHUNK = 1 << 20  # values of overlapping windows that are laid out at a time


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Average the channels: (n_samples,) or (n_samples, n_channels) -> (n_samples,) float32.

    Of channels that cancel, as when one side is wired in reverse, one alone is taken: the first,
    or another that is much louder.
    """
    return _mix(samples)[0]


def _mix(samples: np.ndarray, preferred: int | None = None) -> tuple[np.ndarray, int | None]:
    """Do `to_mono`; also return the channel that was taken alone, `preferred` if it may be."""
    if samples.ndim == 1:
        return np.ascontiguousarray(samples, dtype=np.float32), preferred
    mono = samples.mean(axis=1, dtype=np.float64)
    if samples.shape[1] > 1 and len(samples):
        powers = samples.var(axis=0, dtype=np.float64)
        # Unrelated channels, or one alone, leave 1/n of the mean power; two left with a tenth
        # of that are correlated by less than -0.9.
        if mono.var() < _CANCELLED * powers.mean() / samples.shape[1]:
            preferred = preferred or 0
            if powers[preferred] < powers.max() / 2:
                preferred = int(powers.argmax())
            mono = samples[:, preferred]
    return mono.astype(np.float32), preferred


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Resample mono float32 samples of shape (n_samples,) from `rate` to 16 kHz.

    Returns:
        float32 of shape (ceil(n_samples * 16000 / rate),), at most 0.05 % shorter for a rate
        whose ratio to 16 kHz is rounded.
    """
    if rate == SAMPLE_RATE or not len(samples):
        return samples
    ratio = _ratio(rate)
    filters, step, reach = _filters(ratio)
    n_taps, n_outputs = filters.shape
    padded = np.pad(samples, (reach, n_taps))
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_taps)[::step]
    resampled = np.empty((len(windows), n_outputs), dtype=np.float32)
    at_once = max(1, _CHUNK // n_taps)
    for i in range(0, len(windows), at_once):
        np.matmul(windows[i : i + at_once], filters, out=resampled[i : i + at_once])
    wanted = min(ceil(len(samples) / ratio), -(-len(samples) * SAMPLE_RATE // rate))
    return resampled.reshape(-1)[:wanted]


@functools.lru_cache(maxsize=16)
def _filters(ratio: Fraction) -> tuple[np.ndarray, int, int]:
    """Return the filters (n_taps, n_outputs) of a window, its step and its reach to the left.

    A window covers as many cycles of the ratio as its filters are long, or each sample would
    be laid out many times: 41 taps every 3 samples from 48 kHz.
    """
    step, phases = ratio.numerator, ratio.denominator
    cut_off = min(step, phases) * _ROLL_OFF
    reach = ceil(_ZERO_CROSSINGS * step / cut_off)
    # In float32 and in torchaudio's order, so that the taps are the same but for rounding.
    taps = np.arange(-reach, reach + step, dtype=np.float32)[:, None] / np.float32(step)
    shifts = np.arange(0, -phases, -1, dtype=np.float32)[None] / np.float32(phases)
    time = (shifts + taps) * np.float32(cut_off)
    time = np.clip(time, -_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    window = np.cos(time * np.float32(np.pi) / np.float32(_ZERO_CROSSINGS * 2)) ** 2
    time = time * np.float32(np.pi)
    sinc = np.divide(np.sin(time), time, out=np.ones_like(time), where=time != 0)
    cycle = sinc * window * np.float32(cut_off / step)
    n_cycles = len(cycle) // step
    filters = np.zeros((len(cycle) + (n_cycles - 1) * step, n_cycles * phases), dtype=np.float32)
    for i in range(n_cycles):
        filters[i * step : i * step + len(cycle), i * phases : (i + 1) * phases] = cycle
    return filters, n_cycles * step, reach


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
        self._channel: int | None = None  # taken alone, where channels cancel
        self._pushed = self._returned = 0  # samples, in and out
        self._given = 0  # cycles at the start of what is held that have been handed out

    def whole(self, samples: np.ndarray) -> np.ndarray:
        """Convert all of a sound, (n,) or (n, n_channels), by itself; the stream isn't touched."""
        return resample(to_mono(samples), self.rate)

    def push(self, block: np.ndarray) -> np.ndarray:
        """Add the next block, (n,) or (n, n_channels), and return what it completes at 16 kHz."""
        mono, self._channel = _mix(block, self._channel)
        if self.rate == SAMPLE_RATE:
            return mono
        self._pushed += len(mono)
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
        self._returned += len(resampled)
        return resampled

    def finish(self) -> np.ndarray:
        """Return what is left."""
        rest = resample(self._held, self.rate)[self._given * self.ratio.denominator :]
        return rest[: max(0, -(-self._pushed * SAMPLE_RATE // self.rate) - self._returned)]
