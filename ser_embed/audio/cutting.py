"""A clip's silence trimmed, its length cut or filled: numpy alone.

Files, arrays and microphones all go through this module, and it is copied as it is into folders
for transformers (`export/hub.py`), where nothing else of this folder is.
"""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ser_embed.errors import AudioError

__all__ = ["LEAD_SECONDS", "SAMPLE_RATE", "Clip", "cut_clip", "fit_length", "trim_silence"]

SAMPLE_RATE = 16_000  # samples per second that every wav2vec2-family encoder expects

LEAD_SECONDS = 10.0  # of silence that trimming looks past before it has to find speech
_TRIM_DB = 40.0  # below the loudest frame: further than speech falls within a sentence
_TRIM_FRAME = 320  # samples, 20 ms
_TRIM_MARGIN = 3  # frames kept on either side: soft onsets and endings


@dataclass(frozen=True)
class Clip:
    """One decoded clip.

    Attributes:
        samples: Mono float32 at 16 kHz, shape (n_samples,).
        sha256: Hash of the file's bytes, which is what keys it in a store.
        seconds: Length of the whole file, before anything was cut.
        rate: Samples per second in the file.
        channels: Channels in the file.
    """

    MIN_SAMPLES: ClassVar[int] = 400  # 25 ms, the receptive field of wav2vec2's convolutions

    samples: np.ndarray
    sha256: str
    seconds: float
    rate: int = SAMPLE_RATE
    channels: int = 1

    @classmethod
    def of(cls, samples: np.ndarray, seconds: float = 0.0, trim: bool = False) -> "Clip":
        """Return samples from no file as a clip: cut (see `cut_clip`), and hashed themselves.

        Args:
            samples: Mono float32 at 16 kHz, shape (n_samples,).
            seconds: Clip length; 0 for all.
            trim: Whether silence before and after the sound is cut first.
        """
        samples = cut_clip(samples, seconds, trim)
        digest = hashlib.sha256(samples.tobytes()).hexdigest()
        return cls(samples, digest, len(samples) / SAMPLE_RATE)

    def fit(self, seconds: float, fill: str, seed: int) -> np.ndarray:
        """Return the clip cut or filled, see `fit_length`; its own hash seeds a random fill.

        So a clip's features don't depend on its position in the corpus, the batch or a resume.
        """
        rng = np.random.default_rng([seed, int(self.sha256[:16], 16)])
        return fit_length(self.samples, seconds, fill, rng)


def trim_silence(samples: np.ndarray) -> np.ndarray:
    """Cut the silence before and after the sound; pauses inside stay.

    Silence is what is 40 dB below the loudest 20 ms; 60 ms of it are kept on either side.

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
    # What is left over after the last whole frame is kept or cut together with that frame.
    return samples[start : end if end < n_frames * _TRIM_FRAME else None]


def cut_clip(samples: np.ndarray, seconds: float, trim: bool) -> np.ndarray:
    """Trim silence if wished, then keep the first `seconds` (0: all): (n,) -> (m,), a view.

    Samples more than `seconds` and 10 s after the start are not looked at.
    """
    wanted = round(seconds * SAMPLE_RATE) if seconds > 0 else None
    if trim:
        within = round((seconds + LEAD_SECONDS) * SAMPLE_RATE) if wanted else None
        samples = trim_silence(samples[:within])
    return samples[:wanted]


def fit_length(
    samples: np.ndarray, seconds: float, fill: str, rng: np.random.Generator
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

    Raises:
        AudioError: No such rule.
    """
    wanted = round(seconds * SAMPLE_RATE)
    if wanted <= 0 or len(samples) >= wanted:
        return samples[:wanted] if wanted > 0 else samples
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
        raise AudioError(f"fill rule {fill!r} is none of sample, repeat, zero, none")
    return np.concatenate([samples, tail])
