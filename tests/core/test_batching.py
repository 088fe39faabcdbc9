"""`core.batching`: when a batch is ready; time is a literal."""

from __future__ import annotations

from dataclasses import replace

from xray_watcher.core.batching import Batching
from xray_watcher.core.values import Arrival, SeenFile


def arrivals(*names: str) -> list[Arrival]:
    return [Arrival(SeenFile(name, 1, 1, 1), 0.0, 0.0) for name in names]


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
    made.add([replace(arrivals("web/u")[0], upload="u")], 100.5)
    assert made.next_due_s() == 100.0
    assert names(made.take(100.5)) == ["a", "web/u"]
    made.add(arrivals("b"), 100.6)
    assert made.next_due_s() == 101.6, "those of the inbox wait as before"


def test_uploads_beyond_a_full_batch_make_the_next_one_at_once() -> None:
    made = batching()
    made.add([replace(one, upload=one.file.path) for one in arrivals(*"abcd")], 100.0)
    assert names(made.take(100.0)) == ["a", "b", "c"]
    assert names(made.take(100.0)) == ["d"]
    assert made.next_due_s() is None
