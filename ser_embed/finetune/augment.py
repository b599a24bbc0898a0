"""Disturbances of training clips, by audiomentations, drawn from a seed of each clip's own."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ser_embed.audio import SAMPLE_RATE, Clip
from ser_embed.errors import MissingExtra, SerEmbedError
from ser_embed.finetune.recipes import Augmentation

__all__ = ["make_augment"]

Augment = Callable[[np.ndarray, list[int]], np.ndarray]


def make_augment(settings: Augmentation) -> Augment:
    """Return a function from samples (n,) float32 at 16 kHz and a seed to disturbed samples (m,).

    The same samples and seed give the same result, in any process. A stretched clip is as much
    longer or shorter; cutting and filling come after.

    Raises:
        MissingExtra: audiomentations isn't installed.
        SerEmbedError: A range that it doesn't take.
    """
    try:
        chain = _chain(settings)
    except ImportError as error:
        raise MissingExtra("audiomentations", "finetune") from error
    except ValueError as error:
        raise SerEmbedError(f"augmentation: {error}") from error

    def augment(samples: np.ndarray, seed: list[int]) -> np.ndarray:
        with _seeded(seed):
            disturbed = chain(samples=samples, sample_rate=SAMPLE_RATE)
        # A clip of a few frames can't be stretched to less than an encoder takes.
        return disturbed if len(disturbed) >= Clip.MIN_SAMPLES else samples

    return augment


def _chain(settings: Augmentation) -> Any:
    import audiomentations

    p = settings.probability
    made = {
        "noise": lambda: audiomentations.AddGaussianNoise(*settings.noise, p=p),
        "pitch": lambda: audiomentations.PitchShift(-settings.pitch, settings.pitch, p=p),
        "stretch": lambda: audiomentations.TimeStretch(
            *settings.stretch, leave_length_unchanged=False, p=p
        ),
        "mask": lambda: audiomentations.TimeMask(max_band_part=settings.mask, p=p),
    }
    # Noise last, so that it isn't shifted or stretched with the voice.
    order = ("stretch", "pitch", "mask", "noise")
    return audiomentations.Compose([made[name]() for name in order if name in settings.kinds])


@contextmanager
def _seeded(seed: list[int]) -> Iterator[None]:
    """Seed the generators that audiomentations draws from, and put them back as they were."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    one, other = np.random.SeedSequence(seed).generate_state(2)
    random.seed(int(one))
    np.random.seed(int(other))  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
