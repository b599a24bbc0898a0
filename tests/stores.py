"""Stores made up of noise, for tests of what reads them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ser_embed.corpora.labels import SCHEMES, LabelScheme
from ser_embed.corpora.naming import Utterance
from ser_embed.store.reader import FeatureStore
from ser_embed.store.settings import FeatureSettings
from ser_embed.store.table import ClipRow, EncodedClip
from ser_embed.store.writer import StoreWriter
from ser_embed.train.data import LabelledClips, load_clips

SETTINGS = FeatureSettings(
    encoder="mini", weights="a" * 64, layer=4, pool="none", norm="frame", trim=True, seconds=3.0,
    fill="sample", dtype="float16", precision="fp32", seed=0,
)  # fmt: skip
EMOTIONS = ("happy", "neutral", "sad")


def write_store(
    folder: Path,
    corpus: str = "ravdess",
    *,
    settings: FeatureSettings = SETTINGS,
    shape: tuple[int, ...] = (8, 6),
    emotions: Sequence[str] = EMOTIONS,
    n_speakers: int = 4,
    per_emotion: int = 2,
    noise: float = 1.0,
    failed: int = 0,
    demo: bool = False,
    trained: bool = True,
    text: str = "",
    speaker: str = "{:02}",
    recording: str = "",
    prefix: str = "",
) -> Path:
    """Write a store as extraction does, of noise around a place that each emotion has.

    An emotion's features are the same in every store; a clip's bytes are its corpus, name and
    `text`. Every third clip has two frames fewer.
    """
    path = settings.path(folder, corpus)
    places = {
        emotion: np.random.default_rng(i).normal(0, 1, shape[-1])
        for i, emotion in enumerate(sorted({*EMOTIONS, *emotions}))
    }
    rng = np.random.default_rng(len(corpus))
    rows = []
    with StoreWriter.open(path, settings, corpus, folder, trained=trained, demo=demo) as writer:
        for who in range(n_speakers):
            for number in range(len(emotions) * per_emotion):
                emotion = emotions[number % len(emotions)]
                clip = Utterance(
                    folder / f"{prefix}{who:02}-{number:02}-{emotion}.wav", corpus,
                    f"{corpus}:{speaker.format(who)}", "male" if who % 2 else "female", emotion,
                    recording=recording,
                )  # fmt: skip
                row = ClipRow.of(clip, folder, hash_of(corpus, clip.path.name, text), 2.5)
                own = shape
                if settings.pool == "none" and number % 3 == 2:
                    own = (*shape[:-2], shape[-2] - 2, shape[-1])
                features = places[emotion] + noise * rng.normal(0, 1, own)
                frames = own[-2] if settings.pool == "none" else 149
                nothing = np.empty(0, np.float32)
                writer.add([EncodedClip(row, features.astype(np.float32), nothing, frames)])
                rows.append(row)
        for number in range(failed):
            clip = Utterance(folder / f"bad-{number}.wav", corpus, "", "", "never heard of")
            rows.append(ClipRow.of(clip, folder, "", 0.0, "digital silence"))
        for row in rows:
            writer.record(row)
        writer.finish()
    return path


def hash_of(*words: str) -> str:
    return hashlib.sha256("/".join(words).encode("utf-8", "surrogateescape")).hexdigest()


def load(*paths: Path, scheme: LabelScheme = SCHEMES["sentiment3"]) -> LabelledClips:
    return load_clips([FeatureStore(path) for path in paths], scheme)
