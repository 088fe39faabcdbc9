"""`core.settling`: which files are complete; time is a literal."""

from __future__ import annotations

from dataclasses import replace

from xray_watcher.core.settling import Settling
from xray_watcher.core.values import SeenFile


def seen(path: str = "a.jpg", size: int = 10, mtime_ns: int = 1, inode: int = 7) -> SeenFile:
    return SeenFile(path, size, mtime_ns, inode)


def due_paths(settling: Settling, now_s: float) -> list[str]:
    return [arrival.file.path for arrival in settling.due(now_s)]


def test_a_file_settles_when_it_stood_still_for_the_settle_time() -> None:
    settling = Settling(settle_s=2, incomplete_after_s=900)
    settling.observe([seen()], 100.0)
    settling.observe([seen()], 101.9)
    assert not settling.due(101.9)
    settling.observe([seen()], 102.0)
    (arrival,) = settling.due(102.5)
    assert arrival.file == seen()
    assert arrival.first_seen_s == 100.0
    assert arrival.settled_s == 102.5
    assert not arrival.overdue


def test_time_that_passes_without_a_look_settles_nothing() -> None:
    settling = Settling(2, 900)
    settling.observe([seen()], 100.0)
    assert not settling.due(1000.0)
    settling.observe([seen()], 1000.0)
    assert due_paths(settling, 1000.0) == ["a.jpg"]


def test_one_look_is_never_enough() -> None:
    settling = Settling(0.0001, 900)
    settling.observe([seen()], 100.0)
    assert not settling.due(200.0)


def test_any_change_begins_the_settle_time_anew() -> None:
    for changed in (seen(size=11), seen(mtime_ns=2), seen(inode=8)):
        settling = Settling(2, 900)
        settling.observe([seen()], 100.0)
        settling.observe([changed], 101.5)
        settling.observe([changed], 103.0)
        assert not settling.due(103.0)
        settling.observe([changed], 103.5)
        (arrival,) = settling.due(103.5)
        assert arrival.file == changed
        assert arrival.first_seen_s == 100.0


def test_a_modification_time_set_back_is_a_change_and_no_reason_to_take_the_file() -> None:
    settling = Settling(2, 900)
    settling.observe([seen(mtime_ns=5_000_000_000)], 100.0)
    settling.observe([seen(mtime_ns=1)], 102.0)
    assert not settling.due(102.0)


def test_a_file_is_handed_on_once() -> None:
    settling = Settling(2, 900)
    for now_s in (100.0, 102.0):
        settling.observe([seen()], now_s)
    assert due_paths(settling, 102.0) == ["a.jpg"]
    settling.observe([seen()], 105.0)
    assert not settling.due(110.0)
    assert len(settling) == 1


def test_files_that_are_gone_are_forgotten() -> None:
    settling = Settling(2, 900)
    settling.observe([seen("a.jpg"), seen("b.jpg")], 100.0)
    settling.observe([seen("b.jpg")], 102.0)
    assert due_paths(settling, 102.0) == ["b.jpg"]
    assert len(settling) == 1


def test_a_renamed_file_is_another_file() -> None:
    settling = Settling(2, 900)
    settling.observe([seen("a.part")], 100.0)
    settling.observe([seen("a.jpg")], 102.0)
    assert not settling.due(102.0)
    settling.observe([seen("a.jpg")], 104.0)
    assert due_paths(settling, 104.0) == ["a.jpg"]


def test_files_are_handed_on_in_the_order_in_which_they_came() -> None:
    settling = Settling(2, 900)
    settling.observe([seen("late.jpg", mtime_ns=9), seen("early.jpg", mtime_ns=3)], 100.0)
    settling.observe(
        [seen("0.jpg"), seen("late.jpg", mtime_ns=9), seen("early.jpg", mtime_ns=3)], 101.0
    )
    settling.observe(
        [seen("0.jpg"), seen("late.jpg", mtime_ns=9), seen("early.jpg", mtime_ns=3)], 103.0
    )
    assert due_paths(settling, 103.0) == ["early.jpg", "late.jpg", "0.jpg"]


def test_a_file_that_somebody_still_writes_waits_its_settle_time_again() -> None:
    settling = Settling(2, 900)
    for now_s in (100.0, 102.0):
        settling.observe([seen()], now_s)
    settling.due(102.0)
    settling.postpone("a.jpg", 102.0)
    settling.observe([seen()], 103.0)
    assert not settling.due(103.0)
    settling.observe([seen()], 104.0)
    assert due_paths(settling, 104.0) == ["a.jpg"]


def test_an_unfinished_picture_is_held_until_it_changes() -> None:
    settling = Settling(2, 900)
    for now_s in (100.0, 102.0):
        settling.observe([seen()], now_s)
    settling.due(102.0)
    settling.hold_unfinished("a.jpg")
    settling.observe([seen()], 500.0)
    assert not settling.due(500.0)
    assert settling.unfinished == settling.waiting == 1
    for now_s in (600.0, 602.0):
        settling.observe([seen(size=20)], now_s)
    assert due_paths(settling, 602.0) == ["a.jpg"]


def test_an_unfinished_picture_is_overdue_after_its_time_without_change() -> None:
    settling = Settling(2, 900)
    for now_s in (100.0, 102.0):
        settling.observe([seen()], now_s)
    settling.due(102.0)
    settling.hold_unfinished("a.jpg")
    settling.observe([seen()], 999.9)
    assert not settling.due(999.9)
    settling.observe([seen()], 1000.0)
    (arrival,) = settling.due(1000.0)
    assert arrival.overdue


def test_the_next_look_is_due_when_a_file_may_have_settled() -> None:
    settling = Settling(2, 900)
    assert settling.next_due_s() is None
    settling.observe([seen("a.jpg")], 100.0)
    settling.observe([seen("a.jpg"), seen("b.jpg")], 101.0)
    assert settling.next_due_s() == 102.0


def test_a_claimed_file_is_followed_no_more() -> None:
    settling = Settling(2, 900)
    for now_s in (100.0, 102.0):
        settling.observe([seen()], now_s)
    settling.due(102.0)
    settling.forget("a.jpg")
    assert len(settling) == 0
    assert settling.oldest_seen_s is None


def test_a_held_file_is_handed_on_when_its_time_has_come_and_not_before() -> None:
    settling = Settling(2, 900)
    for now_s in (100.0, 102.0):
        settling.observe([seen()], now_s)
    settling.due(102.0)
    settling.hold("a.jpg", 160.0, 102.0)
    assert settling.held == 1
    settling.observe([seen()], 159.0)
    assert not settling.due(159.0)
    settling.observe([seen()], 160.0)
    assert due_paths(settling, 160.0) == ["a.jpg"]
    assert settling.was_held("a.jpg"), "what is known of it counts until it changes"


def test_a_held_file_that_changes_settles_anew() -> None:
    settling = Settling(2, 900)
    for now_s in (100.0, 102.0):
        settling.observe([seen()], now_s)
    settling.due(102.0)
    settling.hold("a.jpg", 160.0, 102.0)
    for now_s in (110.0, 112.0):
        settling.observe([seen(size=20)], now_s)
    assert due_paths(settling, 112.0) == ["a.jpg"]
    assert not settling.was_held("a.jpg")


def test_a_file_whose_inode_is_another_at_each_look_settles_all_the_same() -> None:
    settling = Settling(2, 900)
    for number in range(8):
        settling.observe([replace(seen(), inode=number + 1)], 100.0 + number)
    (arrival,) = settling.due(107.0)
    assert arrival.file.inode == 0, "it is no identity there"


def test_a_file_that_another_was_renamed_onto_settles_anew() -> None:
    settling = Settling(2, 900)
    settling.observe([replace(seen(), inode=1)], 100.0)
    settling.observe([replace(seen(), inode=2)], 102.0)
    assert not settling.due(102.0)
    settling.observe([replace(seen(), inode=2)], 104.0)
    assert due_paths(settling, 104.0) == ["a.jpg"]


def test_what_was_claimed_during_a_long_look_is_not_seen_anew_by_it() -> None:
    settling = Settling(2, 900)
    for now_s in (100.0, 102.0):
        settling.observe([seen()], now_s)
    settling.begin_scan()
    settling.due(102.0)
    settling.forget("a.jpg")
    settling.observe([seen()], 103.0)  # as the look had found it at its beginning
    assert len(settling) == 0
    settling.begin_scan()
    settling.observe([seen()], 104.0)
    assert len(settling) == 1
