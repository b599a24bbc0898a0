"""What a live session shows: a frame redrawn in place on a terminal, else a line per window.

The `draw_*` functions are pure: from numbers to lines of text that fit a width.
"""

import math
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TextIO

from ser_embed.predict import Prediction

__all__ = [
    "Heard", "Screen", "Session", "draw_bars", "draw_frame", "draw_line", "draw_summary",
]  # fmt: skip

METER_FLOOR = -60.0  # dB below full scale where the meter starts
MAX_COLUMNS = 100
BLOCKS = " ▏▎▍▌▋▊▉█"
PLAIN = str.maketrans(BLOCKS + "·", "    #####,")  # for a terminal that isn't UTF-8


class Heard(NamedTuple):
    """A window's times in seconds and what it was classified as; None for digital silence."""

    start: float
    end: float
    prediction: Prediction | None

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints for this window."""
        times = {"start": round(self.start, 3), "end": round(self.end, 3)}
        if self.prediction is None:
            return {**times, "label": None, "probabilities": {}}
        label, probabilities = self.prediction.label, self.prediction.probabilities
        return {**times, "label": label, "probabilities": probabilities}


@dataclass
class Session:
    """What the screen shows; its size doesn't depend on how long the session lasts."""

    classes: tuple[str, ...]
    seconds: float = 0.0  # of audio heard
    peak: float = 0.0  # of the newest audio, 1 is full scale
    dropped: int = 0
    overflows: int = 0
    latest: Heard | None = None
    classified: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)  # of the probabilities

    def add(self, heard: Heard) -> None:
        """Count one more window."""
        self.latest = heard
        if heard.prediction is not None:
            self.classified += 1
            self.labels[heard.prediction.label] += 1
            self.sums.update(heard.prediction.probabilities)

    def means(self) -> dict[str, float]:
        """Return each class's mean probability over the windows; empty without any."""
        return {name: self.sums[name] / self.classified for name in self.classes if self.labels}

    def counts(self) -> list[str]:
        """Return the counters in words."""
        minutes, seconds = divmod(int(self.seconds), 60)
        named = {"windows": self.classified, "dropped": self.dropped, "overflows": self.overflows}
        return [f"{minutes}:{seconds:02}", *(f"{name} {n}" for name, n in named.items())]


def draw_bars(
    shares: dict[str, float], width: int = 80, colour: bool = False, column: int = 0
) -> list[str]:
    """Return a line per class, none wider than `width`; names take `column` columns or more."""
    best = max(shares.values(), default=0.0)
    column = max([column, *map(_columns, shares)])
    lines = []
    for name, share in shares.items():
        hue = "" if not colour else "1;36" if share == best else "36"
        lines.append(_row(name, share, f"{share:.1%}", column, width, hue))
    return lines


def draw_frame(
    session: Session, width: int = 80, height: int = 24, colour: bool = False
) -> list[str]:
    """Return the screen of a session: level, classes, counters; it fits `width` x `height`."""
    prediction = session.latest.prediction if session.latest else None
    shares = prediction.probabilities if prediction else dict.fromkeys(session.classes, 0.0)
    state = [] if prediction else ["no signal" if session.latest else "listening"]
    foot = _wrap([*state, *session.counts(), "Ctrl-C ends"], width)
    most = max(1, height - len(foot) - 2)  # what has scrolled away can't be drawn again
    kept = set(sorted(shares, key=lambda name: -shares[name])[:most])
    shares = {name: share for name, share in shares.items() if name in kept}
    column = max(map(_columns, ["level", *shares]))
    level = 20 * math.log10(max(session.peak, 1e-5))
    shown = f"{level:.0f} dB" if session.peak else "silent"
    hue = "" if not colour else "31" if level > -1 else "33" if level > -6 else "32"
    meter = _row("level", 1 - level / METER_FLOOR, shown, column, width, hue)
    return [meter, *draw_bars(shares, width, colour, column), *foot]


def draw_summary(session: Session, width: int = 80, colour: bool = False) -> list[str]:
    """Return a session in retrospect: counters, each class's mean probability, labels."""
    lines = _wrap(["heard " + session.counts()[0], *session.counts()[1:]], width)
    if session.classified:
        labels = [f"{name} {n}" for name, n in session.labels.most_common()]
        lines += ["mean probabilities", *draw_bars(session.means(), width, colour)]
        lines += _wrap(["most probable in: " + labels[0], *labels[1:]], width)
    return lines


def draw_line(heard: Heard, width: int = 0) -> str:
    """Return one window as a line, the most probable class first, cut to `width` unless 0."""
    probabilities = heard.prediction.probabilities if heard.prediction else {}
    best_first = sorted(probabilities.items(), key=lambda item: -item[1])
    column = max(map(_columns, probabilities), default=0)
    shown = "   ".join(f"{_fit(name, column)} {share:6.1%}" for name, share in best_first)
    line = f"{heard.start:6.1f} - {heard.end:6.1f} s   {shown or 'no signal'}"
    return _fit(line, width - 1).rstrip() if width else line


def _row(name: str, share: float, value: str, column: int, width: int, hue: str) -> str:
    """Return `name bar value`; `hue` is a terminal's code for the bar, "" for none."""
    width = max(16, min(width, MAX_COLUMNS) - 1)  # a full last column would wrap the line
    column = min(column, width // 3)
    length = width - column - 9  # the value takes seven columns, blanks two
    eighths = round(8 * length * min(1.0, max(0.0, share)))
    bar = (BLOCKS[-1] * (eighths // 8) + BLOCKS[eighths % 8]).rstrip()
    drawn = f"\x1b[{hue}m{bar}\x1b[0m" if hue else bar
    return f"{_fit(name, column)} {drawn}{' ' * (length - len(bar))} {value:>7}"


def _wrap(parts: list[str], width: int) -> list[str]:
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 3 < width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return [_fit(line, width - 1).rstrip() for line in lines]


def _columns(text: str) -> int:
    """Return the terminal columns of a text: a user's class names may be Chinese."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _fit(text: str, columns: int) -> str:
    """Return `text` cut or padded to exactly so many columns."""
    while _columns(text) > columns:
        text = text[:-1]
    return text + " " * (columns - _columns(text))


class Screen:
    """Standard output: a frame redrawn in place on a terminal, else a line per window."""

    def __init__(self, stream: TextIO, muted: bool = False) -> None:
        self.stream, self.muted = stream, muted
        self.in_place = stream.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = self.in_place and "NO_COLOR" not in os.environ
        self._frame: list[int] = []  # columns of each line of the frame that stands there

    @property
    def width(self) -> int:
        """The terminal's columns, 80 if there is no terminal."""
        return shutil.get_terminal_size().columns if self.in_place else 80

    def update(self, session: Session, heard: Heard | None) -> None:
        """Show a session; `heard` is the window that has just come, if one has."""
        if self.in_place:
            size = shutil.get_terminal_size()
            frame = draw_frame(session, size.columns, size.lines)
            drawn = draw_frame(session, size.columns, size.lines, self.colour)
            self._write(self._home() + "".join(f"{line}\x1b[K\n" for line in drawn) + "\x1b[J")
            self._frame = [_columns(line) for line in frame]
        elif heard is not None:
            self.print([draw_line(heard)])

    def print(self, lines: Iterable[str]) -> None:
        """Print lines that stay, in place of the frame if there is one."""
        start = f"{self._home()}\x1b[J" if self._frame else ""
        self._write(start + "".join(f"{line}\n" for line in lines))
        self._frame = []

    def _home(self) -> str:
        """Return what moves the cursor to the frame's start; a narrowed terminal has folded it."""
        width = self.width
        rows = sum(max(1, -(-columns // width)) for columns in self._frame)
        return f"\x1b[{rows}F" if rows else ""

    def _write(self, text: str) -> None:
        if self.muted:
            return
        encoding = self.stream.encoding or "ascii"
        if "utf" not in encoding.lower():
            text = text.translate(PLAIN).encode(encoding, "replace").decode(encoding)
        self.stream.write(text)
        self.stream.flush()
