"""What the ledger knows of images and logs that go: which may, which are going, which are gone.

Mark first, then remove: a removal is committed as begun before its file is touched and as done when
the folder is flushed. A kill in between leaves begun ones, which are gone on with; a file is never
gone without a mark that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xray_watcher.core.retention import RetentionRules, images_before_us, log_day, log_goes
from xray_watcher.core.tally import REMOVED, Tally
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.reader import OPEN_STATES, ImageRow, LedgerReader, LogState

_KEPT = "folder = ? AND state = 'DONE' AND filed_name IS NOT NULL AND removal IS NULL"


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


def before_us(ledger: LedgerReader, rules: RetentionRules, folder: str, now_us: int) -> int | None:
    """Images of a folder go that were filed before this; None when none goes."""
    newest = ledger.connection.execute(
        f"SELECT filed_us FROM image WHERE {_KEPT} ORDER BY filed_us DESC LIMIT 1 OFFSET ?",
        (folder, max(rules.keep_images - 1, 0)),
    ).fetchone()
    return images_before_us(rules, folder, now_us, newest and int(newest[0]))


def share_of(ledger: LedgerReader, rules: RetentionRules, folder: str, now_us: int) -> Share:
    """What of a folder may go now."""
    before = before_us(ledger, rules, folder, now_us)
    images, size, kept = ledger.connection.execute(
        "SELECT ifnull(sum(filed_us < :b), 0), ifnull(sum(iif(filed_us < :b, size, 0)), 0),"
        f" count(*) FROM image WHERE {_KEPT.replace('?', ':folder')}",
        {"b": before, "folder": folder},
    ).fetchone()
    return Share(folder, images, size, kept - images, before)


def due_images(
    ledger: LedgerReader, folder: str, before: int, after: tuple[int, int], limit: int
) -> list[ImageRow]:
    """The oldest images of a folder that may go, behind the one filed at a time with an id.

    Their record is committed and logged: a row is DONE only after both.
    """
    rows = ledger.connection.execute(
        f"SELECT id FROM image WHERE {_KEPT} AND filed_us < ? AND (filed_us, id) > (?, ?)"
        " AND EXISTS (SELECT 1 FROM record WHERE record.idx = image.idx)"
        " ORDER BY filed_us, id LIMIT ?",
        (folder, before, *after, limit),
    ).fetchall()
    return [ledger.image(image_id) for (image_id,) in rows]


def due_logs(ledger: LedgerReader, rules: RetentionRules, today: str) -> Iterator[LogState]:
    """The logs that may go: old enough, of closed days, with no line that is still to come."""
    for state in ledger.log_states():
        if log_goes(rules, state.name, today) and _is_closed(ledger, state.name):
            yield state


def _is_closed(ledger: LedgerReader, log: str) -> bool:
    db = ledger.connection
    closed = db.execute("SELECT closed FROM summary_day WHERE day = ?", (log_day(log),)).fetchone()
    is_open = db.execute(
        f"SELECT 1 FROM image JOIN record USING (idx) WHERE {OPEN_STATES} AND log = ? LIMIT 1",
        (log,),
    ).fetchone()
    return closed is not None and closed[0] == 1 and is_open is None


def logs_begun(ledger: LedgerReader) -> list[LogState]:
    """Logs that retention was removing when the service ended."""
    rows = ledger.connection.execute(
        "SELECT name, csv_header, jsonl_bytes, csv_bytes FROM log_file WHERE removal = 'begun'"
    )
    return [LogState(*row) for row in rows]


class Removals:
    """Marks removals.

    Args:
        ledger: is written.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._db = ledger.connection

    def begin(self, image_ids: Sequence[int], now_us: int) -> None:
        """Commit that the files of these images are about to be removed."""
        with self._ledger.transaction():
            self._db.executemany(
                "UPDATE image SET removal = 'begun', removed_us = ? WHERE id = ?",
                [(now_us, image_id) for image_id in image_ids],
            )

    def end(self, removed: Sequence[ImageRow], kept: Sequence[ImageRow]) -> None:
        """Commit which of the begun ones are gone, and which stay after all."""
        tally = Tally()
        for row in removed:
            tally[REMOVED, row.folder or "", ""] += 1
        with self._ledger.transaction():
            self._db.executemany(
                "UPDATE image SET removal = 'done' WHERE id = ?", [(row.id,) for row in removed]
            )
            self._db.executemany(
                "UPDATE image SET removal = NULL, removed_us = NULL WHERE id = ?",
                [(row.id,) for row in kept],
            )
            self._ledger.add_to_tally(tally)

    def mark_log(self, name: str, removal: str | None, now_us: int) -> None:
        """Commit that a log is about to go (begun), is gone (done), or stays after all (None)."""
        removed_us = None if removal is None else now_us
        with self._ledger.transaction():
            self._db.execute(
                "UPDATE log_file SET removal = ?, removed_us = ? WHERE name = ?",
                (removal, removed_us, name),
            )
