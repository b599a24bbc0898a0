"""Where the material that ships with the project lies."""

from pathlib import Path

__all__ = ["BUNDLED_ENCODERS", "BUNDLED_HEADS", "DEFAULT_HEAD", "DEMO_CORPUS", "HEADS_LICENCE"]

_ARTIFACTS = Path(__file__).resolve().parent.parent / "artifacts"

BUNDLED_ENCODERS = _ARTIFACTS / "encoders"
BUNDLED_HEADS = _ARTIFACTS / "heads"
DEFAULT_HEAD = "sentiment3"  # what classifies where nothing has been trained yet
HEADS_LICENCE = "CC BY-NC-SA 4.0"  # of the heads in BUNDLED_HEADS, see the README there
DEMO_CORPUS = _ARTIFACTS / "demo"  # synthetic clips: see ser_embed/demo.py
