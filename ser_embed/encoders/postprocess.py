"""What is done to an encoder's hidden states before they are stored."""

from typing import Literal

import numpy as np

__all__ = ["Layer", "Norm", "Pool", "denormalise", "normalise", "pool_time"]

Layer = int | Literal["all", "logits"]
Norm = Literal["frame", "clip", "none"]
Pool = Literal["none", "mean", "stats"]


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
