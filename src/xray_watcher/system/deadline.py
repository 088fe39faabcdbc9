"""Calls to a disk or share that may never answer, with a limit of time."""

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
    """Call in a child process, which is left behind when it gets no answer.

    Args:
        ask: returns something ready for JSON; what it raises is dropped.
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
        is_answered = bool(select.select([answer], [], [], seconds)[0])
        content = os.read(answer, 1 << 16) if is_answered else b""
    finally:
        os.close(answer)
        os.kill(child, signal.SIGKILL)
    if not is_answered:
        with _lock:
            _left_behind[child] = what
        raise _no_answer(what)
    os.waitpid(child, 0)
    return json.loads(content or b"null")


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
        _close_all_but(write)
        os.write(write, json.dumps(ask()).encode())
    os._exit(0)


def _close_all_but(fd: int) -> None:
    """Keep nothing open whose end others wait for: this child may live for days."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    os.closerange(3, fd)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))
