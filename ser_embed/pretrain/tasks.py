"""What an encoder is pre-trained to predict; `pretraining.py` has the sources.

Targets are descriptors of the clean signal, standardised, and clusters of them.
"""

import math
from dataclasses import dataclass

import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.nn import functional as F

from ser_embed.pretrain.descriptors import FRAME_NAMES, Descriptors, describe, functionals, shift
from ser_embed.pretrain.options import PretrainConfig
from ser_embed.pretrain.speech import Batch, Speech, draw_batch

__all__ = ["Scales", "Tasks"]

N_UNITS = 128  # clusters of each kind
SAMPLE_BATCHES = 64  # batches that the targets' scales and clusters are taken from
_CONTEXT = (-8, -4, 0, 4, 8)  # frames whose prosody makes a unit: a third of a second


@dataclass
class Scales:
    """Means and spreads of the targets and centres of the units, taken before the first step."""

    frame_mean: Tensor
    frame_std: Tensor
    clip_mean: Tensor
    clip_std: Tensor
    spectral_units: Tensor
    prosodic_units: Tensor

    @classmethod
    def measure(cls, speech: Speech, config: PretrainConfig) -> "Scales":
        """Take them from the first batches."""
        batches = (draw_batch(speech, config, step) for step in range(SAMPLE_BATCHES))
        found = [describe(batch.clean, batch.lengths) for batch in batches]
        values = torch.cat([one.values for one in found])
        known = torch.cat([one.known for one in found])
        own = known[..., 0]
        table = torch.where(known, values, torch.nan)[own]
        mean = table.nanmean(0)
        std = (table - mean).square().nanmean(0).sqrt().clamp_min(1e-3)
        clip = torch.cat([functionals(one) for one in found])
        scaled = scale_frames(Descriptors(values, known), mean, std)
        return cls(
            mean, std, clip.mean(0), clip.std(0).clamp_min(1e-3),
            _centres(_spectral_view(scaled)[own], config.seed),
            _centres(_prosody_view(scaled)[own], config.seed),
        )  # fmt: skip


def scale_frames(found: Descriptors, mean: Tensor, std: Tensor) -> Tensor:
    """Standardise, cut beyond 4 standard deviations; zero where unknown. (B, T, D)."""
    return (((found.values - mean) / std).clamp(-4, 4)) * found.known


def _spectral_view(scaled: Tensor) -> Tensor:
    """13 cepstral coefficients of the standardised log-mel, and their slopes: (B, T, 26)."""
    mel = scaled[..., :40]
    k, n = torch.arange(13.0, device=mel.device), torch.arange(40.0, device=mel.device)
    cosines = torch.cos(torch.pi / 40 * (n[:, None] + 0.5) * k)
    cepstrum = mel @ cosines / math.sqrt(20)
    slope = shift(cepstrum, 2) - shift(cepstrum, -2)
    return torch.cat([cepstrum, slope], -1)


def _prosody_view(scaled: Tensor) -> Tensor:
    """Energy, voicing, pitch and balance, here and up to 160 ms around: (B, T, 25)."""
    names = ("log_energy", "voicing", "log_f0", "slope_0_500", "alpha_ratio")
    core = scaled[..., [FRAME_NAMES.index(name) for name in names]]
    return torch.cat([shift(core, k) for k in _CONTEXT], -1)


def _centres(rows: Tensor, seed: int) -> Tensor:
    means = MiniBatchKMeans(N_UNITS, batch_size=4096, n_init=3, random_state=seed)
    return torch.from_numpy(means.fit(rows.cpu().numpy()).cluster_centers_).float()


class Tasks(nn.Module):
    """What is learnt from an encoder's hidden states; thrown away afterwards."""

    def __init__(self, size: int, n_layers: int, n_emotions: int) -> None:
        super().__init__()
        n = len(FRAME_NAMES)
        self.low, self.middle = n_layers // 3, n_layers // 2 + 1
        self.frames, self.low_frames = nn.Linear(size, n), nn.Linear(size, n)
        self.spectral, self.prosodic = nn.Linear(size, N_UNITS), nn.Linear(size, N_UNITS)
        self.attention = nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, 4))
        self.norm = nn.LayerNorm(size)
        self.clip = nn.Linear(8 * size, 2 * n)
        self.emotion = nn.Linear(8 * size, max(n_emotions, 1))
        self.dropout = nn.Dropout(0.3)

    def pool(self, states: Tensor, own: Tensor) -> Tensor:
        """Attentive mean and standard deviation, four heads: (B, T, H) -> (B, 8 H)."""
        states = self.norm(states)
        weight = self.attention(states).masked_fill(~own[..., None], -1e4).softmax(1)
        mean = torch.einsum("btk,bth->bkh", weight, states)
        square = torch.einsum("btk,bth->bkh", weight, states.square())
        spread = (square - mean.square()).clamp_min(1e-5).sqrt()
        return torch.cat([mean, spread], 1).flatten(1)

    def losses(self, hidden: tuple[Tensor, ...], batch: Batch, scales: Scales) -> dict[str, Tensor]:
        """Return each task's loss for one batch."""
        found = describe(batch.clean, batch.lengths)
        target = scale_frames(found, scales.frame_mean, scales.frame_std)
        own = found.known[..., 0]
        hidden = tuple(states.float() for states in hidden)
        top, pooled = hidden[-1], self.pool(hidden[self.middle], own)

        def regress(predicted: Tensor) -> Tensor:
            return F.smooth_l1_loss(predicted, target, reduction="none")[found.known].mean()

        clip = (functionals(found) - scales.clip_mean) / scales.clip_std
        hit = batch.masked & own
        spectral = _nearest(_spectral_view(target)[hit], scales.spectral_units)
        prosodic = _nearest(_prosody_view(target)[hit], scales.prosodic_units)
        losses = {
            "frames": regress(self.frames(top)),
            "low_frames": regress(self.low_frames(hidden[self.low])),
            "clip": F.smooth_l1_loss(self.clip(pooled), clip.clamp(-4, 4)),
        }  # fmt: skip
        if hit.any():
            losses["units"] = F.cross_entropy(self.spectral(top[hit]), spectral) + F.cross_entropy(
                self.prosodic(top[hit]), prosodic
            )
        known = batch.labels >= 0
        if known.any():
            losses["emotion"] = F.cross_entropy(
                self.emotion(self.dropout(pooled[known])), batch.labels[known], label_smoothing=0.1
            )
        return losses


def _nearest(rows: Tensor, centres: Tensor) -> Tensor:
    return torch.cdist(rows, centres).argmin(-1)
