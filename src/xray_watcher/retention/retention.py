"""Removes what the configuration says is old enough, once a day and a few files at a time.

A file is removed only if its place, size and hash are those in the ledger and its record is in the
logs. All other files are left alone. A file that cannot be removed is counted and tried again the
next day; all others are removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Literal

import structlog

from xray_watcher.core.retention import DAY_US, RetentionRules, believed_us, witnessed_us
from xray_watcher.core.times import from_us, local_day, to_us
from xray_watcher.errors import LedgerError, Unavailable
from xray_watcher.intake.removing import NotRemoved, Removal, remove_image, remove_reason
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.log_files import LogFiles
from xray_watcher.ledger.removals import Cut, Removals, cut_of, due_images, due_logs
from xray_watcher.ledger.rows import ImageRow, LogState
from xray_watcher.ledger.states import RemovalState
from xray_watcher.system.clock import Clock
from xray_watcher.system.files import sync_folder

DONE_DAY = "retention_day"
"""The fact that says on which day all that was old enough was last removed."""

BELIEVED = "retention_time"
"""The fact that says which time was believed in the last run, and on which day that was."""

_SLICE_IMAGES = 16
_SLICE_BYTES = 32 << 20  # they are read before they go; images must not wait long meanwhile
_LOOK_S = 600.0
_RUN_GAP_S = 20 * 3600.0  # whatever the clock on the wall says
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
        stuck: what could not be removed, by path below its folder, with the reason.
    """

    images: int = 0
    size: int = 0
    logs: int = 0
    kept: int = 0
    stuck: dict[str, str] = field(default_factory=dict)


class Retention:
    """The daemon's daily cleaning, and that of the command.

    Args:
        ledger: has the images and logs, and notes which are removed.
        path_of: the path of a filed image by folder and name.
        logs: the logs.
        rules: what is set.
        zone: local time zone; None is the system's.
        clock: the time.

    Attributes:
        done: what the run that is under way has done.
        last: what the last whole run has done.
    """

    component = "retention"

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
        self._next_s = float("-inf")
        self._run_day = ""  # of the last whole run in this life
        self._time_us: int | None = None  # what this run believes
        self._cuts: dict[str, Cut | None] = {}  # as they were when this day's run came to them
        self._after: dict[str, tuple[int, int]] = {}
        self._kept_logs: set[str] = set()
        self._away: dict[str, str] = {}  # folders out of reach in this run, and why
        self.done = Done()
        self.last = self.done

    @property
    def next_due_s(self) -> float:
        """When there is something to do, on the monotonic clock."""
        return self._next_s

    def refresh(self, now_s: float) -> None:
        """Remove a few files, unless that was done today.

        Raises:
            Unavailable: a folder or the ledger is out of reach, and is tried again; or files could
                not be removed in the last run, and are tried again in the next.
        """
        if now_s >= self._next_s:
            last = self.last
            if self.step():
                return
            self._next_s = now_s + (_LOOK_S if self.last is last else _RUN_GAP_S)
        if self.last.stuck:
            raise Unavailable(
                "retention",
                f"{len(self.last.stuck)} files that are old enough cannot be removed "
                f"({'; '.join(sorted(set(self.last.stuck.values())))}). They are tried again each "
                "day; `xray-watcher retention` names them while the service does not run.",
            )

    def stop(self) -> None:
        """Nothing is open between two steps."""

    def step(self, *, again: bool = False) -> bool:
        """Remove a few files; returns whether there may be more to do today.

        Args:
            again: also when that was done today, and by the clock as it is: a person watches.

        Raises:
            Unavailable: a folder or the ledger is out of reach; all else is removed.
        """
        begun = [row for row in self._ledger.removals_begun() if row.folder not in self._away]
        if begun:
            self._carry_out(begun, is_resumed=True)
            return True
        for state in self._ledger.logs_begun():
            if state.name not in self._kept_logs:
                self._remove_log(state)
        today = local_day(self._clock.now(), self._zone)
        is_done = today in (self._ledger.meta(DONE_DAY), self._run_day)
        if self._rules.is_off or (is_done and not again):
            return False
        if self._time_us is None:
            self._time_us = to_us(self._clock.now()) if again else self._believed(today)
        day = local_day(from_us(self._time_us), self._zone)
        if self._remove_images(self._time_us) or self._remove_logs(day):
            return True
        if self._away:
            detail = "; ".join(self._away.values())
            self._away.clear()
            raise Unavailable("retention", detail)
        self._close(today)
        return False

    def _believed(self, today: str) -> int:
        """The time by which this run judges; noted before anything is removed."""
        now_us = to_us(self._clock.now())
        noted_day, _, noted = (self._ledger.meta(BELIEVED) or "").partition(" ")
        if noted:
            last_us = int(noted)
        else:
            witnessed = witnessed_us(self._ledger.days_with_images())
            last_us = now_us if witnessed is None else witnessed
        time_us = min(now_us, last_us) if noted_day == today else believed_us(now_us, last_us)
        with self._ledger.transaction():  # a clock that is behind for a while takes nothing back
            self._ledger.set_meta(BELIEVED, f"{today} {max(time_us, last_us)}")
        return time_us

    def _close(self, today: str) -> None:
        """Note the day as done; a day with stuck files is repeated after a restart."""
        if not self.done.stuck:
            with self._ledger.transaction():
                self._ledger.set_meta(DONE_DAY, today)
        assert self._time_us is not None, "a run begins with a time"
        behind_days = (to_us(self._clock.now()) - self._time_us) // DAY_US
        self._run_day, self._time_us = today, None
        done, self.done, self.last = self.done, Done(), self.done
        _log.info(
            "cleaned up",
            code="cleaned_up",
            images=done.images,
            bytes=done.size,
            logs=done.logs,
            kept=done.kept,
            stuck=len(done.stuck),
            behind_days=behind_days,
        )
        self._cuts.clear()
        self._after.clear()
        self._kept_logs.clear()

    # -- images ---------------------------------------------------------------------------

    def _remove_images(self, now_us: int) -> bool:
        """Remove some images of the first folder that has any; returns whether one had."""
        for folder in self._rules.days:
            if folder in self._away:
                continue
            if folder not in self._cuts:
                self._cuts[folder] = cut_of(self._ledger, self._rules, folder, now_us)
            cut = self._cuts[folder]
            if cut is None:
                continue
            after = self._after.get(folder, _START)
            rows = _first_bytes(due_images(self._ledger, cut, after, _SLICE_IMAGES), _SLICE_BYTES)
            if rows:
                self._after[folder] = (rows[-1].filed_us or 0, rows[-1].id)
                self._removals.begin([row.id for row in rows], to_us(self._clock.now()))
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
            if outcome == "removed" or (outcome == "gone" and is_resumed):
                removed.append(row)
            elif outcome != "away":
                kept.append(row)
                self.done.kept += outcome != "stuck"
        self._sync({row.folder for row in removed if row.folder is not None})
        removed = [row for row in removed if row.folder not in self._away]
        self._removals.end(removed, kept)
        self.done.images += len(removed)
        self.done.size += sum(row.size for row in removed)

    def _sync(self, folders: Collection[str]) -> None:
        """A file that is noted as gone must not be back after a power cut."""
        for folder in folders:
            try:
                sync_folder(os.path.dirname(self._path_of(folder, "x")))
            except OSError as error:
                why = os.strerror(error.errno or 0)
                self._away[folder] = f"The folder {folder} cannot be flushed ({why})."

    def _remove(self, row: ImageRow) -> Removal | Literal["stuck", "away"]:
        """Remove one image; while its folder is away the removal stays begun."""
        folder, name, idx = row.folder, row.filed_name, row.idx
        if folder is None or name is None or idx is None:
            raise LedgerError(f"The ledger does not say what image {row.id} is.")
        path = self._path_of(folder, name)
        if folder in self._away:
            return "away"
        try:
            outcome = remove_image(path, row.size, row.sha256)
        except NotRemoved as error:
            self.done.stuck[f"{folder}/{name}"] = str(error)
            return "stuck"
        except Unavailable as error:
            self._away[folder] = error.reason
            return "away"
        if outcome != "changed" and row.outcome == "rejected":
            try:
                remove_reason(f"{path}.json", self._ledger.record_of(idx).jsonl)
            except (NotRemoved, Unavailable) as error:
                self.done.stuck[f"{folder}/{name}.json"] = str(error)
        return outcome

    # -- logs -----------------------------------------------------------------------------

    def _remove_logs(self, today: str) -> bool:
        """Remove the first log that is old enough; returns whether there was one."""
        for state in due_logs(self._ledger, self._rules, today):
            if state.name not in self._kept_logs:
                self._removals.mark_log(state.name, RemovalState.BEGUN, to_us(self._clock.now()))
                self._remove_log(state)
                return True
        return False

    def _remove_log(self, state: LogState) -> None:
        """Remove both files of a log; a failed removal stays begun and is tried again each day."""
        self._kept_logs.add(state.name)
        try:
            is_gone = self._logs.remove(state)
        except OSError as error:
            self.done.stuck[f"logs/{state.name}"] = os.strerror(error.errno or 0)
            return
        self._removals.mark_log(
            state.name, RemovalState.DONE if is_gone else None, to_us(self._clock.now())
        )
        self.done.logs += is_gone
        self.done.kept += not is_gone


def _first_bytes(rows: Sequence[ImageRow], size: int) -> list[ImageRow]:
    """As many rows as stay below a size together; the first always."""
    chosen: list[ImageRow] = []
    for row in rows:
        size -= row.size
        if chosen and size < 0:
            break
        chosen.append(row)
    return chosen
