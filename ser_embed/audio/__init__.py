"""Sound: from files, arrays and streams to mono float32 samples at 16 kHz, shape (n_samples,).

`AudioFile` takes a path and gives a `Clip` (samples, hash, length), blocks of a long recording,
or only the hash or the length; `Resampler` does the same for arrays and streams of any rate and
channels. `Clip` cuts and fills to a length, as a `FillRule` says. A `SpeechGate` says whether
somebody speaks, `CONDITIONS` are disturbances on the way. Numbers are in seconds, Hz or samples;
what can't be used is an AudioError that says why.
"""

from typing import TYPE_CHECKING

from ser_embed.lazy import lazy_names

if TYPE_CHECKING:
    from ser_embed.audio.conditions import CONDITIONS
    from ser_embed.audio.constants import CLIP_SECONDS, FillRule
    from ser_embed.audio.cutting import SAMPLE_RATE, Clip
    from ser_embed.audio.decoding import AudioFile
    from ser_embed.audio.resampling import Resampler
    from ser_embed.audio.voice import SpeechGate
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "conditions": ["CONDITIONS"],
            "constants": ["CLIP_SECONDS", "FillRule"],
            "cutting": ["SAMPLE_RATE", "Clip"],
            "decoding": ["AudioFile"],
            "resampling": ["Resampler"],
            "voice": ["SpeechGate"],
        },
    )

__all__ = [
    "CLIP_SECONDS", "CONDITIONS", "SAMPLE_RATE", "AudioFile", "Clip", "FillRule", "Resampler",
    "SpeechGate",
]  # fmt: skip
