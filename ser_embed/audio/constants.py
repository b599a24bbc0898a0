"""What options and other stages need to know of sound: clip length, file endings, fill rules."""

from typing import Literal

__all__ = ["AUDIO_ENDINGS", "CLIP_SECONDS", "MEDIA_ENDINGS", "FillRule"]

CLIP_SECONDS = 3.0  # 3 s * 16,000 samples/s = 48,000 samples, the paper's clip

MEDIA_ENDINGS = (
    ".m4a", ".mp4", ".webm", ".aac", ".amr", ".wma", ".mov", ".mkv", ".3gp", ".avi", ".flv",
    ".wmv", ".m4v", ".m4b", ".mpg", ".mpeg", ".mka", ".weba", ".3g2", ".awb", ".ac3", ".wv",
    ".ape", ".tta",
)  # fmt: skip
"""Endings of what the extra `media` decodes and soundfile doesn't."""

AUDIO_ENDINGS = (
    ".wav", ".flac", ".mp3", ".ogg", ".opus", ".oga", ".aiff", ".aif", ".aifc", ".au", ".snd",
    ".w64", ".rf64", ".caf", ".voc", ".sph", ".mp2", *MEDIA_ENDINGS,
)  # fmt: skip

FillRule = Literal["sample", "repeat", "zero", "none"]
"""What a clip shorter than wanted is filled with, see `cutting.fit_length`."""
