"""Child processes that touch what a sender made: how they start, and what they give up first."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Sequence

from xray_watcher.system.sandbox import give_up_everything

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OOM_SCORE = b"800"  # the kernel's out-of-memory killer takes this process long before the daemon


_OWN_SETTINGS = "XRAY_WATCHER_"  # may hold secrets, and a child needs none of them
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def start_child(command: Sequence[str], standard_input: int) -> subprocess.Popen[bytes]:
    """Start a program that answers on its standard output, with one thread and without secrets.

    A Ctrl-C at the terminal reaches the parent alone.

    Raises:
        OSError: no process can be started.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_OWN_SETTINGS)}
    return subprocess.Popen(
        command,
        stdin=standard_input,
        stdout=subprocess.PIPE,
        bufsize=0,
        env=environment | _ONE_THREAD,
        process_group=0,
    )


def describe_exit(status: int) -> str:
    """How a child ended, by `Popen.returncode`: the name of a signal, or its exit status."""
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def read_up_to(descriptor: int, at_most: int) -> bytes:
    """Read a file to its end, or to that many bytes."""
    parts = []
    while at_most and (part := os.read(descriptor, at_most)):
        parts.append(part)
        at_most -= len(part)
    return b"".join(parts)


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
