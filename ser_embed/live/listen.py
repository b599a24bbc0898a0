"""What `python Main.py` does: it listens to a microphone or a file, or records one clip.

It listens until q or Ctrl-C: a window of the head's clip length (3 s) slides by `--hop` (0.5 s)
over what is said between two pauses, and each one is classified. A classifier slower than the hop
misses windows, which are counted, and always gets the newest sound.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ser_embed.audio import CLIP_SECONDS, SAMPLE_RATE, AudioFile, SpeechGate
from ser_embed.command import Outcome
from ser_embed.errors import AudioError, DeviceError
from ser_embed.live.engine import WAIT_SECONDS, Engine, Session
from ser_embed.live.journal import Log, Recorder
from ser_embed.live.microphone import InputDevice, Microphone, find_devices, pick_device
from ser_embed.live.options import LiveConfig
from ser_embed.live.ring import FilePlayer, Ring
from ser_embed.live.screen import Screen, draw_bars, draw_summary
from ser_embed.live.terminal import Keyboard, stop_on_signals, watch
from ser_embed.predict import Classifier, Recording, Segment
from ser_embed.progress import progress

__all__ = ["listen"]

log = logging.getLogger(__name__)


def listen(config: LiveConfig) -> Outcome:
    """Classify a microphone or a file, as the options say.

    Raises:
        SerEmbedError: No microphone or one that fails, an unusable file, no head.
    """
    _check(config)
    if config.list_devices:
        return _list_devices(config)
    if config.file is None:
        device = _pick_device(config)
        classifier = _load(config)
        if config.once:
            return _show_once(config, classifier, _record_once(config, classifier, device))
        session, _ = _follow(config, classifier, device)
        return Outcome({"run": str(classifier.run), **_counts(session)})
    seconds = AudioFile(config.file).duration()
    classifier = _load(config)
    if config.once:
        lead = classifier.seconds + 10.0 if classifier.seconds else 0.0
        return _show_once(
            config, classifier, AudioFile(config.file).read(lead).samples, config.file
        )
    facts: dict[str, Any]
    if config.realtime:
        session, segments = _follow(config, classifier)
        recording = Recording(classifier.classes, seconds, segments, config.threshold)
        facts = _counts(session)
    else:
        quiet = config.quiet or seconds < 60
        with progress("label", round(seconds), "second", quiet) as bar:
            recording = Recording.of_file(
                config.file, classifier, config.settings, lambda done: bar.advance(done - bar.done)
            )
        facts = {"seconds": recording.seconds, "summary": asdict(recording.summary)}
    _write(config, recording)
    listed = [asdict(segment) for segment in recording.segments]
    result = {"file": str(config.file), "run": str(classifier.run), **facts, "segments": listed}
    return Outcome(result)


def _check(config: LiveConfig) -> None:
    config.settings  # noqa: B018 - refuses what makes no sense
    for path in filter(None, (config.out, config.log, config.record)):
        if not path.parent.is_dir():
            raise AudioError(f"{path}: there is no folder {path.parent}")
    for name, value in {"realtime": config.realtime, "out": config.out}.items():
        if value and config.file is None:
            raise AudioError(f"--{name} needs --file")
    if config.out and config.out.suffix.lower() not in Recording.FORMATS:
        raise AudioError(
            f"--out {config.out}: give it one of the endings {', '.join(Recording.FORMATS)} "
            "(Audacity's labels)"
        )
    if config.record and config.record.exists():
        raise AudioError(f"--record {config.record}: exists; name a new file")


def _load(config: LiveConfig) -> Classifier:
    classifier = Classifier.load(config.run, config.runs_dir, config.backend)
    log.info("%s: %s", classifier.run, classifier.about)
    return classifier


# --- a stream ----------------------------------------------------------------------------------


def _follow(
    config: LiveConfig, classifier: Classifier, device: InputDevice | None = None
) -> tuple[Session, list[Segment]]:
    """Listen to a device, or to --file; return the session and a file's segments."""
    screen, segments = Screen(sys.stdout, muted=config.json), list[Segment]()
    Engine.warm_up(classifier)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        journal = Log(config.log) if config.log else None
        if journal is not None:
            stack.callback(journal.close)
        recorder = Recorder(config.record) if config.record else None
        if recorder is not None:
            stack.callback(recorder.close)
        keep = segments.append if device is None else None  # a microphone's may go on for ever
        engine = Engine(classifier, config.settings, journal, recorder, keep)
        player = microphone = None
        if device is not None:
            microphone = stack.enter_context(_opened(device, engine.ring, "listening to"))
        elif config.file is not None:
            player = FilePlayer(config.file, engine.ring)
            stack.callback(player.close)
            player.start()
        if journal is not None:
            source = device.name if device else str(config.file)
            journal.write("start", source=source, run=str(classifier.run), gate=SpeechGate().name,
                          classes=classifier.classes, **asdict(config.settings))  # fmt: skip
        engine.start()
        stack.callback(engine.close)
        keyboard = stack.enter_context(Keyboard())
        watch(engine, screen, stop, microphone, keyboard, lines=device is not None)
        engine.close()
        if journal is not None:
            journal.write("end", **_counts(engine.session))
        for error in filter(None, (engine.error, player.error if player else None)):
            raise error
    if recorder is not None and recorder.full:
        log.warning("%s is as long as a wav can be; the rest was not recorded", recorder.path)
    if not config.quiet and (device is not None or screen.in_place):  # a file's are its segments
        screen.print(draw_summary(engine.session, screen.width))
    return engine.session, segments


@contextlib.contextmanager
def _opened(device: InputDevice, ring: Ring, doing: str) -> Iterator[Microphone]:
    with Microphone(device, ring) as microphone:
        refusal = "" if microphone.rate == SAMPLE_RATE else f"; it refuses {SAMPLE_RATE} Hz"
        log.info("%s %s at %d Hz%s", doing, device.name, microphone.rate, refusal)
        yield microphone


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


def _write(config: LiveConfig, recording: Recording) -> None:
    if config.out is not None:
        text = Recording.FORMATS[config.out.suffix.lower()](recording)
        config.out.write_text(text, encoding="utf-8", newline="")
        log.info("%d segments: %s", len(recording.segments), config.out)
    elif not config.json:
        Screen(sys.stdout).print(recording.to_table().removesuffix("\n"))


# --- one clip ----------------------------------------------------------------------------------


def _record_once(config: LiveConfig, classifier: Classifier, device: InputDevice) -> np.ndarray:
    """Return one clip from a microphone: mono float32 at 16 kHz."""
    wanted = round((classifier.seconds or CLIP_SECONDS) * SAMPLE_RATE)
    parts, ring = [], Ring()
    with stop_on_signals() as stop, _opened(device, ring, "recording from") as microphone:
        while ring.pushed < wanted and not microphone.missing and not stop.is_set():
            parts.append(ring.pop(WAIT_SECONDS))
    parts.append(ring.pop())
    sound = [block.samples for block in parts if block is not None]
    samples = np.concatenate([np.zeros(0, np.float32), *sound])[:wanted]
    if len(samples) < wanted:
        raise DeviceError(f"{device.name}: delivered {len(samples) / SAMPLE_RATE:.1f} s of sound")
    if not samples.any():
        raise DeviceError(f"{device.name}: recorded digital silence; is it muted?")
    if config.record:
        with contextlib.closing(Recorder(config.record)) as recorder:
            recorder.write(samples)
    return samples


def _show_once(
    config: LiveConfig, classifier: Classifier, samples: np.ndarray, path: Path | None = None
) -> Outcome:
    """Classify one clip: the first part of a file as stage 1 encoded it, or samples."""
    end = len(samples) / SAMPLE_RATE
    end = min(end, classifier.seconds or end)  # 0 classifies a clip of any length whole
    probabilities: dict[str, float] = {}
    if SpeechGate().is_speech(samples[: round(end * SAMPLE_RATE)]):
        found = classifier.classify_file(path) if path else classifier.classify(samples)
        probabilities = found.probabilities
    segment = Segment.judge(0.0, end, probabilities, config.threshold)
    screen = Screen(sys.stdout, muted=config.json)
    screen.print(draw_bars(probabilities, screen.width) if probabilities else Segment.NO_SPEECH)
    return Outcome({"windows": [asdict(segment)], "run": str(classifier.run)})


# --- devices -----------------------------------------------------------------------------------


def _pick_device(config: LiveConfig) -> InputDevice:
    devices = find_devices()
    if config.device != "ask":
        return pick_device(devices, config.device)
    if not sys.stdin.isatty():
        raise DeviceError("--device ask: needs a terminal; name the device instead")
    print(*devices, sep="\n", file=sys.stderr)
    print("index of the input (nothing for *): ", end="", file=sys.stderr, flush=True)
    return pick_device(devices, sys.stdin.readline().strip())


def _list_devices(config: LiveConfig) -> Outcome:
    devices, screen = find_devices(), Screen(sys.stdout, muted=config.json)
    for device in devices:
        screen.print(f"{device}, {device.channels} channels, {device.rate} Hz")
    return Outcome({"devices": [asdict(device) for device in devices]})
