"""Options of `python -m ser_embed.extract`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ser_embed.audio import CLIP_SECONDS, FillRule
from ser_embed.command import FEATURES_DIR, Options
from ser_embed.encoders import BackendName, Layer, Norm, Pool

__all__ = ["ExtractConfig"]


@dataclass(frozen=True)
class ExtractConfig(Options):
    """Encode a corpus with a frozen encoder and cache the features.

    Without ROOT: every known corpus found under ./data or $SER_EMBED_DATA, each once; if there
    is none, the synthetic demo corpus that ships with the project.
    """

    groups: ClassVar[Mapping[str, str]] = {
        "root": "input", "encoder": "encoder", "pool": "features",
        "engine": "engine", "features_dir": "output",
    }  # fmt: skip

    root: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the corpus, in any nesting."""
    corpus: str = ""
    """ravdess, ravdess-song, tess, urdu, crema-d, emo-db, savee, nemo, or demo."""
    csv: Path | None = None
    """A CSV with the header path,emotion[,speaker,gender,intensity,split,start,end] instead."""
    limit: int = 0
    """Only so many clips, spread evenly over the corpus; 0 for all."""

    encoder: str = "mini"
    """Encoder by name, hub id or folder. random-base is the untrained control."""
    layer: Layer | None = None
    """Hidden layer N, all, or logits (CTC). Default: the middle layer."""
    context: Literal["clip", "30s"] = "clip"
    """What Whisper sees: the clip alone, or 30s (silence behind it, as it was trained; slower)."""
    backend: BackendName = "auto"
    """auto chooses by hardware: CUDA, OpenVINO on x86 processors if installed, else torch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder; bf16 is faster and its features differ by up to 2 percent."""
    batch_size: int | None = None
    """Clips of --seconds in a batch: more if they are shorter, fewer if longer; of whole clips 5 s
    count as one. Default: 8 on a processor, 8 for every 3 GB of memory on a GPU."""

    pool: Pool = "none"
    """mean keeps each layer's mean over time only, stats its mean and standard deviation."""
    norm: Norm = "none"
    """Min-max to [-1, 1] per frame (the paper's) or per clip, or none."""
    trim: bool = True
    """Keep the silence before and after the speech, which is cut by default."""
    seconds: float = CLIP_SECONDS
    """Clip length in seconds, first part kept; 0 for whole clips."""
    fill: FillRule = "none"
    """How shorter clips are filled: sample (random samples of the clip), repeat, zero, none."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type that features are stored in."""
    seed: int = 0
    """Seed of the random fill, and of the weights of untrained encoders."""

    engine: Literal["local", "ray"] = "local"
    """ray encodes on a cluster; the store is the same."""
    workers: int = max(1, min(16, (os.cpu_count() or 1) - 1))
    """Processes that hash and decode; 0 does it in the main process."""
    address: str = ""
    """Ray cluster: auto, or HOST:PORT. Default: Ray is started on this machine."""

    features_dir: Path = FEATURES_DIR
    """Folder of the stores."""
    url: str = ""
    """Write the store behind a URL of fsspec (s3://BUCKET/FOLDER, gs://, file://), with ray."""
    prune: bool = False
    """Drop clips of earlier runs that are no longer in the corpus."""
