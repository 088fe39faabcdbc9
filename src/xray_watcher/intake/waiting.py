"""Which images wait, for what, and what happens next: figures for all, names for some.

`status` and the metrics get the figures. The names stand in a file beside the ledger that the
service's group alone may read, for `xray-watcher waiting`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from heapq import nsmallest
from typing import Any

from xray_watcher.core.retries import COMPONENTS, FILES, GIVEN_UP, REASONS, Retries, Retry
from xray_watcher.core.settling import Settling
from xray_watcher.core.status_report import RetryFigures
from xray_watcher.core.values import HANDOVER, INBOX
from xray_watcher.intake.inbox_watch import InboxWatch

MOST_NAMES = 1000
"""So many are named; the figures count them all."""

BUSY_IS_NORMAL_S = 600.0
"""A file may be open for writing this long before it is a problem: large copies are slow."""


class Waiting:
    """What is known of the images that wait.

    Args:
        retries: those that failed.
        settling: those that do not look whole.
        inbox: folders and files that may not be read.
        give_up_after_s: after so long a file that cannot be read is rejected.
    """

    def __init__(
        self,
        retries: Retries,
        settling: Settling,
        inbox: InboxWatch,
        give_up_after_s: float,
    ) -> None:
        self._retries = retries
        self._settling = settling
        self._inbox = inbox
        self._give_up_after_s = give_up_after_s

    def figures(self, now_s: float) -> RetryFigures:
        """How many images wait for another try, for how long the oldest, and by which codes."""
        codes = Counter(_code(retry) for _, retry in self._retries.failures())
        since_s = min((retry.since_s for _, retry in self._retries.failures()), default=None)
        oldest_s = None if since_s is None else round(now_s - since_s, 1)
        return RetryFigures(codes.total(), oldest_s, dict(codes), len(self._inbox.barred))

    def left(self) -> dict[str, int]:
        """How many images a run that ends by itself leaves, by what they wait for."""
        left = Counter(_code(retry) for _, retry in self._retries.failures())
        left["unfinished"] = len(self._settling.unfinished_files)
        left["barred"] = len(self._inbox.barred)
        return {code: count for code, count in left.items() if count}

    def problems(self, now_s: float) -> dict[str, str | None]:
        """What single files have in the way, by component; None where nothing has."""
        found: dict[str, list[Retry]] = {FILES: [], **{each: [] for each in COMPONENTS.values()}}
        for _, retry in self._retries.failures():
            if _code(retry) != "busy" or now_s - retry.since_s > BUSY_IS_NORMAL_S:
                found[COMPONENTS.get(_code(retry), FILES)].append(retry)
        details = {key: _sentence(retries, now_s) for key, retries in found.items()}
        if barred := self._inbox.barred:
            reasons = ", ".join(sorted(set(barred.values())))
            what = f"{len(barred)} files or folders in the inbox cannot be read ({reasons})."
            details[FILES] = f"{details[FILES]} {what}" if details[FILES] else what
        return {key: f"{text} {_LISTED}" if text else None for key, text in details.items()}

    def named(self, now_s: float, wall_s: float) -> list[dict[str, Any]]:
        """The images by name: where each lies, why it waits, and what happens when.

        Args:
            now_s: on the monotonic clock.
            wall_s: the same moment in seconds since 1970.
        """
        rows = []
        for number, row in enumerate(self._rows()):
            if number == MOST_NAMES:
                break
            times = {key: round(wall_s + row[key] - now_s, 1) for key in _TIMES if key in row}
            rows.append(row | times)
        return rows

    def _rows(self) -> Iterator[dict[str, Any]]:
        oldest = nsmallest(MOST_NAMES, self._retries.failures(), key=lambda each: each[1].since_s)
        for (where, _), retry in oldest:
            row = {"where": where, "name": retry.name, "code": _code(retry), "tries": retry.tries}
            row |= {"detail": retry.reason.detail if retry.reason else "", "since": retry.since_s}
            if retry.due_s != float("inf"):
                row["retry_at"] = retry.due_s
            if _code(retry) in GIVEN_UP and where != HANDOVER:
                row["rejected_at"] = retry.since_s + self._give_up_after_s
            yield row
        for path, since_s, overdue_s in self._settling.unfinished_files:
            row = {"where": INBOX, "name": path, "code": "unfinished", "tries": 0}
            yield row | {"detail": "", "since": since_s, "rejected_at": overdue_s}
        for path, reason in self._inbox.barred.items():
            yield {"where": INBOX, "name": path, "code": "barred", "tries": 0, "detail": reason}


_TIMES = ("since", "retry_at", "rejected_at")
_LISTED = "`xray-watcher waiting` lists them by name."


def _code(retry: Retry) -> str:
    return "" if retry.reason is None else retry.reason.code


def _sentence(retries: list[Retry], now_s: float) -> str | None:
    """How many wait, for how long, and what the oldest of them met."""
    if not retries:
        return None
    codes = Counter(_code(retry) for retry in retries)
    kinds = "; ".join(f"{count} because {REASONS[code]}" for code, count in codes.most_common())
    oldest = min(retries, key=lambda retry: retry.since_s)
    minutes = (now_s - oldest.since_s) / 60
    detail = "" if oldest.reason is None else oldest.reason.detail
    who = "1 image waits" if len(retries) == 1 else f"{len(retries)} images wait"
    return f"{who} for another try, the first for {minutes:.0f} min: {kinds} ({detail})."
