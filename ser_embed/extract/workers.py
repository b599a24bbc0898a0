"""A worker process that does what it is sent, one thing after the other, and may die of it.

The pools of Python's library hang or give up as a whole when one of their processes is killed
while it sends a result. Here each process has pipes of its own, so its death shows at once and
costs what it was at, which is done again item by item: an item that ends the process twice is
given up alone.

The process is a new Python that imports what it is sent and nothing else: not the program that
started it, not torch. A process forked from one that holds an encoder would cost a copy of every
page that either writes to.
"""

import contextlib
import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import IO, Any, Generic, TypeVar, cast

__all__ = ["Worker", "serve"]

TRIES = 2  # how often an item may end the process

_START = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
sys.path[:] = {path!r}
from ser_embed.extract.workers import serve
serve()
"""
# What a pipe to a dead process raises, or one whose next result is too large to be received.
_DEAD = (EOFError, OSError, MemoryError, pickle.UnpicklingError)

Item = TypeVar("Item")
Result = TypeVar("Result")
_Task = tuple[Callable[[Any], Any], Sequence[Any]]


class Worker(Generic[Item, Result]):
    """One process.

    Args:
        lost: From an item to the result that stands for it when it ends the process.
    """

    def __init__(self, lost: Callable[[Item], Result]) -> None:
        self._lost = lost
        self._tickets = itertools.count()
        self._sent: dict[int, _Task] = {}  # by ticket, the oldest first
        self._done: dict[int, list[Result]] = {}
        self._unwanted: set[int] = set()
        self._start()

    def send(self, function: Callable[[Item], Result], items: Sequence[Item]) -> int:
        """Send items that a function is to be applied to; return a ticket for the results."""
        ticket = next(self._tickets)
        self._sent[ticket] = function, items
        self._push(ticket)
        return ticket

    def receive(self, ticket: int) -> list[Result]:
        """Wait for the results of a ticket and return them.

        Raises:
            Exception: What the function raised.
        """
        while ticket not in self._done:
            self._pull()
        results = self._done.pop(ticket)
        if isinstance(results, Exception):
            raise results
        return results

    def forget(self, ticket: int) -> None:
        """Drop the results of a ticket, now or when they come."""
        if self._done.pop(ticket, None) is None:
            self._unwanted.add(ticket)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):  # what was to be sent to a dead process
                pipe.close()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self._input = cast(IO[bytes], self._process.stdin)
        self._output = cast(IO[bytes], self._process.stdout)

    def _push(self, ticket: int) -> None:
        with contextlib.suppress(OSError):  # it is dead; that shows when results are waited for
            _send(self._input, (ticket, *self._sent[ticket]))

    def _pull(self) -> None:
        """Receive the next results."""
        try:
            ticket, results = pickle.load(self._output)
        except _DEAD:
            self._recover()
            return
        del self._sent[ticket]
        self._keep(ticket, results)

    def _keep(self, ticket: int, results: Any) -> None:
        if ticket in self._unwanted:
            self._unwanted.remove(ticket)
        else:
            self._done[ticket] = results

    def _recover(self) -> None:
        """Do what the dead process was at item by item, then send the rest to a new one.

        It was ended by the system (for its memory), by somebody, or by one of the items: a file
        that crashes its decoder.
        """
        ticket = next(iter(self._sent))
        function, items = self._sent.pop(ticket)
        self._restart()
        self._keep(ticket, [self._alone(function, item) for item in items])
        for rest in self._sent:
            self._push(rest)

    def _alone(self, function: Callable[[Item], Result], item: Item) -> Result:
        for _ in range(TRIES):
            try:
                _send(self._input, (-1, function, [item]))
                results = pickle.load(self._output)[1]
            except _DEAD:
                self._restart()
                continue
            if isinstance(results, Exception):
                raise results
            return results[0]
        return self._lost(item)

    def _restart(self) -> None:
        self.close()
        self._start()


def _send(pipe: IO[bytes], message: Any) -> None:
    pipe.write(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
    pipe.flush()


def serve() -> None:
    """Answer what comes on standard input until it ends, as it does with the parent."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    with contextlib.suppress(EOFError, OSError):
        while True:
            ticket, function, items = pickle.load(sys.stdin.buffer)
            try:
                results: Any = [function(item) for item in items]
            except Exception as error:  # whatever it is belongs to who asked
                results = error
            _send(answers, (ticket, results))
