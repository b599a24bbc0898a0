"""The options of `export`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ser_embed.command import RUNS_DIR, Options

__all__ = ["ExportConfig"]


@dataclass(frozen=True)
class ExportConfig(Options):
    """Write a trained run as one ONNX file, or as a folder that transformers loads."""

    groups: ClassVar[Mapping[str, str]] = {
        "out": "output", "check": "check", "runs_dir": "folders",
    }  # fmt: skip

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """A run's folder, or a bundled head: sentiment3 or emotion8. Default: the newest under
    --runs-dir, else the bundled sentiment3."""
    out: Path | None = None
    """The ONNX file to write."""
    int8: bool = False
    """Also write F.int8.onnx, with the matrix products in 8 bits."""
    to_hub: Path | None = None
    """Folder to write for transformers and the Hugging Face hub, with a model card."""
    check: tuple[Path, ...] = ()
    """Clips, or folders of them, that the export is compared with the classifier on. Default:
    bundled demo clips."""
    measure: Path | None = None
    """Folder of a corpus to measure the accuracy of the files on; name it with --corpus."""
    corpus: str = ""
    """Name of the corpus to measure on, or demo."""
    csv: Path | None = None
    """A CSV with the header path,emotion to measure on instead."""
    limit: int = 0
    """Measure on so many clips only, spread evenly over the corpus; 0 for all."""
    runs_dir: Path = RUNS_DIR
    """Where the newest run is looked for."""
