"""From a microphone, or a file taken as if spoken, to labels that follow the voice.

`python Main.py` listens until q or Ctrl-C: a window of the head's clip length (3 s) slides by
`--hop` (0.5 s) over what is said between two pauses, and each one is classified. A classifier
slower than the hop misses windows, which are counted, and always gets the newest sound.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from ser_embed.audio import (
    CLIP_SECONDS,
    SAMPLE_RATE,
    AudioFile,
    gate_name,
    is_speech,
)
from ser_embed.command import RUNS_DIR, Options, Outcome, hide_bar, run_command
from ser_embed.encoders import BackendName
from ser_embed.errors import AudioError, DeviceError
from ser_embed.live.journal import Log, Recorder
from ser_embed.live.keyboard import Keyboard
from ser_embed.live.listener import TAKE_SECONDS, Listener
from ser_embed.live.microphone import InputDevice, Microphone, find_devices, pick_device
from ser_embed.live.ring import FilePlayer, Ring
from ser_embed.live.screen import Screen, draw_bars, draw_summary
from ser_embed.live.session import Session
from ser_embed.live.watch import listen, stop_on_signals
from ser_embed.predict import (
    NO_SPEECH,
    Classifier,
    Segment,
    SegmentSettings,
    judge,
    segment_file,
    write_audacity,
    write_csv,
    write_json,
    write_table,
)

__all__ = ["LiveConfig", "live", "main", "warm_up"]

log = logging.getLogger(__name__)

END_SECONDS = 5.0  # that a listener who is judging a window has to end
ENDINGS = {".json": "json", ".csv": "csv"}


@dataclass(frozen=True)
class LiveConfig(Options):
    """Classify speech live from the microphone until Ctrl-C; --file needs no microphone."""

    once: bool = False
    """Record one clip of 3 s, print each class's percentage and end."""
    file: Path | None = None
    """Cut this file at its pauses and label it, as if it were spoken."""
    realtime: bool = False
    """Play --file as fast as it was spoken through what a microphone goes through."""
    format: Literal["auto", "table", "json", "csv", "audacity"] = "auto"
    """How --file's segments are written. auto: by the ending of --out, else as a table."""
    out: Path | None = None
    """Write --file's segments into this file. Default: print them."""
    list_devices: bool = False
    """Print the input devices and end."""
    device: str = ""
    """Input device by index or by part of its name; ask shows them and asks. Default: the
    system's default input."""
    run: Path | None = None
    """A run's folder, or a bundled head: sentiment3 or emotion8. Default: the newest under
    --runs-dir, else the bundled sentiment3."""
    hop: float = SegmentSettings.hop
    """Seconds from one window to the next."""
    smooth: int = SegmentSettings.smooth
    """Windows whose probabilities are averaged, an odd number; live, half of them lie ahead and
    are left out."""
    threshold: float = SegmentSettings.threshold
    """Confidence under which it is 'unsure'."""
    log: Path | None = None
    """Append every window, segment, pause and loss to this file, a JSON object a line."""
    record: Path | None = None
    """Write what is heard to this wav: mono, 16 kHz."""
    backend: BackendName = "auto"
    """Engine of the encoder; auto: OpenVINO on x86 processors if installed, which is quicker once
    it has converted the encoder, else torch."""
    runs_dir: Path = RUNS_DIR
    """Folder of the runs."""

    @property
    def settings(self) -> SegmentSettings:
        """How the sound is cut and labelled."""
        return SegmentSettings(self.hop, self.smooth, self.threshold)


# --- a stream ----------------------------------------------------------------------------------


def _follow(
    config: LiveConfig, classifier: Classifier, stop: threading.Event, device: InputDevice | None
) -> tuple[Session, list[Segment]]:
    """Listen to a device, or to --file, and return what was heard."""
    ring, session = Ring(), Session(classifier.classes, config.threshold)
    screen, segments = Screen(sys.stdout, muted=config.json), list[Segment]()
    with contextlib.ExitStack() as stack:
        journal = Log(config.log) if config.log else None
        recorder = Recorder(config.record) if config.record else None
        if journal is not None:
            stack.callback(journal.close)
        if recorder is not None:
            stack.callback(recorder.close)
        told = segments.append if device is None else None  # a microphone's may go on for ever
        listener = Listener(ring, classifier, config.settings, session, journal, recorder, told)
        player = microphone = None
        if device is not None:
            microphone = stack.enter_context(Microphone(device, ring))
            how = "" if microphone.rate == SAMPLE_RATE else f"; it refuses {SAMPLE_RATE} Hz"
            log.info("listening to %s at %d Hz%s", device.name, microphone.rate, how)
        elif config.file is not None:
            player = FilePlayer(config.file, ring)
            stack.callback(player.close)
            player.start()
        if journal is not None:
            source = device.name if device else str(config.file)
            journal.write("start", source=source, run=str(classifier.run), gate=gate_name(),
                          classes=classifier.classes, **asdict(config.settings))  # fmt: skip
        listener.start()
        stack.callback(listener.join, END_SECONDS)
        stack.callback(listener.close)
        keyboard = stack.enter_context(Keyboard())
        stack.enter_context(screen.without_cursor())
        listen(listener, screen, stop, microphone, keyboard, lines=device is not None)
        if listener.is_alive():
            listener.close()
            listener.join(END_SECONDS)
        if journal is not None:
            journal.write("end", **_counts(session))
        for failed in filter(None, (listener.error, player.error if player else None)):
            raise failed
    if recorder is not None and recorder.full:
        log.warning("%s is as long as a wav can be; the rest was not recorded", recorder.path)
    if not config.quiet and (device is not None or screen.in_place):  # a file's are its segments
        screen.print(draw_summary(session, screen.width, screen.colour))
    return session, segments


def _counts(session: Session) -> dict[str, Any]:
    latency = {"mean": session.mean_latency * 1e3, "worst": session.worst_latency * 1e3}
    return {
        "seconds": round(session.seconds, 3),
        "classified": session.judged,
        "dropped": session.dropped,
        "overflows": session.overflows,
        "losses": session.losses,
        "latency_ms": {name: round(ms, 1) for name, ms in latency.items()},
        "labels": {name: round(s, 3) for name, s in session.label_seconds.items()},
        "mean": session.means(),
    }


def _hear_microphone(config: LiveConfig) -> Outcome:
    device = _pick(config)
    classifier = _load(config)
    if config.once:
        return _record_once(config, classifier, device)
    warm_up(classifier)
    with stop_on_signals() as stop:
        session, _ = _follow(config, classifier, stop, device)
    return Outcome({"run": str(classifier.run), **_counts(session)})


def warm_up(classifier: Classifier) -> None:
    """Let engines compile before sound comes, rather than while it waits."""
    noise = np.random.default_rng(0).uniform(
        -0.1, 0.1, round((classifier.seconds or 3.0) * SAMPLE_RATE)
    )
    classifier.classify(noise.astype(np.float32))
    is_speech(noise.astype(np.float32)[:SAMPLE_RATE])


def _pick(config: LiveConfig) -> InputDevice:
    devices = find_devices()
    if config.device != "ask":
        return pick_device(devices, config.device)
    if not sys.stdin.isatty():
        raise DeviceError("--device ask: needs a terminal; name the device instead")
    print(*devices, sep="\n", file=sys.stderr)
    print("index of the input (nothing for *): ", end="", file=sys.stderr, flush=True)
    return pick_device(devices, sys.stdin.readline().strip())


# --- one clip ----------------------------------------------------------------------------------


def _record_once(config: LiveConfig, classifier: Classifier, device: InputDevice) -> Outcome:
    wanted, blocks = round((classifier.seconds or CLIP_SECONDS) * SAMPLE_RATE), []
    ring = Ring()
    with stop_on_signals() as stop, Microphone(device, ring) as microphone:
        how = "" if microphone.rate == SAMPLE_RATE else f"; it refuses {SAMPLE_RATE} Hz"
        log.info("recording from %s at %d Hz%s", device.name, microphone.rate, how)
        while ring.pushed < wanted and not microphone.missing and not stop.is_set():
            block = ring.take(TAKE_SECONDS)
            blocks += [] if block is None else [block.samples]
        block = ring.take(0.0)
        blocks += [] if block is None else [block.samples]
    samples = np.concatenate([np.zeros(0, np.float32), *blocks])[:wanted]
    if len(samples) < wanted:
        raise DeviceError(f"{device.name}: delivered {len(samples) / SAMPLE_RATE:.1f} s of sound")
    if not samples.any():
        raise DeviceError(f"{device.name}: recorded digital silence; is it muted?")
    if config.record:
        recorder = Recorder(config.record)
        recorder.write(samples)
        recorder.close()
    return _show_once(config, classifier, samples, None)


def _show_once(
    config: LiveConfig, classifier: Classifier, samples: np.ndarray, path: Path | None
) -> Outcome:
    """Classify one clip: the first part of a file as stage 1 encoded it, or samples."""
    end = len(samples) / SAMPLE_RATE
    end = min(end, classifier.seconds or end)  # 0 classifies a clip of any length whole
    shares = None
    if is_speech(samples[: round(end * SAMPLE_RATE)]):
        told = classifier.classify_file(path) if path else classifier.classify(samples)
        shares = np.array([told.probabilities[name] for name in classifier.classes])
    heard = judge(0.0, end, shares, classifier.classes, config.threshold)
    screen = Screen(sys.stdout, muted=config.json)
    screen.print(draw_bars(heard.probabilities, screen.width, screen.colour) or [NO_SPEECH])
    return Outcome({"windows": [asdict(heard)], "run": str(classifier.run)})


# --- a file ------------------------------------------------------------------------------------


def _hear_file(config: LiveConfig, path: Path) -> Outcome:
    seconds = AudioFile(path).duration()
    classifier = _load(config)
    if config.once:
        lead = classifier.seconds + 10.0 if classifier.seconds else 0.0
        return _show_once(config, classifier, AudioFile(path).read(lead).samples, path)
    if config.realtime:
        warm_up(classifier)
        with stop_on_signals() as stop:
            session, segments = _follow(config, classifier, stop, None)
        told = _counts(session)
    else:
        with tqdm(total=round(seconds), unit="s", disable=True if seconds < 60 else
                  hide_bar(config)) as bar:  # fmt: skip
            recording = segment_file(
                path, classifier, config.settings, lambda done: bar.update(done - bar.n) and None
            )
        segments = recording.segments
        told = {"seconds": recording.seconds, "summary": asdict(recording.summary)}
    _write_segments(config, segments, classifier.classes)
    listed = [asdict(segment) for segment in segments]
    return Outcome({"file": str(path), "run": str(classifier.run), **told, "segments": listed})


def _write_segments(
    config: LiveConfig, segments: Sequence[Segment], classes: Sequence[str]
) -> None:
    chosen: str = config.format
    if chosen == "auto":
        chosen = ENDINGS.get(config.out.suffix.lower(), "table") if config.out else "table"
    text = {
        "table": lambda: write_table(segments),
        "json": lambda: write_json(segments) + "\n",
        "csv": lambda: write_csv(segments, classes),
        "audacity": lambda: write_audacity(segments),
    }[chosen]()
    if config.out is not None:
        config.out.write_text(text, encoding="utf-8", newline="")
        log.info("%d segments: %s", len(segments), config.out)
    elif not config.json:
        Screen(sys.stdout).print(text.splitlines())


def _load(config: LiveConfig) -> Classifier:
    classifier = Classifier.load(config.run, config.runs_dir, config.backend)
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
    config.settings  # noqa: B018 - refuses what makes no sense
    if config.list_devices:
        return _list_devices(config)
    for path in filter(None, (config.out, config.log, config.record)):
        if not path.parent.is_dir():
            raise AudioError(f"{path}: there is no folder {path.parent}")
    given = {"realtime": config.realtime, "format": config.format != "auto", "out": config.out}
    for name, value in given.items():
        if value and config.file is None:
            raise AudioError(f"--{name} needs --file")
    if config.record and config.record.exists():
        raise AudioError(f"--record {config.record}: exists; name a new file")
    return _hear_file(config, config.file) if config.file else _hear_microphone(config)


def main(argv: list[str] | None = None) -> int:
    """Run `python Main.py`."""
    return run_command(live, LiveConfig, "python Main.py", argv)


if __name__ == "__main__":
    raise SystemExit(main())
