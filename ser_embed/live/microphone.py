"""Input devices, and a microphone that survives its device.

PortAudio runs in a process of its own (`ser_embed.live.capture`), which is replaced when it fails.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.errors import DeviceError
from ser_embed.live.capture import FRAME
from ser_embed.live.ring import Ring

__all__ = [
    "FILE_INSTEAD", "InputDevice", "Microphone", "find_devices",
    "pick_device",
]  # fmt: skip

CLOSE_SECONDS = 2.0
RETRY_SECONDS = 1.0  # from one look for a lost device to the next
FILE_INSTEAD = "or classify a recording instead: python Main.py --file FILE"


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


def _capture(*args: object) -> "subprocess.Popen[bytes]":
    """Start the process that talks to PortAudio; its own remarks are dropped."""
    package = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "ser_embed.live.capture", *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )


def _first_line(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline())
    except ValueError:  # PortAudio has ended the process, or it took too long
        said = {"error": "PortAudio doesn't answer"}
    if "missing" in said:
        raise DeviceError(
            f"no microphone, because sounddevice can't be used: {said['missing']}. Install "
            "PortAudio (Debian and Ubuntu: apt-get install libportaudio2; Fedora: dnf install "
            f"portaudio; macOS: brew install portaudio), {FILE_INSTEAD}"
        )
    return dict(said)


def find_devices() -> list[InputDevice]:
    """Return the input devices that there are now.

    Raises:
        DeviceError: There is none, or no PortAudio.
    """
    with _ending(_capture("list")) as process:
        said = _first_line(process)
    devices = [InputDevice(**device) for device in said.get("inputs", [])]
    if not devices:
        raise DeviceError(
            "no microphone: the system has no audio input (a container or a remote shell often "
            f"has none). Connect one and look with --list-devices, {FILE_INSTEAD}"
        )
    return devices


@contextlib.contextmanager
def _ending(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    try:
        yield process
    finally:
        process.kill()  # it has nothing to lose
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


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
    """An open input device: a context manager that fills a ring from now on.

    Opened at 16 kHz; a device that refuses is opened at its own rate, and the ring resamples. A
    device that stops delivering is looked for until it is there again.

    Args:
        device: What to open.
        ring: What to fill.

    Attributes:
        device: The device that is open, or was.
        rate: Samples per second that it delivers.
        overflows: Times that samples were lost on their way to the ring.
        missing: Whether the device is lost at the moment.
        losses: Times that it has been.

    Raises:
        DeviceError: The device can't be opened.
    """

    def __init__(self, device: InputDevice, ring: Ring) -> None:
        self.device, self.ring = device, ring
        self.rate = self.overflows = self.losses = 0
        self.missing = False
        self._channels = 1
        self._closing = threading.Event()
        self._process = self._open(device)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Microphone":
        """Return the microphone."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the device."""
        self._closing.set()
        self._process.kill()
        self._thread.join(CLOSE_SECONDS)

    def switch(self, device: InputDevice) -> None:
        """Go on with another device; it is waited for if it can't be opened."""
        self.device = device
        self._process.kill()

    def _open(self, device: InputDevice) -> "subprocess.Popen[bytes]":
        process = _capture("open", device.index, device.name, device.host)
        try:
            said = _first_line(process)
            if "error" not in said:
                self.rate, self._channels = said["rate"], said["channels"]
                return process
        except DeviceError:
            with _ending(process):
                raise
        with _ending(process):
            raise DeviceError(
                f"{device.name}: can't be opened for input ({said['error']}). Is another program "
                f"holding it? Choose another with --device, see --list-devices, {FILE_INSTEAD}"
            )

    def _follow(self) -> None:
        while not self._closing.is_set():
            device = self.device
            with _ending(self._process):
                self._read(self._process.stdout)
            self.ring.interrupt()
            while not self._closing.is_set():
                if self.device == device:
                    self.losses += not self.missing
                    self.missing = True
                device = self.device
                try:
                    self._process = self._open(device)
                except DeviceError:
                    self._closing.wait(RETRY_SECONDS)
                else:
                    self.missing = False
                    break
        with _ending(self._process):
            pass

    def _read(self, stream: Any) -> None:
        while len(head := stream.read(FRAME.size)) == FRAME.size:
            lost, n = FRAME.unpack(head)
            block = np.frombuffer(stream.read(n), dtype=np.float32)
            self.overflows += lost
            whole = len(block) // self._channels * self._channels
            self.ring.push(block[:whole].reshape(-1, self._channels), self.rate)
