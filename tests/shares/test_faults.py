"""An inbox on a share that errs, hangs and goes away: a FUSE file system that does all that."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from arrivals import picture_number
from kill_storm import COMMAND

import audit
from machine import lacking, needs
from service import Service

pytestmark = pytest.mark.timeout(300)
HERE = Path(__file__).parent


class Share:
    """A pass-through file system whose misbehaviour is set by `becomes`."""

    def __init__(self, folder: Path) -> None:
        self.source, self.mounted = folder / "on-the-server", folder / "mounted"
        self._control = folder / "control"
        for made in (self.source, self.mounted):
            made.mkdir()
        self.becomes("ok")
        self._server: subprocess.Popen[bytes] | None = None

    def becomes(self, mode: str) -> None:
        new = self._control.with_suffix(".new")
        new.write_text(mode)
        os.rename(new, self._control)

    def mount(self) -> None:
        script = str(HERE / "passthrough.py")
        self._server = subprocess.Popen(
            [sys.executable, script, str(self.source), str(self.mounted), str(self._control)],
            stderr=subprocess.DEVNULL,
        )
        for _ in range(200):
            if os.path.ismount(self.mounted):
                return
            time.sleep(0.05)
        raise RuntimeError("the file system was not mounted")

    def crash(self) -> None:
        """The server is gone: every call fails with ENOTCONN."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def unmount(self) -> None:
        """An empty folder lies where the share was."""
        subprocess.run(["fusermount3", "-u", "-z", self.mounted], capture_output=True, check=False)
        if self._server is not None:
            self._server.kill()
            self._server.wait()


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Share]:
    needs(lacking(fusermount3="fuse3"))
    needs(None if os.access("/dev/fuse", os.W_OK) else "/dev/fuse may not be used")
    share = Share(tmp_path)
    share.mount()
    yield share
    share.becomes("ok")
    share.unmount()


@pytest.fixture
def service(share: Share, tmp_path: Path) -> Iterator[Service]:
    """A service with local results whose inbox is the share."""
    with _service(tmp_path / "root", share.mounted / "inbox") as service:
        yield service


@contextmanager
def _service(root: Path, inbox: Path, **env: str) -> Iterator[Service]:
    inbox.mkdir(parents=True)
    service = Service(
        root,
        command=COMMAND,
        XRAY_WATCHER_INTAKE__INBOX=str(inbox),
        XRAY_WATCHER_INTAKE__SCAN_SECONDS="1",
        **env,
    )
    yield service
    service.kill()


def send(share: Share, *numbers: int) -> list[bytes]:
    """Other hosts put pictures on the share, whatever we see of it."""
    contents = [picture_number(number) for number in numbers]
    for number, content in zip(numbers, contents, strict=True):
        (share.source / "inbox" / f"{number}.png").write_bytes(content)
    return contents


def filed(service: Service) -> int:
    return len(audit.filed(service.root))


def troubles(service: Service) -> dict[str, str]:
    import json  # noqa: PLC0415

    found: dict[str, str] = json.loads(service.command("status", "--json").stdout)["troubles"]
    return found


@pytest.mark.parametrize("error", ["EIO", "ESTALE", "EHOSTDOWN", "ETIMEDOUT", "EACCES", "ENOENT"])
def test_a_share_that_errs_is_waited_for_and_nothing_is_lost(
    error: str, share: Share, service: Service
) -> None:
    arrived = send(share, 1, 2)
    service.start()
    service.wait_until(lambda: filed(service) == 2)
    arrived += send(share, 3, 4, 5)
    time.sleep(0.3)
    share.becomes(error)
    service.wait_until(lambda: bool(troubles(service)))
    arrived += send(share, 6)
    share.becomes("ok")
    service.wait_until(lambda: filed(service) == 6)
    service.wait_until(lambda: not troubles(service))
    assert service.stop() == 0
    audit.check(service.root, arrived, inbox=service.inbox)


def test_a_share_that_hangs_stops_neither_status_nor_watchdog_nor_signals(
    share: Share, tmp_path: Path
) -> None:
    address = str(tmp_path / "systemd")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        _service(tmp_path / "root", share.mounted / "inbox", NOTIFY_SOCKET=address) as service,
    ):
        systemd.bind(address)
        arrived = send(share, 1)
        service.start()
        service.wait_until(lambda: filed(service) == 1)
        share.becomes("hang")
        arrived += send(share, 2)
        time.sleep(33)
        systemd.setblocking(False)
        while _is_fed(systemd):
            pass  # what was told before it hung, and at first
        assert "does not answer" in troubles(service)["hangs"]
        systemd.settimeout(8)
        assert _is_fed(systemd), "the watchdog would have ended a service that only waits"
        share.becomes("ok")
        service.wait_until(lambda: filed(service) == 2)  # it goes on by itself
        share.becomes("hang")
        arrived += send(share, 3)
        time.sleep(3)
        assert service.process is not None
        worker = service.worker_pid
        began_s = time.monotonic()
        assert service.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began_s < 10.5
        share.becomes("ok")
        _wait_for_the_end_of(worker)
        service.start()
        service.wait_until(lambda: filed(service) == 3)
        assert service.stop() == 0
        audit.check(service.root, arrived, inbox=share.mounted / "inbox")


def _is_fed(systemd: socket.socket) -> bool:
    try:
        return systemd.recv(100) == b"WATCHDOG=1"
    except (BlockingIOError, TimeoutError):
        return False


def _wait_for_the_end_of(pid: int) -> None:
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}"):
            return
        time.sleep(0.05)
    raise AssertionError("the process that was left behind lives on although the share answers")


@pytest.mark.parametrize("mode", ["plain", "rename-then-error"])
def test_everything_on_a_share_without_links_and_with_lost_replies(
    mode: str, share: Share, tmp_path: Path
) -> None:
    (share.source / "root").mkdir()
    root = share.mounted / "root"
    with _service(tmp_path / "root", root / "inbox", XRAY_WATCHER_ROOT=str(root)) as service:
        folder = share.source / "root" / "inbox"
        arrived = [picture_number(number) for number in range(20)]
        arrived += [arrived[0], b"notes"]
        service.start()
        service.wait_until(lambda: "watching" in service.log.read_text())
        share.becomes(mode)
        for number, content in enumerate(arrived):
            (folder / f"{number}.png").write_bytes(content)
        time.sleep(3)
        if mode == "rename-then-error":
            share.becomes("plain")
        service.wait_until(lambda: len(audit.filed(root)) == len(arrived))
        assert service.stop() == 0
        audit.check(root, arrived)


def test_a_share_that_disappears_and_comes_back_goes_on_without_a_restart(
    share: Share, service: Service
) -> None:
    arrived = send(share, 1)
    service.start()
    service.wait_until(lambda: filed(service) == 1)
    share.crash()
    service.wait_until(lambda: "inbox" in troubles(service))
    share.unmount()
    (share.mounted / "inbox").mkdir()  # an empty mount point looks like an empty inbox
    time.sleep(2)
    assert "inbox" in troubles(service)
    (share.mounted / "inbox").rmdir()
    arrived += send(share, 2, 3)
    share.mount()
    service.wait_until(lambda: filed(service) == 3)
    assert service.stop() == 0
    audit.check(service.root, arrived, inbox=service.inbox)
