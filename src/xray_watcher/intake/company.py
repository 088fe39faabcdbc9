"""Who works at the same time: any number together, or one alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Company:
    """Those who work together, and whoever has to be alone for once.

    Who has to be alone waits for those at work; nobody else begins meanwhile. So it waits for no
    longer than a piece of work takes.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at_work = 0
        self._to_be_alone = 0  # those who wait for it, and the one who is

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work beside others, once nobody has to be alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._to_be_alone)
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work while nobody else does."""
        with self._changed:
            self._to_be_alone += 1
            self._changed.wait_for(lambda: not self._at_work)
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._to_be_alone -= 1
                self._changed.notify_all()
