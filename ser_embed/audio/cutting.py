"""A clip's silence trimmed, its length cut or filled: numpy alone.

Files, arrays and microphones all go through this module, and it is copied as it is into folders
for transformers (`export/hub.py`), where nothing else of this folder is.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ser_embed.errors import AudioError

__all__ = [
    "FRAME_SAMPLES", "LEAD_SECONDS", "SAMPLE_RATE", "Clip", "cut_clip", "fit_length",
    "frame_power", "late_start", "trim_silence",
]  # fmt: skip

SAMPLE_RATE = 16_000  # samples per second that every wav2vec2-family encoder expects

FRAME_SAMPLES = 320  # 20 ms, what silence and sound are told apart by

LEAD_SECONDS = 10.0  # beyond the clip, in which the loudest sound says what silence is
_TRIM_DB = 40.0  # below the loudest frame: further than speech falls within a sentence
_TRIM_MARGIN = 3  # frames kept on either side: soft onsets and endings
_CLICK_FRAMES = 5  # 100 ms: a click or a knock is shorter, with what rings after it
_CLICK_DB = 25.0  # above the loudest 0.3 s: in 4,649 clips of five corpora, 23.5 at most
_CLICK_RANGE_DB = 60.0  # what is further below a click than this is noise, not speech
_SOUND_FRAMES = 15  # 0.3 s
_SOUND_DB = -50.0  # of full scale: the softest actors stay above it, a quiet room doesn't


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


def frame_power(samples: np.ndarray) -> np.ndarray:
    """Return the mean square of each whole frame: (n_samples,) -> float64 (n_frames,)."""
    n_frames = len(samples) // FRAME_SAMPLES
    frames = samples[: n_frames * FRAME_SAMPLES].reshape(n_frames, FRAME_SAMPLES)
    return np.mean(np.square(frames, dtype=np.float64), axis=1)


def late_start(
    window: np.ndarray, seconds: float, trim: bool, power: Callable[[np.ndarray], np.ndarray]
) -> float:
    """Return where a clip has to begin if not at the start of what was read; 0 if there.

    If the window isn't quiet, sound is what its own loudest part says; if it is, the loudest part
    of the whole.

    Args:
        window: What was read, (n_samples,) at 16 kHz; more is behind.
        seconds: Clip length.
        trim: Whether leading silence is cut. Without, only silence as long as the clip counts.
        power: Gives, for the window, the power of each frame of the whole, (n_frames,).

    Returns:
        Seconds from the start.
    """
    own = frame_power(window)
    quiet = int((own > 10 ** (_SOUND_DB / 10)).sum()) < _SOUND_FRAMES
    if not (quiet or trim):
        return 0.0
    first = int(_sound_frames(power(window) if quiet else own, _n_frames(seconds))[0])
    start = max(0, first - _TRIM_MARGIN) * FRAME_SAMPLES / SAMPLE_RATE
    late = start > LEAD_SECONDS if trim else first >= _n_frames(seconds)
    return start if late else 0.0


def _n_frames(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE) // FRAME_SAMPLES


def trim_silence(samples: np.ndarray, seconds: float = 0.0) -> np.ndarray:
    """Cut the silence before and after the sound; pauses inside stay.

    Silence is what is 40 dB below the loudest 20 ms; 60 ms of it are kept on either side. Clicks
    don't count, see `_without_clicks`.

    Args:
        samples: Mono float32 at 16 kHz, shape (n_samples,).
        seconds: Clip length: a clip isn't begun with a knock if it would end before the speech.

    Returns:
        A view of the samples from the first to the last sound.
    """
    power = frame_power(samples)
    if not len(power):
        return samples
    loud = _sound_frames(power, _n_frames(seconds))
    start = max(0, loud[0] - _TRIM_MARGIN) * FRAME_SAMPLES
    end = (loud[-1] + 1 + _TRIM_MARGIN) * FRAME_SAMPLES
    # What is left over after the last whole frame is kept or cut together with that frame.
    return samples[start : end if end < len(power) * FRAME_SAMPLES else None]


def _sound_frames(power: np.ndarray, n_clip: int) -> np.ndarray:
    """Return the indexes of the frames that aren't silence, of power (n_frames,)."""
    power = _without_clicks(power)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-_TRIM_DB / 10))
    while n_clip:
        later = loud[loud >= loud[0] + n_clip]
        if len(loud) - len(later) > _CLICK_FRAMES or len(later) < _SOUND_FRAMES:
            break
        loud = later  # a knock alone, as loud as the speech that begins after the clip
    return loud


def _without_clicks(power: np.ndarray) -> np.ndarray:
    """Set to zero what is far louder than the rest and short: (n_frames,) -> (n_frames,).

    Otherwise a click at full scale makes silence of quiet speech.
    """
    if len(power) <= _SOUND_FRAMES:
        return power
    usual = np.partition(power, -_SOUND_FRAMES)[-_SOUND_FRAMES]
    edges = np.flatnonzero(np.diff(power > usual * 10 ** (_CLICK_DB / 10), prepend=0, append=0))
    rest = power.copy()
    for start, end in edges.reshape(-1, 2):
        if end - start <= _CLICK_FRAMES:
            while start > 0 and rest[start - 1] > usual:
                start -= 1
            while end < len(rest) and rest[end] > usual:
                end += 1
            rest[start:end] = 0.0
    return rest if rest.max() > power.max() * 10 ** (-_CLICK_RANGE_DB / 10) else power


def cut_clip(samples: np.ndarray, seconds: float, trim: bool) -> np.ndarray:
    """Trim silence if wished, then keep the first `seconds` (0: all): (n,) -> (m,), a view.

    Samples more than `seconds` and 10 s after the start are not looked at, unless the sound begins
    so late that the clip wouldn't be whole.
    """
    if seconds <= 0:
        return trim_silence(samples) if trim else samples
    if trim:
        within = round((seconds + LEAD_SECONDS) * SAMPLE_RATE)
        window = samples[:within]
        if len(samples) > within:
            late = late_start(window, seconds, trim, lambda _: frame_power(samples))
            begin = round(late * SAMPLE_RATE)
            window = samples[begin : begin + within]
        samples = trim_silence(window, seconds)
    return samples[: round(seconds * SAMPLE_RATE)]


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
