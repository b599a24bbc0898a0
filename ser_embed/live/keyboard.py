"""Single keys from a terminal, which is given back as it was found."""

import contextlib
import os
import select
import signal
import sys
from typing import Any

try:
    import termios
    import tty
except ImportError:  # Windows
    termios = tty = None  # type: ignore[assignment]

__all__ = ["Keyboard"]


class Keyboard:
    """A context manager in which a key counts without Enter and isn't echoed.

    Attributes:
        works: Whether there are keys: not without a terminal, in the background, or on Windows.
    """

    def __init__(self) -> None:
        self.works = False
        self._kept: Any = None

    def __enter__(self) -> "Keyboard":
        """Take the terminal."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no standard input
            fd = sys.stdin.fileno()
            # From the background, changing the terminal would stop the program.
            if termios is not None and os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp():
                self._fd, self._kept = fd, termios.tcgetattr(fd)
                self._before = signal.signal(signal.SIGCONT, self._take)
                self._take()
                self.works = True
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the terminal back."""
        self.works = False
        if self._kept is not None:
            signal.signal(signal.SIGCONT, self._before)
            with contextlib.suppress(termios.error):  # it is gone
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._kept)

    def _take(self, *_: object) -> None:
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
