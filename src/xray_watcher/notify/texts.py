"""What a message says: JSON for programs, and the same in words for mails.

Without `include_names` nothing in it says who a patient is. An image is named by its index, which
leads to its record for those who may read it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from xray_watcher.core.naming import safe_name
from xray_watcher.core.notices import Notice
from xray_watcher.core.times import from_us, utc_text
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.records import NOTICE, from_jsonl

SCHEMA = 1
"""Version of the message; fields are only ever added within a version."""

MOST_ITEMS = 50
"""A message lists so many images; of the others it says how many."""

_RESULT = ("index", "risk_level", "top_label", "top_probability", "flags", "simulated")
_REJECTION = ("index", "rejected", "simulated")
_NAMES = ("filename", "source", "saved_path")

Body = dict[str, Any]


def render_body(
    message_id: str, event: str, items: Sequence[Body], *, count: int, now: datetime
) -> bytes:
    """The JSON that is sent.

    Args:
        message_id: by which a receiver knows a message that came twice.
        event: of all its items.
        items: what happened, oldest first.
        count: how often it happened; more than there are items when they were too many.
        now: the time, aware.
    """
    body = {
        "schema": SCHEMA,
        "id": message_id,
        "event": event,
        "at": utc_text(now),
        "service": "xray-watcher",
        "host": socket.gethostname(),
        "count": count,
        "items": list(items),
        "more": count - len(items),
        "simulated": any(item.get("simulated", False) for item in items),
        "notice": NOTICE,
    }
    return json.dumps(body, allow_nan=False).encode("ascii")


def load_item(notice: Notice, ledger: LedgerReader, *, include_names: bool) -> Body:
    """What a message says of one notice; the ledger has the record of an image."""
    at = utc_text(from_us(notice.at_us))
    if notice.event in ("high", "rejected"):
        record = from_jsonl(ledger.record_of(int(notice.subject)).jsonl)
        keys = _REJECTION if record.rejected else _RESULT
        item = {key: getattr(record, key) for key in (*keys, *(_NAMES if include_names else ()))}
        if record.rejected:
            item["rejected"] = record.rejected.code  # the details may quote what was sent
        return {"at": at, **item}
    return {"at": at, **json.loads(notice.subject)}


# -- in words -----------------------------------------------------------------------------

_TITLES = {
    "high": "{count} High result{s}",
    "rejected": "{count} image{s} rejected",
    "degraded": "degraded: {causes}",
    "recovered": "recovered: {causes}",
    "summary": "figures of {days}",
    "test": "a test",
}


def render_title(body: Body) -> str:
    """The message in a few words, for the subject of a mail."""
    items = body["items"]
    title = _TITLES[body["event"]].format(
        count=body["count"],
        s="" if body["count"] == 1 else "s",
        causes=", ".join(item.get("cause", "") for item in items),
        days=", ".join(item.get("day", "") for item in items),
    )
    return f"xray-watcher: {'SIMULATION, ' if body['simulated'] else ''}{title}"


def render_text(body: Body) -> str:
    """The message for people: a line for each item."""
    lines = [render_title(body), ""]
    if body["simulated"]:
        lines += ["SIMULATION: these results mean nothing on patients.", ""]
    lines += [_line(item) for item in body["items"]]
    if body["more"]:
        lines.append(f"and {body['more']} more")
    return "\n".join([*lines, "", f"{body['notice']}", f"Host {body['host']}, {body['at']}"]) + "\n"


def _line(item: Body) -> str:
    parts = [item["at"]]
    if "index" in item:
        parts.append(f"index {item['index']:04d}")
    if "rejected" in item:
        parts.append(f"rejected: {item['rejected']}")
    elif "risk_level" in item:
        flags = f" ({', '.join(item['flags'])})" if item["flags"] else ""
        score = f"{item['top_probability']:.3f}"
        parts.append(f"{item['risk_level']}: {item['top_label']} {score}{flags}")
    if "cause" in item:
        parts.append(f"{item['cause']}: {item.get('detail', 'works again')}")
    if "day" in item:
        levels = ", ".join(f"{level} {count}" for level, count in item["by_level"].items())
        parts.append(
            f"{item['day']}: received {item['received']} = classified {item['classified']} + "
            f"rejected {item['rejected']} + pending {item['pending']}; {levels}"
        )
    parts += [safe_name(item[key]) for key in ("source", "filename") if item.get(key)]
    return "  ".join(parts)
