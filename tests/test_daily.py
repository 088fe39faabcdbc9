"""`reports.daily`: the running day is followed, not counted anew, and comes to the same."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rig import Rig
from xray_watcher.core.notices import Subscriptions
from xray_watcher.core.settling import Settling
from xray_watcher.core.values import SeenFile
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.reports.daily import day_summary

DAY = "2026-11-23"


def written(rig: Rig) -> dict[str, object]:
    found: dict[str, object] = json.loads((rig.root / "logs" / "daily" / f"{DAY}.json").read_text())
    del found["notice"]
    return found


def test_what_is_followed_batch_by_batch_is_what_the_ledger_holds_in_the_end(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    for hour in range(4):
        for number in range(5):
            rig.drop(f"er/{hour}-{number}.jpg", f"picture:Edema#{hour}{number}")
        rig.drop(f"{hour}.jpg", "unreadable" if hour % 2 else f"picture:Fracture#{hour}")
        rig.settle()
        rig.tick(60)
        assert written(rig) == day_summary(rig.ledger, DAY, today=DAY)
    assert written(rig)["received"] == 24
    assert written(rig)["by_source"] == {"er": 20, "": 4}


def test_an_image_in_hand_is_pending_until_it_is_filed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    rig.engine.broken = True
    rig.drop("b.jpg", "picture:Fracture")
    rig.ticks(70)
    assert (written(rig)["classified"], written(rig)["pending"]) == (1, 1)
    rig.engine.broken = False
    rig.ticks(180)
    assert (written(rig)["classified"], written(rig)["pending"]) == (2, 0)


def test_a_minute_of_a_long_day_reads_only_what_is_new(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for number in range(30):
        rig.drop(f"{number}.jpg", f"picture:Edema#{number}")
    rig.settle()
    rig.tick(60)
    read: list[object] = []
    of_ledger = rig.ledger.day_finished

    def counted(day: str, after: int = -1) -> object:
        found = list(of_ledger(day, after))
        read.extend(found)
        return iter(found)

    rig.ledger.day_finished = counted  # type: ignore[method-assign, assignment]
    rig.drop("new.jpg", "picture:Fracture")
    rig.settle()
    rig.tick(60)
    assert len(read) == 1
    assert written(rig)["received"] == 31


def test_following_a_day_does_not_go_through_all_its_images(tmp_path: Path) -> None:
    """SQLite takes the index over indexes, of which only the end is read."""
    rig = Rig(tmp_path)
    statements: list[str] = []
    rig.ledger.db.sqlite.set_trace_callback(statements.append)
    list(rig.ledger.day_finished(DAY, after=7))
    plan = rig.ledger.db.sqlite.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()
    assert "idx>?" in plan[0][3]


def test_counting_a_day_reads_one_index_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    statements: list[str] = []
    rig.ledger.db.sqlite.set_trace_callback(statements.append)
    LedgerReader(rig.ledger.db).day_counts(DAY)
    plan = rig.ledger.db.sqlite.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()
    assert "USING COVERING INDEX image_day" in plan[0][3]


def test_a_day_waits_for_the_files_that_were_seen_on_it(tmp_path: Path) -> None:
    """Below the low-water mark nothing is claimed over midnight."""
    rig = Rig(tmp_path, subscriptions=Subscriptions({"mail": ["summary"]}))
    rig.drop("a.jpg", "picture:Edema#a")
    rig.settle()
    rig.clock.set_to(datetime(2026, 11, 23, 21, 59, 50, tzinfo=UTC))  # 23:59:50 in Athens
    rig.tick()
    for number in range(3):
        rig.drop(f"{number}.jpg", f"picture:Edema#{number}")
    rig.ticks(4)
    timetable = rig.daemon._timetable
    rig.daemon._timetable = replace(timetable, min_free_bytes=1 << 60)
    rig.ticks(600, 5.0)
    path = tmp_path / "logs" / "daily" / "2026-11-23.json"
    figures = json.loads(path.read_bytes())
    assert (figures["closed"], figures["received"], figures["waiting_in_inbox"]) == (False, 1, 3)
    rig.daemon._timetable = timetable
    rig.ticks(300)
    figures = json.loads(path.read_bytes())
    assert (figures["closed"], figures["received"], figures["waiting_in_inbox"]) == (True, 4, 0)
    told = rig.ledger.db.sqlite.execute("SELECT subject FROM notice WHERE event = 'summary'")
    assert [json.loads(subject)["received"] for (subject,) in told] == [4], "once, and right"


def test_a_file_that_may_not_be_taken_keeps_no_day_open() -> None:
    settling = Settling(2.0, 900.0)
    settling.observe([SeenFile("a.jpg", 1, 1, 1), SeenFile("b.jpg", 1, 1, 2)], 10.0)
    assert settling.first_seen_s == [10.0, 10.0]
    settling.hold("a.jpg", 60.0, 12.0)
    assert settling.first_seen_s == [10.0]
