"""Options of `python -m ser_embed.web`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ser_embed.command import RUNS_DIR, Options
from ser_embed.encoders import BackendName
from ser_embed.predict import SegmentSettings

__all__ = ["WebConfig"]


@dataclass(frozen=True)
class WebConfig(Options):
    """Serve a page that classifies files and the browser's microphone, until Ctrl-C."""

    groups: ClassVar[Mapping[str, str]] = {
        "run": "classifier", "host": "server", "max_mb": "limit",
    }  # fmt: skip

    run: Path | None = None
    """A run's folder, or a bundled head: sentiment3 or emotion8. Default: the newest under
    --runs-dir, else the bundled sentiment3."""
    runs_dir: Path = RUNS_DIR
    """Where the newest run is looked for."""
    backend: BackendName = "torch"
    """Engine of the encoder."""
    threshold: float = SegmentSettings.threshold
    """Confidence below which a label is shown as unsure."""
    host: str = "127.0.0.1"
    """Address to serve on; 0.0.0.0 lets other machines in. A browser gives its microphone to
    this machine's own address or to HTTPS alone."""
    port: int = 7860
    """Port to serve on."""
    max_mb: int = 50
    """Largest file in megabytes."""
    max_minutes: float = 10.0
    """Longest recording in minutes; a microphone stops by itself after as long."""
    max_files: int = 100
    """Most files in one batch."""
