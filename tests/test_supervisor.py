"""`supervisor`, `deadline`: signals and the watchdog while the inner process works or waits."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xray_watcher.core.status_report import StatusReport
from xray_watcher.errors import Unavailable
from xray_watcher.service.reports import status_line
from xray_watcher.system.activity import Activity, read_activity
from xray_watcher.system.deadline import answer_in_time

WORK = {
    "ends": "return 3",
    "raises": "raise SystemExit(5)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "waits": "time.sleep(100); return 0",
    "waits on": "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100); return 0",
    "beats": "[(reports.beat(REPORT), time.sleep(0.05)) for _ in range(2000)]; return 0",
    "is ready": "return ready(reports)",
    "spins": "exec('while True: pass')",
    "blocks itself": "lock = threading.Lock(); lock.acquire(); lock.acquire(); return 0",
    "is stopped": "os.kill(os.getpid(), signal.SIGSTOP); return 0",
}
SCRIPT = """
import os, signal, sys, threading, time
from dataclasses import replace
from xray_watcher import log
from xray_watcher.core.status_report import StatusReport
from xray_watcher.errors import ConfigError
from xray_watcher.service import supervisor
from xray_watcher.system import activity
log.set_up("warning")
supervisor.QUIET_S, supervisor._LOOK_EVERY_S, supervisor.GRACE_S = 0.4, 0.2, 1.0
supervisor.START_S = 1.0
activity.SAYS_EVERY_S = 0.1
REPORT = StatusReport(filed_since_start=3, waiting_in_inbox=2, batches_in_hand=1)
def ready(reports):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for _ in range(2000):
        reports.beat(replace(REPORT, is_ready=True))
        time.sleep(0.05)
    return 0
def refuse():
    raise ConfigError(["config.toml:3: nonsense"])
def fail(reports):
    reports.fail("The network failed its self-test.")
    return 10
def waiting(reports):  # without being ready
    time.sleep(100)
def renew(former):
    answer = answers.pop(0)
    print("asked", flush=True)
    return answer() if answer is refuse else supervisor.Renewal(answer, ["batch.max_size"])
def work(reports):
    print(os.getpid(), flush=True)
    {work}
def note(reports):
    print("refusal:", reports.refusal.replace("\\n", " "), flush=True)
    return work(reports)
if {is_nobody}:  # who may not ask what an opaque process waits in
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
answers = {answers}
sys.exit(supervisor.run_supervised(work, renew))
"""


def started(
    work: str, notify: str = "", *, is_nobody: bool = False, answers: str = "[]"
) -> tuple[subprocess.Popen[str], int]:
    """A supervisor with that work, and the process id of its child; `answers` are to SIGHUP."""
    script = SCRIPT.format(work=WORK[work], is_nobody=is_nobody, answers=answers)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            script,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "NOTIFY_SOCKET": notify},
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test does, nothing of it stays."""
    made: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def noted(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        made.append(popen(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    yield
    for process in made:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def lines(process: subprocess.Popen[str], last: str) -> list[str]:
    """What is printed up to a line that begins with this."""
    assert process.stdout is not None
    found: list[str] = []
    while not found or not found[-1].startswith(last):
        line = process.stdout.readline()
        assert line, found
        found.append(line.strip())
    return found


def next_child(process: subprocess.Popen[str]) -> int:
    """Process id of the child that begins next."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def is_gone_now(pid: int) -> bool:
    found = read_activity(pid)
    return found is None or found.state == "Z"


def is_gone(pid: int) -> bool:
    for _ in range(100):
        if is_gone_now(pid):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("work", "code"), [("ends", 3), ("raises", 5), ("is killed", -signal.SIGKILL)]
)
def test_the_supervisor_ends_as_its_child_ends(work: str, code: int) -> None:
    process, _ = started(work)
    assert process.wait(10) == code


def test_a_signal_is_passed_on() -> None:
    process, _ = started("waits")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize("signals", [1, 2])
def test_a_child_that_does_not_follow_is_ended(signals: int) -> None:
    process, child = started("waits on")
    time.sleep(0.2)  # until it ignores the signal
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    assert process.wait(10) == (0 if signals == 1 else 128 + signal.SIGTERM)
    assert is_gone(child)


@pytest.mark.parametrize("work", ["waits", "waits on", "spins"])
def test_the_child_ends_with_its_supervisor_whatever_it_does(work: str) -> None:
    process, child = started(work)
    process.kill()
    process.wait(10)
    assert is_gone(child)


@pytest.mark.parametrize(
    ("work", "is_fed"),
    [
        ("beats", True),
        ("waits", True),  # as for a disk: a restart would only wait again
        ("spins", False),
        ("blocks itself", False),
        ("is stopped", False),
    ],
)
@pytest.mark.parametrize("is_nobody", [False, True])
def test_the_watchdog_is_fed_while_there_is_progress_or_a_disk_is_waited_for(
    work: str, is_fed: bool, is_nobody: bool, tmp_path: Path
) -> None:
    address = f"@{tmp_path}"  # a name that is in no folder, since a folder of root's hides it
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0"))
        process, _ = started(work, notify=address, is_nobody=is_nobody)
        try:
            readable, _, _ = select.select([systemd], [], [], 2.5)
            assert bool(readable) == is_fed
            if is_fed:
                assert b"WATCHDOG=1" in systemd.recv(1000).splitlines()
        finally:
            process.kill()
            process.wait()


def test_a_systemd_that_does_not_read_stops_no_signal(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        process, _ = started("beats", notify=address)
        time.sleep(2)  # more is told than its socket holds
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


class Listener:
    """Stands for systemd: hears what the service tells."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.socket.settimeout(20)

    def heard(self, word: str) -> list[str]:
        """What is told up to the datagram in which a line begins with this word."""
        told: list[str] = []
        while not any(line.startswith(word) for line in told):
            told += self.socket.recv(1000).decode().splitlines()
        return told


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(tmp_path)
    yield listener
    listener.socket.close()


def test_systemd_hears_when_it_is_ready_reloads_is_ready_again_and_stops(
    systemd: Listener,
) -> None:
    process, _ = started("is ready", systemd.address, answers="[work, refuse]")
    assert systemd.heard("READY=1")[0] == "WATCHDOG=1"
    for _ in range(2):
        assert "READY=1" not in systemd.heard("WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        told = systemd.heard("RELOADING=1")
        assert "READY=1" not in told
        assert told[-1].startswith("MONOTONIC_USEC=")
        systemd.heard("READY=1")
    process.send_signal(signal.SIGTERM)
    systemd.heard("STOPPING=1")
    assert process.wait(20) == 0


def test_a_hang_up_lets_another_child_go_on_and_many_at_once_are_one_or_two(
    systemd: Listener,
) -> None:
    process, first = started("is ready", systemd.address, answers="[work] * 9")
    systemd.heard("READY=1")
    for _ in range(7):
        process.send_signal(signal.SIGHUP)
    told = lines(process, "asked")
    second = next_child(process)
    assert second != first
    assert is_gone(first)
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert process.stdout is not None
    told += process.stdout.read().split()
    assert told.count("asked") <= 2


def test_settings_that_are_refused_leave_the_child_alone_and_it_is_told_why(
    systemd: Listener,
) -> None:
    process, child = started("is ready", systemd.address, answers="[refuse, note]")
    systemd.heard("READY=1")
    process.send_signal(signal.SIGHUP)
    lines(process, "asked")
    systemd.heard("READY=1")
    assert not is_gone_now(child)
    process.send_signal(signal.SIGHUP)
    assert lines(process, "refusal:")[-1] == "refusal:", "what is right now is refused no more"
    next_child(process)
    systemd.heard("READY=1")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_a_child_that_cannot_begin_is_followed_by_one_with_the_former_settings(
    systemd: Listener,
) -> None:
    process, first = started("is ready", systemd.address, answers="[note, fail]")
    systemd.heard("READY=1")
    process.send_signal(signal.SIGHUP)
    lines(process, "refusal:")
    second = next_child(process)
    systemd.heard("READY=1")
    process.send_signal(signal.SIGHUP)
    *_, told = lines(process, "refusal:")
    assert "not reloaded, the service goes on with the former one." in told
    assert told.endswith("The network failed its self-test.")
    assert next_child(process) not in (first, second)
    systemd.heard("READY=1")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_a_child_that_makes_no_room_is_ended(systemd: Listener) -> None:
    """As one whose disk does not answer; what it had in hand is taken up by the next."""
    process, first = started("waits on", systemd.address, answers="[work]")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    assert not is_gone_now(first), "it is given time to become ready, and time to end"
    lines(process, "asked")
    assert next_child(process) != first
    assert is_gone(first)


@pytest.mark.parametrize("moment", ["while it ends", "while the next one begins"])
def test_a_signal_to_end_is_obeyed_in_a_reload(moment: str, systemd: Listener) -> None:
    work, answers = (
        ("waits on", "[work]") if moment == "while it ends" else ("is ready", "[waiting]")
    )
    process, _ = started(work, systemd.address, answers=answers)
    if work == "is ready":
        systemd.heard("READY=1")
    process.send_signal(signal.SIGHUP)
    lines(process, "asked")
    if work == "is ready":
        time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    code = process.wait(10)
    assert code == (0 if work == "waits on" else -signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.read() == "", "no other child was begun"


def test_a_hang_up_before_anybody_listens_is_heard_later() -> None:
    process, child = started("waits")
    for pid in (process.pid, child):
        os.kill(pid, signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    assert not is_gone_now(child)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM


def test_the_status_says_what_is_out_of_order() -> None:
    report = StatusReport(filed_since_start=1, waiting_in_inbox=0, batches_in_hand=0, is_ready=True)
    assert status_line(report).startswith("watching: 1 images filed")
    line = status_line(replace(report, problems={"inbox": "It is away."}))
    assert line.startswith("degraded: inbox: It is away. (1 images filed")


@pytest.mark.parametrize(
    ("now", "is_stuck"),
    [
        (Activity("S", 5, "request_wait_answer"), True),
        (Activity("D", 5, "rpc_wait_bit_killable"), True),
        (Activity("S", 5, ""), True),
        (Activity("S", 6, "request_wait_answer"), False),
        (Activity("R", 5, "0"), False),
        (Activity("T", 5, "do_signal_stop"), False),
        (Activity("S", 5, "futex_do_wait"), False),
    ],
)
def test_a_process_is_stuck_when_it_only_waits(now: Activity, is_stuck: bool) -> None:
    assert now.is_stuck_since(Activity("S", 5, "")) == is_stuck


def test_a_process_that_is_gone_does_nothing() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert read_activity(gone.pid) is None


def test_an_answer_in_time_is_returned() -> None:
    assert answer_in_time(lambda: [1, "two", None], 5, "it") == [1, "two", None]


def test_a_question_that_fails_has_no_answer() -> None:
    assert answer_in_time(lambda: 1 / 0, 5, "it") is None


def test_who_is_left_behind_keeps_nobody_waiting_for_the_end_of_the_output() -> None:
    ask = (
        "import time; from xray_watcher.system.deadline import answer_in_time; import signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "from unittest.mock import patch\n"
        "with patch('os.kill'):\n"  # as if it could not be killed: it waits for a share
        "    answer_in_time(lambda: time.sleep(20), 0.2, 'a share')"
    )
    began_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, check=False)
    assert b"a share does not answer" in done.stderr
    assert time.monotonic() - began_s < 10


def children() -> dict[int, str]:
    """Each child of this process, and its state in the kernel."""
    found = {}
    for file in Path("/proc/self/task").glob("*/children"):
        for pid in file.read_text().split():
            stat_line = Path(f"/proc/{pid}/stat").read_text()
            found[int(pid)] = stat_line.rpartition(")")[2].split()[0]
    return found


def test_children_that_were_left_behind_are_reaped_when_they_have_ended() -> None:
    """Dead ones count towards the unit's limit of processes, too."""
    before = children()
    for share in ("one", "two"):
        with pytest.raises(Unavailable):
            answer_in_time(lambda: time.sleep(60), 0.05, share)
    time.sleep(0.2)  # they were killed; it is the kernel's turn
    assert answer_in_time(lambda: "yes", 5, "three") == "yes"
    assert children() == before


def test_of_a_share_that_hangs_one_child_is_left_behind_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda _pid, _signal: None)  # they wait in the kernel
    before = children()
    for _ in range(5):
        with pytest.raises(Unavailable, match="a share does not answer"):
            answer_in_time(lambda: time.sleep(60), 0.05, "a share")
    (left,) = children().keys() - before.keys()
    kill(left, signal.SIGKILL)
    time.sleep(0.2)
    monkeypatch.undo()
    assert answer_in_time(lambda: "yes", 5, "a share") == "yes", "it is asked again"
    assert children() == before


def test_a_question_for_which_no_process_can_be_started_leaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Unavailable, match="no process can be started"):
        answer_in_time(lambda: "yes", 5, "a share")
    assert os.listdir("/proc/self/fd") == before


def test_no_answer_in_time_is_said() -> None:
    began_s = time.monotonic()
    with pytest.raises(Unavailable, match="/a/share does not answer"):
        answer_in_time(lambda: time.sleep(60), 0.2, "/a/share")
    assert time.monotonic() - began_s < 5
