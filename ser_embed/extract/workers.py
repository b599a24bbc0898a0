"""A worker process that does what it is sent, in turn, and may die of it.

The pools of Python's library hang or give up as a whole when one of their processes is killed
while it sends a result. Here each process has a pipe of its own, so its death shows at once and
costs what it was at, which is done again item by item: an item that ends the process twice is
given up alone.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

import torch

__all__ = ["Worker"]

TRIES = 2  # how often an item may end the process

# Forked workers need no second import of torch (seconds), and no guard in a user's script.
_CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)

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
        self._pipe.close()
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        self._pipe: Connection
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_work, args=(theirs, os.getpid()), daemon=True)
        with warnings.catch_warnings():
            # Python remarks that a fork takes one thread along; a worker uses no other's.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()  # so that the pipe ends with the process

    def _push(self, ticket: int) -> None:
        with contextlib.suppress(OSError):  # it is dead; that shows when results are waited for
            self._pipe.send((ticket, *self._sent[ticket]))

    def _pull(self) -> None:
        """Take in the next results."""
        try:
            ticket, results = self._pipe.recv()
        except (EOFError, OSError):
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
                self._pipe.send((-1, function, [item]))
                results = self._pipe.recv()[1]
            except (EOFError, OSError):
                self._restart()
                continue
            if isinstance(results, Exception):
                raise results
            return results[0]
        return self._lost(item)

    def _restart(self) -> None:
        self.close()
        self._start()


def _work(pipe: Connection, parent: int) -> None:
    """Answer what comes until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    torch.set_num_threads(1)

    def leave_with_the_parent() -> None:  # a sibling may hold the pipe's other end open
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=leave_with_the_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            ticket, function, items = pipe.recv()
            try:
                results: Any = [function(item) for item in items]
            except Exception as error:  # whatever it is belongs to who asked
                results = error
            pipe.send((ticket, results))
