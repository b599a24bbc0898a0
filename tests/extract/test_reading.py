"""Reading clips in worker processes: order, what is known, processes that die."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_embed.audio import AudioFile
from ser_embed.corpora.naming import Utterance
from ser_embed.errors import AudioError
from ser_embed.extract import reading
from ser_embed.extract.reading import ReadClip, Readers
from ser_embed.store.settings import FeatureSettings

SETTINGS = FeatureSettings(
    encoder="mini", weights="a" * 64, layer=4, pool="none", norm="none", trim=True, seconds=1.0,
    fill="sample", dtype="float16", precision="fp32", seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Thirty clips of different lengths, one of which is no audio and one isn't there."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    found = []
    for i in range(30):
        path = folder / f"{i:02d}.wav"
        soundfile.write(path, rng.normal(0, 0.1, 8000 + 700 * i).astype(np.float32), 16_000)
        found.append(Utterance(path, "x", "", "", "sad"))
    found[7].path.write_bytes(b"no audio at all")
    found[11].path.unlink()
    return found


@pytest.fixture(scope="module")
def readers() -> Iterator[dict[int, Readers]]:
    pools = {workers: Readers(workers) for workers in (0, 1, 3)}
    yield pools
    for pool in pools.values():
        pool.close()


def same(one: ReadClip, other: ReadClip) -> bool:
    told = [(c.sha256, c.seconds, c.fault, c.waveform is None) for c in (one, other)]
    return told[0] == told[1] and np.array_equal(one.waveform, other.waveform)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_clips_come_in_their_order_whoever_reads(
    workers: int, clips: list[Utterance], readers: dict[int, Readers]
) -> None:
    got = list(readers[workers].read(clips, SETTINGS))
    assert [utterance for utterance, _ in got] == clips
    for utterance, item in got:
        if item.fault:
            with pytest.raises(AudioError, match=re.escape(item.fault)):
                AudioFile(utterance.path).read(1.0, True)
            assert bool(item.sha256) == utterance.path.exists()
            continue
        clip = AudioFile(utterance.path).read(1.0, True)
        assert same(item, ReadClip(clip.sha256, clip.seconds, clip.fit(1.0, "sample", 3)))


@pytest.mark.parametrize("workers", [0, 3])
def test_what_is_known_is_not_decoded(
    workers: int, clips: list[Utterance], readers: dict[int, Readers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(reading, "HASHED_AHEAD", 5)
    there = [c for c in clips if c.path.exists()]
    known = {(c.path.name, AudioFile(c.path).sha256()) for c in there[::2]}
    got = {u.path.name: item for u, item in readers[workers].read(iter(clips), SETTINGS, known)}
    assert set(got) == {c.path.name for c in clips}
    for name, item in got.items():
        is_known = (name, item.sha256) in known
        assert (item.waveform is None) == (is_known or bool(item.fault))
    assert [u.path.name for u, _ in readers[workers].read(clips, SETTINGS, known)] == list(got)


def test_only_a_few_clips_are_taken_ahead(
    clips: list[Utterance], readers: dict[int, Readers]
) -> None:
    taken = []

    def endless() -> Iterator[Utterance]:
        while True:
            taken.append(1)
            yield clips[0]

    source = readers[1].read(endless(), SETTINGS)
    for _ in range(50):
        next(source)
    source.close()  # type: ignore[attr-defined]
    assert len(taken) <= 50 + 4 * reading.CLIPS_AT_ONCE


def test_item_20_long_clips_are_taken_ahead_by_their_bytes(
    clips: list[Utterance], readers: dict[int, Readers], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def endless() -> Iterator[Utterance]:
        while True:
            taken.append(1)
            yield clips[0]  # 16 kB, which may be 128 kB of samples

    monkeypatch.setattr(reading, "GROUP_BYTES", 300_000)
    monkeypatch.setattr(reading, "BYTES_AHEAD", 600_000)
    source = readers[3].read(endless(), replace(SETTINGS, seconds=0.0))
    for _ in range(20):
        next(source)
    source.close()  # type: ignore[attr-defined]
    assert len(taken) <= 20 + 7


READ = """
import os, signal
from ser_embed.extract import reading
whole = reading._read
def read(*settings_and_path):
    {body}
    return whole(*settings_and_path)
"""


def replace_reading(body: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers do something before they read a clip."""
    name = f"reading_{uuid.uuid4().hex}"  # a module that was imported stays
    (folder / f"{name}.py").write_text(READ.format(body=body))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(reading, "_read", importlib.import_module(name).read)


@pytest.mark.parametrize("culprit", [0, 8, 29])
def test_a_file_that_ends_its_process_costs_itself_alone(
    culprit: int, clips: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one would that crashes its decoder."""
    name = clips[culprit].path.name
    body = f"settings_and_path[-1].path.name == {name!r} and os.kill(os.getpid(), signal.SIGKILL)"
    replace_reading(body, tmp_path, monkeypatch)
    with Readers(2) as pool:
        got = list(pool.read(clips, SETTINGS))
    assert [utterance for utterance, _ in got] == clips
    faults = {u.path.name: item.fault for u, item in got if item.fault}
    assert set(faults) == {name, "07.wav", "11.wav"}
    assert "crashes its decoder" in faults[name]


def test_a_worker_that_is_killed_costs_nothing(clips: list[Utterance]) -> None:
    with Readers(2) as pool:
        source = pool.read(clips, SETTINGS)
        got = [next(source)]
        victim = pool._workers[0]._process.pid
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        got += source
    assert [utterance for utterance, _ in got] == clips
    assert sum(bool(item.fault) for _, item in got) == 2


ORPHANS = """
import os, sys, time
from ser_embed.extract.reading import Readers
pool = Readers(2)
print(*(worker._process.pid for worker in pool._workers), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
def test_workers_leave_when_their_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = parent.stdout.readline().split()
    assert workers
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(Path("/proc", worker).exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker is left behind"
        time.sleep(0.1)


def test_a_reading_that_was_left_off_is_not_taken_for_the_next(
    clips: list[Utterance], readers: dict[int, Readers]
) -> None:
    first = readers[3].read(clips, SETTINGS)
    next(first)
    first.close()  # type: ignore[attr-defined]
    assert [u for u, _ in readers[3].read(clips[::-1], SETTINGS)] == clips[::-1]


def test_what_a_worker_raises_is_raised_here(
    clips: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_reading('raise ZeroDivisionError("a bug")', tmp_path, monkeypatch)
    with Readers(1) as pool, pytest.raises(ZeroDivisionError, match="a bug"):
        list(pool.read(clips, SETTINGS))


HEAVY = """
import json, sys
from pathlib import Path
from ser_embed.audio import AudioFile
from ser_embed.extract import reading
def modules(*settings_and_path):
    reading._read(*settings_and_path)
    status = Path("/proc/self/status")
    peak = [int(line.split()[1]) / 1024 for line in
            (status.read_text() if status.exists() else "").splitlines() if "VmHWM" in line]
    return reading.ReadClip(fault=json.dumps([sorted(sys.modules), peak]))
"""


def test_a_worker_is_small(
    clips: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_reading.py").write_text(HEAVY)
    monkeypatch.syspath_prepend(tmp_path)
    with Readers(1) as pool:
        monkeypatch.setattr(reading, "_read", importlib.import_module("heavy_reading").modules)
        ((_, item),) = pool.read(clips[:1], SETTINGS)
    modules, peak = json.loads(item.fault)
    assert not {"torch", "transformers", "pandas", "scipy", "h5py"} & set(modules)
    assert all(megabytes < 100 for megabytes in peak)
