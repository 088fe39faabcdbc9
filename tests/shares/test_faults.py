"""An inbox on a share that errs, hangs and goes away: a FUSE file system does all that."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from fuse_share import Share
from on_share import OnShare, service_on

ERRORS = ("EIO", "ESTALE", "EHOSTDOWN", "ETIMEDOUT", "ENOTCONN", "EACCES", "ENOENT")


@pytest.mark.parametrize("error", ERRORS)
def test_a_share_that_errs_is_waited_for_and_nothing_is_lost(
    error: str, share: Share, service: OnShare
) -> None:
    service.send(1, 2)
    service.start()
    service.wait_until(lambda: service.filed == 2)
    service.send(3, 4, 5)
    time.sleep(0.3)
    share.becomes(error)
    service.wait_until(lambda: not service.is_well())
    service.send(6)
    share.becomes("ok")
    service.wait_until(lambda: service.filed == 6)
    service.wait_until(service.is_well)
    assert service.stop() == 0
    service.check()


def test_a_share_that_hangs_stops_neither_status_nor_watchdog_nor_signals(
    share: Share, tmp_path: Path
) -> None:
    address = str(tmp_path / "systemd")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        service_on(share, tmp_path / "root", NOTIFY_SOCKET=address) as service,
    ):
        systemd.bind(address)
        service.send(1)
        service.start()
        service.wait_until(lambda: service.filed == 1)
        share.becomes("hang")
        service.send(2)
        service.wait_until(lambda: "hangs" in service.problems())
        assert "does not answer" in service.problems()["hangs"]
        assert is_fed_again(systemd), "the watchdog would have ended a service that only waits"
        share.becomes("ok")
        service.wait_until(lambda: service.filed == 2)  # it goes on by itself
        share.becomes("hang")
        service.send(3)
        time.sleep(3)
        worker = service.worker_pid
        began_s = time.monotonic()
        assert service.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began_s < 9.5 + 3  # the outer process grants 9.5 s
        share.becomes("ok")
        wait_for_the_end_of(worker)
        service.start()
        service.wait_until(lambda: service.filed == 3)
        assert service.stop() == 0
        service.check()


def is_fed_again(systemd: socket.socket) -> bool:
    """Whether the watchdog is fed after all that it was told before."""
    systemd.setblocking(False)
    try:
        while systemd.recv(100):
            pass
    except BlockingIOError:
        systemd.settimeout(20)
    return systemd.recv(100) == b"WATCHDOG=1"


def wait_for_the_end_of(pid: int) -> None:
    for _ in range(400):
        if not os.path.exists(f"/proc/{pid}"):
            return
        time.sleep(0.05)
    raise AssertionError("the process that was left behind lives on although the share answers")


@pytest.mark.parametrize("mode", ["plain", "rename-then-error"])
def test_everything_on_a_share_without_links_and_with_lost_replies(
    mode: str, share: Share, service_on_share: OnShare
) -> None:
    service = service_on_share
    service.start()
    service.wait_until(service.is_watching)
    share.becomes(mode)
    service.send(*range(20))
    (service.inbox_on_server / "again.png").write_bytes(service.arrived[0])
    (service.inbox_on_server / "notes.png").write_bytes(b"notes")
    time.sleep(3)
    if mode == "rename-then-error":
        share.becomes("plain")
    service.wait_until(lambda: service.filed == 22)
    service.wait_until(service.is_well)
    assert service.stop() == 0
    service.check([service.arrived[0], b"notes"])


def test_a_share_that_disappears_and_comes_back_goes_on_without_a_restart(
    share: Share, service: OnShare
) -> None:
    service.send(1)
    service.start()
    service.wait_until(lambda: service.filed == 1)
    share.crash()
    service.wait_until(lambda: "inbox" in service.problems())
    share.unmount()
    service.inbox.mkdir(parents=True)  # an empty mount point looks like an empty inbox
    (service.inbox / "stray.png").write_bytes(b"put under the mount point")
    time.sleep(3)
    assert "inbox" in service.problems()
    assert [path.name for path in share.mounted.rglob("*")] == ["root", "inbox", "stray.png"]
    (service.inbox / "stray.png").unlink()
    service.inbox.rmdir()
    service.inbox.parent.rmdir()
    service.send(2, 3)
    share.mount()
    service.wait_until(lambda: service.filed == 3)
    assert service.stop() == 0
    service.check()


def test_a_share_that_is_gone_may_be_unmounted_while_the_service_waits(
    share: Share, service: OnShare
) -> None:
    service.start()
    service.wait_until(service.is_watching)
    share.crash()
    service.wait_until(lambda: "inbox" in service.problems())
    time.sleep(1)
    subprocess.run(["fusermount3", "-u", share.mounted], check=True)


def test_images_in_hand_are_not_called_missing_when_their_share_is_away(
    share: Share, tmp_path: Path
) -> None:
    with service_on(
        share, tmp_path / "root", everything=True, XRAY_STUB_WAITS_FOR=str(tmp_path / "go")
    ) as service:
        service.send(1, 2, 3)
        service.start()
        work = service.inbox_on_server.parent / ".xray-watcher"
        service.wait_until(lambda: len(list(work.glob("0*"))) == 3)
        share.unmount()
        (tmp_path / "go").touch()  # they are scored now
        service.wait_until(lambda: {"folders", "inbox"} & set(service.problems()))
        time.sleep(2)
        assert list(share.mounted.iterdir()) == [], "something was written under the mount point"
        share.mount()
        service.wait_until(lambda: service.filed == 3)
        service.wait_until(service.is_well)
        assert service.stop() == 0
        service.check()
