"""The list of results: which images a filter finds, and in what order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from xray_watcher.core.result_keys import condition_bit, condition_place, flag_bit, folded, ranks_of
from xray_watcher.errors import Unavailable
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.states import IS_FILED

MISSING_BELOW = "results_missing_below"
"""The fact that says below which index filed images may not be in the list yet."""

Sort = Literal["newest", "score"]

_KEY: dict[Sort, str] = {"newest": "idx", "score": "rank, idx"}
_RECENT = 10_000
_DAYS = (
    "idx BETWEEN (SELECT min(first_idx) FROM result_day WHERE day BETWEEN ? AND ?)"
    " AND (SELECT max(last_idx) FROM result_day WHERE day BETWEEN ? AND ?) AND day BETWEEN ? AND ?"
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which images are asked for; None asks for all.

    Attributes:
        first_day: first local day on which they were received, as 2026-11-23.
        last_day: the last one.
        level: High, Medium, Low or Rejected.
        source: first folder below the inbox, empty for the inbox itself, or "web".
        condition: one that reached its operating point.
        label: the condition with the highest score.
        flag: that the record has.
        text: a part of the file's own name, in any case.
    """

    first_day: str | None = None
    last_day: str | None = None
    level: str | None = None
    source: str | None = None
    condition: str | None = None
    label: str | None = None
    flag: str | None = None
    text: str | None = None

    @property
    def days(self) -> tuple[str, ...] | None:
        """The first and the last day, or None when neither is asked for."""
        if self.first_day is None and self.last_day is None:
            return None
        return self.first_day or "", self.last_day or "9999"

    @property
    def conditions(self) -> list[tuple[str, tuple[object, ...]]]:
        """SQL with places for values, and those values."""
        known: tuple[tuple[str | None, str, Callable[[str], tuple[object, ...]]], ...] = (
            (self.level, "rank BETWEEN ? AND ?", ranks_of),
            (self.condition, "present & ?", lambda label: (condition_bit(label),)),
            (self.label, "top = ? AND top >= 0", lambda label: (condition_place(label),)),
            (self.flag, "flags & ?", lambda flag: (flag_bit(flag),)),
            (self.source, "source = ?", lambda source: (source,)),
            (self.text, "instr(name, ?)", lambda text: (folded(text),)),
        )
        days: list[tuple[str, tuple[object, ...]]] = (
            [] if self.days is None else [(_DAYS, 3 * self.days)]
        )
        return days + [(sql, values(given)) for given, sql, values in known if given is not None]


def find_indexes(
    ledger: LedgerReader,
    wanted: Filter,
    limit: int,
    *,
    sort: Sort = "newest",
    after: int | None = None,
    backwards: bool = False,
) -> list[int]:
    """The indexes of the images that a filter finds.

    Args:
        ledger: is read.
        wanted: which images.
        limit: most that are returned.
        sort: newest first; or by level, those with a finding first, then the highest score.
        after: begin behind this index; None begins at the begin of the list.
        backwards: go through the list from its end to its begin.
    """
    key, (order, beyond) = _KEY[sort], ("ASC", ">") if backwards else ("DESC", "<")
    tests = wanted.conditions
    if after is not None:
        behind = f"SELECT {key} FROM result WHERE idx = ?" if sort == "score" else "?"
        tests.append((f"({key}) {beyond} ({behind})", (after,)))
    where = " AND ".join(["1", *(sql for sql, _ in tests)])
    values = [value for _, given in tests for value in given]
    columns = ", ".join(f"{column} {order}" for column in key.split(", "))
    rows = ledger.db.rows(
        f"SELECT idx FROM result WHERE {where} ORDER BY {columns} LIMIT ?", [*values, limit]
    )
    return [index for (index,) in rows]


def find_neighbours(
    ledger: LedgerReader, wanted: Filter, sort: Sort, index: int
) -> tuple[int | None, int | None]:
    """The images before and after one in a list."""
    before, after = (
        find_indexes(ledger, wanted, 1, sort=sort, after=index, backwards=backwards)
        for backwards in (True, False)
    )
    return next(iter(before), None), next(iter(after), None)


def missing_below(ledger: LedgerReader) -> int:
    """Below which index filed images may not be in the list yet; 0 when all are."""
    return int(ledger.meta(MISSING_BELOW) or 0)


def check_whole(ledger: LedgerReader) -> None:
    """Refuse a list that images of an older ledger have still to enter.

    Raises:
        Unavailable: the list is being filled.
    """
    if below := missing_below(ledger):
        raise Unavailable(
            "results",
            f"The list of results is being filled after an upgrade. Images below the index {below} "
            "are not in it yet. Try again in a minute.",
        )


def filed_below(ledger: LedgerReader, index: int, limit: int) -> list[tuple[int, bytes]]:
    """Index and JSONL line of the filed images below an index, the newest first."""
    # CROSS JOIN holds SQLite to the records' order.
    return ledger.db.rows(
        "SELECT idx, jsonl FROM record CROSS JOIN image USING (idx)"
        f" WHERE record.idx < ? AND {IS_FILED} ORDER BY record.idx DESC LIMIT ?",
        (index, limit),
    )


def recent_sources(ledger: LedgerReader) -> list[str]:
    """The sources of the latest images."""
    rows = ledger.db.rows(
        "SELECT DISTINCT source FROM (SELECT source FROM result ORDER BY idx DESC LIMIT ?)"
        " ORDER BY 1",
        (_RECENT,),
    )
    return [source for (source,) in rows]


def csv_headers(ledger: LedgerReader) -> list[bytes]:
    """The different first lines of the CSV logs."""
    return [header for (header,) in ledger.db.rows("SELECT DISTINCT csv_header FROM log_file")]
