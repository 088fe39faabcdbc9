"""The outer process of `run`: it hears signals and feeds the watchdog while the inner one works.

A process that waits for a share which hangs may hear no signal, not even SIGKILL (RELIABILITY.md,
0.6). So all work is done in a child, and its parent touches no folder. The child reports each beat
of the daemon through a pipe, one report a packet, in the words that systemd takes; the parent, to
whom alone systemd listens (NotifyAccess=main), passes them on. When the child reports nothing, the
parent looks whether it waits for a disk: if so, a restart would only wait again, so the watchdog is
fed; a child that spins or blocks itself is left to the watchdog. When the parent ends, the kernel
ends the child.

Both are opaque (`system.sandbox`), so that no other program of the service's user reads or writes
their memory. The kernel then hides from the parent, too, what the child waits in. A thread of the
child, the `_Witness`, writes that into memory that both share.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import structlog

from xray_watcher.system import sd_notify
from xray_watcher.system.sandbox import be_opaque
from xray_watcher.system.signals import Bell

GRACE_S = 9.5
"""After a signal the child is given this long to end; it is ended then."""

QUIET_S = 20.0
"""A child that has reported nothing for this long is looked at."""

_LOOK_EVERY_S = 5.0
_KILL_WAIT_S = 0.3
_NOW_S = 0.3
_PR_SET_PDEATHSIG = 1
_REPORT_BYTES = 4096

_log = structlog.get_logger()


class Reports:
    """The child's end of the pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ready_told = (False, 0)
        os.set_blocking(fd, False)

    def beat(self, told: Mapping[str, Any]) -> None:
        """Tell that there is progress, and how things are; a pipe that is full has told.

        Args:
            told: what the heartbeat tells: `ready` (recovered, and the network has passed its
                test), `reloads` (how often the configuration was read anew), and the counts.
        """
        ready = (told["ready"], told["reloads"])
        is_news = told["ready"] and ready != self._ready_told
        lines = [sd_notify.WATCHDOG, *([sd_notify.READY] if is_news else [])]
        report = "\n".join([*lines, sd_notify.status(in_words(told))])
        with contextlib.suppress(BlockingIOError):
            os.write(self._fd, report.encode(errors="replace")[:_REPORT_BYTES])
            self._ready_told = ready


def in_words(told: Mapping[str, Any]) -> str:
    """How things are in one line, for `systemctl status`; no name of an image is in it."""
    counts = (
        f"{told['filed_since_start']} images filed since the start, "
        f"{told['waiting_in_inbox']} waiting, {told['batches_in_hand']} batches in hand"
    )
    troubles = "; ".join(f"{cause}: {detail}" for cause, detail in told["troubles"].items())
    state = "watching" if told["ready"] else "starting"
    return f"degraded: {troubles} ({counts})" if troubles else f"{state}: {counts}"


@dataclass(frozen=True, slots=True)
class Activity:
    """What the main thread of a process does at a moment.

    Attributes:
        state: as in proc(5): R runs, S and D wait, T is stopped.
        ticks: processor time that it has used, in clock ticks.
        wait: the kernel function it waits in, as far as that may be known.
    """

    state: str
    ticks: int
    wait: str

    def is_stuck_since(self, earlier: Activity) -> bool:
        """Whether it waits, all the time since, for something that is not of its own process."""
        is_waiting = self.state in "SD" and self.ticks == earlier.ticks
        return is_waiting and "futex" not in self.wait


def activity_of(pid: int) -> Activity | None:
    """What a process does; None if it is gone."""
    folder = f"/proc/{pid}/task/{pid}"
    try:
        with open(f"{folder}/stat", "rb") as stat:
            found = _activity(stat.read(), "")
    except OSError:
        return None
    return replace(found, wait=_wait_in(folder))


def _activity(stat: bytes, wait: str) -> Activity:
    """From the content of /proc/PID/stat; the name of a program may hold anything."""
    fields = stat.rpartition(b")")[2].split()
    return Activity(fields[0].decode(), int(fields[11]) + int(fields[12]), wait)


def _wait_in(folder: str) -> str:
    """The kernel function that a thread waits in; empty if it waits in none or that is hidden."""
    try:
        with open(f"{folder}/wchan", "rb") as wchan:
            return wchan.read().decode(errors="replace").removeprefix("0")
    except OSError:
        return ""


class _Witness:
    """Says what the main thread of a process waits in, to the process that it was forked from.

    Make it before the fork, and start it in the child. It is silent while the child holds Python's
    lock or is stopped.
    """

    _BYTES = 256

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, self._BYTES)

    def start(self) -> None:
        """Begin, in the child's main thread."""
        folder = f"/proc/self/task/{threading.get_native_id()}"
        threading.Thread(target=self._go_on, args=(folder,), name="witness", daemon=True).start()

    def wait(self) -> str | None:
        """What the main thread waits in; None when the thread has not said so of late."""
        at_s, _, wait = self._page[:].rstrip(b"\0").decode(errors="replace").partition(" ")
        is_fresh = at_s and time.monotonic() - float(at_s) < 2 * _LOOK_EVERY_S
        return wait if is_fresh else None

    def _go_on(self, folder: str) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for others
        while True:
            line = f"{time.monotonic():.3f} {_wait_in(folder)}".encode()
            self._page[:] = line[: self._BYTES].ljust(self._BYTES, b"\0")
            time.sleep(_LOOK_EVERY_S / 2)


def supervised(work: Callable[[Reports], int]) -> int:
    """Do the work in a child process, and look after it in this one.

    Call it before any thread is started. It returns in both processes.

    Args:
        work: returns the exit code.

    Returns:
        In the child what `work` returns; in the parent the child's exit code, also after a signal
        that the child, waiting for a disk, could not follow in time.
    """
    reports, told = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
    is_known, say_known = os.pipe2(os.O_CLOEXEC)
    witness = _Witness()
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # until somebody listens
    child = os.fork()
    if child == 0:
        os.close(reports)
        os.close(say_known)
        end_with(parent)
        os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on
        os.read(is_known, 1)
        os.close(is_known)
        be_opaque()
        witness.start()
        return work(Reports(told))
    os.close(told)
    os.close(is_known)
    supervisor = _Supervisor(child, reports, witness)
    os.close(say_known)
    be_opaque()
    return supervisor.until_the_end()


def end_with(parent: int) -> None:
    """In a new child: have the kernel end it when its parent ends.

    Args:
        parent: process id of the parent, asked for before the child was made.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)  # it ended a moment ago


class _Supervisor:
    def __init__(self, child: int, reports: int, witness: _Witness) -> None:
        self._child, self._reports, self._witness = child, reports, witness
        # Once the child is opaque, the unit's ProtectProc=invisible hides it from its own parent.
        self._stat = os.open(f"/proc/{child}/task/{child}/stat", os.O_RDONLY | os.O_CLOEXEC)
        self._bell = Bell()
        self._systemd = sd_notify.Systemd()
        self._stop_until_s: float | None = None
        self._code_if_ended = 0
        self._last_report_s = time.monotonic()
        self._seen: Activity | None = None

    def until_the_end(self) -> int:
        """Stay until the child has ended, or cannot be waited for any longer."""
        with self._signals_passed_on():
            while self._is_child_there(self._timeout_s()):
                if self._stop_until_s is not None and time.monotonic() > self._stop_until_s:
                    return self._give_up()
        return _exit_code(os.waitpid(self._child, 0)[1])

    def _timeout_s(self) -> float:
        if self._stop_until_s is None:
            return _LOOK_EVERY_S
        return max(0.0, self._stop_until_s - time.monotonic()) + 0.01

    def _is_child_there(self, timeout_s: float) -> bool:
        """Wait for a report, a signal or the time; False when the child has ended."""
        watched = [self._reports, self._bell.fileno()]
        readable, _, _ = select.select(watched, [], [], timeout_s)
        if self._bell.fileno() in readable:
            self._bell.wait(0)
        if self._reports in readable:
            report = os.read(self._reports, _REPORT_BYTES)
            if not report:
                return False
            self._last_report_s, self._seen = time.monotonic(), None
            self._systemd.tell(report.decode(errors="replace"))
        elif time.monotonic() - self._last_report_s > QUIET_S:
            self._look_after()
        return True

    def _look_after(self) -> None:
        """The child says nothing: is it the disk that it waits for?"""
        before, now = self._seen, self._activity_of_child()
        if now is None:
            return
        self._seen = now
        if before is None:
            _log.warning("the daemon says nothing", state=now.state, waits_in=now.wait)
        elif now.is_stuck_since(before):
            self._systemd.tell(sd_notify.WATCHDOG)

    def _activity_of_child(self) -> Activity | None:
        """What it does; None if it is gone, or sleeps and nobody says what for."""
        try:
            found = _activity(os.pread(self._stat, 4096, 0), "")
        except OSError:
            return None
        if found.state != "S":
            return found
        wait = self._witness.wait()
        return None if wait is None else replace(found, wait=wait)

    def _give_up(self) -> int:
        """End a child that does not end; one that the kernel does not let go is left behind."""
        os.kill(self._child, signal.SIGKILL)
        if select.select([self._reports], [], [], _KILL_WAIT_S)[0]:
            os.waitpid(self._child, 0)
        else:
            _log.error("left behind: it waits for a disk or share", process=self._child)
        return self._code_if_ended

    @contextlib.contextmanager
    def _signals_passed_on(self) -> Iterator[None]:
        passed = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._pass_on) for number in passed}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and sys.stdin is not None and sys.stdin.isatty():
            number = signal.SIGTERM  # the terminal has gone
        if number == signal.SIGHUP:
            self._systemd.tell(*sd_notify.reloading())
        elif self._stop_until_s is None:
            self._stop_until_s = time.monotonic() + GRACE_S
            self._systemd.tell(sd_notify.STOPPING)
        else:
            self._stop_until_s = time.monotonic() + _NOW_S  # a second signal: now
            self._code_if_ended = 128 + number
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, number)
        self._bell.ring()


def _exit_code(status: int) -> int:
    """The child's exit code; a child that was killed is followed by the same signal."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code != signal.SIGKILL:  # whose default cannot be changed
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code
