"""The classifiers that are trained on cached features, and their checkpoints.

A checkpoint is a folder with `head.safetensors` and `card.json`; the card says everything needed
to build the head again and to make its features.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ser_embed.encoders import Graph
from ser_embed.errors import HeadError
from ser_embed.heads.kinds import HEADS
from ser_embed.heads.networks import assemble

__all__ = ["build_head", "calibrated", "load_head", "read_card", "save_head", "sealed"]

CARD_SCHEMA = 1
HEAD_WEIGHTS = "head.safetensors"
MAX_MEMBERS = 1000  # of an ensemble
_SEAL, _NO_SEAL = "card_sha256", "0" * 64


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
    return assemble(spec.build, shape, n_classes, pooled, dropout, members, seed)


def calibrated(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities (n, C) of log-probabilities (n, C) at a temperature."""
    return Graph.calibrated(torch.from_numpy(log_probs), temperature).numpy()


# --- checkpoints -----------------------------------------------------------------------------


def save_head(
    folder: Path, head: nn.Module, card: dict[str, Any], weights: str = HEAD_WEIGHTS
) -> None:
    """Write a module's weights and `card.json`, whole or not at all and with their digest."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    save_file(state, folder / weights, metadata={"format": "pt"})
    digest = hashlib.sha256((folder / weights).read_bytes()).hexdigest()
    whole = {"format": "ser_embed head", "schema": CARD_SCHEMA, "weights_sha256": digest, **card}
    temporary = folder / "card.json.tmp"
    temporary.write_text(sealed(whole), encoding="utf-8")
    temporary.replace(folder / "card.json")


def sealed(card: dict[str, Any]) -> str:
    """Return a card as JSON that holds the SHA-256 of its own text, with zeros in its stead.

    It is a seal against damage, not against somebody who can compute it anew.
    """
    text = json.dumps({**card, _SEAL: _NO_SEAL}, indent=1, ensure_ascii=False)
    return text.replace(_NO_SEAL, hashlib.sha256(text.encode()).hexdigest())


def load_head(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Load a checkpoint: the head in evaluation mode, and its card.

    Raises:
        HeadError: Missing, damaged, changed since it was written, or of a newer schema.
    """
    card = read_card(folder, HEAD_WEIGHTS)
    try:
        settings = card["head"]
        with torch.device("meta"):  # a card that asks for a huge head gets no memory for it
            head = build_head(
                settings["name"], tuple(settings["shape"]), len(card["classes"]),
                settings["pooled"], seed=0, members=settings["members"],
            )  # fmt: skip
        head.load_state_dict(load_file(folder / HEAD_WEIGHTS), assign=True)
    except (LookupError, TypeError, ValueError, RuntimeError, SafetensorError, HeadError) as error:
        raise HeadError(f"{folder}: the weights don't fit card.json ({error})") from error
    return head.eval(), card


def read_card(folder: Path, weights: str = "") -> dict[str, Any]:
    """Read and check `card.json`, and the file of weights beside it if it is named.

    Returns:
        The card, without its seal.

    Raises:
        HeadError: Missing, not JSON, not a head's card, of a newer schema, without a usable
            temperature, or changed since it was written; weights of another card.
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
    if weights:
        _check_weights(card, folder / weights)
    return card


def _check_weights(card: dict[str, Any], weights: Path) -> None:
    try:
        data = weights.read_bytes()
    except OSError as error:
        raise HeadError(f"{weights}: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != card.get("weights_sha256"):
        raise HeadError(f"{weights}: not the weights that card.json was written for; train again")
