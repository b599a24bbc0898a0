"""The classifiers that are trained on cached features, and their checkpoints.

A checkpoint is a folder with `head.safetensors` and `card.json`; the card says everything needed
to build the head again and to make its features.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ser_embed.errors import HeadError
from ser_embed.heads.networks import (
    CnnHead,
    ConvHead,
    Ensemble,
    LayersHead,
    MlpHead,
    StatsHead,
    TemporalHead,
)

__all__ = [
    "HEADS", "HeadSpec", "build_head", "calibrated", "check_weights", "default_head", "load_head",
    "read_card", "save_head", "sealed", "write_card",
]  # fmt: skip

CARD_SCHEMA = 1
MAX_MEMBERS = 1000  # of an ensemble
_SEAL, _NO_SEAL = "card_sha256", "0" * 64


@dataclass(frozen=True)
class HeadSpec:
    """A kind of head.

    Attributes:
        build: From (shape of one clip's features, number of classes, dropout, whether time was
            pooled at extraction) to a module.
        takes: Says which shapes it accepts.
        wants: The same in words, for messages.
        lr: Learning rate that suits it.
        dropout: Dropout that suits it.
    """

    build: Callable[[tuple[int, ...], int, float, bool], nn.Module]
    takes: Callable[[tuple[int, ...], bool], bool]
    wants: str
    lr: float
    dropout: float


def _frames_only(shape: tuple[int, ...], pooled: bool) -> bool:
    return len(shape) == 2 and not pooled


HEADS: dict[str, HeadSpec] = {
    "conv": HeadSpec(ConvHead, _frames_only, "frames of one layer, or CTC logits", 1e-4, 0.5),
    "temporal": HeadSpec(TemporalHead, _frames_only, "frames of one layer", 1e-3, 0.3),
    "mlp": HeadSpec(
        MlpHead, lambda shape, pooled: len(shape) == 2 and (not pooled or shape[0] == 1),
        "one layer, frames or pooled", 1e-3, 0.3,
    ),
    "stats": HeadSpec(
        StatsHead, lambda shape, pooled: len(shape) in (2, 3),
        "any features", 1e-3, 0.5,
    ),
    "layers": HeadSpec(
        LayersHead, lambda shape, pooled: len(shape) == (2 if pooled else 3),
        "several layers (extract --layer all), frames or pooled", 1e-3, 0.3,
    ),
    "cnn": HeadSpec(
        CnnHead, _frames_only, "frames of one layer, as of --encoder log-mel", 1e-3, 0.3
    ),
}  # fmt: skip
"""The heads by name."""


def default_head(layer: int | str, pool: str) -> str:
    """Return the head that suits a kind of features."""
    if pool == "stats":
        return "stats"
    if layer == "all":
        return "layers"
    if pool == "mean":
        return "mlp"
    return "conv" if layer == "logits" else "stats"


def build_head(
    name: str,
    shape: tuple[int, ...],
    n_classes: int,
    pooled: bool,
    seed: int,
    members: int = 1,
    dropout: float | None = None,
) -> nn.Module:
    """Build a head with seeded weights; torch's global generator is left as it was.

    Args:
        name: Key of `HEADS`.
        shape: Shape of one clip's features: (T, D), (L, T, D), or (L, D) pooled.
        n_classes: Number of classes.
        pooled: Whether time was pooled at extraction.
        seed: Seed of the weights; of an ensemble's first member, the others' follow.
        members: Of an ensemble; one is the head itself.
        dropout: None for what suits the head.

    Raises:
        HeadError: No such head, or one that can't take this shape.
    """
    if name not in HEADS:
        raise HeadError(f"no head {name!r}; there are {', '.join(HEADS)}")
    spec = HEADS[name]
    if not spec.takes(shape, pooled):
        kind = "pooled features" if pooled else "features"
        fitting = [n for n, other in HEADS.items() if other.takes(shape, pooled)]
        raise HeadError(
            f"head {name!r} takes {spec.wants}; these are {kind} of shape {shape}, for which there "
            f"is {', '.join(fitting) or 'no head'}"
        )
    if min(n_classes, *shape) < 1:
        raise HeadError(f"head {name!r} can't be built for {n_classes} classes of shape {shape}")
    if not 1 <= members <= MAX_MEMBERS:
        raise HeadError(f"an ensemble of {members} heads: from 1 to {MAX_MEMBERS}")
    if name == "conv" and (shape[0] < 44 or shape[1] < 32):
        raise HeadError(f"head 'conv' needs 44 frames of 32 features or more, these are {shape}")
    dropout = spec.dropout if dropout is None else dropout
    with torch.random.fork_rng(devices=[]):
        heads = []
        for number in range(members):
            torch.manual_seed(seed + number)
            heads.append(spec.build(shape, n_classes, dropout, pooled))
    return heads[0] if members == 1 else Ensemble(heads)


def calibrated(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities (n, C) of log-probabilities (n, C) at a temperature."""
    scaled = log_probs / temperature
    return np.exp(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))


# --- checkpoints -----------------------------------------------------------------------------


def save_head(folder: Path, head: nn.Module, card: dict[str, Any]) -> None:
    """Write `head.safetensors` and `card.json`, the card last and with the weights' digest."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "head.safetensors"
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    save_file(state, weights)
    write_card(folder, card, weights)


def write_card(folder: Path, card: dict[str, Any], weights: Path) -> None:
    """Write `card.json`, whole or not at all, with the digest of the weights' file."""
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    told = {"format": "ser_embed head", "schema": CARD_SCHEMA, "weights_sha256": digest, **card}
    temporary = folder / "card.json.tmp"
    temporary.write_text(sealed(told), encoding="utf-8")
    temporary.replace(folder / "card.json")


def sealed(card: dict[str, Any]) -> str:
    """Return a card as JSON that holds the SHA-256 of its own text, with zeros in that place.

    It is a seal against damage, not against somebody who can compute it anew.
    """
    told = {**card, _SEAL: _NO_SEAL}
    text = json.dumps(told, indent=1, ensure_ascii=False)
    return text.replace(_NO_SEAL, hashlib.sha256(text.encode()).hexdigest())


def load_head(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Load a checkpoint: the head in evaluation mode, and its card.

    Raises:
        HeadError: Missing, damaged, changed since it was written, or of a newer schema.
    """
    card = read_card(folder)
    weights = folder / "head.safetensors"
    check_weights(card, weights)
    try:
        told = card["head"]
        with torch.device("meta"):  # a card that asks for a huge head gets no memory for it
            head = build_head(
                told["name"], tuple(told["shape"]), len(card["classes"]), told["pooled"], seed=0,
                members=told["members"],
            )  # fmt: skip
        head.load_state_dict(load_file(weights), assign=True)
    except (LookupError, TypeError, ValueError, RuntimeError, SafetensorError, HeadError) as error:
        raise HeadError(f"{folder}: the weights don't fit card.json ({error})") from error
    return head.eval(), card


def check_weights(card: dict[str, Any], weights: Path) -> None:
    """Compare a file of weights with the digest in its card.

    Raises:
        HeadError: It can't be read, or isn't the file that the card was written for.
    """
    try:
        data = weights.read_bytes()
    except OSError as error:
        raise HeadError(f"{weights}: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != card.get("weights_sha256"):
        raise HeadError(f"{weights}: not the weights that card.json was written for; train again")


def read_card(folder: Path) -> dict[str, Any]:
    """Read and check `card.json`; its seal is left out.

    Raises:
        HeadError: Missing, not JSON, not a head's card, of a newer schema, without a usable
            temperature, or changed since it was written.
    """
    path = folder / "card.json"
    try:
        text = path.read_text(encoding="utf-8")
        card = json.loads(text)
    except OSError as error:
        raise HeadError(
            f"{folder}: no trained head there ({path.name}: {error.strerror})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise HeadError(f"{path}: damaged ({error})") from error
    schema = card.get("schema") if isinstance(card, dict) else None
    if not isinstance(schema, int) or card.get("format") != "ser_embed head":
        raise HeadError(f"{path}: not the card of a head")
    if schema > CARD_SCHEMA:
        raise HeadError(f"{path}: written by a newer ser_embed (schema {schema}); update ser_embed")
    temperature = card.get("temperature")
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise HeadError(f"{path}: names no temperature above 0 to calibrate by; train again")
    seal = card.pop(_SEAL, None)
    if seal is not None:  # cards of before there was one have none
        blank = text.replace(str(seal), _NO_SEAL)
        if hashlib.sha256(blank.encode()).hexdigest() != seal:
            raise HeadError(f"{path}: changed since it was written; get it back, or train again")
    return card
