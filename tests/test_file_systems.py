"""File systems as they are: mounts, shares and odd files. Each is filed, or is told what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import faults
import fuse_share
import odd_share
import pytest
from arrivals import picture_number
from progress_life import Systemd

import audit
import namespace
from machine import lacking, needs
from namespace import Namespace
from service import STUB, Service

SOON_S = 60.0
"""For a few files, on a machine that has other work."""

QUICKER = {
    "XRAY_WATCHER_INTAKE__SETTLE_SECONDS": "0.3",
    "XRAY_WATCHER_INTAKE__SCAN_SECONDS": "1",
}


def put(folder: Path, *numbers: int) -> list[bytes]:
    contents = [picture_number(number) for number in numbers]
    for number, content in zip(numbers, contents, strict=True):
        (folder / f"{number}.png").write_bytes(content)
    return contents


def ended(service: Service) -> int:
    """Its exit code; one that does not end is killed."""
    assert service.process is not None
    try:
        return service.process.wait(SOON_S)
    except subprocess.TimeoutExpired:
        service.kill()
        raise AssertionError(f"it does not end: {service.log.read_text()[-2000:]}") from None


def problems(service: Service) -> dict[str, str]:
    found: dict[str, str] = json.loads(service.command("status", "--json").stdout)["troubles"]
    return found


# -- mounts -------------------------------------------------------------------------------


@pytest.fixture
def mounts() -> Iterator[Namespace]:
    needs(namespace.missing())
    with namespace.namespace() as made:
        yield made


def inbox_bound(space: Namespace, root: Path) -> None:
    """As `docker run -v`: a folder of the same disk, but another mount."""
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    space.mount("--bind", elsewhere, root / "inbox")


def inbox_in_memory(space: Namespace, root: Path) -> None:
    space.mount("-t", "tmpfs", "tmpfs", root / "inbox")


def results_bound(space: Namespace, root: Path) -> None:
    for name in ("classified_images", "rejected", "logs"):
        (root / name).mkdir()
        elsewhere = root.parent / f"elsewhere-{name}"
        elsewhere.mkdir()
        space.mount("--bind", elsewhere, root / name)


def results_in_memory(space: Namespace, root: Path) -> None:
    (root / "classified_images").mkdir()
    space.mount("-t", "tmpfs", "tmpfs", root / "classified_images")


def all_on_overlay(space: Namespace, root: Path) -> None:
    """What was there before lies in the lower layer: its inode changes when it is moved."""
    layers = root.parent / "layers"
    layers.mkdir()
    space.mount("-t", "tmpfs", "tmpfs", layers)
    for name in ("upper", "work"):
        space.seen(layers / name).mkdir()
    options = f"lowerdir={root},upperdir={layers}/upper,workdir={layers}/work"
    space.mount("-t", "overlay", "overlay", "-o", options, root)


LAYOUTS = (inbox_bound, inbox_in_memory, results_bound, results_in_memory, all_on_overlay)


@pytest.mark.parametrize("once", [True, False], ids=["run --once", "run"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_is_filed_however_its_folders_are_mounted(
    layout: Callable[[Namespace, Path], None], once: bool, mounts: Namespace, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    service = Service(root, command=(*mounts.command, *STUB), **QUICKER)
    arrived = put(service.inbox, 1, 2) if layout is all_on_overlay else []
    layout(mounts, root)
    seen = mounts.seen(root)
    arrived += put(seen / "inbox", 3, 4)
    try:
        service.start(*(["--once"] if once else []))
        if once:
            assert ended(service) == 0, service.log.read_text()
        else:
            service.wait_until(lambda: len(audit.filed(seen)) == len(arrived), SOON_S)
            assert not problems(service)
            assert service.stop() == 0
    finally:
        service.kill()
    audit.check(seen, arrived, inbox=seen / "inbox")


@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_a_folder_of_the_inbox_from_elsewhere_is_filed_or_it_is_said_what_it_is(
    kind: str, mounts: Namespace, tmp_path: Path
) -> None:
    service = Service(tmp_path / "root", command=(*mounts.command, *STUB), **QUICKER)
    mounted = service.inbox / "ct"
    mounted.mkdir()
    if kind == "bind":
        (tmp_path / "elsewhere").mkdir()
        mounts.mount("--bind", tmp_path / "elsewhere", mounted)
    else:
        mounts.mount("-t", "tmpfs", "tmpfs", mounted)
    arrived = put(service.inbox, 1, 2)
    put(mounts.seen(mounted), 3)
    try:
        service.start()
        service.wait_until(lambda: len(audit.filed(service.root)) >= len(arrived), SOON_S)
        time.sleep(3)
        if len(audit.filed(service.root)) == len(arrived):  # one rename cannot reach it
            assert "mount" in problems(service).get("files", ""), problems(service)
        assert service.stop() == 0
    finally:
        service.kill()
    names = {path.name.partition("_")[2] for path in audit.filed(service.root).values()}
    assert names >= {"1.png", "2.png"}


# -- shares -------------------------------------------------------------------------------


@pytest.mark.parametrize("once", [True, False], ids=["run --once", "run"])
def test_files_whose_inodes_change_at_each_look_are_filed(once: bool, tmp_path: Path) -> None:
    needs(fuse_share.missing())
    with odd_share.mounted(tmp_path, "inodes") as (server, share):
        check_filed(server, share, tmp_path, once=once)


@pytest.mark.parametrize("once", [True, False], ids=["run --once", "run"])
def test_a_share_that_gives_no_leases_is_filed_all_the_same(once: bool, tmp_path: Path) -> None:
    needs(fuse_share.missing() or faults.missing())
    rules = faults.Faults(tmp_path)
    rules.add("setlease", "EAGAIN", mark=".png")
    rules.add("setlease", "EAGAIN", mark="0000000")  # claimed
    with odd_share.mounted(tmp_path, "plain") as (server, share):
        check_filed(server, share, tmp_path, once=once, **rules.env)


def check_filed(server: Path, share: Path, folder: Path, *, once: bool, **env: str) -> None:
    (server / "inbox").mkdir()
    env["XRAY_WATCHER_INTAKE__INBOX"] = str(share / "inbox")
    service = Service(folder / "root", command=STUB, **QUICKER, **env)
    arrived = put(server / "inbox", 1, 2)
    try:
        service.start(*(["--once"] if once else []))
        if once:
            assert ended(service) == 0, service.log.read_text()
        else:
            service.wait_until(lambda: len(audit.filed(service.root)) == 2, SOON_S)
            assert not problems(service)
            assert service.stop() == 0
    finally:
        service.kill()
    audit.check(service.root, arrived, inbox=server / "inbox")


ENTRIES = 3000


def test_a_slow_look_tells_of_its_progress(tmp_path: Path) -> None:
    needs(fuse_share.missing())
    with odd_share.mounted(tmp_path, "slow") as (server, share):
        (server / "inbox").mkdir()
        for number in range(ENTRIES):
            (server / "inbox" / f"{number}.txt").touch()
        systemd = Systemd(tmp_path / "systemd")
        service = Service(
            tmp_path / "root",
            command=STUB,
            XRAY_WATCHER_INTAKE__INBOX=str(share / "inbox"),
            NOTIFY_SOCKET=systemd.address,
            **QUICKER,
        )

        def looked_at(entries: int) -> bool:
            return int((tmp_path / "server.looked").read_text() or "0") >= entries

        try:
            service.start()
            service.wait_until(lambda: looked_at(200))
            before = systemd.fed
            service.wait_until(lambda: looked_at(ENTRIES - 200))
            fed = systemd.fed - before
        finally:
            service.kill()
            systemd.close()
        assert fed, "the watchdog would have ended it before its first look is over"


# -- odd files ----------------------------------------------------------------------------


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "root", command=STUB, **QUICKER)
    try:
        yield service
    finally:
        service.kill()


def filed(service: Service) -> set[str]:
    return {path.name.partition("_")[2] for path in audit.filed(service.root).values()}


HOLDER = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print(flush=True)
sys.stdin.read()
"""


def test_a_file_on_which_another_program_has_a_lease_holds_no_other_up(service: Service) -> None:
    service.start()
    service.wait_until(lambda: service.log.exists() and "watching" in service.log.read_text())
    arrived = put(service.root, 5)  # beside the inbox, until the lease is taken
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(service.root / "5.png")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        os.rename(service.root / "5.png", service.inbox / "5.png")
        arrived += put(service.inbox, 1, 9)
        service.wait_until(lambda: filed(service) >= {"1.png", "9.png"}, 10)
        assert not problems(service).keys() & {"inbox", "work"}
    finally:
        holder.communicate()
    service.wait_until(lambda: "5.png" in filed(service), SOON_S)
    assert service.stop() == 0
    audit.check(service.root, arrived)


def test_a_file_of_200_gb_is_set_aside_before_it_is_read(service: Service) -> None:
    with (service.inbox / "x.png").open("wb") as sparse:
        sparse.truncate(200 * 10**9)
    put(service.inbox, 1)
    service.start()
    service.wait_until(lambda: filed(service) == {"x.png", "1.png"}, SOON_S)
    assert service.stop() == 0
    (record,) = [r for r in audit.jsonl_records(service.root) if "rejected" in r]
    assert record["rejected"]["code"] == "too_large"
    (moved,) = (service.root / "rejected").glob("*_x.png")
    assert (moved.stat().st_size, moved.stat().st_blocks) == (200 * 10**9, 0)


NOT_PEOPLES = (
    "ward7/@eaDir/film.png/SYNOPHOTO_THUMB_XL.png",
    "#recycle/deleted.png",
    "@Recycle/deleted.png",
    "$RECYCLE.BIN/S-1-5-21/$RABC123.png",
    "#snapshot/GMT-2026.01.01/ward7/old.png",
    "~snapshot/hourly.0/old.png",
    "@Recently-Snapshot/old.png",
    "__MACOSX/ward7/film.png",
    "System Volume Information/film.png",
    "Network Trash Folder/film.png",
    "lost+found/film.png",
    ".Trash-1000/files/film.png",
)


def test_what_nas_systems_leave_about_is_no_film(service: Service) -> None:
    for number, name in enumerate(NOT_PEOPLES):
        path = service.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture_number(100 + number))
    (service.inbox / "ward7" / "film.png").write_bytes(picture_number(1))
    service.start("--once")
    assert ended(service) == 0
    paths = [record["inbox_path"] for record in audit.jsonl_records(service.root)]
    assert paths == ["ward7/film.png"]
    assert all((service.inbox / name).exists() for name in NOT_PEOPLES)


def test_a_folder_that_the_service_may_not_enter_is_told_of(tmp_path: Path) -> None:
    needs(None if os.geteuid() == 0 else "only root has a folder of another user")
    needs(lacking(setpriv="util-linux"))
    without = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    service = Service(tmp_path / "root", command=(*without, *STUB), **QUICKER)
    closed = service.inbox / "ct"
    closed.mkdir()
    put(closed, 3)
    arrived = put(service.inbox, 1)
    os.chown(closed, 5555, 5555)
    closed.chmod(0o700)
    try:
        service.start()
        service.wait_until(lambda: filed(service) == {"1.png"}, SOON_S)
        service.wait_until(lambda: "files" in problems(service), 10)
        closed.chmod(0o755)
        os.chown(closed, 0, 0)
        service.wait_until(lambda: "files" not in problems(service), SOON_S)
        arrived.append(picture_number(3))
        service.wait_until(lambda: filed(service) == {"1.png", "3.png"}, SOON_S)
        assert service.stop() == 0
    finally:
        service.kill()
    audit.check(service.root, arrived)
