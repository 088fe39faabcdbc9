"""What follows from images that have just been filed, and is committed together with that."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from xray_watcher.core.tally import Tally, tally_image
from xray_watcher.ledger_reader import LogLine
from xray_watcher.records import from_jsonl


def tally_of(lines: Iterable[LogLine], now: datetime) -> Tally:
    """What filed images add to the running totals.

    Args:
        lines: their records.
        now: when they are filed, aware.
    """
    tally = Tally()
    for line in lines:
        record = from_jsonl(line.jsonl)
        received_at = datetime.fromisoformat(record["received_at"])
        tally_image(tally, record, (now - received_at).total_seconds())
    return tally
