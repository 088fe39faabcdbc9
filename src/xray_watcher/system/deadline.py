"""Asking a disk or share that may never answer, without waiting for it for ever."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
from collections.abc import Callable
from typing import Any

from xray_watcher.errors import Unavailable

_left_behind: dict[int, str] = {}  # children that had to be killed, and what they were to ask
_lock = threading.Lock()


def answer_in_time(ask: Callable[[], Any], seconds: float, what: str) -> Any:
    """Ask in a child process, which is left behind when it gets no answer.

    Args:
        ask: returns something ready for JSON; what it raises is not told.
        seconds: how long to wait.
        what: what is asked, for the message: a folder.

    Returns:
        What `ask` returns, through JSON; None if it raised.

    Raises:
        Unavailable: no answer in time, or an earlier child still waits for one.
    """
    if what in _still_waited_for():
        raise _no_answer(what)
    answer, write = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.fork()
    except OSError as error:
        os.close(answer)
        os.close(write)
        reason = os.strerror(error.errno or 0)
        raise Unavailable(
            "inbox", f"{what} cannot be asked: no process can be started ({reason})."
        ) from error
    if child == 0:
        _answer(ask, write)
    os.close(write)
    try:
        told = _read_in_time(answer, seconds)
    finally:
        os.close(answer)
        os.kill(child, signal.SIGKILL)
    if told is None:
        with _lock:
            _left_behind[child] = what
        raise _no_answer(what)
    os.waitpid(child, 0)
    return json.loads(told or b"null")


def _no_answer(what: str) -> Unavailable:
    return Unavailable("inbox", f"{what} does not answer; its share hangs.")


def _still_waited_for() -> set[str]:
    """What children are stuck in the kernel over; those that have ended are reaped.

    One for each share is enough: they count towards the limit of processes until it answers.
    """
    with _lock:
        for child in list(_left_behind):
            if os.waitpid(child, os.WNOHANG)[0]:
                del _left_behind[child]
        return set(_left_behind.values())


def _answer(ask: Callable[[], Any], write: int) -> None:
    """In the child: answer and end, without the parent's ways of ending."""
    with contextlib.suppress(BaseException):
        _let_go_of_all_but(write)
        os.write(write, json.dumps(ask()).encode())
    os._exit(0)


def _let_go_of_all_but(fd: int) -> None:
    """Hold nothing open that somebody waits for the end of: this child may be there for days."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    os.closerange(3, fd)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))


def _read_in_time(fd: int, seconds: float) -> bytes | None:
    return os.read(fd, 1 << 16) if select.select([fd], [], [], seconds)[0] else None
