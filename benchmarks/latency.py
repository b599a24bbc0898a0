"""Time from the end of a window to its label in a live session, and until one is ready to listen.

`python benchmarks/latency.py` writes artifacts/benchmarks/latency.json: `mini` and
wav2vec2-base's shape (seeded weights, its middle layer, which is `extract`'s default) under head
`stats`. A recording without pauses is played as
fast as it was spoken through what a microphone goes through: ring, speech gate, windows, encoder,
head, smoothing; the screen is drawn meanwhile.
"""

import io
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import common
import numpy as np
import soundfile
import torch
import tyro
from rich.console import Console

from ser_embed.audio.cutting import SAMPLE_RATE
from ser_embed.audio.decoding import load_audio
from ser_embed.audio.voice import SpeechGate
from ser_embed.bundled import DEMO_CORPUS
from ser_embed.encoders.registry import BackendName, Precision
from ser_embed.extract.corpus import extract
from ser_embed.extract.options import ExtractConfig
from ser_embed.live.engine import Engine, Session
from ser_embed.live.ring import FilePlayer
from ser_embed.live.screen import Screen, draw_frame
from ser_embed.live.terminal import watch
from ser_embed.predict.classifier import Classifier
from ser_embed.predict.options import SegmentSettings
from ser_embed.predict.segments import Segment
from ser_embed.train import TrainConfig, train

ENGINES: tuple[tuple[BackendName, Precision], ...] = (
    ("torch", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"),
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    windows: int = 30
    """Windows of each, one every half second."""
    threads: int = 2
    """Threads of the encoder."""


@dataclass
class Timed(Session):
    """A session that keeps every latency."""

    latencies: list[float] = field(default_factory=list)

    def update(self, now: Segment | None, latency: float | None = None) -> None:
        """See `Session.update`."""
        self.latencies += [] if latency is None else [latency]
        super().update(now, latency)


class Terminal(io.StringIO):
    """What the screen takes for a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def trained(encoder: str, precision: Precision, work: Path) -> Path:
    """Train a head for a moment on a few demo clips and return its folder."""
    stored = extract(
        ExtractConfig(DEMO_CORPUS, encoder=encoder, precision=precision, limit=60,
                      features_dir=work, quiet=True, json=True)
    ).result  # fmt: skip
    config = TrainConfig((Path(stored["store"]),), epochs=2, runs_dir=work / encoder, quiet=True,
                         json=True)  # fmt: skip
    return Path(train(config).result["run"])


def write_voice(path: Path, seconds: float) -> None:
    """Write demo clips without the pauses in them."""
    frames = np.concatenate([load_audio(clip) for clip in sorted(DEMO_CORPUS.rglob("*.ogg"))[::8]])
    frames = frames[: len(frames) // 1600 * 1600].reshape(-1, 1600)
    voice = frames[np.abs(frames).max(axis=1) > 0.02].ravel()
    soundfile.write(path, np.resize(voice, round(seconds * SAMPLE_RATE)), SAMPLE_RATE)


def session_of(classifier: Classifier, path: Path) -> Timed:
    """Play a file to a classifier, as Main.py --realtime does."""
    engine = Engine(classifier)
    engine.session = session = Timed(classifier.classes)
    FilePlayer(path, engine.ring).start()
    engine.start()
    watch(engine, Screen(Terminal()), threading.Event())
    engine.close()
    if engine.error is not None:
        raise engine.error
    return session


def drawing_ms(session: Session) -> float:
    """Return how long the screen's frame takes."""
    console = Console(force_terminal=True, width=80, height=24)
    began = time.perf_counter()
    for _ in range(50):
        with console.capture():
            console.print(draw_frame(session))
    return (time.perf_counter() - began) / 50 * 1e3


def main(settings: Settings) -> None:
    """Measure, print and write."""
    torch.set_num_threads(settings.threads)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        write_voice(Path(name) / "voice.wav", 3.0 + settings.windows * SegmentSettings.hop)
        for encoder in ("mini", "random-base"):
            for backend, precision in ENGINES:
                run = trained(encoder, precision, Path(name))
                began = time.perf_counter()
                classifier = Classifier.load(run, backend=backend)
                Engine.warm_up(classifier)
                ready = time.perf_counter() - began
                session = session_of(classifier, Path(name) / "voice.wav")
                times = sorted(1e3 * seconds for seconds in session.latencies)
                rows.append({
                    "encoder": encoder, "backend": backend, "precision": precision,
                    "windows": len(times), "dropped": session.dropped,
                    "mean_ms": float(np.mean(times)), "median_ms": float(np.median(times)),
                    "p95_ms": float(np.quantile(times, 0.95)),
                    "drawing_ms": drawing_ms(session), "ready_seconds": ready,
                })  # fmt: skip
                print(rows[-1], flush=True)
    common.write("latency", {"gate": SpeechGate().name, "hop": SegmentSettings.hop, "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Settings))
