"""Live classification: windows, screen, files, and a real audio stack in a pseudo-terminal.

The stack is PulseAudio as a user's daemon with a virtual sink. What `paplay` plays into it is what
PortAudio's input hears: through ALSA's pulse plugin, which gives any rate, or through JACK at
48 kHz and nothing else. Debian: libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins
jackd2 pulseaudio-module-jack.
"""

import contextlib
import csv
import ctypes.util
import fcntl
import io
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from filelock import FileLock, Timeout
from scipy.signal import correlate

from ser_embed.audio.decoding import load_audio
from ser_embed.errors import DeviceError
from ser_embed.extract import __main__ as extract
from ser_embed.live.__main__ import LiveConfig, main
from ser_embed.live.engine import Engine
from ser_embed.live.journal import Log
from ser_embed.live.microphone import InputDevice, Microphone, find_devices, pick_device
from ser_embed.live.ring import FilePlayer, Ring
from ser_embed.live.screen import Screen
from ser_embed.live.terminal import watch
from ser_embed.predict.classifier import Classifier, Prediction
from ser_embed.predict.options import SegmentSettings
from ser_embed.predict.recording import Recording
from ser_embed.train.__main__ import main as train_main

SINK = "ser_sink"
JACK_SINK = "PulseAudio JACK Sink"  # by this name JACK and PortAudio know it
NO_DEVICE = "pcm.nothing { type hw card 99 }\n"  # of an empty configuration PortAudio aborts


# --- devices -----------------------------------------------------------------------------------


def test_a_device_is_picked_by_index_name_or_default() -> None:
    devices = [
        InputDevice(2, "HDA Intel: ALC295 (hw:0,0)", "ALSA", 2, 44_100, False),
        InputDevice(5, "USB Mic", "ALSA", 1, 48_000, True),
        InputDevice(7, "USB Mic 2", "JACK", 1, 48_000, False),
    ]
    assert pick_device(devices).index == 5
    assert pick_device(devices[:1]).index == 2, "no default: the first"
    assert pick_device(devices, "2").index == 2, "an index comes before a part of a name"
    assert pick_device(devices, "alc295").index == 2
    assert pick_device(devices, "usb mic").index == 5, "a whole name comes before a part"
    assert pick_device(devices, "jack").index == 7
    with pytest.raises(DeviceError, match=r"(?s)several inputs fit.*USB Mic .*USB Mic 2"):
        pick_device(devices, "usb")
    with pytest.raises(DeviceError, match=r"(?s)no such input.*--file.*ALC295"):
        pick_device(devices, "webcam")


# --- files -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a small head on a part of the demo corpus."""
    folder = tmp_path_factory.mktemp("live")
    common = ["--features-dir", str(folder / "features"), "--quiet"]
    stage1 = ["--corpus", "demo", "--limit", "64", "--backend", "torch", "--workers", "0"]
    stage2 = f"--split random --epochs 30 --lr 0.002 --runs-dir {folder / 'runs'}".split()
    assert extract.main([*common, *stage1]) == 0
    assert train_main([*common, *stage2]) == 0
    return folder / "runs"


@pytest.fixture(scope="module")
def classifier(runs: Path) -> Classifier:
    return Classifier.load(None, runs, backend=LiveConfig.backend)


@pytest.fixture(scope="module")
def clips() -> list[Path]:
    return sorted((Path(__file__).parents[2] / "artifacts/demo").rglob("*.ogg"))


def live_json(capsys: pytest.CaptureFixture[str], *args: object, status: int = 0) -> Any:
    assert main([*map(str, args), "--json", "--quiet"]) == status
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def spoken(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips with pauses around them."""
    pause = np.zeros(16_000, dtype=np.float32)
    parts = [pause, load_audio(clips[0]), pause, load_audio(clips[-1]), pause]
    path = tmp_path_factory.mktemp("spoken") / "spoken.wav"
    soundfile.write(path, np.concatenate(parts), 16_000, subtype="FLOAT")
    return path


def test_a_file_gives_its_segments(
    spoken: Path,
    classifier: Classifier,
    runs: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    args = ["--file", str(spoken), "--runs-dir", str(runs), "--hop", "0.25"]
    result = live_json(capsys, *args)
    assert result["run"] == str(classifier.run)
    expected = Recording.of_file(spoken, classifier, SegmentSettings(hop=0.25))
    assert result["segments"] == [asdict(segment) for segment in expected.segments]
    assert result["segments"][-1]["end"] == pytest.approx(soundfile.info(spoken).duration)
    assert {"no speech"} < {segment["label"] for segment in result["segments"]}
    caplog.set_level("INFO")
    assert main(args) == 0
    shown = capsys.readouterr().out
    assert "SYNTHETIC" in caplog.text, "what the classifier was trained on is said"
    assert shown == expected.to_table()


@pytest.mark.parametrize("ending", ["csv", "json", "txt", "JSON", ""])
def test_segments_are_written_as_the_ending_says(
    ending: str,
    spoken: Path,
    classifier: Classifier,
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recording = Recording.of_file(spoken, classifier)
    args = ["--file", str(spoken), "--runs-dir", str(runs), "--quiet"]
    assert main([*args, *(["--out", str(tmp_path / f"out.{ending}")] if ending else [])]) == 0
    text = capsys.readouterr().out
    if ending:
        assert text == ""
        text = next(tmp_path.glob("out.*")).read_text(encoding="utf-8")
    labels = [segment.label for segment in recording.segments]
    if ending.lower() == "json":
        assert json.loads(text) == [asdict(segment) for segment in recording.segments]
    elif ending == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["label"] for row in rows] == labels
        assert float(rows[-1]["end"]) == pytest.approx(recording.seconds, abs=1e-3)
    elif ending == "txt":
        assert [line.split("\t")[2] for line in text.splitlines()] == labels
    else:
        assert text == recording.to_table()


def test_a_file_in_real_time_goes_through_the_live_path(
    spoken: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = soundfile.info(spoken).duration
    kept = ["--log", tmp_path / "log.jsonl", "--record", tmp_path / "heard.wav"]
    began = time.monotonic()
    result = live_json(capsys, "--file", spoken, "--realtime", "--runs-dir", runs, *kept)
    assert time.monotonic() - began > seconds - 0.1
    segments = result["segments"]
    assert segments[0]["start"] == 0.0
    assert segments[-1]["end"] == pytest.approx(seconds, abs=0.01)
    for one, following in pairwise(segments):
        assert one["end"] == following["start"]
        assert one["label"] != following["label"]
    assert result["dropped"] + result["classified"] > 4
    assert 0 < result["latency_ms"]["mean"] <= result["latency_ms"]["worst"]

    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["start", "end"]
    logged = [event for event in events if event["event"] == "segment"]
    fields = ("start", "end", "label", "confidence", "probabilities")
    assert [{name: event[name] for name in fields} for event in logged] == segments
    ends = [event["end"] for event in events if event["event"] == "window"]
    assert len(ends) > 4
    assert ends == sorted(ends)
    assert all(event["latency_ms"] > 0 for event in events if event["event"] == "window")

    heard, rate = soundfile.read(tmp_path / "heard.wav", dtype="float32")
    assert rate == 16_000
    np.testing.assert_allclose(heard, load_audio(spoken), atol=2**-15)
    again = live_json(capsys, "--file", spoken, "--runs-dir", runs, *kept, status=1)
    assert "heard.wav: exists" in again["error"]


def test_once_with_a_file_takes_its_first_part(
    classifier: Classifier, runs: Path, capsys: pytest.CaptureFixture[str], shared: Path
) -> None:
    clip = next((shared / "corpora/originals/ravdess").rglob("*.wav"))  # 48 kHz, over 3 s
    windows = live_json(capsys, "--once", "--file", clip, "--runs-dir", runs)["windows"]
    assert [(window["start"], window["end"]) for window in windows] == [(0.0, 3.0)]
    expected = classifier.classify_file(clip).probabilities
    assert windows[0]["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_silence_is_no_emotion(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hum = 1e-4 * np.random.default_rng(0).standard_normal(64_000)
    soundfile.write(tmp_path / "room.wav", hum, 16_000, subtype="FLOAT")
    args = ["--file", tmp_path / "room.wav", "--runs-dir", runs]
    for more in ([], ["--realtime"]):
        segments = live_json(capsys, *args, *more)["segments"]
        assert [(s["start"], s["end"], s["label"]) for s in segments] == [(0.0, 4.0, "no speech")]
    assert live_json(capsys, *args, "--once")["windows"][0]["label"] == "no speech"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--file", "missing.wav"], "missing.wav"),
        (["--file", "setup.cfg"], "is it really audio"),
        (["--hop", "0"], "hop 0"),
        (["--hop", "nan"], "hop nan"),
        (["--smooth", "2"], "smooth 2"),
        (["--threshold", "7"], "threshold 7"),
        (["--file", "{clip}", "--out", "nowhere/out.csv"], "there is no folder nowhere"),
        (["--file", "{clip}", "--out", "out.md"], "endings .csv, .json, .txt"),
        (["--log", "nowhere/log"], "there is no folder nowhere"),
        (["--realtime"], "--realtime needs --file"),
        (["--file", "{clip}", "--run", "missing"], "missing: no trained head"),
    ],
)
def test_bad_input_is_named(
    args: list[str], named: str, clips: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    args = [arg.format(clip=clips[0]) for arg in args]
    assert named in live_json(capsys, *args, status=1)["error"]


# --- a real audio stack ------------------------------------------------------------------------


class Stack:
    """PulseAudio, and JACK if asked for, as a user's daemons, ended by their own process ids.

    ``server`` names the JACK server. JACK's registry has eight places and gives the place of a
    server that was killed only to one of the same name.
    """

    def __init__(self, folder: Path, jack: bool, server: str) -> None:
        (folder / "run").mkdir(mode=0o700)
        (folder / "asound.conf").write_text(
            f'pcm.!default {{ type pulse device "{SINK}.monitor" hint {{ show on }} }}\n'
        )
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        self.env = {
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "PULSE_RUNTIME_PATH": str(folder / "run/pulse"),
            "ALSA_CONFIG_PATH": str(folder / "asound.conf"),
            "JACK_DEFAULT_SERVER": server,
            "JACK_NO_START_SERVER": "1",
            "JACK_NO_AUDIO_RESERVATION": "1",
        }
        sink = f"module-null-sink sink_name={SINK} rate=48000"
        daemon = ["--daemonize=no", "--exit-idle-time=-1", "--disable-shm=yes", "-n"]
        daemon += ["-L", "module-native-protocol-unix", "-L", sink]
        if jack:
            options = ["--no-realtime", "--name", server, "--timeout", "5000"]
            self.start("jackd", *options, *["-d", "dummy", "-r", "48000", "-p", "2048"])
        self.daemon = daemon
        self.start_pulse()
        if jack:
            names = [f"sink_name={SINK}_jack", f"server_name={server}"]
            self._until_done("pactl", "load-module", "module-jack-sink", "connect=no", *names)

    def start_pulse(self) -> None:
        self.pulse = self.start("pulseaudio", *self.daemon)
        self._until_done("pactl", "info")

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        """Start a program that is ended with the stack."""
        with (self.folder / "log").open("ab") as log:
            self.started.append(
                subprocess.Popen(command, env={**os.environ, **self.env}, stdout=log, stderr=log)
            )
        return self.started[-1]

    def _until_done(self, *command: str) -> None:
        """Run a command again and again until it succeeds: the daemons need their time."""
        until = time.monotonic() + 20
        while self.start(*command).wait() != 0:
            if time.monotonic() > until:
                log = (self.folder / "log").read_text(errors="replace")
                self.close()
                pytest.fail(f"{command} doesn't succeed:\n{log}")
            time.sleep(0.2)

    @contextlib.contextmanager
    def playing(self, path: Path, jack: bool) -> Iterator[None]:
        """Play a file into one of the sinks meanwhile."""
        process = self.start("paplay", "--device", f"{SINK}_jack" if jack else SINK, str(path))
        yield
        process.terminate()

    def close(self) -> None:
        for process in reversed(self.started):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def missing(jack: bool) -> str:
    """Return what the stack lacks on this machine, "" if nothing."""
    if ctypes.util.find_library("portaudio") is None:
        return "PortAudio is missing (libportaudio2)"
    for program in ["pulseaudio", "pactl", "paplay", *(["jackd"] if jack else [])]:
        if shutil.which(program) is None:
            return f"the program {program} is missing"
    plugins = {"alsa-lib/*_pcm_pulse.so": "libasound2-plugins"}
    if jack:
        plugins["pulse-*/modules/module-jack-sink.so"] = "pulseaudio-module-jack"
    for plugin, package in plugins.items():
        if not any(any(Path("/usr/lib").glob(folder + plugin)) for folder in ("", "*/")):
            return f"{plugin} is missing ({package})"
    return ""


@contextlib.contextmanager
def server_name() -> Iterator[str]:
    """Hold a name for a JACK server that no other test run holds, the first one that is free."""
    for name in (f"ser-embed-{number}" for number in range(100)):
        lock = FileLock(Path(tempfile.gettempdir()) / f"{name}.lock")
        with contextlib.suppress(Timeout), lock.acquire(blocking=False):
            yield name
            return


@contextlib.contextmanager
def started_stack(jack: bool) -> Iterator[Stack]:
    # A socket's path has 108 bytes at most: pytest's own folders can be too deep.
    folder = Path(tempfile.mkdtemp(prefix="ser-"))
    with server_name() as server:
        stack = Stack(folder, jack, server)
        try:
            yield stack
        finally:
            stack.close()
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The stack, which PortAudio's processes find through the environment."""
    if missing(jack=False):
        pytest.skip(missing(jack=False))
    with started_stack(jack=not missing(jack=True)) as stack, pytest.MonkeyPatch.context() as patch:
        for name, value in stack.env.items():
            if name != "HOME":
                patch.setenv(name, value)
        yield stack


@pytest.fixture
def jack(stack: Stack) -> Stack:
    """The stack with an input, not the default, that is 48 kHz only."""
    if missing(jack=True):
        pytest.skip(missing(jack=True))
    return stack


@pytest.fixture(scope="module")
def steady(
    clips: list[Path], classifier: Classifier, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Prediction]:
    """A minute of one syllable again and again, and what it is at any phase of a window."""
    best, kept = 0.0, None
    for clip in clips[:: len(clips) // 8]:
        samples = load_audio(clip)
        loudest = int(np.abs(samples[: len(samples) - 3200]).argmax())
        syllable = samples[max(0, loudest - 1600) : loudest + 1600]
        tiled = np.tile(syllable / np.abs(syllable).max() * 0.8, 300)
        told = [classifier.classify(tiled[p : p + 48_000]) for p in (0, 1000, 2000)]
        confidence = min(prediction.confidence for prediction in told)
        if len({prediction.label for prediction in told}) == 1 and confidence > best:
            best, kept = confidence, (tiled, told[0])
    assert kept is not None
    path = tmp_path_factory.mktemp("steady") / "steady.wav"
    soundfile.write(path, kept[0], 16_000)
    return path, kept[1]


@pytest.fixture(params=["default", JACK_SINK])
def device(request: pytest.FixtureRequest, stack: Stack, steady: Any) -> Iterator[InputDevice]:
    """An input that hears the syllable meanwhile."""
    if request.param == JACK_SINK and missing(jack=True):
        pytest.skip(missing(jack=True))
    with stack.playing(steady[0], request.param == JACK_SINK):
        yield pick_device(find_devices(), request.param)


def test_a_microphone_hears_what_is_played(
    device: InputDevice, steady: tuple[Path, Prediction]
) -> None:
    ring = Ring()
    with Microphone(device, ring) as microphone:
        until = time.monotonic() + 20
        while ring.pushed < 32_000 and time.monotonic() < until:
            time.sleep(0.05)
        assert microphone.rate == (16_000 if device.default else 48_000)
    block = ring.pop()
    assert block is not None
    assert block.start == 0
    heard, played = block.samples[16_000:32_000], load_audio(steady[0])[:32_000]
    agreement = correlate(played, heard, "valid", "fft").max()
    assert agreement / (np.linalg.norm(heard) * np.linalg.norm(played[:16_000])) > 0.9


def test_once_prints_what_is_heard(
    device: InputDevice,
    steady: tuple[Path, Prediction],
    runs: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    assert main(["--once", "--device", device.name, "--runs-dir", str(runs)]) == 0
    told = capfd.readouterr()
    shown = {line.split()[0]: float(line.split()[-1][:-1]) for line in told.out.splitlines()}
    expected = steady[1]
    assert max(shown, key=lambda name: shown[name]) == expected.label
    assert shown == pytest.approx({k: 100 * p for k, p in expected.probabilities.items()}, abs=20)
    assert ("it refuses 16000 Hz" in caplog.text) == (not device.default)
    assert "Expression" not in told.err, "PortAudio's own remarks are kept out"


def test_devices_are_listed_and_an_unknown_one_is_refused(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--list-devices"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"(?m)^\* +\d+  default \(ALSA\), \d+ channels, \d+ Hz$", table)
    devices = live_json(capsys, "--list-devices")["devices"]
    assert "default" in {device["name"] for device in devices}
    assert len(devices) == len(table.splitlines())
    error = live_json(capsys, "--device", "webcam", status=1)["error"]
    assert "--device webcam: no such input" in error
    assert "  default (ALSA)" in error


class Slow:
    """A classifier that needs 1.3 s, and sets an event at the fifth window."""

    def __init__(self, classifier: Classifier, stop: threading.Event) -> None:
        self.classifier, self.stop, self.calls = classifier, stop, 0
        self.classes, self.seconds = classifier.classes, 1.0

    def classify(self, samples: np.ndarray) -> Prediction:
        self.calls += 1
        if self.calls == 5:
            self.stop.set()
        time.sleep(1.3)
        return self.classifier.classify(samples)


def test_a_slow_classifier_drops_windows_and_gets_the_newest(
    stack: Stack, steady: tuple[Path, Prediction], classifier: Classifier
) -> None:
    stop = threading.Event()
    slow: Any = Slow(classifier, stop)
    engine = Engine(slow, SegmentSettings(hop=0.25))
    session = engine.session
    with (
        stack.playing(steady[0], jack=False),
        Microphone(pick_device(find_devices(), "default"), engine.ring) as microphone,
    ):
        engine.start()
        watch(engine, Screen(io.StringIO()), stop, microphone)
        waiting = len(engine.ring)
        engine.close()
    assert not engine.running
    assert engine.error is None
    assert session.dropped >= 3 * 4
    assert waiting <= 3 * 16_000, "what waits is what came during one window"
    assert session.latency > 1.3
    assert session.worst_latency < 1.3 + 0.25 + 1.0, "the newest complete window, not the next one"
    assert session.seconds > 4


def test_a_long_stream_leaves_nothing_behind(
    spoken: Path, classifier: Classifier, tmp_path: Path
) -> None:
    speech = load_audio(spoken)
    path = tmp_path / "long.wav"
    soundfile.write(path, np.resize(speech, 150 * 16_000), 16_000)
    log, sizes = Log(tmp_path / "log.jsonl"), []
    engine = Engine(classifier, SegmentSettings(hop=1.0), log)
    ring, session = engine.ring, engine.session
    tracemalloc.start()
    try:
        FilePlayer(path, ring, speed=0.0).start()
        engine.start()
        while engine.running:
            if ring.pushed > (len(sizes) + 3) * 20 * 16_000:
                sizes.append(tracemalloc.get_traced_memory()[0])
            time.sleep(0.01)
            with session.lock:
                session.lines.clear()
    finally:
        tracemalloc.stop()
        log.close()
    assert engine.error is None
    assert session.judged > 20
    assert session.dropped == ring.lost == 0, "a source that can wait loses nothing"
    assert len(session.recent) < 100
    assert len(sizes) >= 4
    assert sizes[-1] - sizes[0] < 1.5e6, "90 s of float32 are 5.8 MB"


# --- in a terminal -----------------------------------------------------------------------------

CONTROL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A program in a pseudo-terminal, and the screen that its output makes."""

    def __init__(self, args: list[object], env: dict[str, str], columns: int) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        unset = {"COLUMNS", "LINES", "NO_COLOR"}
        clean = {name: value for name, value in os.environ.items() if name not in unset}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROL, *map(str, args)],
            cwd=Path(__file__).parents[2],
            env={**clean, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **env},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.raw = b""

    @property
    def text(self) -> str:
        return self.raw.decode(errors="ignore")

    def read_until(self, pattern: str, timeout: float = 60.0) -> None:
        """Read on until the pattern comes after what was there before."""
        start, until = len(self.text), time.monotonic() + timeout
        while not re.search(pattern, self.text[start:]):
            assert time.monotonic() < until, f"no {pattern!r} in:\n{self.text[-3000:]}"
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.raw += os.read(self.master, 65536)
                except OSError:  # the program has ended and the terminal is gone
                    assert re.search(pattern, self.text[start:]), self.text[-3000:]

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def wait(self) -> int:
        """Read the rest and return the exit status."""
        with contextlib.suppress(OSError):
            while select.select([self.master], [], [], 30)[0] and (
                more := os.read(self.master, 65536)
            ):
                self.raw += more
        return self.process.wait(20)

    def close(self) -> None:
        """End the program if it still runs, and give the terminal back."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)

    def screen(self) -> list[str]:
        """Return what stands on the screen, without its height."""
        rows, row, column = [""], 0, 0
        for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\s\S]", self.text):
            if token == "\r":
                column = 0
            elif token == "\n":
                row += 1
                rows += [""] * (row + 1 - len(rows))
            elif token.endswith("A") and token[0] == "\x1b":
                row = max(0, row - int(token[2:-1]))
            elif token == "\x1b[2K":
                rows[row] = ""
            elif token[0] == "\x1b":
                assert token[-1] in "mlh", f"an escape this screen doesn't know: {token!r}"
            else:
                rows[row] = rows[row][:column].ljust(column) + token + rows[row][column + 1 :]
                column += 1
        return [line.rstrip() for line in rows]


def test_in_a_terminal(
    stack: Stack, steady: tuple[Path, Prediction], runs: Path, tmp_path: Path
) -> None:
    path, expected = steady
    args = ["Main.py", "--runs-dir", runs, "--log", tmp_path / "log.jsonl"]
    terminal = Terminal(args, stack.env, columns=80)
    before = termios.tcgetattr(terminal.master)
    try:
        terminal.read_until(r"(?s)no speech.*· q quits")
        assert termios.tcgetattr(terminal.master) != before, "keys count without Enter"
        with stack.playing(path, jack=False):
            terminal.read_until(r"windows [6-9]\b")
        frame = terminal.screen()
        assert len([line for line in frame if line.startswith("level")]) == 1, "drawn in place"
        terminal.press(b" ")
        terminal.read_until(r"paused")
        terminal.press(b"r ")
        terminal.read_until(r"(?s)no speech.*windows", timeout=20)
        terminal.press(b"q")
        status = terminal.wait()
        assert termios.tcgetattr(terminal.master) == before
    finally:
        terminal.close()
    assert status == 0, terminal.text[-3000:]

    frame = frame[[line[:5] for line in frame].index("level") - 1 :]
    assert frame[0].split()[0] == expected.label, "what predict says of the file"
    assert [line.split()[0] for line in frame[2:5]] == list(expected.probabilities)
    assert max(map(len, frame)) < 80
    assert len(frame) < 24
    lane = next(line for line in frame if line.startswith(f"{expected.label} ") and "│" in line)
    assert re.search("[▄▅▆▇█]{2,}$", lane.split("│")[1].rstrip())
    assert max(map(int, re.findall(r"(-?\d+) dB", terminal.text))) > -10, "the meter moves"

    ended = "\n".join(terminal.screen())
    assert terminal.raw.count(b"\x1b[?25l") == terminal.raw.count(b"\x1b[?25h") == 1
    assert "level" not in ended, "the summary takes the frame's place"
    assert re.search(r"heard 0:\d\d · windows \d", ended)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    events = [line["event"] for line in log if line["event"] not in ("window", "segment")]
    assert [event for event in events if event != "overflow"] == [
        "start", "pause", "reset", "resume", "end",
    ]  # fmt: skip
    labels = {line["label"] for line in log if line["event"] == "window"}
    assert expected.label in labels


@pytest.mark.parametrize("end", ["ctrl-c", "term", "full disk"])
def test_the_terminal_is_given_back_however_it_ends(stack: Stack, runs: Path, end: str) -> None:
    args = ["Main.py", "--runs-dir", runs, *(["--log", "/dev/full"] if end == "full disk" else [])]
    terminal = Terminal(args, {**stack.env, "NO_COLOR": "1"}, columns=40)
    before = termios.tcgetattr(terminal.master)
    try:
        if end == "full disk":
            terminal.read_until("No space left")
        else:
            terminal.read_until(r"· 0:0[1-9]|0:0[1-9] ·")
        if end == "ctrl-c":
            terminal.press(b"\x03\x03")  # the second does no harm
        elif end == "term":
            terminal.process.terminate()
        status = terminal.wait()
        assert termios.tcgetattr(terminal.master) == before
    finally:
        terminal.close()
    assert status == (1 if end == "full disk" else 0), terminal.text[-3000:]
    assert terminal.raw.count(b"\x1b[?25l") == terminal.raw.count(b"\x1b[?25h")
    assert "Traceback" not in terminal.text
    assert not re.search(r"\x1b\[[0-9;]*m", terminal.text), "NO_COLOR"
    if end == "ctrl-c":
        assert "^C" not in "".join(terminal.screen())


def test_a_pipe_gets_lines(stack: Stack, steady: tuple[Path, Prediction], runs: Path) -> None:
    with stack.playing(steady[0], jack=False):
        process = subprocess.Popen(
            [sys.executable, "Main.py", "--runs-dir", str(runs)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, **stack.env},
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(8)]
        process.terminate()
        rest = process.communicate(timeout=30)[0]
    assert process.returncode == 0
    assert all(re.match(r" +0:\d\d\.\d  (no speech|unsure|[a-z]+ +\d)", line) for line in lines)
    assert any(steady[1].label in line.split()[1:2] for line in lines)
    assert "heard 0:" in rest
    assert "\x1b" not in "".join(lines) + rest


def children(pid: int) -> list[int]:
    told = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in told.split()]


def test_a_lost_device_is_waited_for(
    runs: Path, steady: tuple[Path, Prediction], tmp_path: Path
) -> None:
    """The sound server dies as a device that is unplugged, and comes back."""
    if missing(jack=False):
        pytest.skip(missing(jack=False))
    with started_stack(jack=False) as stack:
        args = ["Main.py", "--runs-dir", runs, "--log", tmp_path / "log.jsonl"]
        terminal = Terminal(args, stack.env, columns=80)
        try:
            terminal.read_until(r"0:0[2-9] ·")
            stack.pulse.kill()
            stack.pulse.wait()
            terminal.read_until(r"default is lost, waiting for it")
            stack.start_pulse()
            with stack.playing(steady[0], jack=False):
                terminal.read_until(rf"{steady[1].label} \d+%", timeout=90)
                terminal.read_until(r"device lost 1")  # below: the label's frame may come in parts
                frame = terminal.screen()
            terminal.press(b"q")
            status = terminal.wait()
        finally:
            terminal.close()
    assert status == 0
    assert "device lost 1" in "\n".join(frame)
    assert "Expression" not in terminal.text
    events = [
        json.loads(line)["event"] for line in (tmp_path / "log.jsonl").read_text().splitlines()
    ]
    assert [e for e in events if e in ("lost", "found")] == ["lost", "found"]


def test_lost_samples_are_counted_and_a_dead_server_does_not_block(runs: Path) -> None:
    if missing(jack=True):
        pytest.skip(missing(jack=True))
    with started_stack(jack=True) as stack:
        args = ["Main.py", "--device", JACK_SINK, "--runs-dir", runs]
        terminal = Terminal(args, stack.env, columns=80)
        try:
            terminal.read_until(r"0:0[1-9] ·")
            assert "it refuses 16000 Hz" in terminal.text
            [capture] = children(terminal.process.pid)
            os.kill(capture, signal.SIGSTOP)  # JACK goes on without it
            time.sleep(1.0)
            os.kill(capture, signal.SIGCONT)
            terminal.read_until(r"overflows [1-9]")
            stack.pulse.terminate()
            stack.started[0].kill()
            terminal.read_until(r"Sink is lost, waiting for it")
            began = time.monotonic()
            terminal.press(b"q")
            assert terminal.wait() == 0
            assert time.monotonic() - began < 10
        finally:
            terminal.close()


# --- no microphone -----------------------------------------------------------------------------


def test_no_device_is_a_clear_error(run: Callable[..., Any], tmp_path: Path) -> None:
    if ctypes.util.find_library("portaudio") is None:
        pytest.skip("PortAudio is missing (libportaudio2)")
    (tmp_path / "asound.conf").write_text(NO_DEVICE)
    env = {"ALSA_CONFIG_PATH": str(tmp_path / "asound.conf"), "JACK_NO_START_SERVER": "1"}
    env |= {"JACK_DEFAULT_SERVER": "none"}
    result = run("Main.py", "--json", env=env)
    assert result.returncode == 1
    assert "no microphone" in result.stderr
    assert "--file" in json.loads(result.stdout)["error"]
    assert "Traceback" not in result.stderr
    assert "ALSA lib" not in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="LD_LIBRARY_PATH is Linux's")
def test_no_portaudio_is_a_clear_error(run: Callable[..., Any], tmp_path: Path) -> None:
    # Where PortAudio is installed, a file of its name that is no library goes before it.
    (tmp_path / "libportaudio.so.2").write_text("no library")
    result = run("Main.py", env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert result.returncode == 1
    assert re.search(r"no microphone.*libportaudio2.*--file", result.stderr)
    assert "Traceback" not in result.stderr
