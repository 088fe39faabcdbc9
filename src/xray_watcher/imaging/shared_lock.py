"""A lock that many may share, or one may hold alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


class SharedLock:
    """A lock with shared holders and an exclusive one.

    An exclusive holder waits until all shared holders release. Nobody else gets the lock meanwhile,
    so it waits no longer than a shared holder keeps it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders = 0
        self._exclusive = 0  # those who wait to be the only holder, and the one who is

    def shared(self) -> AbstractContextManager[None]:
        """Hold the lock beside others, once nobody wants it exclusively."""
        return self._held(lambda: not self._exclusive)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock while nobody else does."""
        with self._changed:
            self._exclusive += 1
        try:
            with self._held(lambda: not self._holders):
                yield
        finally:
            with self._changed:
                self._exclusive -= 1
                self._changed.notify_all()

    @contextmanager
    def _held(self, may_hold: Callable[[], bool]) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(may_hold)
            self._holders += 1
        try:
            yield
        finally:
            with self._changed:
                self._holders -= 1
                self._changed.notify_all()
