"""From a microphone, or a file taken as if spoken, to probabilities that follow the voice.

`python Main.py` listens until Ctrl-C: a window of the head's clip length (3 s) slides by `--hop`
(0.5 s) over the stream, and each one is classified. A classifier slower than the hop misses
windows, which are counted, and always gets the newest audio.
"""

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ser_embed.audio import CLIP_SECONDS, SAMPLE_RATE, load_audio, n_samples
from ser_embed.command import RUNS_DIR, Options, Outcome, run_command
from ser_embed.errors import AudioError, DeviceError
from ser_embed.microphone import (
    FILE_INSTEAD,
    InputDevice,
    Microphone,
    Window,
    find_devices,
    pick_device,
    quiet_stderr,
    windows_of,
)
from ser_embed.predict import Classifier
from ser_embed.screen import Heard, Screen, Session, draw_bars, draw_line, draw_summary

__all__ = ["LiveConfig", "listen", "live", "main"]

log = logging.getLogger(__name__)

REDRAW_SECONDS = 0.1  # also the stretch of audio whose level the meter shows
STALL_SECONDS = 5.0  # a muted device delivers zeros; one that is gone delivers nothing


@dataclass(frozen=True)
class LiveConfig(Options):
    """Classify speech live from the microphone until Ctrl-C; --file needs no microphone."""

    once: bool = False
    """Record one clip of 3 s, print each class's percentage and end."""
    file: Path | None = None
    """Take this file as if it were spoken: the same windows as from the microphone."""
    list_devices: bool = False
    """Print the input devices and end."""
    device: str = ""
    """Input device by index or by part of its name. Default: the system's default input."""
    run: Path | None = None
    """A run's folder, or a bundled head: sentiment3 or emotion8.
    Default: the newest under --runs-dir, else the bundled sentiment3."""
    hop: float = 0.5
    """Seconds from one window to the next."""
    runs_dir: Path = RUNS_DIR
    """Folder of the runs."""


def listen(
    microphone: Microphone,
    classifier: Classifier,
    session: Session,
    screen: Screen,
    stop: threading.Event,
    once: bool = False,
) -> None:
    """Classify what the microphone hears until `stop` is set, or one window with `once`.

    Raises:
        DeviceError: The device has delivered nothing for 5 s.
    """
    windows = microphone.windows
    pushed, since = 0, time.monotonic()
    while not stop.is_set():
        window = windows.take(REDRAW_SECONDS)
        heard = None if window is None else _classify(classifier, window, windows.rate)
        if heard is not None:
            session.add(heard)
        session.seconds = windows.pushed / windows.rate
        session.peak = float(np.abs(windows.newest(REDRAW_SECONDS)).max(initial=0.0))
        session.dropped, session.overflows = windows.dropped, microphone.overflows
        screen.update(session, None if once else heard)
        if once and heard is not None:
            return
        if windows.pushed != pushed:
            pushed, since = windows.pushed, time.monotonic()
        elif time.monotonic() - since > STALL_SECONDS:
            raise DeviceError(
                f"{microphone.device.name}: has delivered no audio for {STALL_SECONDS:.0f} s; is "
                f"it still connected? Choose another with --device, {FILE_INSTEAD}"
            )


@contextlib.contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """Let Ctrl-C, however often, set the event instead of breaking off what is being done."""
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _classify(classifier: Classifier, window: Window, rate: int) -> Heard:
    end = window.start + len(window.samples) / rate
    try:
        return Heard(window.start, end, classifier.classify(window.samples, rate))
    except AudioError:  # digital silence: a muted microphone is no emotion, and no end either
        return Heard(window.start, end, None)


def _hear_file(config: LiveConfig, path: Path) -> Outcome:
    samples = load_audio(path)
    classifier = _load(config)
    seconds = classifier.seconds or CLIP_SECONDS
    screen = Screen(sys.stdout, muted=config.json)
    session = Session(classifier.classes)
    windows = []
    if config.once or len(samples) < n_samples(seconds):
        end = len(samples) / SAMPLE_RATE
        end = min(end, classifier.seconds or end)  # 0 classifies a clip of any length whole
        windows.append(Heard(0.0, end, classifier.classify_file(path)))
        session.add(windows[0])
    else:
        for window in windows_of(samples, seconds, config.hop):
            windows.append(_classify(classifier, window, SAMPLE_RATE))
            session.add(windows[-1])
            screen.print([draw_line(windows[-1], screen.width if screen.in_place else 0)])
    session.seconds = len(samples) / SAMPLE_RATE
    if len(windows) == 1:
        screen.print(draw_bars(session.means(), screen.width, screen.colour))
    elif not config.quiet:
        screen.print(draw_summary(session, screen.width, screen.colour))
    return Outcome({"windows": [heard.as_json() for heard in windows], "run": str(classifier.run)})


def _hear_microphone(config: LiveConfig) -> Outcome:
    device = pick_device(find_devices(), config.device)
    classifier = _load(config)
    screen = Screen(sys.stdout, muted=config.json)
    session = Session(classifier.classes)
    with _stop_on_interrupt() as stop:
        with Microphone(device, classifier.seconds or CLIP_SECONDS, config.hop) as microphone:
            rate = microphone.windows.rate
            how = "" if rate == SAMPLE_RATE else f"; it refuses {SAMPLE_RATE} Hz: resampled"
            log.info("listening to %s at %d Hz%s", device.name, rate, how)
            with quiet_stderr():
                listen(microphone, classifier, session, screen, stop, config.once)
        return _result(config, classifier, session, screen, device)


def _result(
    config: LiveConfig,
    classifier: Classifier,
    session: Session,
    screen: Screen,
    device: InputDevice,
) -> Outcome:
    run = {"run": str(classifier.run)}
    if config.once and session.latest is not None:
        if session.latest.prediction is None:
            raise DeviceError(f"{device.name}: recorded digital silence; is it muted?")
        screen.print(draw_bars(session.means(), screen.width, screen.colour))
        return Outcome({"windows": [session.latest.as_json()], **run})
    screen.print([] if config.quiet else draw_summary(session, screen.width, screen.colour))
    counts = {"seconds": round(session.seconds, 3), "classified": session.classified}
    counts |= {"dropped": session.dropped, "overflows": session.overflows}
    return Outcome({**run, **counts, "mean": session.means()})


def _load(config: LiveConfig) -> Classifier:
    classifier = Classifier.load(config.run, config.runs_dir)
    log.info("%s: %s", classifier.run, classifier.about)
    return classifier


def _list_devices(config: LiveConfig) -> Outcome:
    devices = find_devices()
    screen = Screen(sys.stdout, muted=config.json)
    screen.print(f"{device}, {device.channels} channels, {device.rate} Hz" for device in devices)
    return Outcome({"devices": [asdict(device) for device in devices]})


def live(config: LiveConfig) -> Outcome:
    """Classify a microphone or a file, as the options say.

    Raises:
        SerEmbedError: No microphone or one that fails, an unusable file, no head.
    """
    if not 0.02 <= config.hop <= 60:
        raise AudioError(f"--hop {config.hop}: give 0.02 to 60 seconds")
    if config.list_devices:
        return _list_devices(config)
    return _hear_file(config, config.file) if config.file else _hear_microphone(config)


def main(argv: list[str] | None = None) -> int:
    """Run `python Main.py`."""
    return run_command(live, LiveConfig, "python Main.py", argv)


if __name__ == "__main__":
    raise SystemExit(main())
