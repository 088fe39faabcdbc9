"""Chores: work beside the images. A chore fails alone and does not end the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from xray_watcher import log
from xray_watcher.errors import Unavailable, XrayWatcherError

_log = structlog.get_logger()


class Chore(Protocol):
    """Something that is done beside the images and keeps none of them from its way.

    Attributes:
        component: what `status` names when it is degraded.
    """

    component: str

    @property
    def next_due_s(self) -> float:
        """When there is something to do, on the monotonic clock."""
        ...

    def refresh(self, now_s: float) -> None:
        """Do what is due.

        Raises:
            Unavailable: it cannot be done now; it is tried again.
        """
        ...

    def stop(self) -> None:
        """End: the daemon stops."""
        ...


class Contained:
    """Runs a chore; an unexpected error is shown in status and log, and costs the chore alone.

    Args:
        chore: does the work.
    """

    def __init__(self, chore: Chore) -> None:
        self._chore = chore
        self._known = ""  # the fault that the log holds already
        self.component = chore.component

    @property
    def next_due_s(self) -> float:
        """When there is something to do, on the monotonic clock."""
        return self._chore.next_due_s

    def refresh(self, now_s: float) -> None:
        """Do what is due.

        Raises:
            Unavailable: it cannot be done now, or failed in a way that nobody expected; it is
                tried again.
        """
        with self._contained():
            self._chore.refresh(now_s)
            self._known = ""

    def stop(self) -> None:
        """End the chore; an error of it does not reach the other parts."""
        try:
            with self._contained():
                self._chore.stop()
        except Unavailable as error:
            _log.warning(
                "not ended in order",
                code="chore_not_ended",
                component=self.component,
                reason=error.reason,
            )

    @contextmanager
    def _contained(self) -> Iterator[None]:
        try:
            yield
        except XrayWatcherError:
            raise
        except Exception as error:
            kind = type(error).__name__
            if kind != self._known:
                log.log_crash(error)
                self._known = kind
            raise Unavailable(
                self.component,
                f"{kind} in xray-watcher itself. Images are filed all the same; please report what "
                "the log says of it.",
            ) from error
