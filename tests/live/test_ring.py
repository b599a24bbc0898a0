"""Between a source and the engine: nothing grows, nothing is mixed up, gaps are marked."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_embed.audio.resampling import resample
from ser_embed.live.ring import Block, FilePlayer, Ring


def popped(ring: Ring) -> Block:
    block = ring.pop()
    assert block is not None
    return block


def test_what_is_pushed_is_popped_once_and_in_order() -> None:
    ring, rng = Ring(), np.random.default_rng(0)
    stream = rng.standard_normal(50_000).astype(np.float32)
    found, at = [], 0
    while at < len(stream):
        n = int(rng.integers(1, 4000))
        ring.push(np.stack([stream[at : at + n]] * 2, axis=1))
        at += n
        if rng.random() < 0.3:
            found.append(popped(ring))
    found += [popped(ring)] if len(ring) else []
    np.testing.assert_array_equal(np.concatenate([b.samples for b in found]), stream)
    assert [b.gap for b in found] == [True] + [False] * (len(found) - 1)
    assert [b.start for b in found] == [0, *np.cumsum([len(b.samples) for b in found])[:-1]]
    assert ring.pop() is None


def test_a_late_reader_loses_the_oldest_and_gets_a_gap() -> None:
    ring = Ring(1.0)
    for k in range(100):
        ring.push(np.full(1600, k, dtype=np.float32))
    assert len(ring) == 16_000
    assert ring.lost == 90 * 1600
    block = popped(ring)
    assert (block.start, block.gap) == (90 * 1600, True)
    assert block.samples[[0, -1]].tolist() == [90, 99]


def test_a_pause_throws_away_and_leaves_a_gap() -> None:
    ring = Ring()
    ring.push(np.full(100, 1, dtype=np.float32))
    ring.interrupt(paused=True)
    ring.push(np.full(100, 2, dtype=np.float32))
    ring.interrupt(paused=False)
    ring.push(np.full(100, 3, dtype=np.float32))
    ring.push(np.full(100, 4, dtype=np.float32))
    first, second = popped(ring), popped(ring)
    assert set(first.samples) == {1}
    assert (second.start, second.gap, len(second.samples)) == (100, True, 200)
    assert ring.pushed == 300


def test_another_rate_is_resampled_as_a_whole_would_be() -> None:
    ring, rng = Ring(), np.random.default_rng(1)
    stream = rng.standard_normal(48_000).astype(np.float32)
    for start in range(0, len(stream), 700):
        ring.push(stream[start : start + 700], 48_000)
    samples = popped(ring).samples
    assert 14_000 < len(samples) <= 16_000
    expected = resample(stream, 48_000)[: len(samples)]
    np.testing.assert_allclose(samples, expected, atol=1e-5)


def test_arrivals_level_and_a_reader_that_waits() -> None:
    ring = Ring()
    began = time.monotonic()
    ring.push(np.full(1000, 0.25, dtype=np.float32))
    time.sleep(0.05)
    ring.push(np.full(1000, -0.5, dtype=np.float32))
    assert ring.arrival(1000) - began < 0.04
    assert ring.arrival(1001) - began >= 0.05
    assert ring.level == 0.5
    popped(ring)
    threading.Timer(0.1, ring.push, [np.ones(10, dtype=np.float32)]).start()
    assert ring.pop(10.0) is not None
    threading.Timer(0.1, ring.end).start()
    began = time.monotonic()
    assert ring.pop(10.0) is None
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("speed", [0.0, 2.0])
def test_a_file_is_played_at_its_speed_and_pauses(
    speed: float, tmp_path: Path, write_tone: Any
) -> None:
    path = write_tone(tmp_path / "tone.wav", seconds=2.0)
    ring = Ring()
    player = FilePlayer(path, ring, speed)
    began = time.monotonic()
    player.start()
    found = []
    while not ring.ended or len(ring):
        block = ring.pop(0.1)
        if block is None:
            continue
        found.append(block.samples)
        if len(found) == 3:
            ring.interrupt(paused=True)
            time.sleep(0.3)
            ring.interrupt(paused=False)
    seconds = time.monotonic() - began
    assert seconds > 0.3 + (1.0 if speed else 0.0) - 0.2
    played = np.concatenate(found)
    np.testing.assert_allclose(played, soundfile.read(path, dtype="float32")[0], atol=1e-7)


def test_a_file_that_breaks_off_says_so(tmp_path: Path) -> None:
    (tmp_path / "no.wav").write_bytes(b"no audio")
    ring = Ring()
    player = FilePlayer(tmp_path / "no.wav", ring)
    player.start()
    player.join(10)
    assert ring.ended
    assert "is it really audio" in str(player.error)
