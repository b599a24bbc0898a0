"""The options of `pretrain`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro

from ser_embed.bundled import BUNDLED_ENCODERS
from ser_embed.command import Options

__all__ = ["PretrainConfig"]


@dataclass(frozen=True)
class PretrainConfig(Options):
    """Pre-train an encoder on folders of speech; no transcript or label is needed.

    Writes OUT/model.safetensors (float16), config.json and preprocessor_config.json, which
    --encoder OUT and transformers load, and history.csv. The same command resumes.
    """

    groups: ClassVar[Mapping[str, str]] = {
        "shape": "encoder", "labelled": "labels", "steps": "training", "save_every": "running",
    }  # fmt: skip

    roots: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of audio files, in any nesting."""
    out: Path
    """Folder for the encoder and for the state to resume from."""
    shape: Path = BUNDLED_ENCODERS / "mini"
    """Folder of the config.json that gives the encoder's shape."""
    init: Path | None = None
    """Encoder folder to start from instead of random weights."""
    labelled: tuple[str, ...] = ()
    """Corpora among the folders whose emotion labels are learnt too, for instance nemo."""
    label_weight: float = 2.0
    """How much more often than its length warrants a labelled clip is drawn."""
    steps: int = 6000
    """Batches to train on."""
    batch_size: int = 16
    """Clips a batch."""
    seconds: float = 3.0
    """Length of the piece that is cut from a clip; shorter clips are masked behind their end."""
    lr: float = 1e-3
    """Highest learning rate: reached after 300 steps, held, and brought to zero at the end."""
    decay: float = 0.3
    """Share of the steps over which the learning rate falls to zero."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    save_every: int = 200
    """Steps between two saved states."""
    compile: bool = False
    """Compile the convolutions with torch.compile: a third faster, and needs a C++ compiler."""
    seed: int = 0
    """Seed of the weights and of every draw."""
