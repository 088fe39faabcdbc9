"""What a child process does before it reads foreign data."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal

from xray_watcher.system.sandbox import give_up_everything

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OOM_SCORE = b"800"  # the kernel's out-of-memory killer takes this process long before the daemon


def confine(memory: int, niceness: int) -> None:
    """Set the limits, and give up all but reading, answering, computing and ending.

    Args:
        memory: bytes of address space, what is in use already included.
        niceness: how far this process steps back behind others who want the cores.
    """
    _outlive_signals_but_not_the_parent()
    with contextlib.suppress(OSError):  # a filter of system calls may refuse it
        os.nice(niceness)
    _set_limits(memory)
    _fall_silent()
    give_up_everything()


def _outlive_signals_but_not_the_parent() -> None:
    """A stop of the service lets the present work end; then the parent ends this process."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _set_limits(memory: int) -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb") as score:
        score.write(_OOM_SCORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _fall_silent() -> None:
    """Error output is the service's log or a terminal: a sender has no word in either."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
