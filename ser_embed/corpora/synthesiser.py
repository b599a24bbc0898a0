"""The demo corpus: emotional nonsense syllables from a source-filter synthesiser.

It lets the package be shown and tested without anyone's recordings. Scores on it say that the
software works, and nothing about people. The file is long because it is one model of a voice.

A Rosenberg glottal pulse train (Rosenberg 1971, JASA 49) with jitter, shimmer and aspiration noise
drives a cascade of Klatt's digital resonators (Klatt 1980, JASA 67) whose formants glide between
vowel targets of Peterson & Barney (1952, JASA 24). What distinguishes the emotions is prosody and
voice quality alone; directions and rough sizes follow the acoustic correlates reviewed by Juslin &
Laukka (2003, Psychological Bulletin 129) and Scherer (2003, Speech Communication 40). Every clip
draws its own deviation, so the classes overlap.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import soundfile

from ser_embed.audio import SAMPLE_RATE
from ser_embed.bundled import DEMO_TITLE

__all__ = ["ACTORS", "EMOTIONS", "INTENSITIES", "STATEMENTS", "synthesise", "write_demo_corpus"]


@dataclass(frozen=True)
class Prosody:
    """How speech deviates from the speaker's neutral voice."""

    pitch: float = 0.0  # level of f0, semitones
    span: float = 0.0  # pitch range, octaves: +1 doubles every excursion of f0
    final: float = 0.0  # movement of f0 over the last third, semitones
    rate: float = 0.0  # speech rate, octaves
    level: float = 0.0  # loudness, dB
    tilt: float = 0.0  # corner of the source's spectral tilt, octaves: higher is brighter
    breath: float = 0.0  # aspiration noise, dB
    jitter: float = 0.0  # spread of pitch periods, percent of a period
    lips: float = 0.0  # formant shift by spread (+) or protruded (-) lips, octaves


_PROSODY = {
    "neutral": Prosody(),
    "calm": Prosody(-1.0, -0.25, -0.5, -0.20, -3.0, -0.5, 2.0, 0.0, 0.01),
    "happy": Prosody(3.5, 0.60, 1.0, 0.12, 3.0, 0.5, 0.0, 0.0, 0.07),
    "sad": Prosody(-1.0, -0.60, -1.0, -0.26, -5.0, -0.8, 4.0, 0.5, -0.03),
    "angry": Prosody(3.0, 0.45, -1.5, 0.15, 6.5, 1.1, -3.0, 0.5, 0.0),
    "fearful": Prosody(5.0, -0.15, 1.5, 0.24, 0.5, 0.1, 4.0, 1.1, 0.02),
    "disgust": Prosody(-1.5, 0.25, -1.5, -0.25, 1.0, 0.3, -1.0, 0.9, -0.06),
    "surprised": Prosody(4.0, 0.70, 8.0, 0.02, 2.0, 0.2, 1.0, 0.0, 0.0),
}  # fmt: skip
_DEVIATION = Prosody(1.3, 0.25, 1.0, 0.08, 1.8, 0.35, 1.5, 0.25, 0.02)  # s.d. between clips

EMOTIONS = tuple(_PROSODY)
"""RAVDESS's emotions in the order of its codes 01 to 08."""
INTENSITIES = ("normal", "strong")
"""RAVDESS's intensities in the order of its codes; neutral has no strong one."""
_SCALE = {"normal": 1.0, "strong": 1.4}  # what the table above is multiplied by


@dataclass(frozen=True)
class Speaker:
    """A voice: f0 in Hz, formants and rate as ratios, tilt in octaves, breath dB, jitter in %."""

    f0: float
    formants: float
    rate: float
    tilt: float
    breath: float
    jitter: float


_SPEAKERS = {
    1: Speaker(112, 1.00, 1.00, 0.0, 0.0, 0.5),
    2: Speaker(204, 1.16, 1.03, -0.2, 2.0, 0.4),
    3: Speaker(131, 1.04, 1.06, 0.2, -1.0, 0.6),
    4: Speaker(186, 1.12, 0.96, 0.1, 0.0, 0.7),
    5: Speaker(98, 0.95, 0.95, -0.1, 1.0, 0.8),
    6: Speaker(226, 1.20, 1.00, 0.1, 1.0, 0.4),
}
ACTORS = tuple(_SPEAKERS)
"""Actor numbers; odd ones are male, even ones female, as in RAVDESS."""


@dataclass(frozen=True)
class Segment:
    """A stretch of speech with one articulatory target."""

    ms: float  # duration at rate 1
    formants: tuple[float, float, float]  # F1 to F3 in Hz for a formant ratio of 1
    voicing: float = 0.0  # amplitude of the glottal source, 0 to 1
    noise: float = 0.0  # level of frication relative to the RMS of vowels
    centre: float = 4000.0  # of the frication, Hz


_VOWELS = {
    "a": Segment(150, (730, 1090, 2440), 1.0),
    "e": Segment(140, (530, 1840, 2480), 1.0),
    "i": Segment(130, (270, 2290, 3010), 0.9),
    "o": Segment(145, (570, 840, 2410), 1.0),
    "u": Segment(135, (300, 870, 2240), 0.9),
}
_CONSONANTS = {
    "m": (Segment(75, (250, 1000, 2200), 0.35),),
    "n": (Segment(70, (250, 1600, 2600), 0.35),),
    "l": (Segment(65, (340, 1150, 2800), 0.5),),
    "b": (Segment(60, (200, 900, 2200), 0.08), Segment(10, (350, 900, 2200), 0.4, 0.15, 900)),
    "d": (Segment(55, (200, 1700, 2600), 0.08), Segment(12, (350, 1700, 2600), 0.4, 0.2, 3800)),
    "t": (Segment(65, (300, 1700, 2600)), Segment(25, (400, 1750, 2600), 0.0, 0.4, 4500)),
    "k": (Segment(65, (300, 1900, 2200)), Segment(30, (400, 1900, 2300), 0.0, 0.35, 2000)),
    "s": (Segment(105, (320, 1500, 2600), 0.0, 0.3, 6000),),
    "x": (Segment(105, (300, 1800, 2500), 0.0, 0.35, 3200),),
    "f": (Segment(90, (340, 1000, 2200), 0.0, 0.08, 5000),),
}
STATEMENTS = {1: "do ki sa me ti lu na", 2: "ka ne bo xi lu fa mi"}
_STRESSED = (0, 3, 5)  # syllables that carry a pitch and loudness accent

_CONTROL_RATE = 1000  # control points per second
_HOP, _FRAME, _FFT = 128, 256, 768  # 8 ms hop; 32 ms of padding hold the resonances' decay
_PAUSE = Segment(0, (500, 1500, 2500))
_HIGH_FORMANTS = (3500.0, 4500.0, 5500.0, 6500.0)
_BANDWIDTHS = (70.0, 90.0, 130.0, 200.0, 300.0, 400.0, 500.0)  # Hz
_LEVEL = -29.0  # dBFS, RMS of neutral speech without its pauses
_FLOOR = -60.0  # dBFS, RMS of the noise floor
_PEAK = 0.8  # leaves an encoder room for overshoot


@dataclass(frozen=True)
class _Tracks:
    """Control tracks at `_CONTROL_RATE`: `formants` is (n, 3), the others (n,)."""

    formants: np.ndarray
    voicing: np.ndarray
    noise: np.ndarray
    centre: np.ndarray
    accent: np.ndarray


def write_demo_corpus(folder: Path, seed: int = 0) -> list[Path]:
    """Write 360 clips as `Actor_NN/03-01-EE-II-SS-RR-NN.ogg` (RAVDESS's names) and a README.md.

    Args:
        folder: Where to; made if missing, files of the same names are replaced.
        seed: Non-negative seed of all clips.

    Returns:
        Paths of the clips, sorted.

    Raises:
        ValueError: The seed is negative.
        OSError: The folder can't be written.
    """
    paths = []
    for clip in product(EMOTIONS, INTENSITIES, STATEMENTS, (1, 2), ACTORS):
        if clip[:2] == ("neutral", "strong"):
            continue
        samples = synthesise(*clip, seed)
        name = "-".join(f"{number:02d}" for number in (3, 1, *_code(*clip)))
        path = folder / f"Actor_{clip[-1]:02d}" / f"{name}.ogg"
        path.parent.mkdir(parents=True, exist_ok=True)
        # About 20 kbit/s, which keeps the whole corpus under 3 MB.
        soundfile.write(
            path, samples, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=0.94
        )
        paths.append(path)
    readme = f"{DEMO_TITLE}\n{_README.format(n=len(paths), seed=seed)}"
    (folder / "README.md").write_text(readme, encoding="utf-8")
    return sorted(paths)


_README = """\

{n} clips of synthetic, speech-like nonsense syllables: eight emotions, two intensities, two
statements, two repetitions, six voices; 16 kHz mono, Ogg Opus. The file names follow RAVDESS's
rule `modality-channel-emotion-intensity-statement-repetition-actor`.

All of it was made by `python -m ser_embed.demo FOLDER --seed {seed}`. No person's voice and no
recording is in it. Scores on it show that the software works and say nothing about real speech.

Dedicated to the public domain: CC0 1.0, <https://creativecommons.org/publicdomain/zero/1.0/>.
"""


def synthesise(
    emotion: str, intensity: str, statement: int, repetition: int, actor: int, seed: int = 0
) -> np.ndarray:
    """Synthesise one clip; the same arguments give the same samples.

    Args:
        emotion: One of `EMOTIONS`.
        intensity: `normal` or `strong`; neutral has only `normal`.
        statement: 1 or 2, the sequence of syllables.
        repetition: 1 or 2; another draw of the clip's deviations.
        actor: One of `ACTORS`; odd ones have male voices.
        seed: Non-negative seed of all draws.

    Returns:
        Mono float32 of shape (n_samples,) at 16 kHz, 1.5 to 3.5 s, within [-0.8, 0.8].

    Raises:
        ValueError: An argument has another value; the message names the valid ones.
    """
    code = _code(emotion, intensity, statement, repetition, actor)
    if seed < 0:
        raise ValueError(f"seed {seed!r} is negative; valid: 0, 1, 2, ...")
    rng = np.random.default_rng([seed, *code])
    speaker, style = _SPEAKERS[actor], _style(emotion, intensity, rng)

    tracks = _tracks(STATEMENTS[statement], speaker.rate * 2**style.rate, rng)
    f0 = _to_samples(speaker.f0 * 2 ** (_pitch(tracks, style, rng) / 12))
    source = _glottal_source(f0, speaker, style, rng) * _to_samples(tracks.voicing)
    ratio = speaker.formants * 2**style.lips
    tract = _vocal_tract(tracks.formants * ratio, ratio, 1800 * 2 ** (speaker.tilt + style.tilt))
    voiced = _filter(source, tract)
    hiss = rng.standard_normal(len(f0)) * _to_samples(tracks.noise)
    speech = voiced / _active_rms(voiced) + _filter(hiss, _frication(tracks.centre * ratio))

    speech *= 10 ** ((_LEVEL + style.level) / 20) / _active_rms(speech)
    floor = 10 ** ((_FLOOR + rng.uniform(-2, 2)) / 20)
    clip = speech + floor * rng.standard_normal(len(speech))
    return (clip * min(1.0, _PEAK / np.abs(clip).max())).astype(np.float32)


def _code(
    emotion: str, intensity: str, statement: int, repetition: int, actor: int
) -> tuple[int, int, int, int, int]:
    """Return RAVDESS's numbers for a clip, or raise ValueError."""
    intensities = INTENSITIES[:1] if emotion == "neutral" else INTENSITIES
    for name, value, valid in (
        ("emotion", emotion, EMOTIONS),
        (f"intensity of {emotion}", intensity, intensities),
        ("statement", statement, tuple(STATEMENTS)),
        ("repetition", repetition, (1, 2)),
        ("actor", actor, ACTORS),
    ):
        if value not in valid:
            raise ValueError(f"{name} {value!r} is none of {', '.join(map(str, valid))}")
    return (
        EMOTIONS.index(emotion) + 1, INTENSITIES.index(intensity) + 1, statement, repetition, actor
    )  # fmt: skip


def _style(emotion: str, intensity: str, rng: np.random.Generator) -> Prosody:
    """Return the clip's own prosody: the table's, scaled by intensity, plus random deviation."""
    draws = np.clip(rng.standard_normal(len(vars(_DEVIATION))), -2, 2)
    values = [
        _SCALE[intensity] * value + spread * draw
        for value, spread, draw in zip(
            vars(_PROSODY[emotion]).values(), vars(_DEVIATION).values(), draws, strict=True
        )
    ]
    return Prosody(*map(float, values))


def _tracks(statement: str, rate: float, rng: np.random.Generator) -> _Tracks:
    """Lay out the syllables between two pauses and smooth the steps between targets."""
    plan: list[tuple[Segment, float, float]] = []  # target, seconds, accent
    syllables = statement.split()
    for i, syllable in enumerate(syllables):
        accent = float(i in _STRESSED)
        stretch = (1 + 0.2 * accent) * (1.45 if i == len(syllables) - 1 else 1.0)
        for segment in (*_CONSONANTS[syllable[0]], _VOWELS[syllable[1]]):
            # Vowels give way to the rate and to stress; consonants keep more of their length.
            factor = stretch / rate if segment.voicing > 0.5 else rate**-0.6
            seconds = segment.ms / 1000 * factor * rng.uniform(0.88, 1.12)
            plan.append((segment, seconds, accent))
    spoken = sum(seconds for _, seconds, _ in plan)
    lead, trail = rng.uniform(0.15, 0.3), rng.uniform(0.2, 0.35)
    trail = float(np.clip(trail, 1.52 - spoken - lead, 3.48 - spoken - lead))
    plan = [(_PAUSE, lead, 0.0), *plan, (_PAUSE, trail, 0.0)]

    ends = np.cumsum([seconds for _, seconds, _ in plan])
    times = np.arange(int(ends[-1] * _CONTROL_RATE)) / _CONTROL_RATE
    at = np.searchsorted(ends, times, side="right")
    formants = np.array([segment.formants for segment, _, _ in plan])
    formants = formants * rng.normal(1, 0.025, formants.shape)
    return _Tracks(
        np.stack([_smooth(formants[at, k], 70) for k in range(3)], axis=1),
        _smooth(np.array([segment.voicing * (0.8 + 0.2 * a) for segment, _, a in plan])[at], 25),
        _smooth(np.array([segment.noise for segment, _, _ in plan])[at], 12),
        np.array([segment.centre for segment, _, _ in plan])[at],
        _smooth(np.array([accent for _, _, accent in plan])[at], 120),
    )


def _pitch(tracks: _Tracks, style: Prosody, rng: np.random.Generator) -> np.ndarray:
    """Return the f0 contour in semitones from the speaker's base, shape (n,)."""
    spoken = np.flatnonzero(tracks.voicing > 0.01)
    position = (np.arange(len(tracks.voicing)) - spoken[0]) / (spoken[-1] - spoken[0])
    position = np.clip(position, 0, 1)
    drift = _smooth(rng.standard_normal(len(position)), 300)
    accents = 2.5 * rng.uniform(0.7, 1.3) * tracks.accent
    moves = 1.2 - 2.0 * position + accents + 0.5 * drift / drift.std()
    final = (style.final - 1.0) * np.clip((position - 0.67) / 0.33, 0, 1) ** 1.5
    return np.clip(style.pitch + 2**style.span * moves + final, -8, 18)


def _glottal_source(
    f0: np.ndarray, speaker: Speaker, style: Prosody, rng: np.random.Generator
) -> np.ndarray:
    """Return the derivative of glottal flow plus aspiration for f0 in Hz at 16 kHz, (n,)."""
    phase = np.concatenate([[0.0], np.cumsum(f0 / SAMPLE_RATE)])
    n_pulses = int(phase[-1]) + 2
    jitter = max(0.1, speaker.jitter + style.jitter) / 100
    marks = np.arange(n_pulses) + np.cumsum(rng.normal(0, jitter, n_pulses))
    pulse = np.clip(np.searchsorted(marks, phase, side="right") - 1, 0, n_pulses - 2)
    within = np.clip((phase - marks[pulse]) / (marks[pulse + 1] - marks[pulse]), 0, 1)

    # A pressed voice is bright and closes early, a lax one is dull and stays open.
    open_quotient = float(np.clip(0.62 - 0.1 * (speaker.tilt + style.tilt), 0.4, 0.85))
    peak = 0.68 * open_quotient
    rising = 0.5 * (1 - np.cos(np.pi * within / peak))
    falling = np.cos(0.5 * np.pi * (within - peak) / (open_quotient - peak))
    flow = np.where(within < peak, rising, np.where(within < open_quotient, falling, 0.0))
    flow *= rng.normal(1, 4 * jitter, n_pulses)[pulse]  # shimmer

    # The difference of sampled flow is its derivative averaged over a sample: less aliasing
    # than a sampled derivative with its jump at closure.
    pulses = np.diff(flow)
    breath = 10 ** ((speaker.breath + style.breath - 22) / 20) * pulses.std()
    return pulses + breath * rng.standard_normal(len(f0)) * (0.3 + flow[1:])


def _vocal_tract(formants: np.ndarray, ratio: float, tilt: float) -> np.ndarray:
    """Return the resonators' response (n_frames, n_bins) for F1 to F3 in Hz, (n, 3).

    `ratio` scales the fixed higher formants; the source's tilt, a pole at `tilt` Hz, is put on top.
    """
    frames = _to_frames(formants)
    delay = np.exp(-2j * np.pi * np.arange(_FFT // 2 + 1) / _FFT)
    pole = 1 / (1 + 1j * np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE) / tilt)
    response = np.tile(pole, (len(frames), 1))
    for k, bandwidth in enumerate(_BANDWIDTHS):
        centre = frames[:, k] if k < 3 else np.full(len(frames), _HIGH_FORMANTS[k - 3] * ratio)
        if centre.max() > 0.48 * SAMPLE_RATE:
            continue
        c = -np.exp(-2 * np.pi * bandwidth / SAMPLE_RATE)
        b = 2 * np.sqrt(-c) * np.cos(2 * np.pi * centre / SAMPLE_RATE)
        response *= (1 - b - c)[:, None] / (1 - b[:, None] * delay - c * delay**2)
    return response


def _frication(centre: np.ndarray) -> np.ndarray:
    """Return a band around each frame's centre in Hz, of unit power, shape (n_frames, n_bins)."""
    frames = _to_frames(np.minimum(centre, 6800.0))[:, None]
    bins = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)
    band = 1 / (1 + ((bins - frames) / (0.2 * frames + 500)) ** 2)
    return band / np.sqrt((band**2).mean(axis=1, keepdims=True))


def _filter(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Filter (n,) by one response per frame: Hann windows, FFT, overlap-add."""
    n_frames = len(response)
    padded = np.pad(samples, (_HOP, n_frames * _HOP + _FRAME - len(samples)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP][:n_frames]
    filtered = np.fft.irfft(np.fft.rfft(frames * window, _FFT) * response, _FFT)
    blocks = filtered.reshape(n_frames, _FFT // _HOP, _HOP)
    total = np.zeros((n_frames + _FFT // _HOP, _HOP))
    for k in range(_FFT // _HOP):
        total[k : k + n_frames] += blocks[:, k]
    return total.ravel()[_HOP : _HOP + len(samples)]


def _to_frames(track: np.ndarray) -> np.ndarray:
    """Take a control track (n, ...) at the centres of `_filter`'s frames."""
    n_samples = len(track) * SAMPLE_RATE // _CONTROL_RATE
    at = np.arange(n_samples // _HOP + 2) * _HOP * _CONTROL_RATE // SAMPLE_RATE
    return track[np.minimum(at, len(track) - 1)]


def _to_samples(track: np.ndarray) -> np.ndarray:
    """Interpolate a control track (n,) to 16 samples per point."""
    n_samples = len(track) * SAMPLE_RATE // _CONTROL_RATE
    times = np.arange(n_samples) * _CONTROL_RATE / SAMPLE_RATE
    return np.interp(times, np.arange(len(track)), track)


def _smooth(track: np.ndarray, ms: int) -> np.ndarray:
    """Smooth a control track (n,) with a Hann kernel of `ms` milliseconds."""
    kernel = np.hanning(ms + 2)
    padded = np.pad(track, (ms // 2 + 1, ms - ms // 2), mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def _active_rms(samples: np.ndarray) -> float:
    """Return the RMS of the samples where there is speech, by 10 ms blocks."""
    power = (samples[: len(samples) // 160 * 160].reshape(-1, 160) ** 2).mean(axis=1)
    return float(np.sqrt(power[power > 0.01 * power.max()].mean()))
