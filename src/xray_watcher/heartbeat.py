"""What the running daemon tells `status`: a small file that is replaced every few seconds.

It lies beside the ledger and not in it, so that telling costs no fsync and works while the
ledger does not.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

from xray_watcher.files import replace

EVERY_S = 2.0


class Heartbeat:
    """Writes the file, at most every two seconds.

    Args:
        path: of the file.
        tell: what there is to tell, ready for JSON.
    """

    def __init__(self, path: str, tell: Callable[[], dict[str, Any]]) -> None:
        self._path = path
        self._tell = tell
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
        part = f"{self._path}.tmp"
        with contextlib.suppress(OSError):
            with open(part, "w", encoding="utf-8") as file:
                json.dump(self._tell(), file)
            replace(part, self._path)

    def stop(self) -> None:
        """Take the file away: the daemon ends in order."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)
