"""Cells of `make progress` after the filing: retention removes images, and fsck reads them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from progress_cells import Cell
from progress_life import Life, Stuck, life
from progress_trying import (
    FIRST_S,
    RESUMES_S,
    WATCHDOG_S,
    Outcome,
    Tried,
    see_it_hang,
    see_it_named,
)

import audit

ZONE = ZoneInfo("Europe/Athens")  # of the service
OLD_S = 36 * 3600.0  # so old are the images that have to go after a day
AGES = {
    "XRAY_WATCHER_RETENTION__KEEP_AT_LEAST_DAYS": "1",
    "XRAY_WATCHER_RETENTION__KEEP_AT_LEAST_IMAGES": "0",
    "XRAY_WATCHER_RETENTION__HIGH_DAYS": "1",
    "XRAY_WATCHER_RETENTION__MEDIUM_DAYS": "1",
    "XRAY_WATCHER_RETENTION__LOW_DAYS": "1",
}


def under_retention(group: Sequence[Cell], hang_s: float) -> list[Outcome]:
    """Old images that cannot be removed: the other old ones go, and new ones are filed."""
    with life() as lived:
        tried = Tried(lived, group, hang_s)
        lived.faults.set_clock(-OLD_S)
        lived.start()
        usual_s = lived.wait_filed(lived.others(), FIRST_S)
        tried.put_bad()
        old = lived.others()
        lived.wait_filed([*tried.names, *old], FIRST_S)
        lived.stop()
        lived.service.env |= AGES
        lived.faults.set_clock(0)
        tried.make_rules()
        lived.start()
        if tried.hangs:
            see_it_hang(tried)
        with tried.noting("stalled", "old ones beside it:"):
            lived.wait(lambda: not lived.filed().intersection(old), usual_s + tried.later_s)
        with tried.noting("stalled", "new ones:"):
            lived.wait_filed(lived.others(), usual_s + tried.later_s)
        if not tried.hangs:
            _see_it_named(tried)
        tried.count()
        _see_them_go(tried)
        _see_all_told(tried)
        return tried.outcomes


def _see_it_named(tried: Tried) -> None:
    """Of images that retention cannot remove it is told under its own name."""
    if _left_old(tried):
        see_it_named(tried, "retention", _left_old(tried))


def _see_them_go(tried: Tried) -> None:
    """When the cause is gone the images go: by themselves, or at the latest on the next day."""
    lived = tried.lived
    tried.lift()
    left = _left_old(tried)
    began_s = time.monotonic()
    try:
        lived.wait(lambda: not _left_old(tried), RESUMES_S / 5)
    except Stuck:
        lived.stop()
        lived.faults.set_clock(_until_tomorrow_s())
        lived.start()
        with tried.noting("stuck", "on the next day:"):
            lived.wait(lambda: not _left_old(tried), RESUMES_S)
    for number in left:
        tried.outcomes[number].resumed_s = round(time.monotonic() - began_s, 1)
    if lived.systemd.longest_gap_s > WATCHDOG_S:
        tried.note("stalled", f"the watchdog waited {lived.systemd.longest_gap_s:.0f} s")


def _left_old(tried: Tried) -> list[int]:
    """Those of the bad images that lie there; one that is said to be gone may lie there longer."""
    filed = tried.lived.filed()
    return [
        number
        for number, (name, cell) in enumerate(zip(tried.names, tried.cells, strict=True))
        if name in filed and cell.error != "ENOENT"
    ]


def _until_tomorrow_s() -> float:
    now = datetime.now(UTC).astimezone(ZONE)
    tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=1, second=0, microsecond=0)
    return (tomorrow - now).total_seconds()


def _see_all_told(tried: Tried) -> None:
    """Every image has its record, what is young lies there, and `fsck` finds no difference."""
    lived = tried.lived
    try:
        lived.stop()
        hashes = {record["sha256"] for record in audit.jsonl_records(lived.results)}
        assert hashes == {audit.sha256(content) for content in lived.arrived}, "records are lost"
        assert set(lived.young) <= lived.filed(), "young images are gone"
        found = lived.service.command("fsck", "--deep")
        assert found.returncode == 0, f"fsck: {found.stdout}"
    except AssertionError as error:
        tried.note("lost", audit.named(error))


def under_fsck(group: Sequence[Cell], hang_s: float) -> list[Outcome]:
    """Images that cannot be read by `fsck --deep`: it names them, and what else is wrong."""
    with life() as lived:
        tried = Tried(lived, group, hang_s)
        lived.start()
        planted = lived.others()
        tried.put_bad()
        lived.wait_filed([*planted, *tried.names], FIRST_S)
        lived.stop()
        for path in audit.filed(lived.results).values():
            if path.name.endswith(planted[1]):
                path.unlink()
        began_s = time.monotonic()
        _fsck(lived)
        usual_s = time.monotonic() - began_s
        tried.make_rules()
        began_s = time.monotonic()
        found = _fsck(lived)
        took_s = time.monotonic() - began_s
        tried.count()
        tried.lift()
        if "Traceback" in found.stderr or planted[1] not in found.stdout:
            tried.note("stalled", f"does not tell the others: {found.stderr[-200:]!r}")
        elif took_s > usual_s + tried.later_s:
            tried.note("stalled", f"took {took_s:.0f} s")
        if not tried.hangs:
            _see_fsck_name(tried, found)
        again = _fsck(lived)
        if again.stdout.count("\n") > 2 or planted[1] not in again.stdout:
            tried.note("stuck", f"finds other things afterwards: {again.stdout!r}")
        return tried.outcomes


def _see_fsck_name(tried: Tried, found: subprocess.CompletedProcess[str]) -> None:
    text = found.stdout + found.stderr
    for number, (cell, name) in enumerate(zip(tried.cells, tried.names, strict=True)):
        wanted = "Low" if cell.fails_folder else name
        if wanted not in text:
            tried.note("said", f"{wanted} is not named", only=[number])


def _fsck(lived: Life) -> subprocess.CompletedProcess[str]:
    return lived.service.command("fsck", "--deep")
