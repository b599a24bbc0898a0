"""Speech to pre-train on: clips in memory, cut, played at other speeds, disturbed.

The speed changes what a voice is, and the targets with it; noise, rooms and other voices are
what an encoder has to ignore, and its targets come from the clean clip.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchaudio.functional
from torch import Tensor
from torch.nn import functional as F

from ser_embed.audio import SAMPLE_RATE, AudioFile
from ser_embed.corpora import recognise
from ser_embed.errors import EncoderError, SerEmbedError
from ser_embed.pretrain.options import PretrainConfig
from ser_embed.progress import track

__all__ = ["Batch", "Speech", "draw_batch"]

log = logging.getLogger(__name__)

MASK_START, MASK_FRAMES = 0.05, 10  # share of frames that start a masked span; its length
UNMASKED = 0.25  # share of clips without a mask: so the encoder is used
SPEEDS = ((17, 20), (9, 10), (19, 20), (20, 19), (10, 9), (20, 17))  # as ratios to resample by


class Speech:
    """Decoded clips in memory, as 16-bit samples: 115 MB an hour.

    Attributes:
        samples: int16, all clips one after the other.
        starts: First sample of each clip, int64 (N,).
        lengths: Samples of each clip, int64 (N,).
        labels: Index of each clip's emotion in `emotions`, -1 without a label; int64 (N,).
        emotions: Names of the emotions that are learnt.
    """

    def __init__(self, roots: tuple[Path, ...], labelled: tuple[str, ...], quiet: bool):
        paths = [path for root in roots for path in AudioFile.find(root)]
        if not paths:
            raise EncoderError(f"no audio file in {', '.join(map(str, roots))}")
        emotions = [_emotion(path, labelled) for path in paths]
        self.emotions = tuple(sorted(set(emotions) - {""}))
        index = {word: k for k, word in enumerate(self.emotions)} | {"": -1}
        pieces, labels = [], []
        for path, word in zip(track(paths, "decode", "clip", quiet=quiet), emotions, strict=True):
            try:
                samples = AudioFile(path).read().samples
            except SerEmbedError as error:
                log.warning("left out: %s", error)
                continue
            pieces.append((samples.clip(-1, 1) * 32767).astype(np.int16))
            labels.append(index[word])
        if not pieces:
            raise EncoderError("none of the audio files can be used")
        self.samples = np.concatenate(pieces)
        self.lengths = np.array([len(piece) for piece in pieces])
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.labels = np.array(labels)

    @property
    def hours(self) -> float:
        """Length of all clips."""
        return len(self.samples) / SAMPLE_RATE / 3600

    def cut(self, clip: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
        """Return a piece of `wanted` samples from a random place, or the whole shorter clip."""
        room = self.lengths[clip] - wanted
        start = self.starts[clip] + (rng.integers(room + 1) if room > 0 else 0)
        end = start + min(wanted, self.lengths[clip])
        return self.samples[start:end].astype(np.float32) / 32767


def _emotion(path: Path, labelled: tuple[str, ...]) -> str:
    """Return a clip's label, "" without one; refuse corpora that encoders are judged on."""
    utterance = recognise(path)
    if utterance is None:
        return ""
    if utterance.corpus not in labelled:
        raise EncoderError(
            f"{path}: a clip of {utterance.corpus}; an encoder that was trained on a corpus "
            "can't be judged on it. Leave the folder out, or say --labelled "
            f"{utterance.corpus} and never report results on it"
        )
    return utterance.emotion


@dataclass(frozen=True)
class Batch:
    """The clips of one step."""

    clean: Tensor  # float32 (B, n), unit variance, zeros behind a clip: targets come from it
    input: Tensor  # the same with noise, reverberation or a second voice
    lengths: Tensor  # samples of each clip, int64 (B,)
    labels: Tensor  # emotion or -1, int64 (B,)
    masked: Tensor  # frames that are hidden from the encoder, bool (B, T)


def draw_batch(speech: Speech, config: PretrainConfig, step: int) -> Batch:
    """Draw the batch of a step; it depends on the seed and the step alone."""
    rng, size = np.random.default_rng([config.seed, step]), config.batch_size
    wanted = round(config.seconds * SAMPLE_RATE)
    weights = np.where(speech.labels >= 0, config.label_weight, 1.0)
    chances = np.minimum(speech.lengths, 4 * wanted) * weights
    clips = rng.choice(len(chances), size, p=chances / chances.sum())
    clean, lengths = torch.zeros(size, wanted), torch.zeros(size, dtype=torch.int64)
    for row, clip in enumerate(clips):
        piece = _at_other_speed(speech, clip, wanted, rng)
        clean[row, : len(piece)] = piece
        lengths[row] = len(piece)
    clean = _unit_variance(clean, lengths)
    disturbed = _unit_variance(_disturb(clean, rng), lengths)
    n_frames = (wanted - 400) // 320 + 1
    starts = torch.from_numpy(rng.random((size, n_frames)) < MASK_START)
    starts &= torch.from_numpy(rng.random((size, 1)) >= UNMASKED)
    spans = F.max_pool1d(F.pad(starts.float(), (MASK_FRAMES - 1, 0)), MASK_FRAMES, 1) > 0
    labels = torch.from_numpy(speech.labels[clips])
    return Batch(clean, disturbed, lengths, labels, spans)


def _at_other_speed(speech: Speech, clip: int, wanted: int, rng: np.random.Generator) -> Tensor:
    """Cut a piece, half of the time played slower or faster: another voice, the same emotion."""
    old, new = SPEEDS[rng.integers(len(SPEEDS))] if rng.random() < 0.5 else (1, 1)
    piece = torch.from_numpy(speech.cut(clip, math.ceil(wanted * old / new), rng))
    if old != new:
        piece = torchaudio.functional.resample(piece, old, new)
    return piece[:wanted]


def _unit_variance(waves: Tensor, lengths: Tensor) -> Tensor:
    own = torch.arange(waves.shape[1]) < lengths[:, None]
    mean = (waves * own).sum(1, keepdim=True) / lengths[:, None]
    centred = (waves - mean) * own
    return centred / (centred.square().sum(1, keepdim=True) / lengths[:, None] + 1e-7).sqrt()


def _disturb(clean: Tensor, rng: np.random.Generator) -> Tensor:
    """Add reverberation, another voice of the batch, coloured noise; each by its own odds."""
    waves = clean.clone()
    size = clean.shape[1]
    hertz = torch.fft.rfftfreq(size, 1 / SAMPLE_RATE).clamp_min(50)
    for row in range(len(waves)):
        if rng.random() < 0.3:  # a room: noise that decays by 60 dB in 0.15 to 0.6 s
            t = torch.arange(round(0.6 * SAMPLE_RATE)) / SAMPLE_RATE
            room = torch.from_numpy(rng.standard_normal(len(t)).astype(np.float32))
            room = room * torch.exp(-6.9 * t / rng.uniform(0.15, 0.6)) * rng.uniform(0.01, 0.05)
            room[0] = 1.0
            waves[row] = torchaudio.functional.fftconvolve(waves[row], room)[:size]
        if rng.random() < 0.2:
            other = clean[rng.integers(len(clean))].roll(int(rng.integers(size)))
            waves[row] += other * 10 ** (-rng.uniform(5, 20) / 20)
        if rng.random() < 0.4:  # between white and brown
            noise = torch.from_numpy(rng.standard_normal(size).astype(np.float32))
            noise = torch.fft.irfft(torch.fft.rfft(noise) * hertz ** -rng.uniform(0, 1), size)
            waves[row] += noise / noise.std() * 10 ** (-rng.uniform(5, 30) / 20)
    return waves
