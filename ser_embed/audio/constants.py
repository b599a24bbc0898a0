"""What options and other stages need to know of sound: clip length, file endings, fill rules."""

from typing import Literal

__all__ = ["AUDIO_ENDINGS", "CLIP_SECONDS", "FillRule"]

CLIP_SECONDS = 3.0  # 3 s * 16,000 samples/s = 48,000 samples, the paper's clip

AUDIO_ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".opus")

FillRule = Literal["sample", "repeat", "zero", "none"]
"""What a clip shorter than wanted is filled with, see `cutting.fit_length`."""
