"""Removes what the configuration says is old enough, once a day and a few files at a time.

Only files go of which the ledger knows place, size and hash and whose record is in the logs, and
only if they still are what the ledger says. Everything else that lies there is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, tzinfo

import structlog

from xray_watcher.core.retention import DAY_S, ClockWatch, RetentionRules
from xray_watcher.core.times import local_day, to_us
from xray_watcher.errors import LedgerError, Unavailable
from xray_watcher.intake.removing import Removal, remove_image, remove_reason
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.reader import ImageRow, LogState
from xray_watcher.ledger.removals import (
    Cut,
    Removals,
    cut_of,
    due_images,
    due_logs,
    logs_begun,
)
from xray_watcher.logs import LogFiles
from xray_watcher.system.clock import Clock
from xray_watcher.system.files import sync_folder

DONE_DAY = "retention_day"
"""The fact that says on which day all that was old enough was last removed."""

WAITED = "retention_waited"
"""The fact that says for how many seconds a clock that has gone far ahead was waited for."""

_SLICE_IMAGES = 16
_SLICE_BYTES = 32 << 20  # they are read before they go; images must not wait long meanwhile
_LOOK_S = 600.0
_START = (-1, -1)

_log = structlog.get_logger()


@dataclass(slots=True)
class Done:
    """What one day's run has done.

    Attributes:
        images: removed.
        size: their bytes.
        logs: removed.
        kept: left, since they are not what the ledger says, or are missing.
    """

    images: int = 0
    size: int = 0
    logs: int = 0
    kept: int = 0


class Retention:
    """The daemon's daily cleaning, and that of the command.

    Args:
        ledger: says what may go, and is told what went.
        path_of: the path of a filed image by folder and name.
        logs: the logs.
        rules: what is set.
        zone: local time zone; None is the system's.
        clock: the time.

    Attributes:
        done: what the run that is under way has done.
        last: what the last whole run has done.
    """

    unit = "retention"

    def __init__(
        self,
        ledger: Ledger,
        path_of: Callable[[str, str], str],
        logs: LogFiles,
        rules: RetentionRules,
        zone: tzinfo | None,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._removals = Removals(ledger)
        self._path_of = path_of
        self._logs = logs
        self._rules = rules
        self._zone = zone
        self._clock = clock
        self._watch: ClockWatch | None = None
        self._next_s = float("-inf")
        self._cuts: dict[str, Cut | None] = {}  # as they were when this day's run came to them
        self._after: dict[str, tuple[int, int]] = {}
        self._kept_logs: set[str] = set()
        self.done = Done()
        self.last = self.done

    @property
    def next_due_s(self) -> float:
        """When there is something to do, on the monotonic clock."""
        return self._next_s

    def refresh(self, now_s: float) -> None:
        """Remove a few files, unless that was done today.

        Raises:
            Unavailable: a folder or the ledger is out of reach; it is tried again.
        """
        if not self.step():
            self._next_s = now_s + _LOOK_S

    def stop(self) -> None:
        """Nothing is open between two steps."""

    def step(self, *, again: bool = False) -> bool:
        """Remove a few files; returns whether there may be more to do today.

        Args:
            again: also when that was done today.

        Raises:
            Unavailable: a folder or the ledger is out of reach.
        """
        begun = self._ledger.removals_begun()
        if begun:
            self._carry_out(begun, is_resumed=True)
            return True
        for state in logs_begun(self._ledger):
            self._remove_log(state)
        now = self._clock.now()
        today = local_day(now, self._zone)
        if self._rules.is_off or not (again or self._is_believed(now, today)):
            return False
        if self._ledger.meta(DONE_DAY) == today and not again:
            return False
        if self._remove_images(now) or self._remove_logs(today):
            return True
        self._close(today)
        return False

    def _is_believed(self, now: datetime, today: str) -> bool:
        """Look at the clock; while it is doubted, say so once and note how long that was."""
        was_doubted = self._watch is not None and self._watch.is_doubted
        watch = self._watch = self._watch or self._first_watch(now, today)
        watch.look(self._clock.monotonic_s(), now.timestamp())
        if watch.is_doubted and not was_doubted:
            days = round(watch.ahead_s / DAY_S)
            _log.warning("the clock has gone far ahead; nothing is removed for a day", days=days)
        waited = str(round(watch.waited_s))
        if waited != (self._ledger.meta(WAITED) or "0"):
            with self._ledger.transaction():
                self._ledger.set_meta(WAITED, waited)
        return not watch.is_doubted

    def _first_watch(self, now: datetime, today: str) -> ClockWatch:
        """Of a start nothing is known but the day on which an earlier life was done."""
        done_day = self._ledger.meta(DONE_DAY) or today
        ahead = date.fromisoformat(today) - date.fromisoformat(done_day)
        waited_s = float(self._ledger.meta(WAITED) or 0)
        now_s, wall_s = self._clock.monotonic_s(), now.timestamp()
        return ClockWatch(now_s, wall_s, ahead.total_seconds(), waited_s)

    def _close(self, today: str) -> None:
        with self._ledger.transaction():
            self._ledger.set_meta(DONE_DAY, today)
            self._ledger.set_meta(WAITED, "0")
        if self._watch is not None:
            self._watch.believe()
        done, self.done, self.last = self.done, Done(), self.done
        _log.info("cleaned up", images=done.images, bytes=done.size, logs=done.logs, kept=done.kept)
        self._cuts.clear()
        self._after.clear()
        self._kept_logs.clear()

    # -- images ---------------------------------------------------------------------------

    def _remove_images(self, now: datetime) -> bool:
        """Remove some images of the first folder that has any to give; whether one had."""
        now_us = to_us(now)
        for folder in self._rules.days:
            if folder not in self._cuts:
                self._cuts[folder] = cut_of(self._ledger, self._rules, folder, now_us)
            cut = self._cuts[folder]
            if cut is None:
                continue
            after = self._after.get(folder, _START)
            rows = _first_bytes(due_images(self._ledger, cut, after, _SLICE_IMAGES), _SLICE_BYTES)
            if rows:
                self._after[folder] = (rows[-1].filed_us or 0, rows[-1].id)
                self._removals.begin([row.id for row in rows], now_us)
                self._carry_out(rows, is_resumed=False)
                return True
        return False

    def _carry_out(self, rows: Sequence[ImageRow], *, is_resumed: bool) -> None:
        """Remove the files of begun removals, and note which are gone.

        Of a removal that was begun in an earlier life a missing file is the work of that life.
        """
        removed, kept = list[ImageRow](), list[ImageRow]()
        for row in rows:
            outcome = self._remove(row)
            is_gone = outcome == "removed" or (outcome == "gone" and is_resumed)
            (removed if is_gone else kept).append(row)
        self._sync({row.folder for row in removed if row.folder is not None})
        self._removals.end(removed, kept)
        self.done.images += len(removed)
        self.done.size += sum(row.size for row in removed)
        self.done.kept += len(kept)

    def _sync(self, folders: Collection[str]) -> None:
        """A file that is noted as gone must not be back after a power cut."""
        for folder in folders:
            try:
                sync_folder(os.path.dirname(self._path_of(folder, "x")))
            except OSError as error:
                raise Unavailable(
                    "retention", f"A folder cannot be flushed ({os.strerror(error.errno or 0)})."
                ) from error

    def _remove(self, row: ImageRow) -> Removal:
        folder, name, sha256, idx = row.folder, row.filed_name, row.sha256, row.idx
        if folder is None or name is None or sha256 is None or idx is None:
            raise LedgerError(f"The ledger does not say what image {row.id} is.")
        path = self._path_of(folder, name)
        outcome = remove_image(path, row.size, sha256)
        if outcome != "changed" and row.outcome == "rejected":
            remove_reason(f"{path}.json", self._ledger.record_of(idx).jsonl)
        return outcome

    # -- logs -----------------------------------------------------------------------------

    def _remove_logs(self, today: str) -> bool:
        """Remove the first log that may go; whether one went."""
        for state in due_logs(self._ledger, self._rules, today):
            if state.name not in self._kept_logs:
                self._removals.mark_log(state.name, "begun", to_us(self._clock.now()))
                self._remove_log(state)
                return True
        return False

    def _remove_log(self, state: LogState) -> None:
        try:
            is_gone = self._logs.remove(state)
        except OSError as error:
            raise Unavailable(
                "retention", f"The log {state.name} cannot be removed ({error.strerror})."
            ) from error
        self._removals.mark_log(state.name, "done" if is_gone else None, to_us(self._clock.now()))
        if is_gone:
            self.done.logs += 1
        else:
            self._kept_logs.add(state.name)
            self.done.kept += 1


def _first_bytes(rows: Sequence[ImageRow], size: int) -> list[ImageRow]:
    """As many rows as stay below a size together; the first always."""
    chosen: list[ImageRow] = []
    for row in rows:
        size -= row.size
        if chosen and size < 0:
            break
        chosen.append(row)
    return chosen
