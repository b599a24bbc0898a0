"""PortAudio in a process of its own, which writes an input's samples to its standard output.

A sound server that dies can block PortAudio for minutes, and devices that were plugged in later
are known only to a process that starts later: `live/microphone.py` ends this one and starts
another. It loads nothing but sounddevice, so that it starts quickly.

`python -m ser_embed.live.capture list` prints the inputs as JSON. `... open INDEX NAME HOST` prints
a JSON line `{"rate", "channels"}` or `{"error"}`, and then frames: `FRAME`'s two numbers, how often
samples were lost since the last frame and the bytes of float32 samples that follow, interleaved.
It ends when its standard input does, and when the device has delivered nothing for 5 s.
"""

import contextlib
import json
import os
import queue
import re
import signal
import struct
import sys
import threading
from typing import Any, BinaryIO

__all__ = ["FRAME", "STALL_SECONDS", "main"]

FRAME = struct.Struct("<II")
STALL_SECONDS = 5.0  # a muted device delivers zeros; one that is gone delivers nothing

_SAMPLE_RATE = 16_000  # as ser_embed.audio has it, which loads numpy
_OPEN_SECONDS = 15.0  # after which an opening that hangs is given up
_BLOCKS = 500  # that wait for a reader who is late: 10 s and more


def _inputs(portaudio: Any) -> list[dict[str, Any]]:
    hosts, default = portaudio.query_hostapis(), portaudio.default.device[0]
    return [
        {
            "index": index,
            "name": str(device["name"]),
            "host": str(hosts[device["hostapi"]]["name"]),
            "channels": int(device["max_input_channels"]),
            "rate": round(device["default_samplerate"]),
            "default": index == default,
        }
        for index, device in enumerate(portaudio.query_devices())
        if device["max_input_channels"] > 0
    ]


def _find(inputs: list[dict[str, Any]], index: int, name: str, host: str) -> dict[str, Any] | None:
    """Return the input of that name, wherever it stands in the list now."""

    def bare(name: str) -> str:  # plugged in again, it can have another number
        return re.sub(r"\(hw:\d+,\d+\)", "", name)

    fitting = [one for one in inputs if (one["name"], one["host"]) == (name, host)]
    fitting = fitting or [
        one for one in inputs if (bare(one["name"]), one["host"]) == (bare(name), host)
    ]
    same = [one for one in fitting if one["index"] == index]
    return next(iter(same + fitting), None)


class _Capture:
    """An open stream and the blocks that it has delivered."""

    def __init__(self, portaudio: Any, device: dict[str, Any]) -> None:
        self.blocks: queue.Queue[bytes] = queue.Queue(_BLOCKS)
        self.lost = 0
        self.ended = threading.Event()
        tries = [(_SAMPLE_RATE, 1), (device["rate"], 1), (device["rate"], device["channels"])]
        for self.rate, self.channels in dict.fromkeys(tries):
            try:
                self.stream = portaudio.RawInputStream(
                    samplerate=self.rate,
                    device=device["index"],
                    channels=self.channels,
                    dtype="float32",
                    latency="high",
                    callback=self._take_in,
                    finished_callback=self.ended.set,
                )
                self.stream.start()
                return
            except portaudio.PortAudioError as error:
                refusal = error
        raise refusal

    def _take_in(self, block: Any, _n: int, _time: object, status: Any) -> None:
        self.lost += bool(status.input_overflow)
        try:
            self.blocks.put_nowait(bytes(block))
        except queue.Full:
            self.lost += 1

    def write(self, out: BinaryIO) -> None:
        """Write frames until the device stops delivering."""
        while not self.ended.is_set():
            try:
                block = self.blocks.get(timeout=STALL_SECONDS)
            except queue.Empty:
                return
            while not self.blocks.empty():  # some drivers deliver a hundred times a second and more
                block += self.blocks.get()
            lost, self.lost = self.lost, 0
            out.write(FRAME.pack(lost, len(block)) + block)
            out.flush()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _open(portaudio: Any, out: BinaryIO, index: int, name: str, host: str) -> None:
    watchdog = threading.Timer(_OPEN_SECONDS, os._exit, [1])
    watchdog.daemon = True
    watchdog.start()
    device = _find(_inputs(portaudio), index, name, host)
    if device is None:
        raise LookupError("it isn't there")
    capture = _Capture(portaudio, device)
    watchdog.cancel()
    _say(out, {"rate": capture.rate, "channels": capture.channels})
    capture.write(out)


def _say(out: BinaryIO, message: Any) -> None:
    out.write(json.dumps(message).encode() + b"\n")
    out.flush()


def main(argv: list[str]) -> None:
    """Do what the module says; end the process without waiting for PortAudio."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started this one
    out = sys.stdout.buffer
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        _say(out, {"missing": str(error)})
        return
    with contextlib.suppress(OSError):  # nobody reads any more
        try:
            if argv[0] == "list":
                _say(out, {"inputs": _inputs(sounddevice)})
            else:
                threading.Thread(target=_end_with_parent, daemon=True).start()
                _open(sounddevice, out, int(argv[1]), argv[2], argv[3])
        except (LookupError, sounddevice.PortAudioError) as error:
            _say(out, {"error": str(error)})
    os._exit(0)  # of a sound server that has gone, PortAudio would wait ten minutes for an answer


if __name__ == "__main__":
    main(sys.argv[1:])
