"""`reports.daily`: the running day is followed, not counted anew, and comes to the same."""

from __future__ import annotations

import json
from pathlib import Path

from rig import Rig
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
    rig.ledger._db.set_trace_callback(statements.append)
    list(rig.ledger.day_finished(DAY, after=7))
    plan = rig.ledger._db.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()
    assert "idx>?" in plan[0][3]


def test_counting_a_day_reads_one_index_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    statements: list[str] = []
    rig.ledger._db.set_trace_callback(statements.append)
    LedgerReader(rig.ledger._db).day_counts(DAY)
    plan = rig.ledger._db.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()
    assert "USING COVERING INDEX image_day" in plan[0][3]
