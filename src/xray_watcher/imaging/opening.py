"""Opening files that another process is to read, on shares that may never answer."""

from __future__ import annotations

import os
import queue
import stat
import threading
from dataclasses import dataclass

from xray_watcher.errors import Unavailable

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file that is open for reading; its taker closes it. `size` is in bytes."""

    descriptor: int
    size: int


class Opener:
    """Opens one file after the other, in a thread that a share which hangs keeps alone.

    All but `stop` is called by one thread.
    """

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[OpenFile | OSError | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_late = False  # the thread still owes an answer that nobody waits for

    def open(self, path: bytes, seconds: float) -> OpenFile:
        """Open a file; a link is not followed.

        Args:
            path: of the file.
            seconds: how long to wait.

        Raises:
            Unavailable: it cannot be opened, is no regular file, or there is no answer in time.
        """
        if self._is_late:
            _let_go(self._next(0))
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="open", daemon=True)
            self._thread.start()
        self._wanted.put(path)
        found = self._next(seconds)
        if isinstance(found, OSError):
            detail = found.strerror or type(found).__name__
            raise Unavailable("storage", f"The file cannot be read: {detail}.") from found
        return found

    def stop(self) -> None:
        """Wait for no answer any longer; nothing is opened afterwards."""
        self._wanted.put(None)
        self._found.put(None)

    def _next(self, seconds: float) -> OpenFile | OSError:
        """The next answer of the thread."""
        self._is_late = True
        try:
            found = self._found.get(timeout=seconds)
        except queue.Empty:
            found = None
        if found is None:  # in time, or at all
            raise Unavailable("storage", "The file could not be opened in time; its share hangs.")
        self._is_late = False
        return found

    def _serve(self) -> None:
        while (path := self._wanted.get()) is not None:
            try:
                self._found.put(_open(path))
            except OSError as error:
                self._found.put(error)
            except Exception as error:  # noqa: BLE001 - without this thread no file is ever opened
                self._found.put(OSError(0, type(error).__name__))
        while not self._found.empty():
            _let_go(self._found.get())
        self._found.put(None)  # whoever waits, or asks in a moment, is answered


def _let_go(found: OpenFile | OSError | None) -> None:
    if isinstance(found, OpenFile):
        os.close(found.descriptor)


def _open(path: bytes) -> OpenFile:
    descriptor = os.open(path, _FLAGS)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return OpenFile(descriptor, status.st_size)
    os.close(descriptor)
    raise OSError(0, "it is not a regular file")
