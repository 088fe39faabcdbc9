"""The metrics in a file, for the textfile collector of Prometheus' node_exporter."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from xray_watcher.core.status_report import StatusReport
from xray_watcher.errors import StorageFailure, Unavailable
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.reports.metrics import Situation, exposition
from xray_watcher.system.clock import Clock
from xray_watcher.system.disks import free_bytes
from xray_watcher.system.files import write_whole

_MODE = 0o644
"""node_exporter is another user; there are counts in it and no names."""


class MetricsFile:
    """Keeps the file up to date: readers see the old one or the new one, never a part.

    Args:
        path: of the file; its folder must exist.
        every_s: at most this often, in seconds.
        ledger: the totals.
        report: makes the daemon's report.
        disks: folders by the name that stands beside their free space.
        min_free: with less nothing is taken from the inbox; bytes.
        channels: the kinds of channels that are set up.
        clock: the time.
    """

    component = "metrics"

    def __init__(
        self,
        path: str,
        every_s: float,
        ledger: LedgerReader,
        report: Callable[[], StatusReport],
        *,
        disks: Mapping[str, str],
        min_free: int,
        channels: Sequence[str],
        clock: Clock,
    ) -> None:
        self._path = path
        self._every_s = every_s
        self._ledger = ledger
        self._report = report
        self._disks = disks
        self._min_free = min_free
        self._channels = channels
        self._clock = clock
        self._since = clock.now()
        self._next_s = float("-inf")

    @property
    def next_due_s(self) -> float:
        """When the file is written again, on the monotonic clock."""
        return self._next_s

    def refresh(self, now_s: float) -> None:
        """Write the file.

        Raises:
            Unavailable: it cannot be written.
        """
        self._write(self._report())
        self._next_s = now_s + self._every_s

    def stop(self) -> None:
        """Write a last time: no daemon runs."""
        with suppress(Unavailable):
            self._write(None)

    def _write(self, report: StatusReport | None) -> None:
        free: dict[str, int] = {}
        for name, folder in self._disks.items():
            with suppress(Unavailable):
                free[name] = free_bytes(folder)
        since = None if report is None else self._since
        now = self._clock.now()
        situation = Situation(now, report, since, free, self._min_free, self._channels)
        try:
            text = exposition(self._ledger.totals(), situation)
            write_whole(self._path, text, _MODE, whatever_umask=True)
        except (OSError, StorageFailure) as error:  # it is no disk of ours
            reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            raise Unavailable(
                "metrics",
                f"The metrics cannot be written to {self._path} ({reason}): metrics.textfile.",
            ) from error
