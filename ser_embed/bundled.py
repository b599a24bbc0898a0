"""Where the material that ships with the project lies."""

from pathlib import Path

__all__ = ["BUNDLED_ENCODERS", "BUNDLED_HEADS", "DEMO_CORPUS"]

_ARTIFACTS = Path(__file__).resolve().parent.parent / "artifacts"

BUNDLED_ENCODERS = _ARTIFACTS / "encoders"
BUNDLED_HEADS = _ARTIFACTS / "heads"
DEMO_CORPUS = _ARTIFACTS / "demo"  # synthetic clips: see ser_embed/demo.py
