"""Whisper's encoder at a clip's own length: log-mel spectrogram, convolutions, transformer layers.

Whisper (Radford et al. 2022) was trained on windows of 30 s, and is run on them everywhere, ten
times the work that a clip of 3 s needs. Here it sees a clip's own frames and the first rows of
its position table. Padding is masked in every layer that looks at neighbours, so a clip's states
don't depend on its batch. torch alone, in operations that a graph can hold.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ser_embed.errors import EncoderError

__all__ = [
    "HOP_SAMPLES", "WINDOW_SAMPLES", "WhisperLayers", "WhisperLogMel", "WhisperStates", "mel_bank",
]  # fmt: skip

SAMPLE_RATE = 16_000
HOP = 160  # samples between frames of the spectrogram: 10 ms
WINDOW = 400  # samples of a frame: 25 ms
HOP_SAMPLES = 2 * HOP  # between frames of the encoder: 20 ms
WINDOW_SAMPLES = 480_000  # 30 s, what Whisper was trained on
FLOOR = 1e-10  # of a band's power
DECADES = 8.0  # what lies so far below the loudest band of a clip is raised to that


def mel_bank(n_mels: int) -> torch.Tensor:
    """Return triangular filters of Slaney's mel scale, each of area one: float32 (201, n_mels).

    The scale is linear below 1 kHz and logarithmic above (Slaney 1998, Auditory Toolbox).
    """
    top = torch.tensor(8_000.0, dtype=torch.float64)  # half of the sampling rate
    step = math.log(6.4) / 27.0  # of the logarithmic part: 27 mels from 1 to 6.4 kHz
    mels = torch.linspace(0, float(15 + (top / 1000).log() / step), n_mels + 2, dtype=torch.float64)
    hertz = torch.where(mels < 15, mels * 200 / 3, 1000 * ((mels - 15) * step).exp())
    bins = torch.linspace(0, float(top), WINDOW // 2 + 1, dtype=torch.float64)[:, None]
    low, centre, high = hertz[:-2], hertz[1:-1], hertz[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return (torch.minimum(rising, falling).clamp_min(0) * 2 / (high - low)).float()


class WhisperLogMel(nn.Module):
    """The logarithm of the power in mel bands, clamped and scaled as Whisper's.

    The Fourier transform is a product with sines and cosines, which every engine and every
    exported graph can run; by their symmetries it takes a quarter of the products. Before a clip
    its first samples are mirrored, behind it is silence, so its frames are those that Whisper's
    feature extractor gives of it at 30 s.

    Args:
        n_mels: Bands: 80, or 128 of large-v3.
        context: `30s` for silence up to 30 s behind a clip, else `clip`.
    """

    def __init__(self, n_mels: int, context: str = "clip") -> None:
        super().__init__()
        self.context = context
        cpu = torch.device("cpu")
        with cpu:  # transformers loads under another device, where tensors hold nothing
            window = torch.hann_window(WINDOW, dtype=torch.float64)  # its float32 is rounded twice
            bins = torch.arange(WINDOW // 2 + 1, dtype=torch.float64)[:, None]
            angles = 2 * math.pi * bins * torch.arange(WINDOW // 4 + 1) / WINDOW
            cosines, sines = angles.cos(), angles.sin()  # (201, 101)
            cosines[::2, -1] /= 2  # their last sample is its own mirror image, and counted twice
            sines[1::2, -1] /= 2
            bank = mel_bank(n_mels)
            matrices = [
                each for i in (0, 1) for each in (cosines[i::2].T, sines[i::2].T, bank[i::2])
            ]
        # No buffers, which would be rounded with a network's weights: bf16's eight bits don't tell
        # quiet bands apart.
        self._constants = {cpu: [m.float().contiguous() for m in (window, *matrices)]}

    def _on(self, device: torch.device) -> list[torch.Tensor]:
        """Return the window, and cosines, sines and filters of the even and of the odd bins."""
        if device not in self._constants:
            self._constants[device] = [m.to(device) for m in self._constants[torch.device("cpu")]]
        return self._constants[device]

    def forward(
        self, waveforms: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute the spectrogram of a batch.

        Args:
            waveforms: float32 (B, S) at 16 kHz, zeros behind the shorter clips.
            mask: bool (B, S), false on padding; None where all clips are as long.

        Returns:
            The spectrogram (B, n_mels, T), T = S // 160, zeros on padding; and which of its
            frames are a clip's own, bool (B, T), None without a mask.

        Raises:
            EncoderError: Over 30 s.
        """
        if waveforms.shape[1] > WINDOW_SAMPLES:
            raise EncoderError(
                f"a clip of {waveforms.shape[1] / SAMPLE_RATE:.1f} s, and Whisper's encoder takes "
                "30 s at once; cut it, --seconds 30"
            )
        if self.context == "30s":
            waveforms, mask = F.pad(waveforms, (0, WINDOW_SAMPLES - waveforms.shape[1])), None
        with torch.autocast(waveforms.device.type, enabled=False):  # fp32 in training as well
            power = self._power(self._frames(waveforms.float()))  # (B, T, n_mels)
        log = power.clamp_min(FLOOR).log10().transpose(1, 2)  # (B, n_mels, T)
        if mask is None:
            return self._scaled(log, log), None
        ends = HOP * torch.arange(1, log.shape[2] + 1, device=log.device)
        valid = ends <= mask.long().sum(1, keepdim=True)  # OpenVINO rounds where // rounds down
        others = ~valid[:, None]
        scaled = self._scaled(log, log.masked_fill(others, math.log10(FLOOR)))
        return scaled.masked_fill(others, 0.0), valid

    def _frames(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Cut waveforms (B, S) into windows (B, T, 400), one around every 160th sample."""
        half, n_frames = WINDOW // 2, waveforms.shape[1] // HOP
        behind = waveforms[:, :half] * 0
        if self.context == "30s":  # mirrored as well, which shows in a clip of 30 s alone
            behind = waveforms[:, -half - 1 : -1].flip(1)
        before = waveforms[:, 1 : half + 1].flip(1)
        padded = F.pad(torch.cat([before, waveforms, behind], dim=1), (0, HOP))
        hops = padded[:, : HOP * (n_frames + 2)].unflatten(1, (-1, HOP))  # (B, T + 2, 160)
        rest = hops[:, 2:, : WINDOW - 2 * HOP]
        return torch.cat([hops[:, :-2], hops[:, 1:-1], rest], dim=2) * self._on(waveforms.device)[0]

    def _power(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the power of windows (B, T, 400) in mel bands (B, T, n_mels)."""
        quarter, half = WINDOW // 4, WINDOW // 2
        mirrored = F.pad(frames[..., half + 1 :].flip(2), (1, 1))  # sample 400 - n at place n
        total, rest = frames[..., : half + 1] + mirrored, frames[..., : half + 1] - mirrored
        matrices = self._on(frames.device)[1:]
        powers = []
        # Mirrored once more, the cosines and sines of odd bins change their sign.
        for sign, (cosines, sines, bank) in ((1, matrices[:3]), (-1, matrices[3:])):
            real = (total[..., : quarter + 1] + sign * total[..., quarter:].flip(2)) @ cosines
            imaginary = (rest[..., : quarter + 1] - sign * rest[..., quarter:].flip(2)) @ sines
            powers.append((real.square() + imaginary.square()) @ bank)
        return powers[0] + powers[1]

    @staticmethod
    def _scaled(log: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        return (torch.maximum(log, own.amax(dim=(1, 2), keepdim=True) - DECADES) + 4) / 4


class WhisperLayers(nn.Module):
    """The network behind the spectrogram: (B, n_mels, T) to hidden states (B, L, T / 2, D)."""

    def __init__(self, model: Any, layer: int | str) -> None:
        super().__init__()
        self.all_layers, self.n_layers = layer == "all", len(model.layers)
        if isinstance(layer, int):
            model.layers = model.layers[:layer]
        self.model = model

    def forward(self, mel: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        """Return hidden states; `valid` (B, T) is false on padding."""
        model, bias = self.model, None
        states = F.gelu(model.conv1(mel.to(model.conv1.weight.dtype)))  # (B, D, T)
        if valid is not None:
            states = states.masked_fill(~valid[:, None], 0.0)
            kept = valid[:, ::2]
            bias = torch.zeros_like(kept, dtype=states.dtype)
            bias = bias.masked_fill(~kept, torch.finfo(states.dtype).min)
            bias = bias[:, None, None]  # added to the attention's scores: (B, 1, 1, T / 2)
        states = F.gelu(model.conv2(states)).transpose(1, 2)  # (B, T / 2, D)
        states = states + model.embed_positions.weight[: states.shape[1]]
        states = F.dropout(states, model.dropout, model.training)
        collected = [states]
        for layer in model.layers:
            states = layer(states, bias)
            collected.append(states)
        if len(model.layers) == self.n_layers:
            collected[-1] = model.layer_norm(states)
        return torch.stack(collected if self.all_layers else collected[-1:], dim=1)


class WhisperStates(nn.Module):
    """Whisper's encoder cut down to the layers asked for: (B, S) -> (B, L, T, D), T = S / 320.

    Args:
        model: transformers' `WhisperEncoder`; its upper layers are taken away.
        layer: 0 (what goes into the first transformer layer) to N, or `all`; the last one comes
            after the final norm.
        context: `clip` for the clip's own length, `30s` for silence up to 30 s behind it.
    """

    def __init__(self, model: Any, layer: int | str, context: str = "clip") -> None:
        super().__init__()
        self.front = WhisperLogMel(model.config.num_mel_bins, context)
        self.back = WhisperLayers(model, layer)

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return hidden states; `mask` (B, S) is false on padding.

        Raises:
            EncoderError: Over 30 s.
        """
        states = self.back(*self.front(waveforms, mask))
        return states[:, :, : self.n_frames(waveforms.shape[1])]  # at 30 s: the clip's own

    @property
    def model(self) -> Any:
        """transformers' model."""
        return self.back.model

    @staticmethod
    def n_frames(n_samples: Any) -> Any:
        """Return how many frames a clip of so many samples gives, or clips: one every 20 ms."""
        return (n_samples // HOP + 1) // 2
