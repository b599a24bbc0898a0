"""Log-mel spectrograms in an encoder's place: what a classifier without pre-training is given."""

import math

import torch
import torchaudio.functional
from torch import nn
from torch.nn import functional as F

from ser_embed.audio import SAMPLE_RATE

__all__ = ["HOP", "N_MELS", "WINDOW", "LogMel"]

WINDOW = 400  # samples of a frame: 25 ms
HOP = 160  # samples between frames: 10 ms
N_MELS = 64
_LOWEST = 50.0  # Hz
_FLOOR = 1e-6  # of powers, under unit-variance input: -60 dB


class LogMel(nn.Module):
    """The logarithm of the power in 64 mel bands from 50 Hz to 8 kHz.

    A frame sees its own 25 ms and nothing else, so a batch gives what one clip at a time would.
    The Fourier transform is a convolution with sines and cosines, which every engine and every
    exported graph can run.
    """

    waves: torch.Tensor
    bank: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        time = torch.arange(WINDOW, dtype=torch.float64)
        bins = torch.arange(WINDOW // 2 + 1, dtype=torch.float64)
        window = torch.hann_window(WINDOW, dtype=torch.float64)
        angles = 2 * math.pi * bins[:, None] * time / WINDOW
        waves = torch.cat([angles.cos(), angles.sin()]) * window / window.square().sum().sqrt()
        self.register_buffer("waves", waves.float().unsqueeze(1))  # (402, 1, 400)
        bank = torchaudio.functional.melscale_fbanks(
            len(bins), _LOWEST, SAMPLE_RATE / 2, N_MELS, SAMPLE_RATE
        )
        self.register_buffer("bank", bank)  # (201, 64)

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Map waveforms (B, S) at 16 kHz to (B, 1, T, 64); `mask` changes nothing."""
        parts = F.conv1d(
            waveforms.to(self.waves.dtype).unsqueeze(1), self.waves, stride=HOP
        )  # (B, 402, T)
        real, imaginary = parts.square().chunk(2, dim=1)
        mel = (real + imaginary).transpose(1, 2) @ self.bank  # (B, T, 64)
        return mel.clamp_min(_FLOOR).log().unsqueeze(1)
