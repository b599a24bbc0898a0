"""What happens to waveforms before and to hidden states after the encoder, in torch alone.

Extraction, fine-tuning, live recognition and exports all go through these functions. `Graph` puts
them around an encoder and its heads: what is exported as ONNX, and what a folder for transformers
runs, which takes this file as it is.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ser_embed.encoders.padding import mask_padding, with_mask
from ser_embed.encoders.whisper import WhisperStates

__all__ = ["Graph", "HiddenStates", "hidden_states", "pool_states", "scale_states", "unit_variance"]


class HiddenStates(nn.Module):
    """A transformers model cut down to the layers asked for: (B, S) -> (B, L, T, D)."""

    def __init__(self, model: Any, layer: int | str) -> None:
        super().__init__()
        self.all_layers = layer == "all"
        self.logits = layer == "logits"
        if isinstance(layer, int):
            stack = model.encoder
            if layer < len(stack.layers) and getattr(model.config, "do_stable_layer_norm", False):
                # The final norm belongs to the last layer alone.
                stack.layer_norm = nn.Identity()
            stack.layers = stack.layers[:layer]
        mask_padding(model)
        self.model = model

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return hidden states; `mask` (B, S) is false on padding."""
        out = self.model(
            with_mask(self.model, waveforms.to(self.model.dtype), mask),
            attention_mask=None if mask is None else mask.long(),
            output_hidden_states=self.all_layers,
        )
        if self.all_layers:
            states = (*out.hidden_states[:-1], out.last_hidden_state)
            return torch.stack(states, dim=1)  # (B, L, T, D)
        return (out.logits if self.logits else out.last_hidden_state).unsqueeze(1)  # (B, 1, T, D)

    def n_frames(self, n_samples: Any) -> Any:
        """Return how many frames a clip of so many samples gives, or clips."""
        return self.model._get_feat_extract_output_lengths(n_samples)


def hidden_states(model: Any, layer: int | str, context: str = "clip") -> Any:
    """Return the map from waveforms (B, S) to hidden states (B, L, T, D) of a model.

    Args:
        model: Of transformers; its upper layers are taken away.
        layer: 0 to N, `all` or `logits`.
        context: What Whisper sees.
    """
    if model.config.model_type == "whisper":
        return WhisperStates(model, layer, context)
    return HiddenStates(model, layer)


def unit_variance(waveforms: torch.Tensor) -> torch.Tensor:
    """Scale each clip of (..., S) to zero mean and unit variance, as transformers' feature
    extractor does (epsilon 1e-7).
    """
    centred = waveforms - waveforms.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-7).sqrt()


def scale_states(states: torch.Tensor, norm: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale hidden states to [-1, 1] by their minimum and maximum: 2 (F - min) / (max - min) - 1.

    The two-stage paper prints +1 for the last term, which would give [1, 3]; its code, and this,
    give [-1, 1]. A frame whose values are all equal becomes zeros.

    Args:
        states: float32 of shape (..., T, D).
        norm: `frame`: each frame by its own extrema; `clip`: all frames of a layer by theirs;
            `none`: left as they are.

    Returns:
        The scaled states, and the extrema (..., T, 2), empty with `none`.
    """
    if norm == "none":
        return states, states.new_empty(0)
    axes = (-1,) if norm == "frame" else (-2, -1)
    low, high = states.amin(axes, keepdim=True), states.amax(axes, keepdim=True)
    extent = high - low
    flat = extent == 0  # not where it is NaN: what isn't finite must stay to be found
    scaled = 2 * (states - low) / torch.where(flat, 1.0, extent) - 1
    extrema = torch.cat([low, high], dim=-1).expand(*states.shape[:-1], 2)
    return torch.where(flat, 0.0, scaled), extrema


def pool_states(features: torch.Tensor, pool: str) -> torch.Tensor:
    """Pool features (..., T, D) over time: `mean` (..., D), `stats` (..., 2 D), or not.

    `stats` has the means first, then the standard deviations (of the population).
    """
    if pool == "none":
        return features
    mean = features.mean(-2)
    if pool == "mean":
        return mean
    deviation = (features - mean.unsqueeze(-2)).square().mean(-2).sqrt()
    return torch.cat([mean, deviation], dim=-1)


class Graph(nn.Module):
    """From waveforms of one length to the probabilities of a run's heads, averaged.

    Args:
        encoder: Maps waveforms (B, S) to hidden states (B, L, T, D); or a model of transformers,
            of which the settings' layer is taken.
        heads: One, or those of all folds.
        temperatures: One a head.
        scales_input: Whether each clip is scaled to zero mean and unit variance.
        settings: The `features` of the heads' card: layer, norm, pool and dtype count.
    """

    states_of = staticmethod(hidden_states)
    mask_padding = staticmethod(mask_padding)
    with_mask = staticmethod(with_mask)

    def __init__(
        self,
        encoder: nn.Module,
        heads: Sequence[nn.Module],
        temperatures: Sequence[float],
        scales_input: bool,
        settings: dict[str, Any],
    ) -> None:
        super().__init__()
        if hasattr(encoder, "config"):
            encoder = hidden_states(encoder, settings["layer"], settings.get("context", "clip"))
        self.encoder = encoder
        self.heads = nn.ModuleList(heads)
        self.temperatures, self.scales_input = list(temperatures), scales_input
        self.norm, self.pool = settings["norm"], settings["pool"]
        self.one_layer = settings["layer"] != "all"
        self.rounds = settings["dtype"] == "float16"

    @property
    def encoder_config(self) -> Any:
        """The configuration of the encoder, None unless it is a model of transformers."""
        return getattr(getattr(self.encoder, "model", None), "config", None)

    def features(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return what the heads take: (B, T, D), (B, L, T, D), or pooled (B, L, D)."""
        states = self.encoder(unit_variance(waveforms) if self.scales_input else waveforms)
        features = pool_states(scale_states(states, self.norm)[0], self.pool)
        if self.pool == "none" and self.one_layer:
            features = features[:, 0]  # (B, 1, T, D) -> (B, T, D)
        # Through the stored type, so that the heads see what they were trained on.
        return features.half().float() if self.rounds else features

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Map waveforms (B, S) float32 at 16 kHz to probabilities (B, C)."""
        features = self.features(waveforms)
        n_clips, n_frames = features.shape[0], features.shape[-2]  # one length: all are valid
        frames = torch.full((n_clips,), n_frames, device=features.device)
        each = [
            self.calibrated(head(features, frames), temperature)
            for head, temperature in zip(self.heads, self.temperatures, strict=True)
        ]
        return torch.stack(each).mean(0)

    @staticmethod
    def calibrated(log_probs: torch.Tensor, temperature: float) -> torch.Tensor:
        """Return probabilities (..., C) of log-probabilities (..., C) at a temperature."""
        return (log_probs / temperature).softmax(-1)
