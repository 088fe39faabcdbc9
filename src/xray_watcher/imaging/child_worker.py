"""Has one child at a time work on files, and replaces one that was lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from xray_watcher.core.values import Rejection
from xray_watcher.errors import Unavailable
from xray_watcher.imaging.child import READ_FACTOR, Child, KilledChildError, LostChildError
from xray_watcher.imaging.opening import Opener
from xray_watcher.imaging.shared_lock import SharedLock

Result = TypeVar("Result")


class ChildWorker(Generic[Result]):
    """Has one child at a time; all but `stop` is called by one thread.

    Args:
        start: starts a child.
        seconds: processor time for one file; three times that on the clock, if a core is free.
        sharing: the lock of all workers that share this memory; None if there are no others.
    """

    def __init__(
        self,
        start: Callable[[], Child[Result]],
        seconds: float,
        sharing: SharedLock | None = None,
    ) -> None:
        self._start = start
        self._seconds = seconds
        self._sharing = sharing or SharedLock()
        self._opener = Opener()
        self._child: Child[Result] | None = None
        self._stopped = False
        self._lock = threading.Lock()  # a child is never started after the stop

    def work_on(self, path: str) -> Result | Rejection:
        """One file; after a crash once more, in a new child, before the picture is blamed.

        After a kill that is not ours it is tried while no other worker is at work: what was too
        much memory for all of them may be little enough for one.

        Raises:
            KilledChildError: when it was killed even so.
            Unavailable: when the file cannot be read or no child can be started.
        """
        try:
            return self._try_twice(path)
        except KilledChildError:
            with self._sharing.exclusive():
                return self._try_last(path)

    def stop(self) -> None:
        """Kill the child, if there is one, and let no other be started."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()
        self._opener.stop()

    def drop_child(self) -> None:
        """End the child, if there is one, and take its pipes down."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.end()

    def _try_twice(self, path: str) -> Result | Rejection:
        try:
            with self._sharing.shared():
                return self._attempt(path)
        except LostChildError:
            with self._sharing.shared():
                return self._try_last(path)

    def _try_last(self, path: str) -> Result | Rejection:
        try:
            return self._attempt(path)
        except LostChildError as lost:
            return Rejection(lost.code, f"{lost.detail} It was tried twice.")

    def _attempt(self, path: str) -> Result | Rejection:
        try:
            child = self._running_child()
            file = self._opener.open(os.fsencode(path), self._seconds * READ_FACTOR)
            return child.work_on(file, self._seconds)
        except BaseException:
            self.drop_child()
            self._check_goes_on()  # the kill was ours
            raise

    def _running_child(self) -> Child[Result]:
        if self._child is not None and not self._child.is_running():
            self.drop_child()
        with self._lock:
            self._check_goes_on()
            if self._child is not None:
                return self._child
            self._child = child = self._start()
        child.await_start()
        return child

    def _check_goes_on(self) -> None:
        if self._stopped:
            raise Unavailable("decoder", "The decoder is being stopped.")
