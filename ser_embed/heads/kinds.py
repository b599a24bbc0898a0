"""The kinds of heads by name; light: a network is imported when it is built."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["HEADS", "HeadSpec"]


@dataclass(frozen=True)
class HeadSpec:
    """A kind of head.

    Attributes:
        build: From (shape of one clip's features, number of classes, dropout, whether time was
            pooled at extraction) to a module; of the package's own heads a class of `networks`
            by name.
        takes: Says which shapes it accepts.
        wants: The same in words, for messages.
        lr: Learning rate that suits it.
        dropout: Dropout that suits it.
    """

    build: str | Callable[[tuple[int, ...], int, float, bool], Any]
    takes: Callable[[tuple[int, ...], bool], bool]
    wants: str
    lr: float
    dropout: float


def _frames_only(shape: tuple[int, ...], pooled: bool) -> bool:
    return len(shape) == 2 and not pooled


HEADS: dict[str, HeadSpec] = {
    "conv": HeadSpec("ConvHead", _frames_only, "frames of one layer, or CTC logits", 1e-4, 0.5),
    "temporal": HeadSpec("TemporalHead", _frames_only, "frames of one layer", 1e-3, 0.3),
    "mlp": HeadSpec(
        "MlpHead", lambda shape, pooled: len(shape) == 2 and (not pooled or shape[0] == 1),
        "one layer, frames or pooled", 1e-3, 0.3,
    ),
    "stats": HeadSpec(
        "StatsHead", lambda shape, pooled: len(shape) in (2, 3), "any features", 1e-3, 0.5
    ),
    "layers": HeadSpec(
        "LayersHead", lambda shape, pooled: len(shape) == (2 if pooled else 3),
        "several layers (extract --layer all), frames or pooled", 1e-3, 0.3,
    ),
    "cnn": HeadSpec(
        "CnnHead", _frames_only, "frames of one layer, as of --encoder log-mel", 1e-3, 0.3
    ),
}  # fmt: skip
"""The heads by name."""
