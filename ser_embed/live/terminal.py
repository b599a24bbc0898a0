"""The main thread of a live session: keys, signals, the device's state, the screen."""

import contextlib
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from ser_embed.audio import SAMPLE_RATE
from ser_embed.errors import DeviceError
from ser_embed.live.engine import Engine
from ser_embed.live.microphone import Microphone, find_devices
from ser_embed.live.screen import Screen

try:
    import termios
    import tty
except ImportError:  # Windows
    termios = tty = None  # type: ignore[assignment]

__all__ = ["Keyboard", "stop_on_signals", "watch"]

log = logging.getLogger(__name__)

REDRAW_SECONDS = 0.1


class Keyboard:
    """Single keys: a context manager in which one counts without Enter and isn't echoed.

    The terminal is given back as it was found.

    Attributes:
        works: Whether there are keys: not without a terminal, in the background, or on Windows.
    """

    def __init__(self) -> None:
        self.works = False
        self._kept: Any = None

    def __enter__(self) -> "Keyboard":
        """Set the terminal."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no standard input
            fd = sys.stdin.fileno()
            # From the background, changing the terminal would stop the program.
            if termios is not None and os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp():
                self._fd, self._kept = fd, termios.tcgetattr(fd)
                self._before = signal.signal(signal.SIGCONT, self._set_cbreak)
                self._set_cbreak()
                self.works = True
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the terminal back."""
        self.works = False
        if self._kept is not None:
            signal.signal(signal.SIGCONT, self._before)
            with contextlib.suppress(termios.error):  # it is gone
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._kept)

    def _set_cbreak(self, *_: object) -> None:
        """Also after Ctrl-Z and `fg`, when the shell has set the terminal its own way."""
        with contextlib.suppress(termios.error):
            tty.setcbreak(self._fd)

    def pressed(self) -> str:
        """Return the keys that were pressed since, "" for none; arrows and the like are none."""
        if not self.works or not select.select([self._fd], [], [], 0)[0]:
            return ""
        try:
            keys = os.read(self._fd, 64)
        except OSError:
            keys = b""
        if not keys:  # the terminal is gone
            self.works = False
        return "" if keys.startswith(b"\x1b") else keys.decode("ascii", "ignore")


def watch(
    engine: Engine,
    screen: Screen,
    stop: threading.Event,
    microphone: Microphone | None = None,
    keyboard: Keyboard | None = None,
    lines: bool = True,
) -> None:
    """Show what an engine finds until `stop` is set, q is pressed or its ring ends.

    Args:
        engine: Started already.
        screen: Where its session is shown.
        stop: Ends it from another thread or a signal's handler.
        microphone: What fills the ring, if one does.
        keyboard: Whose keys count.
        lines: Whether a screen that isn't a terminal gets a line per window.
    """
    session, controls = engine.session, _Controls(engine, microphone)
    with screen.live():
        while engine.running and not stop.is_set():
            session.changed.wait(REDRAW_SECONDS)
            session.changed.clear()
            pressed = keyboard.pressed() if keyboard is not None else ""
            for key in pressed:
                controls.press(key)
            if "q" in pressed:
                break
            controls.refresh()
            keys = controls.keys if keyboard is not None and keyboard.works else ()
            screen.update(session, keys, lines)


class _Controls:
    """Keys and the device's state, noted in session and log."""

    def __init__(self, engine: Engine, microphone: Microphone | None) -> None:
        self.engine, self.microphone = engine, microphone
        self.overflows = 0
        self.missing = False
        switch = ("d next device",) if microphone is not None else ()
        self.keys = ("space pauses", *switch, "r resets", "q quits")

    def press(self, key: str) -> None:
        session, ring = self.engine.session, self.engine.ring
        if key == " ":
            ring.interrupt(not ring.paused)
            self.note("pause" if ring.paused else "resume")
        elif key == "r":
            with session.lock:
                session.reset()
            self.note("reset")
        elif key == "d" and self.microphone is not None:
            with contextlib.suppress(DeviceError):  # none is left to choose from
                devices = find_devices()
                names = [(device.name, device.host) for device in devices]
                here = (self.microphone.device.name, self.microphone.device.host)
                at = names.index(here) + 1 if here in names else 0
                self.microphone.switch(devices[at % len(devices)])
                self.note("device", device=self.microphone.device.name)

    def refresh(self) -> None:
        session, ring, microphone = self.engine.session, self.engine.ring, self.microphone
        state = "paused: space goes on" if ring.paused else ""
        if microphone is not None:
            name, missing, overflows = (
                microphone.device.name, microphone.missing, microphone.overflows,
            )  # fmt: skip
            if missing:
                state = f"{name} is lost, waiting for it"
            if missing != self.missing:
                self.missing = missing
                self.note("lost" if missing else "found", device=name)
                if missing:
                    log.warning("%s is lost; waiting for it", name)
            if overflows != self.overflows:
                self.overflows = overflows
                self.note("overflow", overflows=overflows)
        with session.lock:
            session.losses = 0 if microphone is None else microphone.losses
            session.overflows = self.overflows + (ring.lost > 0)
            session.state, session.peak = state, ring.level
            session.seconds = ring.pushed / SAMPLE_RATE

    def note(self, event: str, **facts: Any) -> None:
        if self.engine.log is not None:
            seconds = round(self.engine.ring.pushed / SAMPLE_RATE, 3)
            self.engine.log.write(event, seconds=seconds, **facts)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Let Ctrl-C, however often, and SIGTERM set the event instead of breaking off."""
    stop = threading.Event()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {n: signal.signal(getattr(signal, n), lambda *_: stop.set()) for n in names}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
