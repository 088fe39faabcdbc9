"""`system.hands`: calls that may never return hold up nobody else."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import pytest

from xray_watcher.system.hands import Threads


def test_a_call_that_hangs_does_not_hold_up_the_others() -> None:
    hands, answer = Threads(4), threading.Event()
    hung = hands.submit(answer.wait)
    others = [hands.submit(lambda n=n: n) for n in range(20)]
    assert not wait(others, 30).not_done
    assert [each.result() for each in others] == list(range(20))
    assert not hung.done()
    answer.set()
    assert hung.result(30)
    hands.close()


def test_no_more_threads_are_started_than_are_allowed() -> None:
    hands, answer = Threads(2), threading.Event()
    calls = [hands.submit(answer.wait) for _ in range(10)]
    assert hands._threads == 2
    answer.set()
    assert not wait(calls, 30).not_done
    hands.close()


def test_a_thread_that_is_free_is_used_again() -> None:
    hands = Threads(8)
    names = {hands.submit(threading.get_ident).result(30) for _ in range(50)}
    assert len(names) <= 2, "one may be started while the last one has not said that it is free"
    hands.close()


def test_an_error_comes_with_the_future() -> None:
    hands = Threads(1)
    with pytest.raises(ZeroDivisionError):
        hands.submit(lambda: 1 // 0).result(30)
    hands.close()
