"""The link between the inner and the outer process of `run`."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field

from xray_watcher.core.status_report import StatusReport
from xray_watcher.system import sd_notify
from xray_watcher.system.activity import SharedText

REPORT_BYTES = 4096
KEEP = b"KEEP"
"""The packet that a lock comes with."""


@dataclass(frozen=True, slots=True)
class Notes:
    """Short texts that both processes see, whichever inner process it is.

    Attributes:
        refusal: why the last configuration that was to be reloaded was not; the outer's.
        renewing: holds something while an inner process ends to make room for the next.
        failure: why an inner process could not begin; its own.
    """

    refusal: SharedText = field(default_factory=SharedText)
    renewing: SharedText = field(default_factory=SharedText)
    failure: SharedText = field(default_factory=SharedText)


class Reports:
    """The inner process's end.

    Args:
        end: of the socket, one report a packet.
        notes: that both see.
        lock: descriptor of the lock that the outer process has kept; None if there is none.
        has_former: whether the outer process goes back to former settings if this one fails.
    """

    def __init__(
        self, end: socket.socket, notes: Notes, lock: int | None, *, has_former: bool
    ) -> None:
        self._end = end
        self._notes = notes
        self._is_known_ready = False
        self._has_former = has_former
        self.lock = lock
        end.setblocking(False)

    @property
    def refusal(self) -> str:
        """Why the last configuration that was to be reloaded was not; empty if it was."""
        return self._notes.refusal.read()

    @property
    def is_renewing(self) -> bool:
        """Whether this process is to end so that the next one begins."""
        return bool(self._notes.renewing.read())

    def beat(self, report: StatusReport) -> None:
        """Say that there is progress, and how things are; a full socket holds one already."""
        is_news = report.is_ready and not self._is_known_ready
        lines = [sd_notify.WATCHDOG, *([sd_notify.READY] if is_news else [])]
        packet = "\n".join([*lines, sd_notify.status(status_line(report))])
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._end.send(packet.encode(errors="replace")[:REPORT_BYTES])
            self._is_known_ready = report.is_ready

    def keep(self, lock: int) -> None:
        """Have the outer process keep a lock, so that no other program takes it in a reload."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            socket.send_fds(self._end, [KEEP], [lock])

    def fail(self, why: str) -> bool:
        """Say why this process ends; returns whether the outer process reports it."""
        self._notes.failure.write(why)
        return self._has_former and not self._is_known_ready


def status_line(report: StatusReport) -> str:
    """How things are in one line, for `systemctl status`; no name of an image is in it."""
    counts = (
        f"{report.filed_since_start} images filed since the start, "
        f"{report.waiting_in_inbox} waiting, {report.batches_in_hand} batches in hand"
    )
    problems = "; ".join(f"{component}: {why}" for component, why in report.problems.items())
    state = "watching" if report.is_ready else "starting"
    return f"degraded: {problems} ({counts})" if problems else f"{state}: {counts}"
