"""What the ledger knows of images and logs that go: which may, which are going, which are gone.

Mark first, then remove: a removal is committed as begun before its file is touched and as done when
the folder is flushed. A kill in between leaves begun ones, which are gone on with; a file is never
gone without a mark that says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from xray_watcher.core.retention import RetentionRules, images_before_us, is_log_due, log_day
from xray_watcher.core.tally import REMOVED, Tally
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.rows import ImageRow, LogState
from xray_watcher.ledger.states import IS_KEPT, IS_OPEN, RemovalState

_KEPT = f"folder = ? AND {IS_KEPT}"


@dataclass(frozen=True, slots=True)
class Cut:
    """Which images of one folder may go.

    Attributes:
        folder: its key.
        before_us: those that were filed before this; microseconds since 1970.
        below_id: and only those that were claimed before every one that is too young. The clock
            was behind when an image was filed after a younger one, so its age is not believed.
    """

    folder: str
    before_us: int
    below_id: int


@dataclass(frozen=True, slots=True)
class Share:
    """The images of one folder that may go.

    Attributes:
        folder: its key.
        images: how many may go.
        size: their bytes.
        kept: how many stay.
        before_us: those go that were filed before this.
    """

    folder: str
    images: int
    size: int
    kept: int
    before_us: int | None


def cut_of(ledger: LedgerReader, rules: RetentionRules, folder: str, now_us: int) -> Cut | None:
    """Which images of a folder may go now; None when none does.

    It looks at every young one: ask once for a whole run, not for each few images.
    """
    newest = ledger.db.row(
        f"SELECT filed_us FROM image WHERE {_KEPT} ORDER BY filed_us DESC LIMIT 1 OFFSET ?",
        (folder, max(rules.keep_images - 1, 0)),
    )
    before = images_before_us(rules, folder, now_us, newest and int(newest[0]))
    if newest is None or before is None:
        return None
    young = ledger.db.value(
        f"SELECT min(id) FROM image WHERE {_KEPT} AND filed_us >= ?", folder, before
    )
    if young is None:  # what comes from now on is young, whatever the clock says by then
        young = ledger.db.value("SELECT max(id) + 1 FROM image")
    return Cut(folder, before, young)


def share_of(ledger: LedgerReader, rules: RetentionRules, folder: str, now_us: int) -> Share:
    """What of a folder may go now."""
    cut = cut_of(ledger, rules, folder, now_us)
    before, below = (None, None) if cut is None else (cut.before_us, cut.below_id)
    goes = "filed_us < :before AND id < :below"
    images, size, kept = ledger.db.row(
        f"SELECT ifnull(sum({goes}), 0), ifnull(sum(iif({goes}, size, 0)), 0),"
        f" count(*) FROM image WHERE {_KEPT.replace('?', ':folder')}",
        {"before": before, "below": below, "folder": folder},
    )
    return Share(folder, images, size, kept - images, before)


def due_images(
    ledger: LedgerReader, cut: Cut, after: tuple[int, int], limit: int
) -> list[ImageRow]:
    """The oldest images of a folder that may go, behind the one filed at a time with an id.

    Their record is committed and logged: a row is DONE only after both.
    """
    rows = ledger.db.rows(
        f"SELECT id FROM image WHERE {_KEPT} AND filed_us < ? AND (filed_us, id) > (?, ?)"
        " AND id < ? AND EXISTS (SELECT 1 FROM record WHERE record.idx = image.idx)"
        " ORDER BY filed_us, id LIMIT ?",
        (cut.folder, cut.before_us, *after, cut.below_id, limit),
    )
    return [ledger.image(image_id) for (image_id,) in rows]


def due_logs(ledger: LedgerReader, rules: RetentionRules, today: str) -> Iterator[LogState]:
    """The logs that may go: old enough, of closed days, with no line that is still to come.

    One with a line that was written after the first of a log that is too young stays: the clock
    was behind.
    """
    states = ledger.log_states()
    young = [s.name for s in states if not is_log_due(rules, s.name, today)]
    first_young = min((_index_in(ledger, "min", name) for name in young), default=math.inf)
    for state in states:
        if (
            is_log_due(rules, state.name, today)
            and _index_in(ledger, "max", state.name) < first_young
            and _is_closed(ledger, state.name)
        ):
            yield state


def _index_in(ledger: LedgerReader, which: Literal["min", "max"], log: str) -> float:
    """The first or the last index in a log; infinity or -1 in one without lines."""
    idx = ledger.db.value(f"SELECT {which}(idx) FROM record WHERE log = ?", log)
    none = math.inf if which == "min" else -1
    return none if idx is None else float(idx)


def _is_closed(ledger: LedgerReader, log: str) -> bool:
    closed = ledger.db.value("SELECT closed FROM summary_day WHERE day = ?", log_day(log))
    is_open = ledger.db.value(
        f"SELECT 1 FROM image JOIN record USING (idx) WHERE {IS_OPEN} AND log = ? LIMIT 1", log
    )
    return closed == 1 and is_open is None


class Removals:
    """Marks removals.

    Args:
        ledger: is written.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._db = ledger.db

    def begin(self, image_ids: Sequence[int], now_us: int) -> None:
        """Commit that the files of these images are about to be removed."""
        with self._ledger.transaction():
            self._db.execute_many(
                f"UPDATE image SET removal = '{RemovalState.BEGUN}', removed_us = ? WHERE id = ?",
                [(now_us, image_id) for image_id in image_ids],
            )

    def end(self, removed: Sequence[ImageRow], kept: Sequence[ImageRow]) -> None:
        """Commit which of the begun ones are gone, and which stay after all."""
        tally = Tally()
        for row in removed:
            tally[REMOVED, row.folder or "", ""] += 1
        with self._ledger.transaction():
            self._db.execute_many(
                f"UPDATE image SET removal = '{RemovalState.DONE}' WHERE id = ?",
                [(row.id,) for row in removed],
            )
            self._db.execute_many(
                "UPDATE image SET removal = NULL, removed_us = NULL WHERE id = ?",
                [(row.id,) for row in kept],
            )
            self._ledger.add_to_tally(tally)

    def mark_log(self, name: str, removal: RemovalState | None, now_us: int) -> None:
        """Commit that a log is about to go (begun), is gone (done), or stays after all (None)."""
        removed_us = None if removal is None else now_us
        with self._ledger.transaction():
            self._db.execute(
                "UPDATE log_file SET removal = ?, removed_us = ? WHERE name = ?",
                (removal, removed_us, name),
            )
