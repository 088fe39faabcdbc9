"""A local inbox that is deleted, moved, put in its place anew, or covered by another mount."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from arrivals import picture_number
from kill_storm import COMMAND

import audit
from machine import needs
from service import Service


@pytest.fixture(params=["below the root", "apart"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """Its work folder lies below the root, or in the inbox when that lies apart."""
    env = {"XRAY_WATCHER_INTAKE__SCAN_SECONDS": "1"}
    if request.param == "apart":
        env["XRAY_WATCHER_INTAKE__INBOX"] = str(tmp_path / "apart" / "inbox")
    service = Service(tmp_path / "root", command=COMMAND, **env)
    if request.param == "apart":
        service.inbox = tmp_path / "apart" / "inbox"
    service.start()
    try:
        service.wait_until(lambda: "watching" in service.log.read_text())
        yield service
    finally:
        service.kill()


def put(_service: Service, folder: Path, number: int) -> bytes:
    content = picture_number(number)
    (folder / f"{number}.png").write_bytes(content)
    return content


def filed(service: Service) -> int:
    return len(audit.filed(service.root))


def problem(service: Service) -> str:
    """What status says of the inbox; empty when all is well."""
    problems = json.loads(service.command("status", "--json").stdout)["troubles"]
    return str(problems.get("inbox", ""))


def end(service: Service, arrived: list[bytes]) -> None:
    service.wait_until(lambda: filed(service) == len(arrived))
    service.wait_until(lambda: not problem(service))
    assert service.stop() == 0
    audit.check(service.root, arrived, inbox=service.inbox)


def test_an_inbox_that_is_moved_away_is_waited_for(service: Service) -> None:
    arrived = [put(service, service.inbox, 1)]
    service.wait_until(lambda: filed(service) == 1)
    aside = service.inbox.with_name("aside")
    os.rename(service.inbox, aside)
    service.wait_until(lambda: "is not there" in problem(service))
    put(service, aside, 2)
    time.sleep(3)
    assert filed(service) == 1, "it followed the folder to another place"
    assert not service.inbox.exists(), "it was made anew"
    os.rename(aside, service.inbox)
    end(service, [*arrived, picture_number(2)])


def test_an_inbox_that_is_deleted_and_made_again_goes_on(service: Service) -> None:
    arrived = [put(service, service.inbox, 1)]
    service.wait_until(lambda: filed(service) == 1)
    is_apart = (service.inbox / ".xray-watcher").exists()
    aside = service.inbox.with_name("aside")
    os.rename(service.inbox, aside)
    service.wait_until(lambda: "is not there" in problem(service))
    service.inbox.mkdir()
    arrived.append(put(service, service.inbox, 2))
    if is_apart:  # its work folder is gone with it: that is another folder than the one it knew
        time.sleep(3)
        assert "is not there" in problem(service)
        assert filed(service) == 1
        os.rename(aside / ".xray-watcher", service.inbox / ".xray-watcher")
    end(service, arrived)


def test_another_folder_put_in_place_between_two_looks_is_watched(service: Service) -> None:
    if (service.inbox / ".xray-watcher").exists():
        pytest.skip("the work folder would be another too: see the test above")
    arrived = [put(service, service.inbox, 1)]
    service.wait_until(lambda: filed(service) == 1)
    aside = service.inbox.with_name("aside")
    aside.mkdir()
    os.rename(service.inbox, service.inbox.with_name("old"))
    os.rename(aside, service.inbox)
    arrived += [put(service, service.inbox, number) for number in range(2, 6)]
    end(service, arrived)


@pytest.mark.parametrize("covered", ["the inbox", "its parent"])
def test_a_mount_over_the_inbox_is_not_the_inbox(service: Service, covered: str) -> None:
    needs(None if os.geteuid() == 0 else "it needs root to mount")
    arrived = [put(service, service.inbox, 1)]
    service.wait_until(lambda: filed(service) == 1)
    cover = service.inbox if covered == "the inbox" else service.inbox.parent
    with covering(cover):
        service.inbox.mkdir(exist_ok=True)
        stray = put(service, service.inbox, 2)
        service.wait_until(lambda: bool(problem(service)))
        time.sleep(3)
        assert "Is the share mounted" in problem(service)
        found = {path for path in cover.rglob("*") if path.is_file()}
        assert found == {service.inbox / "2.png"}, "something was claimed or written there"
        assert (service.inbox / "2.png").read_bytes() == stray
    arrived.append(put(service, service.inbox, 3))
    end(service, arrived)


@contextmanager
def covering(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
