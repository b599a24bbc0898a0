"""What a live session shows: a frame redrawn in place on a terminal, else a line per window.

The `draw_*` functions are pure: from numbers to what rich prints within a width.
"""

import codecs
import contextlib
import io
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from rich.bar import Bar
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ser_embed.live.engine import RECENT_SECONDS, Session
from ser_embed.predict import Segment, clock

__all__ = ["Screen", "draw_bars", "draw_frame", "draw_line", "draw_summary"]

METER_FLOOR = -60.0  # dB below full scale where the meter starts
MAX_COLUMNS = 100
HEIGHTS = " ▁▂▃▄▅▆▇█"
BAR_COLUMNS = 14  # of a bar that has the last minute next to it
LANE_COLUMNS = 20  # the last minute needs so many, or isn't shown
VALUE_COLUMNS = 7
PLAIN = str.maketrans(  # for a terminal that isn't UTF-8
    "▏▎▍▌▋▊▉█" + HEIGHTS[1:-1] + "·─│", "   #####" + "  ..::#" + ",-|"
)


def _encode_plainly(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    plain = error.object[error.start : error.end].translate(PLAIN)
    return "".join(c if c.isascii() else "?" for c in plain), error.end


codecs.register_error("ser_embed_plain", _encode_plainly)


def draw_bars(probabilities: Mapping[str, float], width: int = 80) -> Table:
    """Return a line per class: name, bar, percentage."""
    rows = _Rows([*probabilities], width)
    best = max(probabilities.values(), default=0.0)
    for name, p in probabilities.items():
        rows.add(name, p, f"{p:.1%}", "bright_cyan" if p == best else "cyan")
    return rows.table


class _Rows:
    """Lines of name, bar, value and, if there is room for it, a lane of the last minute."""

    def __init__(self, names: Sequence[str], width: int, lane: bool = False) -> None:
        room = max(16, min(width, MAX_COLUMNS) - 1)  # a full last column would wrap the line
        column = min(max(map(cell_len, names), default=0), room // 3)
        free = room - column - VALUE_COLUMNS - 2  # with a blank between two columns
        lane_columns = min(round(RECENT_SECONDS), free - 2 - BAR_COLUMNS) if lane else 0
        self.lane_columns = lane_columns if lane_columns >= LANE_COLUMNS else 0
        self._bar_columns = free - (self.lane_columns + 2 if self.lane_columns else 0)
        self.table = Table.grid(padding=(0, 1))
        self.table.add_column(width=column, no_wrap=True, overflow="crop")
        self.table.add_column(width=self._bar_columns)
        self.table.add_column(width=VALUE_COLUMNS, justify="right", no_wrap=True)
        if self.lane_columns:
            self.table.add_column(width=self.lane_columns + 1, no_wrap=True)

    def add(
        self, name: str, size: float | None, value: str, colour: str, lane: Text | str = ""
    ) -> None:
        bar: RenderableType = ""
        if size is not None:
            bar = Bar(1.0, 0.0, min(1.0, max(0.0, size)), width=self._bar_columns, color=colour)
        self.table.add_row(Text(name), bar, value, *([lane] if self.lane_columns else []))


def draw_frame(
    session: Session, width: int = 80, height: int = 24, keys: Sequence[str] = ()
) -> Group:
    """Return the screen of a session; it fits `width` x `height`.

    Level, classes with the last minute next to them if there is room, counters, `keys`.
    """
    now, unsure, pause = session.now, Segment.UNSURE, Segment.NO_SPEECH
    probabilities = dict.fromkeys(session.classes, 0.0) | (now.probabilities if now else {})
    foot = [*_wrap(session.counts(), width), *_wrap(keys or ["Ctrl-C ends"], width)]
    rows = _Rows(["level", unsure, pause, *session.classes], width, lane=height > len(foot) + 6)
    lane = rows.lane_columns
    most = max(1, height - len(foot) - (6 if lane else 3))  # what has scrolled away stays there
    shown = sorted(probabilities, key=lambda name: -probabilities[name])[:most]
    best = probabilities[shown[0]]

    level = 20 * math.log10(max(session.peak, 1e-5))
    hue = "red" if level > -1 else "yellow" if level > -6 else "green"
    rows.add("level", 1 - level / METER_FLOOR, f"{level:.0f} dB" if session.peak else "silent", hue)
    cells = _cells(session, lane)
    for name in filter(shown.__contains__, session.classes):
        hue = "bright_cyan" if probabilities[name] == best else "cyan"
        value = f"{probabilities[name]:.1%}"
        rows.add(name, probabilities[name], value, hue, _lane(name, cells, "cyan"))
    if lane:
        rows.add(unsure, None, "", "", _lane(unsure, cells, "yellow"))
        rows.add(pause, None, "", "", _lane(pause, cells, "dim"))
        rows.add("", None, "", "", f" {'-60 s':{lane - 3}}now")
    return Group(_state(session), rows.table, *foot)


def _state(session: Session) -> Text:
    now = session.now
    if session.state:
        text, style = session.state, "bold yellow"
    elif now is None or (now.label == Segment.UNSURE and not now.probabilities):
        text, style = "listening", "dim"
    elif now.confidence is None:
        text, style = now.label, "dim"
    else:
        text = f"{now.label} {now.confidence:.0%}"
        style = "yellow" if now.label == Segment.UNSURE else "bold cyan"
    return Text(text, style, no_wrap=True, overflow="crop")


def _cells(session: Session, columns: int) -> list[Segment | None]:
    """Return the longest segment in each of so many parts of the last minute."""
    recent = [*session.recent, *([session.now] if session.now else [])]
    end = max(session.seconds, recent[-1].end if recent else 0.0)
    cells: list[Segment | None] = []
    step = RECENT_SECONDS / max(1, columns)
    for cell in range(columns):
        start = end - (columns - cell) * step
        overlap, longest = max(
            ((min(s.end, start + step) - max(s.start, start), -i) for i, s in enumerate(recent)),
            default=(0.0, 0),
        )
        cells.append(recent[-longest] if overlap > 0 else None)
    return cells


def _lane(name: str, cells: Sequence[Segment | None], style: str) -> Text:
    """Return where a label was given, as high as its confidence."""
    drawn = "".join(
        " " if cell is None or cell.label != name
        else "─" if cell.confidence is None
        else HEIGHTS[max(1, round(8 * cell.confidence))]
        for cell in cells
    )  # fmt: skip
    return Text.assemble("│", (drawn, style))


def draw_summary(session: Session, width: int = 80) -> Group:
    """Return a session in retrospect: counters, mean probabilities, seconds of each label."""
    counts = session.counts()
    parts: list[RenderableType] = [*_wrap([f"heard {counts[0]}", *counts[1:]], width)]
    if session.means():
        parts += [Text("mean probabilities"), draw_bars(session.means(), width)]
    if session.label_seconds:
        labels = [f"{name} {clock(s)}" for name, s in session.label_seconds.most_common()]
        parts += _wrap([f"labels: {labels[0]}", *labels[1:]], width)
    return Group(*parts)


def draw_line(segment: Segment, column: int = 0) -> str:
    """Return a label and its time as a line; labels get `column` columns or more."""
    sure = "" if segment.confidence is None else f"{segment.confidence:6.1%}   "
    listed = "   ".join(f"{name} {p:.1%}" for name, p in segment.probabilities.items())
    label = set_cell_size(segment.label, max(column, cell_len(segment.label)))
    return f"{clock(segment.end):>9}  {label}  {sure}{listed}".rstrip()


def _wrap(parts: Sequence[str], width: int) -> list[Text]:
    """Put parts on as few lines as they need; none is divided."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 3 < width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return [Text(line[: width - 1], no_wrap=True) for line in lines]


class Screen:
    """Standard output: a frame redrawn in place on a terminal, else a line per window."""

    def __init__(self, stream: TextIO, muted: bool = False) -> None:
        if isinstance(stream, io.TextIOWrapper) and "utf" not in stream.encoding.lower():
            stream.reconfigure(errors="ser_embed_plain")
        self.console = Console(
            file=stream, quiet=muted, highlight=False, markup=False, emoji=False,
            force_terminal=stream.isatty(),
            color_system=None if os.environ.get("NO_COLOR") else "auto",
        )  # fmt: skip
        self.in_place = stream.isatty() and not self.console.is_dumb_terminal
        self._live: Live | None = None

    @property
    def width(self) -> int:
        """The terminal's columns, 80 if there is no terminal."""
        return self.console.width if self.in_place else 80

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Show a frame in place meanwhile, if it is a terminal; it goes in the end."""
        if not self.in_place:
            yield
            return
        self._live = Live(
            console=self.console, auto_refresh=False, transient=True, vertical_overflow="crop",
            redirect_stdout=False, redirect_stderr=sys.stderr.isatty(),
        )  # fmt: skip
        try:
            self._live.start()
            yield
        finally:
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone
                self._live.stop()
            self._live = None

    def update(self, session: Session, keys: Sequence[str] = (), lines: bool = True) -> None:
        """Show a session: its frame, or with `lines` what it has judged since."""
        if self._live is None and not lines:
            return
        with session.lock:
            waiting = list(session.lines)
            session.lines.clear()
            if self._live is not None:
                width, height = self.console.size
                self._live.update(draw_frame(session, width, height, keys), refresh=True)
                return
        column = max(map(cell_len, (Segment.NO_SPEECH, *session.classes)))
        for segment in waiting:
            self.print(draw_line(segment, column))

    def print(self, drawn: RenderableType) -> None:
        """Print what stays; lines of text are not wrapped."""
        self.console.print(drawn, soft_wrap=isinstance(drawn, str))
