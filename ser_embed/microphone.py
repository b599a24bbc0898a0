"""A microphone as a stream of overlapping windows.

PortAudio's callback runs in a thread of its own and only copies samples into `Windows`, a ring
that never grows; a classifier takes windows out of it at its own pace.
"""

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ser_embed.audio import CLIP_SECONDS, SAMPLE_RATE, to_mono
from ser_embed.errors import DeviceError

__all__ = [
    "FILE_INSTEAD", "InputDevice", "Microphone", "Window", "Windows", "find_devices",
    "pick_device", "quiet_stderr", "windows_of",
]  # fmt: skip

CLOSE_SECONDS = 3.0
FILE_INSTEAD = "or classify a recording instead: python Main.py --file FILE"


class Window(NamedTuple):
    """A stretch of a stream: `samples` is mono float32, `start` is in seconds of the stream."""

    start: float
    samples: np.ndarray


class Windows:
    """Cuts a stream into windows; holds one window and one hop of it, whatever happens.

    One thread pushes, another takes. Window k covers `seconds` from k * hop on. Who takes late
    gets the newest window that is complete; those missed in between are counted in `dropped`.

    Args:
        rate: Samples per second of the stream.
        seconds: Length of a window.
        hop: Seconds from one window's start to the next one's.
    """

    def __init__(self, rate: int, seconds: float = CLIP_SECONDS, hop: float = 0.5) -> None:
        self.rate, self.length, self.hop = rate, round(seconds * rate), max(1, round(hop * rate))
        self.pushed = self.taken = self.dropped = 0  # samples, windows, windows
        self._ring = np.zeros(self.length + self.hop, dtype=np.float32)
        self._changed = threading.Condition()

    def push(self, block: np.ndarray) -> None:
        """Add samples of shape (n,) or (n, n_channels)."""
        mono = to_mono(block)
        with self._changed:
            newest = mono[-len(self._ring) :]
            at = (self.pushed + len(mono) - len(newest) + np.arange(len(newest))) % len(self._ring)
            self._ring[at] = newest
            self.pushed += len(mono)
            self._changed.notify()

    def take(self, timeout: float = 0.0) -> Window | None:
        """Return the newest complete window not taken yet; None if none comes in `timeout` s."""
        with self._changed:
            self._changed.wait_for(lambda: self._due() >= 0, timeout)
            k = self._due()
            if k < 0:
                return None
            self.dropped += k - self.taken - self.dropped
            self.taken += 1
            return Window(k * self.hop / self.rate, self._copy(k * self.hop, self.length))

    def feed(self, samples: np.ndarray) -> Iterator[Window]:
        """Push samples that nobody waits for, hop by hop, and yield every window they complete."""
        for start in range(0, len(samples), self.hop):
            self.push(samples[start : start + self.hop])
            window = self.take()
            if window is not None:
                yield window

    def newest(self, seconds: float) -> np.ndarray:
        """Return the last samples, at most `seconds` of them."""
        with self._changed:
            n = min(round(seconds * self.rate), self.pushed, len(self._ring))
            return self._copy(self.pushed - n, n)

    def _due(self) -> int:
        k = (self.pushed - self.length) // self.hop
        return k if k >= self.taken + self.dropped else -1

    def _copy(self, start: int, n: int) -> np.ndarray:
        return self._ring[(start + np.arange(n)) % len(self._ring)]


def windows_of(samples: np.ndarray, seconds: float, hop: float) -> Iterator[Window]:
    """Return the windows that a microphone would give if it heard `samples` (16 kHz, mono).

    What is left after the last whole window, less than a hop, is heard by that window alone.
    """
    return Windows(SAMPLE_RATE, seconds, hop).feed(samples)


# --- devices -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class InputDevice:
    """An input of PortAudio; `rate` is its default in samples per second."""

    index: int
    name: str
    host: str
    channels: int
    rate: int
    default: bool

    def __str__(self) -> str:
        """Return it as --list-devices shows it."""
        return f"{'*' if self.default else ' '} {self.index:3}  {self.name} ({self.host})"


def _sounddevice() -> Any:
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"no microphone, because sounddevice can't be used: {error}. Install PortAudio "
            "(Debian and Ubuntu: apt-get install libportaudio2; Fedora: dnf install portaudio; "
            f"macOS: brew install portaudio), {FILE_INSTEAD}"
        ) from error
    return sounddevice


def find_devices() -> list[InputDevice]:
    """Return the input devices.

    Raises:
        DeviceError: There is none, or no PortAudio.
    """
    sounddevice = _sounddevice()
    hosts = sounddevice.query_hostapis()
    default = sounddevice.default.device[0]
    devices = [
        InputDevice(
            index,
            str(device["name"]),
            str(hosts[device["hostapi"]]["name"]),
            int(device["max_input_channels"]),
            round(device["default_samplerate"]),
            index == default,
        )
        for index, device in enumerate(sounddevice.query_devices())
        if device["max_input_channels"] > 0
    ]
    if not devices:
        raise DeviceError(
            "no microphone: the system has no audio input (a container or a remote shell often "
            f"has none). Connect one and look with --list-devices, {FILE_INSTEAD}"
        )
    return devices


def pick_device(devices: list[InputDevice], wanted: str = "") -> InputDevice:
    """Return the device with the index or (part of the) name `wanted`; "" is the default one.

    Raises:
        DeviceError: None or several fit; the message lists the devices.
    """
    if not wanted:
        return next((device for device in devices if device.default), devices[0])
    key = wanted.casefold()
    fitting = [device for device in devices if str(device.index) == key]
    fitting = fitting or [device for device in devices if device.name.casefold() == key]
    fitting = fitting or [device for device in devices if key in str(device).casefold()]
    if len(fitting) == 1:
        return fitting[0]
    listed = "\n".join(map(str, fitting or devices))
    raise DeviceError(
        f"--device {wanted}: {'several inputs fit' if fitting else 'no such input'}; "
        f"give the index of one of these, {FILE_INSTEAD}\n{listed}"
    )


class Microphone:
    """An open input device: a context manager that fills `windows` from now on.

    Opened at 16 kHz; a device that refuses is opened at its own rate, and the classifier
    resamples. `overflows` counts the times that PortAudio reported lost samples.

    Raises:
        DeviceError: The device opens at neither rate.
    """

    def __init__(self, device: InputDevice, seconds: float, hop: float) -> None:
        self.device, self.overflows = device, 0
        portaudio = _sounddevice()
        tries = [(SAMPLE_RATE, 1), (device.rate, 1), (device.rate, device.channels)]
        for rate, channels in dict.fromkeys(tries):
            self.windows = Windows(rate, seconds, hop)
            try:
                with quiet_stderr():  # ALSA prints each refusal
                    self._stream = portaudio.InputStream(
                        samplerate=rate,
                        device=device.index,
                        channels=channels,
                        dtype="float32",
                        latency="high",
                        callback=self._take_in,
                    )
                    self._stream.start()
                return
            except portaudio.PortAudioError as error:
                refusal = error
        raise DeviceError(
            f"{device.name}: can't be opened for input ({refusal}). Is another program holding "
            f"it? Choose another with --device, see --list-devices, {FILE_INSTEAD}"
        )

    def __enter__(self) -> "Microphone":
        """Return the microphone."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the device."""
        with quiet_stderr():
            closing = threading.Thread(target=self._close, daemon=True)
            closing.start()
            closing.join(CLOSE_SECONDS)
        if closing.is_alive():
            # Of a JACK server that has gone, PortAudio waits ten minutes for an answer, and again
            # when the program ends.
            with contextlib.suppress(AttributeError):
                atexit.unregister(_sounddevice()._exit_handler)

    def _close(self) -> None:
        self._stream.abort()
        self._stream.close()

    def _take_in(self, block: np.ndarray, _n: int, _time: object, status: Any) -> None:
        self.overflows += bool(status.input_overflow)
        self.windows.push(block)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what is written to standard error: ALSA and PortAudio print there, over a frame."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
