"""Sound: from a file or a stream to mono float32 samples at 16 kHz of the clip length."""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.audio.conditions import CONDITIONS
    from ser_embed.audio.cutting import (
        SAMPLE_RATE,
        FillRule,
        cut_clip,
        fill_generator,
        fit_length,
        n_samples,
    )
    from ser_embed.audio.decoding import (
        AUDIO_ENDINGS,
        CLIP_SECONDS,
        MIN_SAMPLES,
        RESAMPLER,
        Clip,
        Resampler,
        audio_seconds,
        find_audio,
        fit_clip,
        hash_file,
        load_audio,
        read_clip,
        resample,
        stream_audio,
        to_mono,
    )
    from ser_embed.audio.voice import GATE_SECONDS, gate_name, is_speech
    from ser_embed.audio.windows import Window, Windows
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "conditions": ["CONDITIONS"],
            "cutting": [
                "FillRule",
                "SAMPLE_RATE",
                "cut_clip",
                "fill_generator",
                "fit_length",
                "n_samples",
            ],
            "decoding": [
                "AUDIO_ENDINGS",
                "CLIP_SECONDS",
                "Clip",
                "MIN_SAMPLES",
                "RESAMPLER",
                "Resampler",
                "audio_seconds",
                "find_audio",
                "fit_clip",
                "hash_file",
                "load_audio",
                "read_clip",
                "resample",
                "stream_audio",
                "to_mono",
            ],
            "voice": ["GATE_SECONDS", "gate_name", "is_speech"],
            "windows": ["Window", "Windows"],
        },
    )

__all__ = [
    "AUDIO_ENDINGS",
    "CLIP_SECONDS",
    "CONDITIONS",
    "GATE_SECONDS",
    "MIN_SAMPLES",
    "RESAMPLER",
    "SAMPLE_RATE",
    "Clip",
    "FillRule",
    "Resampler",
    "Window",
    "Windows",
    "audio_seconds",
    "cut_clip",
    "fill_generator",
    "find_audio",
    "fit_clip",
    "fit_length",
    "gate_name",
    "hash_file",
    "is_speech",
    "load_audio",
    "n_samples",
    "read_clip",
    "resample",
    "stream_audio",
    "to_mono",
]
