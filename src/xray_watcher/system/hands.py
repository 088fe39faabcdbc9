"""Calls that may never return, made in threads of their own, so that they hold up nobody else.

A file on a share or in a tiered store may take minutes to open or to read, and no call can be
taken back from the kernel. Whoever waits for such a call gives up waiting; the thread is left
behind until the kernel answers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

Result = TypeVar("Result")


class Hands(Protocol):
    """What makes calls elsewhere."""

    def submit(self, call: Callable[[], Result]) -> Future[Result]:
        """Make a call; its result or its error comes with the future."""
        ...


class Threads:
    """Makes calls in daemon threads, which never keep the process from ending.

    A thread is started only when all others are at work, so there are no more of them than calls
    that were under way at the same time.

    Args:
        most: threads at most; further calls wait for one of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._changing = threading.Lock()
        self._threads = 0
        self._open = 0  # calls that were asked for and have not returned

    def submit(self, call: Callable[[], Result]) -> Future[Result]:
        """Make a call in one of the threads."""
        future: Future[Result] = Future()
        with self._changing:
            self._open += 1
            if self._open > self._threads and self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._work, name="file", daemon=True).start()
        self._calls.put(lambda: _carry_out(call, future))
        return future

    def close(self) -> None:
        """Let the threads that are free end; one that hangs ends with the process."""
        with self._changing:
            threads, self._threads = self._threads, 0
        for _ in range(threads):
            self._calls.put(None)

    def _work(self) -> None:
        while carry_out := self._calls.get():
            carry_out()
            with self._changing:
                self._open -= 1


def _carry_out(call: Callable[[], Result], future: Future[Result]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
        future.set_exception(error)
