"""What follows from images that have just been filed, and is committed together with that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from xray_watcher.core.tally import Tally, tally_image
from xray_watcher.core.telling import Audience, Notice
from xray_watcher.core.times import to_us
from xray_watcher.ledger.reader import LogLine
from xray_watcher.records import REJECTED, from_jsonl


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What is committed with the filing.

    Attributes:
        tally: what the images add to the running totals.
        notices: who has to be told of them.
    """

    tally: Tally
    notices: Sequence[Notice]


def aftermath_of(lines: Iterable[LogLine], now: datetime, audience: Audience) -> Aftermath:
    """What follows from filed images.

    Args:
        lines: their records.
        now: when they are filed, aware.
        audience: who wants to hear of images.
    """
    tally, notices = Tally(), list[Notice]()
    for line in lines:
        record = from_jsonl(line.jsonl)
        received_at = datetime.fromisoformat(record.received_at)
        tally_image(tally, record, (now - received_at).total_seconds())
        event = _EVENTS.get(record.risk_level)
        if event is not None:
            notices += audience.notices(event, to_us(now), str(line.idx))
    return Aftermath(tally, notices)


_EVENTS = {"High": "high", REJECTED: "rejected"}
