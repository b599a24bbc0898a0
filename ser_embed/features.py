"""What a clip's features depend on, and their min-max normalisation."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from ser_embed.audio import RESAMPLER, FillRule
from ser_embed.backends import Precision

__all__ = [
    "SCHEMA", "FeatureSettings", "Layer", "Norm", "Pool", "denormalise", "normalise", "pool_time",
]  # fmt: skip

Layer = int | Literal["all", "logits"]
Norm = Literal["frame", "clip", "none"]
Pool = Literal["none", "mean", "stats"]

SCHEMA = 2  # version of the store's layout; part of every key


@dataclass(frozen=True)
class FeatureSettings:
    """Everything that a clip's features depend on besides its audio: what keys a store.

    Attributes:
        encoder: Name, hub id or folder that the encoder was asked for by.
        weights: SHA-256 of the encoder's weights.
        layer: Hidden layer, `all` layers or CTC `logits`.
        pool: `mean` keeps each layer's mean over time instead of its frames, `stats` its mean
            and standard deviation.
        norm: Min-max to [-1, 1] per `frame` (the paper's) or per `clip`, or `none`.
        trim: Whether silence before and after the speech is cut first.
        seconds: Clip length in seconds; 0 for whole clips.
        fill: How shorter clips are filled.
        dtype: Type that features are stored in.
        precision: Arithmetic of the encoder.
        seed: Seed of the random fill and of untrained weights.
        resampler: Resampling method.
        schema: Version of the store's layout.
    """

    encoder: str
    weights: str
    layer: Layer
    pool: Pool
    norm: Norm
    trim: bool
    seconds: float
    fill: FillRule
    dtype: Literal["float16", "float32"]
    precision: Precision
    seed: int
    resampler: str = RESAMPLER
    schema: int = SCHEMA

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits; any setting that can change a feature changes them."""
        fields = asdict(self)
        del fields["encoder"]  # a name or a path; the weights are what counts
        fields["seconds"] = float(self.seconds)  # 3 and 3.0 are one setting
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def differences(self, other: "FeatureSettings") -> list[str]:
        """Return `field: mine against theirs` for each field that matters and differs."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{name}: {mine[name]!r} against {theirs[name]!r}"
            for name in mine if name != "encoder" and mine[name] != theirs[name]
        ]  # fmt: skip


def normalise(states: np.ndarray, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    """Scale hidden states to [-1, 1] by their minimum and maximum: 2 (F - min) / (max - min) - 1.

    The two-stage paper prints +1 for the last term, which would give [1, 3]; its code, and this,
    give [-1, 1]. A frame whose values are all equal becomes zeros.

    Args:
        states: float32 of shape (..., T, D).
        norm: `frame`: each frame by its own extrema; `clip`: all frames of a layer by theirs;
            `none`: left as they are.

    Returns:
        The scaled states, and the extrema as float32 of shape (..., T, 2), empty with `none`.
    """
    if norm == "none":
        return states, np.empty(0, dtype=np.float32)
    axes = -1 if norm == "frame" else (-2, -1)
    low, high = states.min(axis=axes, keepdims=True), states.max(axis=axes, keepdims=True)
    extent = high - low
    flat = extent == 0  # not where it is NaN: what isn't finite must stay to be found
    scaled = np.where(flat, 0, 2 * (states - low) / np.where(flat, 1, extent) - 1)
    frames = (*states.shape[:-1], 1)
    extrema = np.concatenate([np.broadcast_to(low, frames), np.broadcast_to(high, frames)], axis=-1)
    return scaled.astype(np.float32), extrema.astype(np.float32)


def denormalise(features: np.ndarray, extrema: np.ndarray) -> np.ndarray:
    """Undo `normalise`: features (..., T, D) and extrema (..., T, 2) to hidden states."""
    low, high = extrema[..., :1], extrema[..., 1:]
    return (features.astype(np.float32) + 1) / 2 * (high - low) + low


def pool_time(features: np.ndarray, pool: Pool) -> np.ndarray:
    """Pool float32 features (..., T, D) over time: `mean` (..., D), `stats` (..., 2 D), or not.

    `stats` has the means first, then the standard deviations (of the population).
    """
    if pool == "none":
        return features
    mean = features.mean(axis=-2)
    return mean if pool == "mean" else np.concatenate([mean, features.std(axis=-2)], axis=-1)
