"""Padding that changes nothing of a clip's own hidden states, in encoders that look past its end.

Two layers of transformers' wav2vec 2.0 family do, whatever attention mask they are given: a group
norm over time (the base models; measured, a padded clip's states are 26 to 56 % off), and
data2vec's stack of convolutions over positions. Here both see a clip's own frames alone, so that a
clip in a batch is what it is by itself.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["MaskedConvolutions", "mask_padding", "with_mask"]


class MaskedConvolutions(nn.Module):
    """An encoder's convolutions, the first of them under a group norm over a clip's own frames.

    Args:
        convolutions: transformers' or torchaudio's, whose parameters keep their names.
    """

    def __init__(self, convolutions: Any) -> None:
        super().__init__()
        self.conv_layers = convolutions.conv_layers

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map waveforms (B, S), or waveforms and mask (B, 2, S), to frames (B, C, T)."""
        if inputs.dim() == 2:
            states = inputs[:, None]  # (B, 1, S)
            for layer in self.conv_layers:
                states = layer(states)
            return states
        first, *others = self.conv_layers
        states = self.normed(first, inputs[:, :1], inputs[:, 1].float().sum(1))
        for layer in others:
            states = layer(states)
        return states

    @staticmethod
    def normed(layer: Any, waveforms: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Run the first layer on waveforms (B, 1, S) of which so many samples (B,) count."""
        states = layer.conv(waveforms)  # (B, C, T)
        ends = torch.arange(states.shape[2], device=states.device) * layer.conv.stride[0]
        own = ends + layer.conv.kernel_size[0] <= lengths[:, None]  # (B, T)
        weights = (own / own.sum(1, keepdim=True))[..., None]  # (B, T, 1): they sum to one
        values, norm = states.float(), layer.layer_norm
        centred = values - values @ weights  # (B, C, T)
        scale = (centred.square() @ weights + norm.eps).rsqrt() * norm.weight[:, None]
        states = (centred * scale + norm.bias[:, None]).to(states.dtype)
        return getattr(layer, "activation", F.gelu)(states)

    def _freeze_parameters(self) -> None:
        """As transformers' own: without parameters to train, autograd doesn't record them."""
        self.requires_grad_(False)


class _MaskedPositions(nn.Module):
    """data2vec's convolutions over positions, zeros behind a clip before every one of them."""

    def __init__(self, positions: Any) -> None:
        super().__init__()
        self.layers = positions.layers

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Map frames (B, T, D), of which transformers has zeroed the padding, to (B, T, D)."""
        own = states.abs().amax(2)[:, None] > 0  # (B, 1, T)
        states = states.transpose(1, 2)
        for layer in self.layers:
            states = layer(states).masked_fill(~own, 0.0)
        return states.transpose(1, 2)


def _is_over_time(norm: Any) -> bool:
    return isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels


def mask_padding(model: Any) -> None:
    """Have a model of transformers leave padding out, in place; `with_mask` makes its input."""
    base = getattr(model, model.base_model_prefix, model)
    convolutions = base.feature_extractor
    if isinstance(convolutions, MaskedConvolutions):
        return
    if _is_over_time(getattr(convolutions.conv_layers[0], "layer_norm", None)):
        base.feature_extractor = MaskedConvolutions(convolutions)
    if base.config.model_type == "data2vec-audio":
        base.encoder.pos_conv_embed = _MaskedPositions(base.encoder.pos_conv_embed)


def with_mask(model: Any, waveforms: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return what a model takes as `input_values`: its convolutions may need the mask as well."""
    base = getattr(model, model.base_model_prefix, model)
    if mask is None or not isinstance(base.feature_extractor, MaskedConvolutions):
        return waveforms  # (B, S)
    return torch.stack([waveforms, mask.to(waveforms.dtype)], dim=1)  # (B, 2, S)
