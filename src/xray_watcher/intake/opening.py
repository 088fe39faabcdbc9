"""Opening files that another process is to read, on shares that may never answer."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotInTimeError
from dataclasses import dataclass

from xray_watcher.errors import Unavailable

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file that is open for reading, and how many bytes it has.

    Attributes:
        descriptor: to be closed by whoever takes it.
        size: in bytes, as it was when the file was opened.
    """

    descriptor: int
    size: int


class Opener:
    """Opens one file at a time, each in a thread that is left behind when a share hangs.

    A thread that was left behind closes what it has opened. There is never more than one. All but
    `stop` is called by one thread.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._found: Future[OpenFile] = Future()
        self._stopped = False

    def open(self, path: bytes, seconds: float) -> OpenFile:
        """Open a file; a link is not followed.

        Args:
            path: of the file.
            seconds: how long to wait.

        Raises:
            Unavailable: it cannot be opened, is no regular file, or there is no answer in time.
        """
        if self._thread is not None and self._thread.is_alive() and self._found.cancelled():
            raise _no_answer()
        found: Future[OpenFile] = Future()
        self._found = found
        self._thread = threading.Thread(target=_open, args=(path, found), name="open", daemon=True)
        self._thread.start()
        if self._stopped:
            found.cancel()
        try:
            return found.result(seconds)
        except (NotInTimeError, CancelledError):
            if found.cancel():
                raise _no_answer() from None
            return found.result()  # it has just come
        except OSError as error:
            detail = error.strerror or type(error).__name__
            raise Unavailable("storage", f"The file cannot be read: {detail}.") from error

    def stop(self) -> None:
        """Wait for no answer any longer."""
        self._stopped = True
        self._found.cancel()


def _open(path: bytes, found: Future[OpenFile]) -> None:
    try:
        file = _opened(path)
    except OSError as error:
        if found.set_running_or_notify_cancel():
            found.set_exception(error)
        return
    if found.set_running_or_notify_cancel():
        found.set_result(file)
    else:
        os.close(file.descriptor)


def _opened(path: bytes) -> OpenFile:
    descriptor = os.open(path, _FLAGS)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return OpenFile(descriptor, status.st_size)
    os.close(descriptor)
    raise OSError(0, "it is not a regular file")


def _no_answer() -> Unavailable:
    return Unavailable("storage", "The file could not be opened in time; its share hangs.")
