"""`core.batching`: when a batch is ready; time is a literal."""

from __future__ import annotations

from dataclasses import replace

from xray_watcher.core.batching import Batching
from xray_watcher.core.values import INBOX, Arrival, Origin, SeenFile


def arrivals(*names: str) -> list[Arrival]:
    return [Arrival(SeenFile(name, 1, 1, 1), 0.0, 0.0, Origin(INBOX, name)) for name in names]


def names(batch: list[Arrival]) -> list[str]:
    return [arrival.file.path for arrival in batch]


def batching() -> Batching:
    return Batching(max_size=3, quiet_s=1.0, max_wait_s=10.0)


def test_nothing_makes_no_batch() -> None:
    assert batching().take(100.0) == []
    assert batching().next_due_s() is None


def test_a_lone_image_waits_for_the_quiet_time_and_no_longer() -> None:
    made = batching()
    made.add(arrivals("a"), 100.0)
    assert made.next_due_s() == 101.0
    assert made.take(100.9) == []
    assert names(made.take(101.0)) == ["a"]
    assert len(made) == 0


def test_each_arrival_makes_the_quiet_time_begin_anew() -> None:
    made = batching()
    made.add(arrivals("a"), 100.0)
    made.add(arrivals("b"), 100.8)
    assert made.take(101.5) == []
    assert names(made.take(101.8)) == ["a", "b"]


def test_a_full_batch_is_ready_at_once() -> None:
    made = batching()
    made.add(arrivals("a", "b", "c"), 100.0)
    assert names(made.take(100.0)) == ["a", "b", "c"]


def test_the_first_image_waits_no_longer_than_the_longest_wait() -> None:
    made = Batching(max_size=100, quiet_s=1.0, max_wait_s=10.0)
    for second in range(10):
        made.add(arrivals(str(second)), 100.0 + second * 0.9)
        assert made.take(100.0 + second * 0.9) == []
    made.add(arrivals("last"), 109.5)
    assert made.next_due_s() == 110.0
    assert len(made.take(110.0)) == 11


def test_a_flood_is_worked_off_oldest_first_in_full_batches() -> None:
    made = batching()
    made.add(arrivals("a", "b", "c", "d"), 100.0)
    made.add(arrivals("e", "f", "g"), 100.5)
    assert names(made.take(100.5)) == ["a", "b", "c"]
    assert names(made.take(100.5)) == ["d", "e", "f"]
    assert made.take(100.5) == []
    assert names(made.take(101.5)) == ["g"]


def test_an_upload_waits_for_nothing_and_takes_along_what_is_there() -> None:
    made = batching()
    made.add(arrivals("a"), 100.0)
    made.add([replace(arrivals("web/u")[0], is_awaited=True)], 100.5)
    assert made.next_due_s() == 100.0
    assert names(made.take(100.5)) == ["web/u", "a"]
    made.add(arrivals("b"), 100.6)
    assert made.next_due_s() == 101.6, "those of the inbox wait as before"


def test_uploads_beyond_a_full_batch_make_the_next_one_at_once() -> None:
    made = batching()
    made.add([replace(one, is_awaited=True) for one in arrivals(*"abcd")], 100.0)
    assert names(made.take(100.0)) == ["a", "b", "c"]
    assert names(made.take(100.0)) == ["d"]
    assert made.next_due_s() is None


def test_uploads_go_before_an_archive_that_waits() -> None:
    made = batching()
    made.add(arrivals(*(f"archive/{n}" for n in range(9))), 100.0)
    made.add([replace(arrivals("web/u")[0], is_awaited=True)], 101.0)
    assert names(made.take(101.0)) == ["web/u", "archive/0", "archive/1"]


def test_sources_take_turns() -> None:
    made = Batching(max_size=5, quiet_s=1.0, max_wait_s=10.0)
    made.add(arrivals(*(f"archive/{n}" for n in range(9))), 100.0)
    made.add(arrivals("ct/a", "ct/b", "c.jpg"), 101.0)
    assert names(made.take(101.0)) == ["archive/0", "ct/a", "c.jpg", "archive/1", "ct/b"]
    assert names(made.take(101.0)) == [f"archive/{n}" for n in (2, 3, 4, 5, 6)]


def test_an_urgent_source_waits_for_no_more_images_and_goes_first() -> None:
    made = Batching(max_size=4, quiet_s=1.0, max_wait_s=10.0, urgent=["ER"])
    made.add(arrivals("ward/a", "ward/b"), 100.0)
    made.add(arrivals("ER/x"), 100.2)
    assert made.is_pressed
    assert names(made.take(100.2)) == ["ER/x", "ward/a", "ward/b"]
    assert not made.is_pressed


def test_every_fourth_place_is_one_of_the_others_while_they_wait() -> None:
    made = Batching(max_size=8, quiet_s=1.0, max_wait_s=10.0, urgent=["ER"])
    made.add(arrivals(*(f"ER/{n}" for n in range(20))), 100.0)
    made.add(arrivals(*(f"ward/{n}" for n in range(20))), 100.0)
    sources = [name.partition("/")[0] for name in names(made.take(100.0))]
    assert sources == ["ER", "ER", "ER", "ward"] * 2


def test_with_one_place_a_batch_every_fourth_batch_is_one_of_the_others() -> None:
    made = Batching(max_size=1, quiet_s=0.0, max_wait_s=0.0, urgent=["ER"])
    made.add(arrivals(*(f"ER/{n}" for n in range(8))), 100.0)
    made.add(arrivals("ward/a", "ward/b"), 100.0)
    sources = [names(made.take(100.0))[0].partition("/")[0] for _ in range(8)]
    assert sources == ["ER", "ER", "ER", "ward"] * 2


def test_what_could_not_be_claimed_is_a_batch_at_once_and_first() -> None:
    made = batching()
    made.add(arrivals("c"), 100.0)
    made.put_back(arrivals("a", "b"))
    assert names(made.take(100.0)) == ["a", "b", "c"]
