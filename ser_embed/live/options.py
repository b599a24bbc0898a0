"""Options of `python Main.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ser_embed.command import RUNS_DIR, Options
from ser_embed.encoders import BackendName
from ser_embed.predict import SegmentSettings

__all__ = ["LiveConfig"]


@dataclass(frozen=True)
class LiveConfig(Options):
    """Classify speech live from the microphone until Ctrl-C; --file needs no microphone."""

    groups: ClassVar[Mapping[str, str]] = {
        "device": "microphone", "file": "recording", "run": "classifier", "hop": "window",
        "log": "output",
    }  # fmt: skip

    once: bool = False
    """Record one clip of 3 s, print each class's percentage and end."""
    device: str = ""
    """Input device by index or by part of its name; 'ask' lists them and asks. Default: the
    system's default input."""
    list_devices: bool = False
    """Print the input devices and end."""
    file: Path | None = None
    """Cut this file at its pauses and label it, as if it were spoken."""
    realtime: bool = False
    """Play --file at the speed of speech, through all that a microphone's sound goes through."""
    out: Path | None = None
    """Write --file's segments to this file: .csv, .json, or .txt for Audacity's labels.
    Default: print them."""
    run: Path | None = None
    """A run's folder, or a bundled head: sentiment3 or emotion8. Default: the newest under
    --runs-dir, else the bundled sentiment3."""
    runs_dir: Path = RUNS_DIR
    """Where the newest run is looked for."""
    backend: BackendName = "auto"
    """Engine of the encoder; auto: OpenVINO on x86 processors if installed, which is quicker once
    it has converted the encoder, else torch."""
    hop: float = SegmentSettings.hop
    """Seconds from one window to the next."""
    smooth: int = SegmentSettings.smooth
    """Windows whose probabilities are averaged, an odd number; live, the half of them that lies
    ahead is left out."""
    threshold: float = SegmentSettings.threshold
    """Confidence below which a label is 'unsure'."""
    log: Path | None = None
    """Append every window, segment, pause and loss to this file, a JSON object a line.
    Default: no log."""
    record: Path | None = None
    """Write the sound to this new wav file: mono, 16 kHz. Default: nothing is recorded."""

    @property
    def settings(self) -> SegmentSettings:
        """How the sound is cut and labelled."""
        return SegmentSettings(self.hop, self.smooth, self.threshold)
