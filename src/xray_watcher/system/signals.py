"""Waiting that ends early: by a signal, or when another thread or process wakes it."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import stat
from collections.abc import Iterator
from types import FrameType


class Waker:
    """A pipe to sleep on. Threads and signal handlers may wake it.

    Args:
        path: of a named pipe, made where it is missing, by which other processes wake it too
            (`wake_from_outside`); None for this process alone.

    Raises:
        OSError: something else lies there, or it cannot be made.
    """

    def __init__(self, path: str | None = None) -> None:
        if path is None:
            self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            return
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o660)
        self._read = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        self._write = os.dup(self._read)
        if not stat.S_ISFIFO(os.fstat(self._read).st_mode):
            self.close()
            raise OSError(errno.EEXIST, f"{path} is not a named pipe")

    def fileno(self) -> int:
        """The end that becomes readable when it is woken, for select."""
        return self._read

    def wake(self) -> None:
        """End the wait that is going on, or the next one."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"\0")  # a full pipe wakes already

    def wait(self, seconds: float) -> bool:
        """Sleep at most that long; returns whether it was woken."""
        readable, _, _ = select.select([self._read], [], [], max(0.0, seconds))
        if readable:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._read, 4096):
                    pass
        return bool(readable)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._read)
        os.close(self._write)


def exit_cleanly_while_starting() -> None:
    """Until `StopRequest` listens, SIGTERM ends this process and its forks with exit code 0."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))


def wake_from_outside(path: str) -> None:
    """Wake another process, if it is there."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fd, b"\0")
        finally:
            os.close(fd)


class StopRequest:
    """Whether the process has been asked to end, and by which signal."""

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        """Whether to end."""
        return self.signal is not None

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to SIGTERM and SIGINT inside the block, and restore what was before.

        Handlers only set a flag and wake the loop, which does the rest. A second signal ends the
        process at once: everything is made to be killed at any moment.
        """
        before = {s: signal.signal(s, self._handle) for s in (signal.SIGTERM, signal.SIGINT)}
        # A writer that opens a file on which we try a lease makes the kernel send this one,
        # and its default is to end the process.
        before[signal.SIGIO] = signal.signal(signal.SIGIO, signal.SIG_IGN)
        try:
            yield
        finally:
            for signal_number, handler in before.items():
                signal.signal(signal_number, handler)

    def _handle(self, signal_number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + signal_number)
        self.signal = signal.Signals(signal_number)
        self._waker.wake()
