"""The daemon's report for `status`: a small file that is written every few seconds.

It lies beside the ledger and not in it: writing it costs no fsync, and works while the ledger does
not. It is written in place, so that a full disk takes it too.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

from xray_watcher.core.status_report import StatusReport
from xray_watcher.service.reports import Reports
from xray_watcher.system.files import write_all

EVERY_S = 2.0
_BLOCK_BYTES = 4096  # one write of a whole page: no reader sees half of it


class Heartbeat:
    """Writes the file, at most every two seconds.

    Args:
        path: of the file.
        make_report: makes the report.
        reports: gets the report at each beat, whether the file can be written or not.
        names_path: of a second file, which is not for everybody; empty for none.
        names: what stands in it, ready for JSON; without any there is no file.
    """

    def __init__(
        self,
        path: str,
        make_report: Callable[[], StatusReport],
        reports: Reports | None = None,
        names_path: str = "",
        names: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self._path = path
        self._make_report = make_report
        self._reports = reports
        self._names_path = names_path
        self._names = names
        self._next_s = float("-inf")

    @property
    def next_due_s(self) -> float:
        """When the next beat is due, on the monotonic clock."""
        return self._next_s

    def beat(self, now_s: float) -> None:
        """Write unless that was done a moment ago; a disk that refuses is no reason to stop."""
        if now_s < self._next_s:
            return
        self._next_s = now_s + EVERY_S
        report = self._make_report()
        if self._reports is not None:
            self._reports.beat(report)
        with contextlib.suppress(OSError):
            _write(self._path, report.to_json(), 0o644)
        if self._names_path:
            self._write_names()

    def _write_names(self) -> None:
        with contextlib.suppress(OSError):
            if names := self._names():
                _write(self._names_path, {"waiting": names}, 0o640)
            else:
                os.unlink(self._names_path)

    @property
    def is_reloading(self) -> bool:
        """Whether this process ends so that the next one begins with new settings."""
        return self._reports is not None and self._reports.is_renewing

    def stop(self) -> None:
        """Remove the files; in a reload they stay for the next process."""
        if self.is_reloading:
            return
        for path in filter(None, (self._path, self._names_path)):
            with contextlib.suppress(OSError):
                os.unlink(path)


def _write(path: str, facts: dict[str, Any], mode: int) -> None:
    content = json.dumps(facts).encode()
    blocks = -(-len(content) // _BLOCK_BYTES)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        write_all(fd, content.ljust(blocks * _BLOCK_BYTES), 0)
        os.ftruncate(fd, blocks * _BLOCK_BYTES)
    finally:
        os.close(fd)
