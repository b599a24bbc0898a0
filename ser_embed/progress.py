"""How far a long piece of work is: a bar on a terminal, a line a minute where there is none."""

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Protocol, TypeVar

__all__ = ["Bar", "progress", "track"]

log = logging.getLogger("ser_embed")

LINE_SECONDS = 60.0

Item = TypeVar("Item")


class Bar(Protocol):
    """What a piece of work says of itself while it runs."""

    total: float | None
    """Units in all; None while nobody knows."""
    done: float
    """Units done so far."""

    def advance(self, units: float = 1) -> None:
        """Count units that are done."""

    def note(self, text: str) -> None:
        """Show a short text behind the numbers, in the place of the last one."""


@contextmanager
def progress(
    what: str, total: float | None, unit: str, quiet: bool = False, done: float = 0
) -> Iterator[Bar]:
    """Show a piece of work on standard error while the block runs.

    Args:
        what: The work, in a few words.
        total: Units in all, None if nobody knows.
        unit: What is counted: `clip`, `epoch`, `B` (bytes).
        quiet: Whether nothing is shown.
        done: Units done before, which don't count for the rate.

    Yields:
        The bar, to be advanced.
    """
    if quiet:
        yield _Lines(what, total, unit, done, silent=True)
        return
    import rich.console

    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what, total, unit, done)
        return
    bar = _TerminalBar(console, what, total, unit, done)
    with bar.screen:
        yield bar


def track(
    items: Iterable[Item], what: str, unit: str, total: int | None = None, quiet: bool = False
) -> Iterator[Item]:
    """Yield items, and show how many have been dealt with."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(what, total, unit, quiet) as bar:
        for item in items:
            yield item
            bar.advance()


class _Lines:
    """A logged line a minute."""

    def __init__(
        self, what: str, total: float | None, unit: str, done: float, silent: bool = False
    ) -> None:
        self.what, self.total, self.unit, self.silent = what, total, unit, silent
        self.done = self._before = done
        self._text = ""
        self._start = self._last = time.monotonic()

    def advance(self, units: float = 1) -> None:
        self.done += units
        now = time.monotonic()
        if self.silent or now - self._last < LINE_SECONDS:
            return
        self._last = now
        log.info(_line(self, (self.done - self._before) / (now - self._start), self._text))

    def note(self, text: str) -> None:
        self._text = text


def _line(bar: "_Lines", rate: float, note: str) -> str:
    """Say how far a bar is: `encode ravdess: 300 of 1,440 clips, 42.1 clips/s, 0:27 left`."""
    scale, unit = (1e6, "MB") if bar.unit == "B" else (1, f"{bar.unit}s")
    of = f" of {bar.total / scale:,.0f}" if bar.total is not None else ""
    parts = [f"{bar.done / scale:,.0f}{of} {unit}", f"{rate / scale:,.1f} {unit}/s"]
    if bar.total is not None and rate > 0:
        minutes, seconds = divmod(round((bar.total - bar.done) / rate), 60)
        parts.append(f"{minutes}:{seconds:02} left")
    return f"{bar.what}: {', '.join([*parts, note] if note else parts)}"


class _TerminalBar:
    """A bar with rate and time left, drawn by rich."""

    def __init__(
        self, console: object, what: str, total: float | None, unit: str, done: float
    ) -> None:
        from rich import progress as rich_progress

        amount: list[rich_progress.ProgressColumn] = (
            [rich_progress.DownloadColumn(), rich_progress.TransferSpeedColumn()]
            if unit == "B"
            else [
                rich_progress.MofNCompleteColumn(),
                rich_progress.TextColumn("{task.fields[rate]}", style="dim"),
            ]
        )
        self.screen = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=24),
            *amount,
            rich_progress.TimeRemainingColumn(compact=True),
            rich_progress.TextColumn("{task.fields[note]}", markup=False),
            console=console,  # type: ignore[arg-type]
            transient=True,
        )
        self._task = self.screen.add_task(what, total=total, rate="", note="")
        self.screen.update(self._task, completed=done)
        self._unit, self._before, self._start = unit, done, time.monotonic()

    @property
    def total(self) -> float | None:
        return self.screen.tasks[0].total

    @total.setter
    def total(self, total: float | None) -> None:
        self.screen.update(self._task, total=total)

    @property
    def done(self) -> float:
        return self.screen.tasks[0].completed

    @done.setter
    def done(self, done: float) -> None:
        self.advance(done - self.done)

    def advance(self, units: float = 1) -> None:
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done + units - self._before) / seconds
        shown = (
            f"{rate:,.1f} {self._unit}s/s" if rate >= 1 else f"{1 / max(rate, 1e-9):,.1f} s each"
        )
        self.screen.update(self._task, advance=units, rate=shown)

    def note(self, text: str) -> None:
        self.screen.update(self._task, note=text)
