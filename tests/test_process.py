"""`lock`, `signals`, `heartbeat`: what keeps one process in order."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from xray_watcher.core.status_report import StatusReport
from xray_watcher.errors import AlreadyRunning, Unavailable
from xray_watcher.service.heartbeat import Heartbeat
from xray_watcher.system.files import read_facts
from xray_watcher.system.lock import InboxLock, InstanceLock, is_held, read_holder
from xray_watcher.system.signals import StopRequest, Waker

root_alone = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def anywhere() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextmanager
def holding(path: Path, *options: str, user: int | None = None) -> Iterator[int]:
    """Another process holds an flock; the block has its number."""
    script = "echo held; exec sleep 300"
    process = subprocess.Popen(
        ["flock", *options, "--no-fork", str(path), "sh", "-c", script],
        stdout=subprocess.PIPE,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


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


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_lock_file_is_held_by_nobody_and_nobody_waits(
    tmp_path: Path, make: Callable[[str], None]
) -> None:
    make(str(tmp_path / "lock"))
    assert not is_held(str(tmp_path / "lock"))
    assert read_holder(str(tmp_path / "lock")) == {}


def test_the_files_that_are_locked_can_be_opened_by_the_service_alone(tmp_path: Path) -> None:
    (tmp_path / "lock").touch(0o644)  # as an older version made it
    with lock_of(tmp_path), inbox_lock(tmp_path) as lock:
        lock.take()
        for path in (tmp_path / "lock", tmp_path / "work" / "lock"):
            assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("where", ["lock", "inbox"])
def test_a_service_of_an_older_version_keeps_the_new_one_off_and_is_kept_off(
    tmp_path: Path, where: str
) -> None:
    """It locks the file beside the ledger, which all can read, and the inbox itself."""
    (tmp_path / "lock").touch(0o644)
    lock = inbox_lock(tmp_path)
    with holding(tmp_path / where) as pid:
        if where == "lock":
            with pytest.raises(AlreadyRunning, match=f"process {pid}"):
                lock_of(tmp_path).__enter__()
        else:
            with pytest.raises(AlreadyRunning, match=f"process {pid}"):
                lock.take()
    with lock_of(tmp_path), lock:
        lock.take()
        held = ["flock", "--nonblock", str(tmp_path / where), "true"]
        assert subprocess.run(held, check=False).returncode == 1


@root_alone
def test_what_a_sender_locks_keeps_no_service_from_starting(anywhere: Path) -> None:
    (anywhere / "inbox").mkdir()
    with holding(anywhere / "inbox", user=65534), inbox_lock(anywhere) as lock:
        lock.take()
    with pytest.raises(AssertionError), holding(anywhere / "work" / "lock", user=65534):
        pass
    os.chmod(anywhere / "work", 0o777)
    (anywhere / "work" / "lock").unlink()
    with holding(anywhere / "work" / "lock", user=65534), inbox_lock(anywhere) as lock:
        lock.take()  # a folder of ours in which they could make a file
    assert "owner.json" in os.listdir(anywhere / "work")


@root_alone
def test_the_true_holder_is_named_and_not_who_noted_itself_last(anywhere: Path) -> None:
    path = anywhere / "lock"
    with lock_of(anywhere):
        pass
    assert read_holder(str(path))["pid"] == os.getpid()
    os.chmod(path, 0o644)
    with (
        holding(path, "--shared", user=65534) as pid,
        pytest.raises(AlreadyRunning, match=f"process {pid} of the user nobody[.]"),
    ):
        lock_of(anywhere).__enter__()


@root_alone
def test_who_may_not_open_the_lock_still_sees_that_a_service_runs(anywhere: Path) -> None:
    path = str(anywhere / "lock")

    def seen_by_others() -> bool:
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                os.open(path, os.O_RDONLY)
            return is_held(path)
        finally:
            os.seteuid(0)

    with lock_of(anywhere):
        assert seen_by_others()
        assert (anywhere / "lock.json").stat().st_mode & 0o044 == 0o044
    assert not seen_by_others()


def test_a_note_with_nonsense_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text("[]")
    assert read_holder(str(tmp_path / "lock")) == {}


def test_a_bell_ends_the_wait_that_goes_on_or_the_next_one() -> None:
    waker = Waker()
    waker.wake()
    waker.wake()
    assert waker.wait(10)
    assert not waker.wait(0)
    threading.Timer(0.05, waker.wake).start()
    began_s = time.monotonic()
    assert waker.wait(10)
    assert time.monotonic() - began_s < 5
    waker.close()


def test_a_bell_that_is_rung_without_end_never_blocks() -> None:
    waker = Waker()
    for _ in range(100_000):
        waker.wake()
    assert waker.wait(0)
    waker.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_and_rings(number: signal.Signals) -> None:
    waker = Waker()
    stop = StopRequest(waker)
    before = signal.getsignal(number)
    with stop.on_signals():
        assert not stop
        signal.raise_signal(number)
        assert stop
        assert stop.signal == number
        assert waker.wait(0)
    assert signal.getsignal(number) == before
    waker.close()


def test_the_lease_signal_of_the_kernel_ends_nothing() -> None:
    waker = Waker()
    with StopRequest(waker).on_signals():
        signal.raise_signal(signal.SIGIO)
    waker.close()


def test_a_heartbeat_tells_at_most_every_two_seconds_and_goes_away_at_the_end(
    tmp_path: Path,
) -> None:
    path, counts = str(tmp_path / "heartbeat.json"), itertools.count(1)
    heartbeat = Heartbeat(path, lambda: StatusReport(pid=next(counts)))
    heartbeat.beat(100.0)
    heartbeat.beat(101.9)
    assert read_facts(path)["pid"] == 1
    heartbeat.beat(102.0)
    assert read_facts(path)["pid"] == 2
    heartbeat.stop()
    heartbeat.stop()
    assert read_facts(path) == {}
    assert os.listdir(tmp_path) == []


def test_a_heartbeat_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    Heartbeat(str(tmp_path / "no" / "such" / "folder"), StatusReport).beat(100.0)
