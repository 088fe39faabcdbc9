"""The outer process of `run`: it hears signals and feeds the watchdog while the inner one works.

A process that waits for a share which hangs may hear no signal, not even SIGKILL (RELIABILITY.md,
0.6). So all work is done in a child, and its parent touches no folder. The child reports each beat
of the daemon through a socket, one report a packet, in the words that systemd takes; the parent, to
whom alone systemd listens (NotifyAccess=main), passes them on. When the child reports nothing, the
parent looks whether it waits for a disk: if so, a restart would only wait again, so the watchdog is
fed; a child that spins or blocks itself is left to the watchdog. When the parent ends, the kernel
ends the child.

SIGHUP asks for new settings. The parent has them checked. When they are right, the child ends as
after SIGTERM, and the next one begins with them. The parent holds the ledger's lock meanwhile, so
that the service counts as running and no other program comes between. A child that cannot begin
with new settings is followed by one with the former settings.

Both are opaque (`system.sandbox`), so that no other program of the service's user reads or writes
their memory. The kernel then hides from the parent, too, what the child waits in. A thread of the
child, the `Witness`, writes that into memory that both share.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FrameType

import structlog

from xray_watcher.errors import ConfigError, XrayWatcherError
from xray_watcher.service.reports import KEEP, REPORT_BYTES, Notes, Reports
from xray_watcher.system import sd_notify
from xray_watcher.system.activity import Activity, Witness, parse_stat
from xray_watcher.system.sandbox import be_opaque
from xray_watcher.system.signals import Waker

GRACE_S = 9.5
"""After a signal the child is given this long to end; it is ended then."""

QUIET_S = 20.0
"""A child that has reported nothing for this long is looked at."""

START_S = 60.0
"""A reload waits at most this long for a child that has just begun to be ready."""

_LOOK_EVERY_S = 5.0
_KILL_WAIT_S = 0.3
_NOW_S = 0.3
_PR_SET_PDEATHSIG = 1
_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log = structlog.get_logger()

Work = Callable[[Reports], int]
"""What the inner process does; returns the exit code."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """Settings that were found right.

    Attributes:
        work: what the next inner process does.
        changed: the keys whose values are others than before.
    """

    work: Work
    changed: Sequence[str]


def run_supervised(work: Work, renew: Callable[[Work], Renewal] | None = None) -> int:
    """Do the work in a child process, and look after it in this one.

    Call it before any thread is started. It returns in both processes.

    Args:
        work: returns the exit code.
        renew: is called at SIGHUP with the work that goes on, checks the settings, and says how to
            go on with them. It raises an `XrayWatcherError` if they are wrong, and waits for no
            disk without end. None where SIGHUP asks for nothing.

    Returns:
        In the child what `work` returns; in the parent the child's exit code, also after a signal
        that the child, waiting for a disk, could not follow in time.
    """
    supervisor = _Supervisor(work, renew)
    reports = supervisor.until_the_end()
    return supervisor.exit_code() if reports is None else supervisor.work(reports)


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


def _send_stat(end: socket.socket) -> None:
    """In a new child: give the parent its own line of /proc.

    The child is opaque from its first moment where its parent is, and the unit's
    ProtectProc=invisible then hides it from that parent.
    """
    pid = os.getpid()
    stat = os.open(f"/proc/{pid}/task/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    socket.send_fds(end, [b"STAT"], [stat])
    os.close(stat)


def _receive_stat(end: socket.socket) -> int:
    """The descriptor that a new child sends first; of an empty file if it has ended already."""
    _, received, _, _ = socket.recv_fds(end, 16, 1)
    stat = received[0] if received else os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(stat, False)
    return stat


class _Inner:
    """The child, as its parent sees it."""

    def __init__(self, pid: int, reports: socket.socket, witness: Witness) -> None:
        self.pid, self.reports, self._witness = pid, reports, witness
        self._stat = _receive_stat(reports)
        self.is_ready = False
        self.began_s = self.last_report_s = time.monotonic()
        self.seen: Activity | None = None

    def activity(self) -> Activity | None:
        """What it does; None if it is gone, or sleeps and nobody says what for."""
        try:
            found = parse_stat(os.pread(self._stat, 4096, 0))
        except (OSError, IndexError):  # or ended before it said anything
            return None
        if found.state != "S":
            return found
        wait = self._witness.wait()
        return None if wait is None else replace(found, wait=wait)

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def close(self) -> None:
        self.reports.close()
        self._witness.close()
        os.close(self._stat)


class _Supervisor:
    def __init__(self, work: Work, renew: Callable[[Work], Renewal] | None) -> None:
        self.work = work
        self._renew = renew
        self._next: Renewal | None = None  # for which the child ends
        self._former: Work | None = None  # to go back to, until the child with new work is ready
        self._changed: Sequence[str] = ()
        self._inner: _Inner | None = None
        self._notes = Notes()
        self._lock: int | None = None
        self._waker = Waker()
        self._systemd = sd_notify.Systemd()
        self._is_reload_wanted = self._is_stopping = False
        self._end_by_s: float | None = None
        self._status = 0
        self._code_if_ended = 0
        self._code: int | None = None  # in place of the child's

    def until_the_end(self) -> Reports | None:
        """One child after the other; in each child its reports, in this process None at last."""
        before = {number: signal.signal(number, self._hear) for number in _HEARD}
        try:
            while True:
                with _held_back():
                    if self._is_stopping:
                        return None
                    reports = self._start()
                    if reports is not None:  # in the child, which hears SIGHUP and heeds it not
                        before[signal.SIGHUP] = lambda _number, _frame: None
                        _restore(before)
                        return reports
                self._stay()
                if not self._goes_on():
                    return None
        finally:
            _restore(before)

    def exit_code(self) -> int:
        """The child's exit code; a child that was killed is followed by the same signal."""
        if self._code is not None:
            return self._code
        code = os.waitstatus_to_exitcode(self._status)
        if code < 0:
            if -code != signal.SIGKILL:  # whose default cannot be changed
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        return code

    # -- one child ------------------------------------------------------------------------

    def _start(self) -> Reports | None:
        """Make a child; returns in both, with its end in the child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        witness = Witness()
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            ours.close()
            self._waker.close()
            end_with(parent)
            os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on
            _send_stat(theirs)
            be_opaque()
            witness.start()
            has_former = self._former is not None
            return Reports(theirs, self._notes, self._lock, has_former=has_former)
        theirs.close()
        self._inner = _Inner(child, ours, witness)
        be_opaque()
        return None

    def _stay(self) -> None:
        """Stay until the child has ended, or cannot be waited for any longer."""
        inner = self._inner
        assert inner is not None
        while self._is_there(inner):
            if self._end_by_s is not None and time.monotonic() > self._end_by_s:
                inner.send(signal.SIGKILL)
                if self._is_stopping:
                    self._code = self._code_if_ended
                    if not select.select([inner.reports], [], [], _KILL_WAIT_S)[0]:
                        _log.error(
                            "left behind: it waits for a disk or share",
                            code="left_behind",
                            process=inner.pid,
                        )
                        return
                self._end_by_s = None  # the kernel lets it go when the disk answers
            elif self._is_reload_wanted and self._may_reload(inner):
                self._reload(inner)
        _, self._status = os.waitpid(inner.pid, 0)
        self._inner = None
        inner.close()

    def _is_there(self, inner: _Inner) -> bool:
        """Wait for a report, a signal or the time; False when the child has ended."""
        watched: list[socket.socket | Waker] = [inner.reports, self._waker]
        readable, _, _ = select.select(watched, [], [], self._timeout_s())
        if self._waker in readable:
            self._waker.wait(0)
        if inner.reports in readable:
            return self._take_report(inner)
        if time.monotonic() - inner.last_report_s > QUIET_S:
            self._look_after(inner)
        return True

    def _timeout_s(self) -> float:
        if self._end_by_s is None:
            return _LOOK_EVERY_S
        return max(0.0, self._end_by_s - time.monotonic()) + 0.01

    def _take_report(self, inner: _Inner) -> bool:
        """Pass a report on, or keep a lock; False when the child has ended."""
        try:
            report, locks, _, _ = socket.recv_fds(
                inner.reports, REPORT_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return False
        if not report:
            return False
        inner.last_report_s, inner.seen = time.monotonic(), None
        for lock in locks:
            if self._lock is not None:
                os.close(self._lock)
            self._lock = lock
        if report == KEEP:
            return True
        lines = report.decode(errors="replace").split("\n")
        self._systemd.notify(*lines)
        if sd_notify.READY in lines:
            inner.is_ready = True
            if self._former is not None:
                self._former = None
                _log.info("configuration reloaded", code="reloaded", changed=list(self._changed))
        return True

    def _look_after(self, inner: _Inner) -> None:
        """The child says nothing: is it the disk that it waits for?"""
        before, now = inner.seen, inner.activity()
        if now is None:
            return
        inner.seen = now
        if before is None:
            _log.warning(
                "the daemon says nothing", code="daemon_silent", state=now.state, waits_in=now.wait
            )
        elif now.is_stuck_since(before):
            self._systemd.notify(sd_notify.WATCHDOG)

    # -- new settings ---------------------------------------------------------------------

    def _may_reload(self, inner: _Inner) -> bool:
        """Not while one child makes room for another; a new one is to become ready first."""
        if self._is_stopping or self._next is not None:
            return False
        return inner.is_ready or time.monotonic() - inner.began_s > START_S

    def _reload(self, inner: _Inner) -> None:
        """Check the settings; the child ends if they are right, and goes on if they are not."""
        assert self._renew is not None
        self._is_reload_wanted = False
        self._systemd.notify(*sd_notify.reloading())
        try:
            renewal = self._renew(self.work)
        except XrayWatcherError as error:
            self._refuse("nothing has changed", error)
            if inner.is_ready:
                self._systemd.notify(sd_notify.READY)
            return
        if self._is_stopping:
            return
        self._next = renewal
        self._notes.renewing.write("yes")
        self._end_by_s = time.monotonic() + GRACE_S
        inner.send(signal.SIGTERM)

    def _refuse(self, outcome: str, error: XrayWatcherError) -> None:
        problems = list(error.problems) if isinstance(error, ConfigError) else [str(error)]
        _log.error("configuration not reloaded", code="not_reloaded", problems=problems)
        self._notes.refusal.write(f"The configuration was not reloaded, {outcome}. {error}")

    def _goes_on(self) -> bool:
        """The child has ended: whether another one follows it, and with what."""
        self._notes.renewing.write("")
        if self._is_stopping:
            return False
        self._end_by_s = None
        if self._next is not None:
            self._former, self.work = self.work, self._next.work
            self._changed, self._next = self._next.changed, None
            self._notes.failure.write("")
            self._notes.refusal.write("")
            return True
        if self._former is not None:
            self.work, self._former = self._former, None
            why = self._notes.failure.read() or "The new process ended before it was ready."
            self._refuse("the service goes on with the former one", XrayWatcherError(why))
            return True
        return False

    # -- signals --------------------------------------------------------------------------

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and sys.stdin is not None and sys.stdin.isatty():
            number = signal.SIGTERM  # the terminal has gone
        if number == signal.SIGHUP:
            if self._renew is not None:
                self._is_reload_wanted = True
                self._systemd.notify(*sd_notify.reloading())
        elif not self._is_stopping:
            self._stop(number)
        else:
            self._end_by_s = time.monotonic() + _NOW_S  # a second signal: now
            self._code_if_ended = 128 + number
            self._pass_on(number)
        self._waker.wake()

    def _stop(self, number: int) -> None:
        self._is_stopping = True
        self._end_by_s = time.monotonic() + GRACE_S
        self._systemd.notify(sd_notify.STOPPING)
        self._notes.renewing.write("")
        if self._next is None:  # else it has been asked to end already, and twice means at once
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._inner is not None:
            self._inner.send(number)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Signals wait until whoever they are for listens."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _restore(handlers: Mapping[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
