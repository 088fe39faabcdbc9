"""Scenes of `make progress`: a low disk, midnight, a cause that never goes away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from progress_cells import Cell
from progress_elsewhere import ZONE
from progress_life import BACK_OFF_S, LATER_S, Life, can_give_up, life
from progress_trying import (
    FIRST_S,
    Outcome,
    Tried,
    see_it_go_on,
    see_it_named,
    see_nothing_lost,
)

import audit

CELLS = (
    Cell("inbox", "open", "EIO"),
    Cell("inbox", "stat", "ESTALE"),
    Cell("subfolder", "listing", "EUCLEAN"),
    Cell("subfolder", "rename", "ETIMEDOUT"),
    Cell("claimed", "read-middle", "EIO"),
    Cell("claimed", "read-start", "ENOKEY"),
    Cell("upload", "rename", "EIO"),
)
"""What fails in a scene, all of it in one life."""

UNREADABLE = (
    Cell("inbox", "open", "EIO"),
    Cell("inbox", "read-start", "EUCLEAN"),
    Cell("subfolder", "open", "EACCES"),
    Cell("claimed", "open", "ESTALE"),
    Cell("claimed", "read-start", "EIO"),
    Cell("claimed", "read-middle", "EIO"),
)
"""What can be renamed but not read. Where a look at a file fails a rename fails too: it stays."""

LOW_BYTES = 1_000_000
GIVE_UP_MINUTES = 0.1
BEFORE_MIDNIGHT_S = 10.0


def below_low_water(hang_s: float) -> list[Outcome]:
    """The disk falls below the low-water mark while files fail: both are told, and both pass."""
    with life(XRAY_WATCHER_INTAKE__MIN_FREE_BYTES=str(LOW_BYTES)) as lived:
        tried = _begun(lived, hang_s)
        usual_s = lived.wait_filed(lived.others(), FIRST_S)
        tried.put_bad()
        with tried.noting("stalled", "before the disk is low:"):
            lived.wait_filed(lived.others(), usual_s + LATER_S)
        lived.faults.set_free(LOW_BYTES // 2)
        with tried.noting("said", "the low disk:"):
            lived.wait(lambda: "disk" in lived.status()["troubles"], 15)
        first = lived.others()
        time.sleep(3)
        if lived.filed().intersection(first):
            tried.note("lost", "images are claimed on a disk that is low")
        see_it_named(tried, component="disk")
        lived.faults.set_free(0)
        with tried.noting("stalled", "when there is room:"):  # it looks again after 8 s at most
            lived.wait_filed(first, usual_s + LATER_S + 8)
        see_it_named(tried)
        return _ended(tried)


def over_midnight(hang_s: float) -> list[Outcome]:
    """Files fail before midnight and are sound again after it: no day's figures are wrong."""
    with life() as lived:
        now = datetime.now(UTC).astimezone(ZONE)
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        tried = _begun(lived, hang_s)
        usual_s = lived.wait_filed(lived.others(), FIRST_S)
        ahead_s = (midnight - datetime.now(UTC)).total_seconds() - BEFORE_MIDNIGHT_S
        lived.faults.set_clock(ahead_s)
        tried.put_bad()
        with tried.noting("stalled", "before midnight:"):
            lived.wait_filed(lived.others(), usual_s + LATER_S)
        see_it_named(tried)
        time.sleep(BEFORE_MIDNIGHT_S)
        with tried.noting("stalled", "after midnight:"):
            lived.wait_filed(lived.others(), usual_s + LATER_S)
        see_it_named(tried)
        outcomes = _ended(tried)
        days = sorted((lived.results / "logs" / "daily").glob("*.json"))
        summaries = [json.loads(day.read_text()) for day in days]
        received = [summary["received"] for summary in summaries]
        pending = [summary["pending"] for summary in summaries]
        if len(days) != 2 or sum(received) != len(lived.arrived) or any(pending):
            tried.note("lost", f"summaries: received {received}, pending {pending}")
        return outcomes


def never_again(hang_s: float) -> list[Outcome]:
    """Files that can never be read are set aside with a code of their own, by a rename."""
    with life(XRAY_WATCHER_INTAKE__GIVE_UP_AFTER_MINUTES=str(GIVE_UP_MINUTES)) as lived:
        tried = Tried(lived, UNREADABLE, hang_s)
        lived.start()
        tried.make_rules(everywhere=True)
        usual_s = lived.wait_filed(lived.others(), FIRST_S)
        tried.put_bad()
        with tried.noting("stalled"):
            lived.wait_filed(lived.others(), usual_s + LATER_S)
        with tried.noting("stuck", "not set aside:"):
            lived.wait(lambda: not tried.waiting(), GIVE_UP_MINUTES * 60 + BACK_OFF_S)
        tried.count()
        tried.lift()
        lived.stop()
        _see_set_aside(tried)
        return tried.outcomes


def _see_set_aside(tried: Tried) -> None:
    """Each lies among the rejected, whole, with the code `unreadable` beside it and in the log."""
    root = tried.lived.results
    for number, name in enumerate(tried.names):
        found = list((root / "rejected").glob(f"*_{name}"))
        records = [r for r in audit.jsonl_records(root) if r["filename"] == name]
        codes = [record.get("rejected", {}).get("code") for record in records]
        if len(found) != 1 or codes != ["unreadable"]:
            tried.note("lost", f"{len(found)} set aside, codes {codes}", only=[number])
    files = sorted(audit.sha256(path.read_bytes()) for path in audit.filed(root).values())
    if files != sorted(map(audit.sha256, tried.lived.arrived)):
        tried.note("lost", "files are not there once")


def _begun(lived: Life, hang_s: float) -> Tried:
    tried = Tried(lived, CELLS, hang_s)
    lived.start()
    tried.make_rules()
    return tried


def _ended(tried: Tried) -> list[Outcome]:
    tried.count()
    see_it_go_on(tried)
    see_nothing_lost(tried)
    return tried.outcomes


SCENES: dict[str, Callable[[float], list[Outcome]]] = {
    "low disk": below_low_water,
    "midnight": over_midnight,
}
if can_give_up():
    SCENES["never readable"] = never_again
