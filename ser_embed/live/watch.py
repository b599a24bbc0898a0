"""The main thread of a live session: keys, signals, the device's state, and the screen."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

from ser_embed.audio import SAMPLE_RATE
from ser_embed.errors import DeviceError
from ser_embed.live.keyboard import Keyboard
from ser_embed.live.listener import Listener
from ser_embed.live.microphone import Microphone, find_devices
from ser_embed.live.screen import KEYS, Screen

__all__ = ["listen", "stop_on_signals"]

log = logging.getLogger(__name__)

REDRAW_SECONDS = 0.1


def listen(
    listener: Listener,
    screen: Screen,
    stop: threading.Event,
    microphone: Microphone | None = None,
    keyboard: Keyboard | None = None,
    lines: bool = True,
) -> None:
    """Show what a listener hears until `stop` is set, q is pressed or its ring ends.

    Args:
        listener: Started already; its session and its ring are shown.
        screen: Where.
        stop: Ends it from another thread or a signal's handler.
        microphone: What fills the ring, if one does.
        keyboard: Whose keys count.
        lines: Whether a screen that isn't a terminal gets a line per window.
    """
    session, ring = listener.session, listener.ring
    watch = _Watch(listener, microphone)
    keys = KEYS if keyboard is not None and keyboard.works else ""
    if microphone is None:
        keys = keys.replace(" · d next device", "")
    while listener.is_alive() and not stop.is_set():
        session.changed.wait(REDRAW_SECONDS)
        session.changed.clear()
        pressed = keyboard.pressed() if keyboard is not None else ""
        for key in pressed:
            watch.press(key)
        if "q" in pressed:
            break
        watch.look()
        with session.lock:
            session.peak, session.seconds = ring.level, ring.pushed / SAMPLE_RATE
        screen.update(session, keys, lines)


class _Watch:
    """Keys, the device's state and the counters, told to session and log."""

    def __init__(self, listener: Listener, microphone: Microphone | None) -> None:
        self.listener, self.microphone = listener, microphone
        self.overflows = 0
        self.missing = False

    def press(self, key: str) -> None:
        session, ring = self.listener.session, self.listener.ring
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

    def look(self) -> None:
        session, microphone = self.listener.session, self.microphone
        state = "paused: space goes on" if self.listener.ring.paused else ""
        if microphone is not None:
            overflows = microphone.overflows
            if microphone.missing:
                state = f"{microphone.device.name} is lost, waiting for it"
            if microphone.missing != self.missing:
                self.missing = microphone.missing
                self.note("lost" if self.missing else "found", device=microphone.device.name)
                if self.missing:
                    log.warning("%s is lost; waiting for it", microphone.device.name)
            if overflows != self.overflows:
                self.overflows = overflows
                self.note("overflow", overflows=overflows)
            session.losses = microphone.losses
        session.overflows = self.overflows + (self.listener.ring.lost > 0)
        session.state = state

    def note(self, event: str, **told: Any) -> None:
        if self.listener.log is not None:
            seconds = round(self.listener.ring.pushed / SAMPLE_RATE, 3)
            self.listener.log.write(event, seconds=seconds, **told)


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
