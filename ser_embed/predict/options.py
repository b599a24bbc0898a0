"""Options of `python -m ser_embed.predict`, and how recordings are cut into segments."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ser_embed.command import RUNS_DIR, Options
from ser_embed.encoders import BackendName
from ser_embed.errors import AudioError

__all__ = ["PredictConfig", "SegmentSettings"]


@dataclass(frozen=True)
class PredictConfig(Options):
    """Classify audio files; folders are searched."""

    groups: ClassVar[Mapping[str, str]] = {"run": "classifier"}

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Audio files or folders."""
    run: Path | None = None
    """A run's folder, or a bundled head: sentiment3 or emotion8.
    Default: the newest under --runs-dir, else the bundled sentiment3."""
    runs_dir: Path = RUNS_DIR
    """Where the newest run is looked for."""
    backend: BackendName = "torch"
    """Engine of the encoder."""


@dataclass(frozen=True)
class SegmentSettings:
    """How a recording is cut and labelled.

    Attributes:
        hop: Seconds from one window to the next within a stretch of speech.
        smooth: Windows whose probabilities are averaged, an odd number; 1 averages none.
        threshold: Below this confidence a label is `unsure`. At a half, what has a label is
            likelier than all other classes together, however many there are.

    Raises:
        AudioError: A value makes no sense; the message names the setting.
    """

    hop: float = 0.5
    smooth: int = 3
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0.02 <= self.hop <= 60:
            raise AudioError(f"hop {self.hop}: give 0.02 to 60 seconds")
        if self.smooth < 1 or self.smooth % 2 == 0:
            raise AudioError(f"smooth {self.smooth}: give an odd number of windows, 1 for none")
        if not 0 <= self.threshold <= 1:
            raise AudioError(f"threshold {self.threshold}: give a confidence from 0 to 1")
