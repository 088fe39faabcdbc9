"""`lock`, `signals`, `heartbeat`: what keeps one process in order."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from xray_watcher.errors import AlreadyRunning, Unavailable
from xray_watcher.heartbeat import Heartbeat
from xray_watcher.system.files import read_facts
from xray_watcher.system.lock import InboxLock, InstanceLock, is_held, read_holder
from xray_watcher.system.signals import Bell, StopRequest


def lock_of(tmp_path: Path) -> InstanceLock:
    return InstanceLock(str(tmp_path / "lock"))


def inbox_lock(tmp_path: Path, ledger_id: str = "one") -> InboxLock:
    for name in ("inbox", "work"):
        (tmp_path / name).mkdir(exist_ok=True)
    return InboxLock(str(tmp_path / "inbox"), str(tmp_path / "work"), ledger_id)


def test_a_ledger_has_one_holder_and_says_who(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    assert not is_held(path)
    with lock_of(tmp_path):
        assert is_held(path)
        assert read_holder(path)["pid"] == os.getpid()
        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
            lock_of(tmp_path).__enter__()
    assert not is_held(path)


def test_an_inbox_has_one_holder_whatever_the_ledger(tmp_path: Path) -> None:
    with inbox_lock(tmp_path) as first:
        first.take()
        first.take()
        with (
            inbox_lock(tmp_path, "another") as second,
            pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"),
        ):
            second.take()
    with inbox_lock(tmp_path, "another") as second:
        second.take()


def test_an_inbox_that_is_away_can_be_locked_later(tmp_path: Path) -> None:
    with inbox_lock(tmp_path) as lock:
        (tmp_path / "inbox").rmdir()
        with pytest.raises(Unavailable):
            lock.take()
        (tmp_path / "inbox").mkdir()
        lock.take()


def test_an_inbox_on_a_share_belongs_to_one_host_until_somebody_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inbox_lock(tmp_path) as lock:
        lock.take()
    monkeypatch.setattr(socket, "gethostname", lambda: "another-host")
    with inbox_lock(tmp_path, "another") as lock:
        with pytest.raises(AlreadyRunning, match=r"owner\.json"):
            lock.take()
        (tmp_path / "work" / "owner.json").unlink()
        lock.take()


def test_a_ledger_may_move_to_another_host_and_a_host_may_get_another_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inbox_lock(tmp_path, "one") as lock:
        lock.take()
    with inbox_lock(tmp_path, "a new one after the old was lost") as lock:
        lock.take()
    monkeypatch.setattr(socket, "gethostname", lambda: "another-host")
    with inbox_lock(tmp_path, "a new one after the old was lost") as lock:
        lock.take()


def test_asking_whether_it_is_held_does_not_keep_a_service_from_starting(tmp_path: Path) -> None:
    path, ends = str(tmp_path / "lock"), threading.Event()
    Path(path).touch()

    def ask() -> None:
        while not ends.is_set():
            is_held(path)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(20):
            with lock_of(tmp_path):
                pass
    finally:
        ends.set()
        asking.join()


def test_a_lock_file_with_nonsense_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("[]")
    assert read_holder(str(tmp_path / "lock")) == {}


def test_a_bell_ends_the_wait_that_goes_on_or_the_next_one() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert bell.wait(10)
    assert not bell.wait(0)
    threading.Timer(0.05, bell.ring).start()
    began_s = time.monotonic()
    assert bell.wait(10)
    assert time.monotonic() - began_s < 5
    bell.close()


def test_a_bell_that_is_rung_without_end_never_blocks() -> None:
    bell = Bell()
    for _ in range(100_000):
        bell.ring()
    assert bell.wait(0)
    bell.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_and_rings(number: signal.Signals) -> None:
    bell = Bell()
    stop = StopRequest(bell)
    before = signal.getsignal(number)
    with stop.on_signals():
        assert not stop
        signal.raise_signal(number)
        assert stop
        assert stop.signal == number
        assert bell.wait(0)
    assert signal.getsignal(number) == before
    bell.close()


def test_the_lease_signal_of_the_kernel_ends_nothing() -> None:
    bell = Bell()
    with StopRequest(bell).on_signals():
        signal.raise_signal(signal.SIGIO)
    bell.close()


def test_a_heartbeat_tells_at_most_every_two_seconds_and_goes_away_at_the_end(
    tmp_path: Path,
) -> None:
    path, told = str(tmp_path / "heartbeat.json"), []
    heartbeat = Heartbeat(path, lambda: told.append(1) or {"count": len(told)})  # type: ignore[func-returns-value]
    heartbeat.beat(100.0)
    heartbeat.beat(101.9)
    assert read_facts(path) == {"count": 1}
    heartbeat.beat(102.0)
    assert read_facts(path) == {"count": 2}
    heartbeat.stop()
    heartbeat.stop()
    assert read_facts(path) == {}
    assert os.listdir(tmp_path) == []


def test_a_heartbeat_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    Heartbeat(str(tmp_path / "no" / "such" / "folder"), dict).beat(100.0)
