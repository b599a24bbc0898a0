"""What a live session shows: a frame redrawn in place on a terminal, else a line per window.

The `draw_*` functions are pure: from numbers to lines of text that fit a width.
"""

import contextlib
import math
import os
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TextIO

from ser_embed.live.session import LANE_SECONDS, Session
from ser_embed.predict import NO_SPEECH, UNSURE, Segment, clock

__all__ = ["Screen", "draw_bars", "draw_frame", "draw_line", "draw_summary"]

METER_FLOOR = -60.0  # dB below full scale where the meter starts
MAX_COLUMNS = 100
BLOCKS = " ▏▎▍▌▋▊▉█"
HEIGHTS = " ▁▂▃▄▅▆▇█"
PLAIN = str.maketrans(  # for a terminal that isn't UTF-8
    BLOCKS + HEIGHTS + "·─│", "    #####" + "  ..::##" + "#" + ",-|"
)
BAR_COLUMNS = 14  # of a bar that has the last minute beside it
LANE_COLUMNS = 20  # the last minute takes so many, or isn't shown
KEYS = "space pauses · d next device · r resets · q quits"


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
    session: Session, width: int = 80, height: int = 24, colour: bool = False, keys: str = ""
) -> list[str]:
    """Return the screen of a session; it fits `width` x `height`.

    Level, classes with the last minute beside them if there is room, counters, `keys`.
    """
    now = session.now
    shares = dict.fromkeys(session.classes, 0.0) | (now.probabilities if now else {})
    help_lines = _wrap(keys.split(" · "), width) if keys else _wrap(["Ctrl-C ends"], width)
    foot = [*_wrap(session.counts(), width), *help_lines]
    column = max(map(_columns, ["level", NO_SPEECH, *session.classes]))
    room = max(16, min(width, MAX_COLUMNS) - 1)
    lane = min(round(LANE_SECONDS), room - min(column, width // 3) - 9 - 2 - BAR_COLUMNS)
    lane = lane if lane >= LANE_COLUMNS else 0
    most = max(1, height - len(foot) - (6 if lane else 3))  # what has scrolled away stays there
    kept = set(sorted(shares, key=lambda name: -shares[name])[:most])
    shares = {name: share for name, share in shares.items() if name in kept}
    bars_width = width if not lane else room - lane - 1
    lines = [_state(session, colour, width), _meter(session, column, bars_width, colour)]
    bars = draw_bars(shares, bars_width, colour, column)
    if lane:
        cells = _cells(session, lane)
        rows = [*shares, UNSURE, NO_SPEECH]
        blank = " " * _columns(_row("", 0.0, "", column, bars_width, ""))
        bars += [f"{_fit(name, column)}{blank[column:]}" for name in (UNSURE, NO_SPEECH)]
        lanes = [_lane(name, cells, colour) for name in rows]
        bars = [f"{bar} │{drawn}" for bar, drawn in zip(bars, lanes, strict=True)]
        lines += [*bars, f"{blank}  {'-60 s':{lane - 3}}now"]
    else:
        lines += bars
    return [*lines, *foot][: max(1, height - 1)]


def _state(session: Session, colour: bool, width: int) -> str:
    now = session.now
    if session.state:
        text, hue = session.state, "1;33"
    elif now is None or (now.label == UNSURE and not now.probabilities):
        text, hue = "listening", "2"
    elif now.confidence is None:
        text, hue = now.label, "2"
    else:
        text, hue = f"{now.label} {now.confidence:.0%}", "33" if now.label == UNSURE else "1;36"
    text = _fit(text, width - 1).rstrip()
    return f"\x1b[{hue}m{text}\x1b[0m" if colour else text


def _meter(session: Session, column: int, width: int, colour: bool) -> str:
    level = 20 * math.log10(max(session.peak, 1e-5))
    shown = f"{level:.0f} dB" if session.peak else "silent"
    hue = "" if not colour else "31" if level > -1 else "33" if level > -6 else "32"
    return _row("level", 1 - level / METER_FLOOR, shown, column, width, hue)


def _cells(session: Session, columns: int) -> list[Segment | None]:
    """Return what was heard longest in each of so many parts of the last minute."""
    heard = [*session.recent, *([session.now] if session.now else [])]
    end = max(session.seconds, heard[-1].end if heard else 0.0)
    cells: list[Segment | None] = []
    step = LANE_SECONDS / columns
    for cell in range(columns):
        start = end - (columns - cell) * step
        overlap, longest = max(
            ((min(s.end, start + step) - max(s.start, start), -i) for i, s in enumerate(heard)),
            default=(0.0, 0),
        )
        cells.append(heard[-longest] if overlap > 0 else None)
    return cells


def _lane(name: str, cells: list[Segment | None], colour: bool) -> str:
    """Return where a label was said, as high as it was likely."""
    drawn = "".join(
        " " if cell is None or cell.label != name
        else "─" if cell.confidence is None
        else HEIGHTS[max(1, round(8 * cell.confidence))]
        for cell in cells
    )  # fmt: skip
    hue = {UNSURE: "33", NO_SPEECH: "2"}.get(name, "36")
    return f"\x1b[{hue}m{drawn}\x1b[0m" if colour else drawn


def draw_summary(session: Session, width: int = 80, colour: bool = False) -> list[str]:
    """Return a session in retrospect: counters, mean probabilities, seconds of each label."""
    lines = _wrap(["heard " + session.counts()[0], *session.counts()[1:]], width)
    if session.means():
        lines += ["mean probabilities", *draw_bars(session.means(), width, colour)]
    if session.label_seconds:
        told = [f"{name} {clock(s)}" for name, s in session.label_seconds.most_common()]
        lines += _wrap(["said: " + told[0], *told[1:]], width)
    return lines


def draw_line(heard: Segment, column: int = 0) -> str:
    """Return what is heard at a time as a line; labels take `column` columns or more."""
    shown = "" if heard.confidence is None else f"{heard.confidence:6.1%}   "
    shares = "   ".join(f"{name} {share:.1%}" for name, share in heard.probabilities.items())
    return f"{clock(heard.end):>9}  {_fit(heard.label, column)}  {shown}{shares}".rstrip()


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
        self.colour = self.in_place and not os.environ.get("NO_COLOR")
        self._frame: list[int] = []  # columns of each line of the frame that stands there

    @property
    def width(self) -> int:
        """The terminal's columns, 80 if there is no terminal."""
        return shutil.get_terminal_size().columns if self.in_place else 80

    @contextlib.contextmanager
    def without_cursor(self) -> Iterator[None]:
        """Hide the cursor meanwhile: it would dance over a frame."""
        self._write("\x1b[?25l" if self.in_place else "")
        try:
            yield
        finally:
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone
                self._write("\x1b[?25h" if self.in_place else "")

    def update(self, session: Session, keys: str = "", lines: bool = True) -> None:
        """Show a session: its frame, or with `lines` what it has judged since."""
        if self.in_place:
            size = shutil.get_terminal_size()
            with session.lock:
                frame = draw_frame(session, size.columns, size.lines, False, keys)
                drawn = draw_frame(session, size.columns, size.lines, self.colour, keys)
                session.lines.clear()
            self._write(self._home() + "".join(f"{line}\x1b[K\n" for line in drawn) + "\x1b[J")
            self._frame = [_columns(line) for line in frame]
        elif lines:
            with session.lock:
                heard = list(session.lines)
                session.lines.clear()
            column = max(map(_columns, (NO_SPEECH, *session.classes)))
            self.print([draw_line(one, column) for one in heard])

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
        if self.muted or not text:
            return
        encoding = self.stream.encoding or "ascii"
        if "utf" not in encoding.lower():
            text = text.translate(PLAIN).encode(encoding, "replace").decode(encoding)
        self.stream.write(text)
        self.stream.flush()
