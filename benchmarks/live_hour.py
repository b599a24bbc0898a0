"""An hour of speech and pauses through a live session, faster than it was spoken: does it grow?

`python benchmarks/live_hour.py` writes artifacts/benchmarks/live_hour.json: the process's memory
over the hour, the windows judged and dropped, and the size of what is kept. `--slow 1.0` adds a
second to every window, at `--speed 8`: windows are dropped then, and nothing may grow either.
"""

import io
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import psutil
import soundfile
import torch
import tyro

from ser_embed.audio.cutting import SAMPLE_RATE
from ser_embed.audio.decoding import load_audio
from ser_embed.bundled import BUNDLED_HEADS, DEFAULT_HEAD, DEMO_CORPUS
from ser_embed.live.engine import Engine
from ser_embed.live.journal import Log
from ser_embed.live.ring import FilePlayer
from ser_embed.live.screen import Screen
from ser_embed.live.terminal import watch
from ser_embed.predict.classifier import Classifier, Prediction


@dataclass(frozen=True)
class Settings:
    """What is played."""

    minutes: float = 60.0
    """Length of the stream."""
    speed: float = 0.0
    """Seconds of sound a second; 0 is as fast as it is taken."""
    slow: float = 0.0
    """Seconds that every window takes in addition."""
    threads: int = 2
    """Threads of the encoder."""


class Slow(Classifier):
    """A classifier that takes its time."""

    extra = 0.0

    def classify(self, samples: np.ndarray, rate: int = SAMPLE_RATE) -> Prediction:
        """See `Classifier.classify`."""
        time.sleep(self.extra)
        return super().classify(samples, rate)


def write_speech(path: Path, minutes: float) -> None:
    """Write the demo's clips with pauses of two seconds between them, again and again."""
    clips = [load_audio(clip) for clip in sorted(DEMO_CORPUS.rglob("*.ogg"))[::7]]
    pause = np.zeros(2 * SAMPLE_RATE, dtype=np.float32)
    left = round(minutes * 60 * SAMPLE_RATE)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
        while left > 0:
            for clip in clips:
                part = np.concatenate([clip, pause])[:left]
                file.write(part)
                left -= len(part)


def main(settings: Settings) -> None:
    """Play, watch, print and write."""
    torch.set_num_threads(settings.threads)
    process, rows = psutil.Process(), []
    with tempfile.TemporaryDirectory() as name:
        write_speech(Path(name) / "hour.wav", settings.minutes)
        classifier = Slow.load(BUNDLED_HEADS / DEFAULT_HEAD)
        Engine.warm_up(classifier)
        Slow.extra = settings.slow
        engine = Engine(classifier, log=Log(Path(name) / "log.jsonl"))
        ring, session = engine.ring, engine.session
        player = FilePlayer(Path(name) / "hour.wav", ring, settings.speed)
        began = time.monotonic()
        player.start()
        engine.start()
        stop = threading.Event()
        screen = Screen(io.StringIO(), muted=True)
        threading.Thread(target=watch, args=(engine, screen, stop), daemon=True).start()
        while engine.running:
            if ring.pushed / SAMPLE_RATE >= 60 * len(rows) * settings.minutes / 60:
                rows.append({
                    "minute": ring.pushed / SAMPLE_RATE / 60, "waiting": len(ring),
                    "memory_mb": process.memory_info().rss / 2**20, "pieces": len(session.recent),
                })  # fmt: skip
                print(rows[-1], flush=True)
            time.sleep(0.05)
        if engine.error is not None:
            raise engine.error
    memory = [row["memory_mb"] for row in rows]
    late = memory[len(memory) // 2 :]  # the encoder's engine keeps something for new lengths
    common.write("live_hour" if not settings.slow else "live_hour_slow", {
        "settings": vars(settings), "seconds": time.monotonic() - began,
        "judged": session.judged, "dropped": session.dropped, "lost_samples": ring.lost,
        "growth_mb": memory[-1] - memory[0], "second_half_growth_mb": late[-1] - late[0],
        "highest_mb": max(memory), "rows": rows,
    })  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Settings))
