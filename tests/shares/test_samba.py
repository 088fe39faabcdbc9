"""The recommended layout: a real smbd exports the folder with deploy/samba/xray-inbox.conf."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import samba
import uploads
from arrivals import picture_number
from samba import SENDER, STRANGER, Client, Samba
from smbprotocol.exceptions import SMBException

import audit
from machine import needs

REFUSED = (OSError, SMBException)


@pytest.fixture(autouse=True)
def _machine() -> None:
    needs(samba.missing())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Samba]:
    """A server without a service behind it."""
    root = tmp_path / "root"
    for folder in ("inbox", "logs", "rejected", "classified_images/High", ".xray-watcher"):
        (root / folder).mkdir(parents=True)
    (root / "classified_images/High/0000_a.png").write_bytes(b"an image")
    (root / "logs/results.csv").write_bytes(b"index\r\n0\r\n")
    (root / "inbox/.xray-watcher").mkdir()
    (root / "inbox/.xray-watcher/1").write_bytes(b"in hand")
    with samba.serving(tmp_path / "samba", root) as server:
        yield server


@pytest.fixture
def client(server: Samba) -> Iterator[Client]:
    client = server.client()
    yield client
    client.close()


# -- the whole way ------------------------------------------------------------------------


def test_uploads_of_every_kind_are_taken_whole_and_once(tmp_path: Path) -> None:
    with uploads.watched(tmp_path) as (service, server):
        arrived: list[bytes] = []

        def put(kind: str, first: int) -> None:
            arrived.extend(uploads.put(server, kind, range(first, first + 4)))

        threads = [
            threading.Thread(target=put, args=(kind, 10 * number))
            for number, kind in enumerate(uploads.KINDS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(arrived) == 4 * len(uploads.KINDS)
        uploads.check(service, arrived)


def test_a_service_that_does_not_look_would_be_caught(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError),
        uploads.watched(tmp_path, hasty=True) as (service, server),
    ):
        uploads.check(service, uploads.put(server, "size-first", range(12)))


def test_a_user_drops_into_folders_lists_them_and_reads_the_results(tmp_path: Path) -> None:
    with uploads.watched(tmp_path) as (service, server):
        client = server.client()
        content = picture_number(1)
        client.call("mkdir", client.path("ward 3"))
        with client.open(client.path(r"ward 3\ακτινογραφία.png")) as file:
            file.write(content)
        (client_file,) = client.call("listdir", client.path("ward 3")) or ["taken already"]
        assert client_file in ("ακτινογραφία.png", "taken already")
        service.wait_until(lambda: len(audit.logged(service.root)) == 1)
        (record,) = audit.jsonl_records(service.root)
        assert record["source"] == "ward 3"
        saved = client.path(record["saved_path"].replace("/", "\\"), "xray-results")
        with client.open(saved, "rb", "rwd") as image:
            assert image.readall() == content
        client.close()
        assert service.stop() == 0
        audit.check(service.root, [content])


@pytest.mark.parametrize("share_access", [None, "r", "rw"])
def test_a_user_with_the_day_s_csv_open_sees_rows_come_and_stops_none(
    share_access: str | None, tmp_path: Path
) -> None:
    """None locks the file for all other clients, "r" for all writers, as Excel does."""
    with uploads.watched(tmp_path) as (service, server):
        client, arrived = server.client(), []
        arrived += drop(client, 1)
        service.wait_until(lambda: len(audit.logged(service.root)) == 1)
        (csv,) = (service.root / "logs").glob("*.csv")
        path = client.path(rf"logs\{csv.name}", "xray-results")
        with client.open(path, "rb", share_access) as opened:
            before = opened.readall()
            arrived += drop(client, 2, 3)
            service.wait_until(lambda: csv.read_bytes().count(b"\r\n") == 4)
            opened.seek(0)
            now = opened.readall()
            assert now.startswith(before)
            assert now == csv.read_bytes()
        client.close()
        assert service.stop() == 0
        assert not list((service.root / "logs").glob("*.conflict-*"))
        audit.check(service.root, arrived)


def drop(client: Client, *numbers: int) -> list[bytes]:
    contents = [picture_number(number) for number in numbers]
    for number, content in zip(numbers, contents, strict=True):
        with client.open(client.path(f"{number}.png")) as file:
            file.write(content)
    return contents


def test_a_file_that_was_taken_while_its_client_had_it_open_is_filed_as_it_was_closed(
    tmp_path: Path,
) -> None:
    """A client that only reads keeps a file open; the service takes it all the same."""
    with uploads.watched(tmp_path) as (service, server):
        client = server.client()
        arrived = drop(client, 1)
        try:
            reader = client.open(client.path("1.png"), "rb", "rwd")
        except REFUSED:
            reader = None  # it was taken already
        service.wait_until(lambda: len(audit.filed(service.root)) == 1)
        if reader is not None:
            reader.close()
        client.close()
        assert service.stop() == 0
        audit.check(service.root, arrived)


# -- nothing beside it ----------------------------------------------------------------------


def test_the_results_cannot_be_written_deleted_or_renamed(client: Client) -> None:
    csv = client.path(r"logs\results.csv", "xray-results")
    image = client.path(r"classified_images\High\0000_a.png", "xray-results")
    for attempt in (
        lambda: client.open(csv, "ab"),
        lambda: client.open(csv, "wb"),
        lambda: client.call("remove", image),
        lambda: client.call("rename", image, image + "x"),
        lambda: client.call("mkdir", client.path("new", "xray-results")),
        lambda: client.open(client.path("new.txt", "xray-results"), "xb"),
        lambda: client.call("rmdir", client.path("rejected", "xray-results")),
        lambda: client.call("truncate", csv, 0),
        lambda: client.call("utime", csv, times=(1, 1)),
    ):
        with pytest.raises(REFUSED):
            attempt()
    names = client.call("listdir", client.path("", "xray-results"))
    assert sorted(names) == ["classified_images", "logs", "rejected"]  # neither inbox nor work


@pytest.mark.parametrize(
    "path",
    [
        r"..\logs\new.png",
        r"ward\..\..\logs\new.png",
        r"..\..\new.png",
        r"\..\new.png",
        r".xray-watcher\new.png",
        r".xray-watcher\1",
        r".XRAY-WATCHER\1",
    ],
)
def test_no_name_leads_out_of_the_inbox(path: str, client: Client, tmp_path: Path) -> None:
    before = everything(tmp_path)
    for writes in (True, False):
        with pytest.raises(SMBException):
            client.open_as_named(path, writes=writes)
    with pytest.raises(SMBException):
        client.open_as_named("mine.png", writes=True, renamed_to=path)
    after = everything(tmp_path)
    assert after.pop("root/inbox/mine.png") == b""
    assert after == before


def everything(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    ours = (path for path in files if "samba" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in ours}


def test_no_link_leads_out_of_the_inbox(client: Client, tmp_path: Path) -> None:
    inbox = tmp_path / "root" / "inbox"
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.txt").write_bytes(b"secret")
    (inbox / "folder").symlink_to(tmp_path / "secret")
    (inbox / "file").symlink_to(tmp_path / "secret" / "a.txt")
    for path in (r"folder\a.txt", "file"):
        for mode in ("rb", "wb", "ab"):
            with pytest.raises(REFUSED):
                client.open(client.path(path), mode)
    with pytest.raises(REFUSED):
        client.call("listdir", client.path("folder"))
    with pytest.raises(REFUSED):
        client.call("symlink", str(tmp_path / "secret"), client.path("mine"))
    assert everything(tmp_path / "secret") == {"a.txt": b"secret"}


@pytest.mark.parametrize("share", ["xray-inbox", "xray-results"])
def test_who_is_not_in_the_group_sees_nothing(share: str, server: Samba) -> None:
    stranger = server.client(STRANGER)
    with pytest.raises(REFUSED):
        stranger.call("listdir", stranger.path("", share))
    stranger.close()


@pytest.mark.parametrize("share", ["xray-inbox", "xray-results"])
@pytest.mark.parametrize(("protocol", "is_served"), [("SMB3", True), ("SMB2", False)])
def test_clients_that_cannot_encrypt_are_refused(
    share: str, protocol: str, is_served: bool, server: Samba
) -> None:
    command = ["smbclient", "-s", str(server.config), "-p", str(server.port), "-c", "ls"]
    user = ["-U", f"{SENDER}%{samba.PASSWORD}", "-m", protocol]
    listed = subprocess.run(
        [*command, *user, f"//{samba.HOST}/{share}"], capture_output=True, text=True, check=False
    )
    assert (listed.returncode == 0) == is_served, listed.stdout


def test_clients_get_no_oplock_so_that_none_holds_on_to_a_file(client: Client) -> None:
    client.open_as_named("a.png", writes=True)


def test_what_is_dropped_belongs_to_the_service_whatever_attributes_it_has(
    client: Client, tmp_path: Path
) -> None:
    with client.open(client.path("a.png")) as file:
        file.write(b"content")
        samba.set_attributes(file, read_only=True)
    client.call("mkdir", client.path("ward"))
    found = (tmp_path / "root" / "inbox" / "a.png").stat()
    assert (found.st_uid, oct(found.st_mode & 0o777)) == (os.getuid(), "0o640")
    assert (tmp_path / "root" / "inbox" / "ward").stat().st_uid == os.getuid()


def test_samba_itself_finds_no_fault_with_the_file(server: Samba) -> None:
    checked = subprocess.run(
        [samba.program("testparm"), "-s", str(server.config)],
        capture_output=True,
        text=True,
        check=True,
    )
    complaints = ("unknown parameter", "warning", "error", "deprecated")
    assert not [line for line in checked.stderr.splitlines() if line.lower().startswith(complaints)]
    assert not [line for line in checked.stderr.splitlines() if "gnoring" in line]


def test_a_service_that_waits_for_nothing_but_the_client_takes_at_once_when_it_closes(
    tmp_path: Path,
) -> None:
    with uploads.watched(tmp_path) as (service, server):
        client = server.client()
        content = picture_number(1)
        with client.open(client.path("1.png")) as file:
            file.write(content)
            time.sleep(3)
            assert not audit.filed(service.root), "it was taken while its client had it open"
        service.wait_until(lambda: len(audit.filed(service.root)) == 1, seconds=20)
        client.close()
        assert service.stop() == 0
