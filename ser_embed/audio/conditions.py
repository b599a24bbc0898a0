"""What happens to speech on its way: noise, rooms, telephones, codecs, levels, short clips.

scipy and soundfile are imported when a condition needs them: options name the conditions.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ser_embed.audio.cutting import SAMPLE_RATE, cut_clip, trim_silence
from ser_embed.audio.resampling import to_mono

__all__ = ["CONDITIONS", "Condition", "encode_mp3"]

Disturbed = tuple[np.ndarray, int]

TELEPHONE_RATE = 8_000  # samples per second of narrow-band telephony
TELEPHONE_BAND = (300.0, 3400.0)  # Hz
REVERBERATION_SECONDS = 0.6  # until the tail has fallen by 60 dB: a classroom
MP3_RATES = (8, 160)  # kbit/s; what libsndfile's scale from 1 to 0 spans at 16 kHz


@dataclass(frozen=True)
class Condition:
    """One way in which speech may reach a classifier.

    Attributes:
        description: What it is, with its figures.
        disturb: From mono float32 samples at 16 kHz (n,) and a generator to samples and rate.
    """

    description: str
    disturb: Callable[[np.ndarray, np.random.Generator], Disturbed]


def _clean(samples: np.ndarray, rng: np.random.Generator) -> Disturbed:
    return samples, SAMPLE_RATE


def _noise(decibels: float) -> Condition:
    def disturb(samples: np.ndarray, rng: np.random.Generator) -> Disturbed:
        # Power of the speech, without the silence around it, which differs between corpora.
        power = np.mean(np.square(trim_silence(samples), dtype=np.float64))
        scale = np.sqrt(power / 10 ** (decibels / 10))
        noise = scale * rng.standard_normal(len(samples))
        return (samples + noise).astype(np.float32), SAMPLE_RATE

    return Condition(f"white noise, {decibels:.0f} dB below the speech", disturb)


def _telephone(samples: np.ndarray, rng: np.random.Generator) -> Disturbed:
    import scipy.signal
    import soundfile

    narrow = scipy.signal.resample_poly(samples, TELEPHONE_RATE, SAMPLE_RATE)
    band = scipy.signal.butter(4, TELEPHONE_BAND, "bandpass", fs=TELEPHONE_RATE, output="sos")
    narrow = np.clip(scipy.signal.sosfilt(band, narrow), -1, 1)
    file = io.BytesIO()
    soundfile.write(file, narrow, TELEPHONE_RATE, format="WAV", subtype="ULAW")
    file.seek(0)
    return soundfile.read(file, dtype="float32")


def encode_mp3(samples: np.ndarray, kilobits: int) -> bytes:
    """Return samples (n,) at 16 kHz as MP3 of a constant bit rate in kbit/s."""
    import soundfile

    low, high = MP3_RATES
    file = io.BytesIO()
    soundfile.write(
        file, samples, SAMPLE_RATE, format="MP3", bitrate_mode="CONSTANT",
        compression_level=(high - kilobits) / (high - low),
    )  # fmt: skip
    return file.getvalue()


def _mp3(samples: np.ndarray, rng: np.random.Generator) -> Disturbed:
    import soundfile

    decoded, rate = soundfile.read(io.BytesIO(encode_mp3(samples, 32)), dtype="float32")
    return to_mono(decoded), rate


def _reverberation(samples: np.ndarray, rng: np.random.Generator) -> Disturbed:
    """Convolve with a direct sound and decaying noise of the same energy (Polack 1988)."""
    import scipy.signal

    time = np.arange(int(REVERBERATION_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / REVERBERATION_SECONDS)
    tail[0] = 0.0
    response = tail / np.sqrt(np.sum(tail**2))
    response[0] = 1.0
    wet = scipy.signal.fftconvolve(samples, response)
    level = np.sqrt(
        np.mean(np.square(samples, dtype=np.float64)) / np.mean(wet[: len(samples)] ** 2)
    )
    return (level * wet).astype(np.float32), SAMPLE_RATE


def _gain(decibels: float) -> Condition:
    def disturb(samples: np.ndarray, rng: np.random.Generator) -> Disturbed:
        louder = samples * np.float32(10 ** (decibels / 20))
        return np.clip(louder, -1, 1), SAMPLE_RATE

    clipped = ", clipped at full scale" if decibels > 0 else ""
    return Condition(f"gain {decibels:+.0f} dB{clipped}", disturb)


def _first(seconds: float) -> Condition:
    def disturb(samples: np.ndarray, rng: np.random.Generator) -> Disturbed:
        return cut_clip(samples, seconds, trim=True), SAMPLE_RATE

    return Condition(f"the first {seconds:.0f} s of speech alone", disturb)


CONDITIONS: dict[str, Condition] = {
    "clean": Condition("clean", _clean),
    "noise20": _noise(20),
    "noise10": _noise(10),
    "noise0": _noise(0),
    "telephone": Condition("telephone: 300 to 3400 Hz, 8 kHz, mu-law", _telephone),
    "mp3": Condition("MP3, 32 kbit/s", _mp3),
    "reverberation": Condition(
        f"reverberation, {REVERBERATION_SECONDS} s, as strong as the direct sound", _reverberation
    ),
    "quiet": _gain(-20),
    "loud": _gain(20),
    "first1": _first(1.0),
    "first2": _first(2.0),
}
"""The conditions by name, the clean one first."""
