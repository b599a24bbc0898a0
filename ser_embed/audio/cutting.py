"""A decoded clip's silence trimmed, its length cut or filled: numpy alone.

`audio.py` calls it for files and microphones, and it goes as it is into folders for
transformers (`hub.py`).
"""

from typing import Literal

import numpy as np

from ser_embed.errors import AudioError

__all__ = [
    "FILL_RULES", "LEAD_SECONDS", "SAMPLE_RATE", "FillRule", "cut_clip", "fill_generator",
    "fit_length", "n_samples", "trim_silence",
]  # fmt: skip

SAMPLE_RATE = 16_000  # samples per second that every wav2vec2-family encoder expects

FillRule = Literal["sample", "repeat", "zero", "none"]
FILL_RULES: tuple[FillRule, ...] = ("sample", "repeat", "zero", "none")

LEAD_SECONDS = 10.0  # of silence that trimming looks past before it has to find speech
_TRIM_DB = 40.0  # below the loudest frame: further than speech falls within a sentence
_TRIM_FRAME = 320  # samples, 20 ms
_TRIM_MARGIN = 3  # frames kept on either side: soft onsets and endings


def n_samples(seconds: float) -> int:
    """Return the number of samples in so many seconds at 16 kHz."""
    return round(seconds * SAMPLE_RATE)


def trim_silence(samples: np.ndarray) -> np.ndarray:
    """Cut the silence before and after the sound; pauses inside stay.

    Silence is what lies 40 dB below the loudest 20 ms; 60 ms of it are kept on either side.

    Args:
        samples: Mono float32 at 16 kHz, shape (n_samples,).

    Returns:
        A view of the samples from the first to the last sound.
    """
    n_frames = len(samples) // _TRIM_FRAME
    if n_frames == 0:
        return samples
    frames = samples[: n_frames * _TRIM_FRAME].reshape(n_frames, _TRIM_FRAME)
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-_TRIM_DB / 10))
    start = max(0, loud[0] - _TRIM_MARGIN) * _TRIM_FRAME
    end = (loud[-1] + 1 + _TRIM_MARGIN) * _TRIM_FRAME
    # What is over after the last whole frame is kept or cut together with that frame.
    return samples[start : end if end < n_frames * _TRIM_FRAME else None]


def cut_clip(samples: np.ndarray, seconds: float, trim: bool) -> np.ndarray:
    """Trim silence if wished, then keep the first `seconds` (0: all): (n,) -> (m,), a view.

    What lies more than `seconds` and 10 s behind the start is not looked at.
    """
    if trim:
        samples = trim_silence(samples[: n_samples(seconds + LEAD_SECONDS)] if seconds else samples)
    return samples[: n_samples(seconds)] if seconds > 0 else samples


def fit_length(
    samples: np.ndarray, seconds: float, fill: FillRule, rng: np.random.Generator
) -> np.ndarray:
    """Cut or fill a clip to its length.

    Args:
        samples: Mono float32, shape (n_samples,).
        seconds: Clip length; 0 keeps the clip as it is.
        fill: What a shorter clip is filled with: `sample`, samples drawn at random from the
            clip (the two-stage paper's rule); `repeat`, the clip again; `zero`; `none`, nothing.
        rng: Source of the random samples, used by `sample` alone.

    Returns:
        float32 of shape (round(seconds * 16000),), or shorter with `none`.
    """
    wanted = n_samples(seconds)
    if wanted <= 0 or len(samples) == wanted:
        return samples
    if len(samples) > wanted:
        return samples[:wanted]
    missing = wanted - len(samples)
    if fill == "none":
        return samples
    if fill == "sample":
        tail = samples[rng.integers(0, len(samples), missing)]
    elif fill == "repeat":
        tail = np.resize(samples, missing)
    elif fill == "zero":
        tail = np.zeros(missing, dtype=np.float32)
    else:
        raise AudioError(f"fill rule {fill!r} is none of {', '.join(FILL_RULES)}")
    return np.concatenate([samples, tail])


def fill_generator(sha256: str, seed: int) -> np.random.Generator:
    """Return the source of a clip's random fill, seeded by the clip's own hash."""
    return np.random.default_rng([seed, int(sha256[:16], 16)])
