"""Who works at the same time: any number together, or one alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


class Company:
    """Those who work together, and whoever has to be alone for once.

    Who has to be alone waits for those at work; nobody else begins meanwhile. So it waits for no
    longer than a piece of work takes.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at_work = 0
        self._to_be_alone = 0  # those who wait for it, and the one who is

    def together(self) -> AbstractContextManager[None]:
        """Work beside others, once nobody has to be alone."""
        return self._working(lambda: not self._to_be_alone)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work while nobody else does."""
        with self._changed:
            self._to_be_alone += 1
        try:
            with self._working(lambda: not self._at_work):
                yield
        finally:
            with self._changed:
                self._to_be_alone -= 1
                self._changed.notify_all()

    @contextmanager
    def _working(self, may_begin: Callable[[], bool]) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(may_begin)
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()
