"""What the summaries ask of the ledger: the days, and the images that were received on each."""

from __future__ import annotations

from collections.abc import Iterator

from xray_watcher.core.naming import LARGEST_INDEX
from xray_watcher.ledger.queries import Queries
from xray_watcher.ledger.rows import DayImage
from xray_watcher.ledger.states import IS_FILED, IS_OPEN
from xray_watcher.records import REJECTED

_DAY_IMAGES = (
    "SELECT idx, image.path, state, outcome, level, top_label, reject_code, received_us,"
    " filed_us, jsonl FROM image LEFT JOIN record USING (idx)"
)

# The recursion hops from day to day in the index: years of images cost nothing.
_DAYS = (
    "WITH RECURSIVE known (day) AS (SELECT min(day) FROM image UNION ALL"
    " SELECT (SELECT min(day) FROM image WHERE image.day > known.day) FROM known"
    " WHERE known.day IS NOT NULL) SELECT day FROM known WHERE day IS NOT NULL"
)


class DayQueries(Queries):
    """Queries about days."""

    def days_with_images(self) -> list[str]:
        """The local days on which images arrived, oldest first; one step in the index for each."""
        return [str(day) for (day,) in self.db.rows(_DAYS)]

    def days_to_summarise(self, today: str) -> list[str]:
        """Days whose summary is not closed yet, and today; oldest first."""
        rows = self.db.rows(
            f"{_DAYS} AND day NOT IN (SELECT day FROM summary_day WHERE closed = 1)"
            " UNION SELECT day FROM summary_day WHERE closed = 0 UNION SELECT ? ORDER BY 1",
            (today,),
        )
        return [str(row[0]) for row in rows]

    def day_pending(self, day: str) -> Iterator[DayImage]:
        """Images that were received on a day and are open, in the order of their claim."""
        rows = self.db.rows(f"{_DAY_IMAGES} WHERE {IS_OPEN} AND +day = ? ORDER BY id", (day,))
        return (DayImage(*row) for row in rows)

    def day_finished(self, day: str, after: int = -1) -> Iterator[DayImage]:
        """Images that were received on a day and are filed, in the order of their indexes.

        Args:
            day: as 2026-11-23.
            after: only those with a higher index than this.
        """
        last = LARGEST_INDEX
        if after < 0:
            first, last = self.db.row("SELECT min(idx), max(idx) FROM image WHERE day = ?", (day,))
            if first is None:
                return
            after = first - 1
        # The plus keeps SQLite from the index over days, which would find all of this day.
        rows = self._in_pages(
            f"{_DAY_IMAGES} WHERE +day = ? AND idx <= ? AND filed_us IS NOT NULL",
            day,
            last,
            after=after,
        )
        yield from (DayImage(*row) for row in rows)

    def day_counts(self, day: str) -> dict[str, int]:
        """Images received on a day: by level, "Rejected", and "pending"."""
        rows = self.db.rows(
            f"SELECT CASE WHEN {IS_FILED} THEN ifnull(level, '{REJECTED}')"
            " ELSE 'pending' END, count(*) FROM image WHERE day = ? GROUP BY 1",
            (day,),
        )
        return {str(kind): int(count) for kind, count in rows}

    def day_removed(self, day: str) -> int:
        """How many images received on a day retention has removed."""
        return int(self.db.value("SELECT count(removal) FROM image WHERE day = ?", day))
