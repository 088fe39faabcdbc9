"""`sd_notify`: what a real socket hears, under a file's name and under an abstract one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from xray_watcher.system.sd_notify import READY, WATCHDOG, Systemd, reloading, status


@pytest.fixture(params=["file", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """As NOTIFY_SOCKET would have it."""
    if request.param == "file":
        return str(tmp_path / "notify")
    return f"@xray-watcher-test-{os.getpid()}"


@pytest.fixture
def systemd(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address.replace("@", "\0", 1))
        listening.settimeout(10)
        yield listening


def test_the_lines_of_one_message_arrive_in_one_datagram(
    systemd: socket.socket, address: str
) -> None:
    Systemd({"NOTIFY_SOCKET": address}).notify(READY, WATCHDOG)
    assert systemd.recv(1000) == b"READY=1\nWATCHDOG=1"


def test_a_reload_says_when_it_began(systemd: socket.socket, address: str) -> None:
    Systemd({"NOTIFY_SOCKET": address}).notify(*reloading())
    first, second = systemd.recv(1000).decode().splitlines()
    name, _, microseconds = second.partition("=")
    assert (first, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert int(microseconds) > 0


def test_a_status_is_one_line_whatever_it_holds() -> None:
    assert status("away:\n  READY=1\r x") == "STATUS=away: READY=1 x"


def test_a_socket_that_is_full_or_gone_keeps_nobody_waiting(
    systemd: socket.socket, address: str
) -> None:
    to_systemd = Systemd({"NOTIFY_SOCKET": address})
    for _ in range(2000):  # more than it holds
        to_systemd.notify(WATCHDOG)
    systemd.close()
    to_systemd.notify(READY)


def test_without_systemd_nobody_is_told() -> None:
    Systemd({}).notify(READY)
