"""Weights of the classes in the loss, by rule."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ser_embed.errors import HeadError
from ser_embed.train.loop import balanced_weights

__all__ = ["PAPER_WEIGHTS", "ClassWeights", "class_weights"]

ClassWeights = Literal["balanced", "paper", "none"]
PAPER_WEIGHTS = {"positive": 1.99, "neutral": 3.0, "negative": 1.0}


def class_weights(rule: ClassWeights, classes: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Return the weight of each class, float64 (C,).

    Args:
        rule: `balanced`, by the inverse of the counts; `paper`, the two-stage paper's; `none`.
        classes: Class names.
        labels: Class index of each training clip, (n,).

    Raises:
        HeadError: The paper's weights are asked for other classes than its three.
    """
    if rule == "none":
        return np.ones(len(classes))
    if rule == "paper":
        if set(classes) != set(PAPER_WEIGHTS):
            raise HeadError(
                "--class-weights paper is for positive, neutral, negative (--labels sentiment3); "
                f"these classes are {', '.join(classes)}"
            )
        return np.array([PAPER_WEIGHTS[name] for name in classes])
    return balanced_weights(labels, len(classes))
