"""Low-level descriptors of speech, frame by frame, on the frames of a wav2vec2 encoder.

What openSMILE's sets describe (Eyben et al. 2016, GeMAPS): loudness, pitch, voicing, spectral
balance, and how they move. Written in torch, batched, so that they can be computed on the fly
as the targets of a pre-training (PASE, Pascual et al. 2019).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torchaudio.functional
from torch import Tensor
from torch.nn import functional as F

from ser_embed.audio import SAMPLE_RATE

__all__ = ["FRAME_NAMES", "Descriptors", "describe", "functionals", "shift"]

HOP = 320  # samples between an encoder's frames: 20 ms
_RECEPTIVE = 400  # receptive field of one frame of the encoder, in samples
_SPECTRUM = 512  # window of the spectrum in samples, 32 ms
_PITCH = 1024  # window of the pitch in samples: 64 ms hold four periods of 62 Hz
_LAGS = SAMPLE_RATE // 500, SAMPLE_RATE // 60  # pitch between 60 and 500 Hz
_N_MELS = 40
_PITCH_BAND = 1500  # Hz; what lies above moves too fast for whole lags and costs octaves
_VOICED = 0.45  # normalised autocorrelation at which a frame counts as voiced (Praat's default)
_FLOOR = 1e-6  # of powers, under unit-variance input: -60 dB

_PROSODY = (
    "log_energy", "voicing", "log_f0", "h1_h2", "slope_0_500", "slope_500_1500", "alpha_ratio",
    "hammarberg", "centroid", "flatness", "flux", "delta_log_f0", "delta_energy",
    "energy_std_0.5s", "flux_mean_0.5s", "voiced_share_1s", "log_f0_mean_1s", "log_f0_std_1s",
)  # fmt: skip
_NEEDS_VOICE = ("log_f0", "h1_h2", "delta_log_f0", "log_f0_mean_1s", "log_f0_std_1s")

FRAME_NAMES: tuple[str, ...] = tuple(f"log_mel_{k}" for k in range(_N_MELS)) + _PROSODY
"""Names of the columns of `Descriptors.values`."""


@dataclass(frozen=True)
class Descriptors:
    """Descriptors of a batch.

    Attributes:
        values: float32 (B, T, D), columns as in `FRAME_NAMES`; one row for every 20 ms.
        known: bool (B, T, D); False where a value has no meaning, as pitch without voice.
    """

    values: Tensor
    known: Tensor


def describe(waves: Tensor, lengths: Tensor) -> Descriptors:
    """Compute the descriptors of a batch of clips.

    Args:
        waves: float32 (B, n_samples) at 16 kHz, about unit variance, zeros behind a clip.
        lengths: Samples of each clip, int64 (B,).

    Returns:
        T is the number of frames that wav2vec2's convolutions make of n_samples; a column is
        known only in a clip's own frames.
    """
    n_frames = (waves.shape[1] - _RECEPTIVE) // HOP + 1
    power = _power(waves, n_frames)
    mel = (power @ _mel_bank().to(power)).clamp_min(_FLOOR).log()
    voicing, log_f0 = _pitch(waves, n_frames)
    own = torch.arange(n_frames, device=waves.device) * HOP + _RECEPTIVE <= lengths[:, None]
    voiced = (voicing > _VOICED) & own
    columns = _spectral(power) | {"voicing": voicing, "log_f0": log_f0}
    columns["h1_h2"] = _h1_h2(power, log_f0)
    columns |= _moving(columns, mel, voiced, own)
    values = torch.cat([mel, torch.stack([columns[name] for name in _PROSODY], -1)], -1)
    needs = torch.tensor([name in _NEEDS_VOICE for name in FRAME_NAMES], device=waves.device)
    known = own[..., None] & (voiced[..., None] | ~needs)
    return Descriptors(values, known)


def functionals(descriptors: Descriptors) -> Tensor:
    """Return mean and standard deviation of every column over a clip's known frames, (B, 2 D)."""
    weight = descriptors.known.float()
    count = weight.sum(1).clamp_min(1)
    mean = (descriptors.values * weight).sum(1) / count
    squares = ((descriptors.values - mean[:, None]) ** 2 * weight).sum(1) / count
    return torch.cat([mean, squares.clamp_min(1e-8).sqrt()], -1)


def _frames(waves: Tensor, size: int, n_frames: int) -> Tensor:
    """Cut windows of `size` samples around the encoder's frames: (B, T, size)."""
    before = (size - _RECEPTIVE) // 2
    after = (n_frames - 1) * HOP + size - before - waves.shape[1]
    return F.pad(waves, (before, max(0, after))).unfold(1, size, HOP)[:, :n_frames]


@lru_cache(maxsize=1)
def _mel_bank() -> Tensor:
    return torchaudio.functional.melscale_fbanks(
        _SPECTRUM // 2 + 1, 50.0, SAMPLE_RATE / 2, _N_MELS, SAMPLE_RATE
    )


def _power(waves: Tensor, n_frames: int) -> Tensor:
    window = torch.hann_window(_SPECTRUM, device=waves.device)
    frames = _frames(waves, _SPECTRUM, n_frames) * window
    return torch.fft.rfft(frames).abs() ** 2 / window.square().sum()


def _hertz(power: Tensor) -> Tensor:
    return torch.linspace(0, SAMPLE_RATE / 2, power.shape[-1], device=power.device)


def _spectral(power: Tensor) -> dict[str, Tensor]:
    """Energy and the spectrum's balance, as GeMAPS defines them; each (B, T)."""
    log = power.clamp_min(_FLOOR).log()
    hertz = _hertz(power)

    def band(low: float, high: float) -> Tensor:
        return (hertz >= low) & (hertz < high)

    def level(low: float, high: float) -> Tensor:
        return power[..., band(low, high)].sum(-1).clamp_min(_FLOOR).log()

    def slope(low: float, high: float) -> Tensor:
        x = hertz[band(low, high)]
        x = (x - x.mean()) / 1000
        return (log[..., band(low, high)] * x).sum(-1) / x.square().sum()

    share = power / power.sum(-1, keepdim=True).clamp_min(_FLOOR)
    peak_low = log[..., band(50, 2000)].amax(-1)
    peak_high = log[..., band(2000, 5000)].amax(-1)
    return {
        "log_energy": level(50, SAMPLE_RATE),
        "slope_0_500": slope(50, 500),
        "slope_500_1500": slope(500, 1500),
        "alpha_ratio": level(50, 1000) - level(1000, 5000),
        "hammarberg": peak_low - peak_high,
        "centroid": (share * hertz).sum(-1) / 1000,
        "flatness": log.mean(-1) - power.mean(-1).clamp_min(_FLOOR).log(),
    }


def _pitch(waves: Tensor, n_frames: int) -> tuple[Tensor, Tensor]:
    """Voicing strength and log pitch by the normalised autocorrelation (Boersma 1993)."""
    window = torch.hann_window(_PITCH, device=waves.device)
    frames = _frames(waves, _PITCH, n_frames)
    frames = (frames - frames.mean(-1, keepdim=True)) * window
    low, high = _LAGS

    def correlation(x: Tensor, highest: float = SAMPLE_RATE) -> Tensor:
        spectrum = torch.fft.rfft(x, 2 * _PITCH).abs() ** 2
        spectrum = spectrum * (_hertz(spectrum) <= highest)
        return torch.fft.irfft(spectrum)[..., : high + 2]

    raw = correlation(frames, _PITCH_BAND)
    normal = raw / (raw[..., :1] + _FLOOR * _PITCH) / (correlation(window) / window.square().sum())
    lags = torch.arange(low, high + 1, device=waves.device)
    # A slight cost of long lags, as every multiple of the period correlates as well as itself.
    score = normal[..., low : high + 1] - 0.02 * torch.log2(lags / low)
    best = score.argmax(-1) + low
    # Where the lag of a window's best match moves by less than a sample: a parabola through it.
    around = torch.stack([best - 1, best, best + 1], -1)
    left, mid, right = normal.gather(-1, around).unbind(-1)
    offset = (left - right) / (2 * (left - 2 * mid + right)).clamp_max(-1e-4)
    lag = best + offset.clamp(-0.5, 0.5)
    return mid.clamp(0, 1), torch.log(SAMPLE_RATE / lag)


def _h1_h2(power: Tensor, log_f0: Tensor) -> Tensor:
    """Level of the first harmonic over the second: breathy voices have a strong first."""
    bins = log_f0.exp() * (power.shape[-1] - 1) / (SAMPLE_RATE / 2)
    log = power.clamp_min(_FLOOR).log()

    def harmonic(k: int) -> Tensor:
        near = (bins * k).round().long().clamp(1, power.shape[-1] - 2)
        return log.gather(-1, torch.stack([near - 1, near, near + 1], -1)).amax(-1)

    return harmonic(1) - harmonic(2)


def shift(values: Tensor, frames: int) -> Tensor:
    """Bring what lies `frames` later here, zeros where nothing does: (B, T, ...) alike."""
    n_zeros = abs(frames)
    padded = F.pad(values, (0, 0) * (values.dim() - 2) + (n_zeros, n_zeros))
    return padded[:, n_zeros + frames :][:, : values.shape[1]]


def _average(values: Tensor, weight: Tensor, frames: int) -> Tensor:
    """Weighted moving average over `frames` frames, (B, T)."""

    def total(x: Tensor) -> Tensor:
        return F.avg_pool1d(F.pad(x, (frames // 2, frames // 2)), frames + 1 - frames % 2, 1)

    return total(values * weight) / total(weight).clamp_min(1e-4)


def _moving(
    columns: dict[str, Tensor], mel: Tensor, voiced: Tensor, own: Tensor
) -> dict[str, Tensor]:
    """How pitch, energy and spectrum move: over neighbours, half a second, a second."""
    own, voiced = own.float(), voiced.float()
    energy, log_f0 = columns["log_energy"], columns["log_f0"]
    flux = F.pad((mel[:, 1:] - mel[:, :-1]).abs().mean(-1), (1, 0))

    def slope(x: Tensor, weight: Tensor) -> Tensor:
        after = _average(shift(x, 3), shift(weight, 3), 3)
        before = _average(shift(x, -3), shift(weight, -3), 3)
        return (after - before) * (shift(weight, 3) * shift(weight, -3))  # a slope has two sides

    def spread(x: Tensor, weight: Tensor, frames: int) -> Tensor:
        mean, square = _average(x, weight, frames), _average(x.square(), weight, frames)
        return (square - mean.square()).clamp_min(1e-6).sqrt()

    # Beyond an octave a pitch slope is an octave error.
    return {
        "flux": flux,
        "delta_log_f0": slope(log_f0, voiced).clamp(-math.log(2), math.log(2)),
        "delta_energy": slope(energy, own),
        "energy_std_0.5s": spread(energy, own, 25),
        "flux_mean_0.5s": _average(flux, own, 25),
        "voiced_share_1s": _average(voiced, own, 50),
        "log_f0_mean_1s": _average(log_f0, voiced, 50),
        "log_f0_std_1s": spread(log_f0 - math.log(150), voiced, 50),
    }
