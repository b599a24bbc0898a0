"""Whether somebody speaks in a short stretch of sound.

silero-vad judges where it is installed (extra `vad`), energy otherwise. Who has to know asks
`is_speech`, so that a better gate changes this file alone.
"""

import importlib.util
import threading
from typing import Any

import numpy as np
import torch

from ser_embed.audio.cutting import SAMPLE_RATE

__all__ = ["GATE_SECONDS", "gate_name", "is_loud", "is_speech"]

# Of the stretches in which silero-vad finds speech when it hears a whole recording, it finds 92
# to 96 % when it hears half a second at a time, and 52 to 74 % of a tenth.
GATE_SECONDS = 0.5

_LOUD_DB = -50.0  # below full scale: RAVDESS's softest actors stay above it, a quiet room doesn't
_LOUD_SAMPLES = SAMPLE_RATE // 10  # long enough that a click is none
_SILERO_SAMPLES = 512  # what silero-vad takes at a time at 16 kHz
_SILERO_THRESHOLD = 0.5  # its authors' default

_lock = threading.Lock()  # silero-vad keeps a state from chunk to chunk
_loaded: list[Any] = []


def is_speech(samples: np.ndarray) -> bool:
    """Say whether there is speech in a stretch.

    Args:
        samples: Mono float32 at 16 kHz, shape (n_samples,); best are `GATE_SECONDS` or more.
    """
    if not is_loud(samples, _LOUD_DB - 20):  # silero-vad is right about silence, but slower
        return False
    if gate_name() == "energy":
        return is_loud(samples)
    with _lock:
        return _silero_hears(samples)


def is_loud(samples: np.ndarray, threshold: float = _LOUD_DB) -> bool:
    """Say whether any tenth of a second is louder than `threshold` dB of full scale (RMS).

    Steady noise of that level counts as well: what this can't tell from speech, silero-vad can.
    What isn't finite is not loud.
    """
    whole = len(samples) // _LOUD_SAMPLES * _LOUD_SAMPLES or len(samples)
    if not whole:
        return False
    frames = samples[:whole].reshape(-1, min(whole, _LOUD_SAMPLES))
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    return bool(10 ** (threshold / 10) < power.max() < np.inf)


def gate_name() -> str:
    """Return what `is_speech` judges by: `silero-vad` or `energy`."""
    return "silero-vad" if importlib.util.find_spec("silero_vad") else "energy"


def _silero_hears(samples: np.ndarray) -> bool:
    if not _loaded:
        threads = torch.get_num_threads()
        from silero_vad import load_silero_vad

        torch.set_num_threads(threads)  # importing it sets one thread for the whole process
        _loaded.append(load_silero_vad())
    model = _loaded[0]
    model.reset_states()
    padded = np.pad(samples, (0, -len(samples) % _SILERO_SAMPLES))
    with torch.inference_mode():
        return any(
            model(chunk, SAMPLE_RATE).item() >= _SILERO_THRESHOLD
            for chunk in torch.from_numpy(padded).split(_SILERO_SAMPLES)
        )
