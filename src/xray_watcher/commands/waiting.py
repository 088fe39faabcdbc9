"""`xray-watcher waiting`: which images wait, for what, and what happens next, by name."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any

from xray_watcher.config.settings import Settings
from xray_watcher.core.naming import safe_name
from xray_watcher.core.retries import REASONS
from xray_watcher.errors import UsageError
from xray_watcher.system.files import read_facts
from xray_watcher.system.lock import is_held

_WHERE = {"inbox": "inbox", "upload": "upload", "claimed": "in work"}
_REASONS = {
    **REASONS,
    "unfinished": "it does not look whole",
    "barred": "it cannot be looked at or entered",
}


def read_waiting(settings: Settings) -> list[dict[str, Any]]:
    """What the running service names; empty when nothing waits.

    Raises:
        UsageError: the service does not run, or this user may not see names.
    """
    folders = settings.folders
    if not is_held(folders.lock):
        raise UsageError(
            "The service does not run, so nothing waits in it. What lies in the inbox is looked "
            "at when it starts."
        )
    try:
        with open(folders.waiting, encoding="utf-8"):
            pass
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(
            f"{folders.waiting} cannot be read ({error.strerror}). It has names of patients' "
            "files: only the service's group may read it."
        ) from error
    waiting = read_facts(folders.waiting).get("waiting", [])
    return [row for row in waiting if isinstance(row, dict)]


def to_text(rows: list[dict[str, Any]], zone: tzinfo | None) -> str:
    """A line for each image; names cannot speak to the terminal."""
    if not rows:
        return "Nothing waits for another try."
    return "\n".join(_line(row, zone) for row in rows)


def _line(row: dict[str, Any], zone: tzinfo | None) -> str:
    reason = _REASONS.get(row["code"], row["code"])
    detail = f" ({row['detail']})" if row["detail"] else ""
    times = [("since", "since"), ("retry_at", "tried again"), ("rejected_at", "rejected")]
    parts = [f"{text} {_time(row[key], zone)}" for key, text in times if key in row]
    name = "/".join(safe_name(part) for part in row["name"].split("/"))
    return f"{_WHERE[row['where']]}: {name}: {reason}{detail}; {', '.join(parts)}".rstrip("; ")


def _time(seconds: float, zone: tzinfo | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone(zone).strftime("%H:%M:%S")
