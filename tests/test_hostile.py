"""A folder full of hostile files among good ones, and the real service with its real decoder."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import hostile
import pytest
from arrivals import picture_number

import audit
from deep import deep_tree
from service import STUB, Service

MEMORY_BYTES = 1 << 30  # what a decoder may have
GOOD = 60


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "root", command=STUB, XRAY_WATCHER_BATCH__MAX_SIZE="8")
    yield made
    made.kill()


class MemoryOfDecoders:
    """Looks again and again how much memory the service's children ever had."""

    def __init__(self, worker_pid: int) -> None:
        self.most_bytes = 0
        self.children: set[int] = set()
        self._children_file = f"/proc/{worker_pid}/task/{worker_pid}/children"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, args=(worker_pid,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look_on(self, worker_pid: int) -> None:
        while not self._ended.wait(0.02):
            for path in Path(f"/proc/{worker_pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # one that ends meanwhile
                    for pid in path.read_text().split():
                        self._look_at(int(pid))

    def _look_at(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            peaks = [line.split()[1] for line in lines if line.startswith("VmHWM")]
            self.children.add(pid)
            self.most_bytes = max(self.most_bytes, *(1024 * int(peak) for peak in peaks), 0)


def drop(folder: Path, files: dict[str, bytes], suffix: str) -> list[bytes]:
    for name, content in files.items():
        (folder / f"{name}{suffix}").write_bytes(content)
    return list(files.values())


def test_hostile_files_are_set_aside_and_harm_neither_neighbours_nor_the_service(
    service: Service,
) -> None:
    good = {f"{number:03d} good": picture_number(number) for number in range(GOOD)}
    bad, heavy = hostile.not_whole(), hostile.heavy_or_damaged_unseen()
    service.start()
    service.wait_until(lambda: service.log.exists() and "watching" in service.log.read_text())
    before = service.worker_pid
    with MemoryOfDecoders(before) as memory:
        arrived = [
            *drop(service.inbox, bad, ".png"),
            *drop(service.inbox, good, ".jpg"),
            *drop(service.inbox, heavy, ".JPEG"),
        ]
        service.wait_until(lambda: len(audit.logged(service.root)) >= len(arrived))
    assert service.worker_pid == before, "the service was started again"
    assert service.stop() == 0
    audit.check(service.root, arrived)
    records = audit.jsonl_records(service.root)
    classified = {record["sha256"] for record in records if "rejected" not in record}
    accepted = [name for name, data in bad.items() if audit.sha256(data) in classified]
    assert not accepted, f"accepted though not whole: {accepted}"
    assert classified >= {audit.sha256(content) for content in good.values()}
    assert memory.children
    assert 0 < memory.most_bytes < MEMORY_BYTES
    print(f"{len(bad)} + {len(heavy)} hostile files, most memory {memory.most_bytes >> 20} MB")


def test_what_is_no_file_is_never_opened_and_stays_where_it_is(
    service: Service, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture_number(7))
    inbox = service.inbox
    (inbox / "link.png").symlink_to(secret)
    (inbox / "dangling.png").symlink_to(tmp_path / "nowhere")
    (inbox / "folder link").symlink_to(tmp_path)
    os.mkfifo(inbox / "pipe.png")
    (inbox / "folder.png").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(inbox / "socket.png"))
    if os.geteuid() == 0:
        os.mknod(inbox / "device.png", 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # endless zeros
    before = sorted(path.name for path in inbox.iterdir())
    times = os.stat(secret).st_atime_ns
    (inbox / "good.png").write_bytes(picture_number(1))
    service.start()
    service.wait_until(lambda: len(audit.logged(service.root)) == 1)
    assert service.stop() == 0
    listening.close()
    assert sorted(path.name for path in inbox.iterdir()) == before
    assert os.stat(secret).st_atime_ns == times
    assert [p.read_bytes() for p in audit.filed(service.root).values()] == [picture_number(1)]


def test_folders_deeper_than_recursion_and_paths_reach_harm_nothing(
    service: Service, tmp_path: Path
) -> None:
    service.start()
    service.wait_until(lambda: service.log.exists() and "watching" in service.log.read_text())
    before = service.worker_pid
    (tmp_path / "made").mkdir()
    with (
        deep_tree(str(tmp_path / "made"), "d", 1100) as bottom,
        deep_tree(str(service.inbox), "n" * 200, 30) as out_of_reach,
    ):
        for number, folder in enumerate((bottom, out_of_reach)):
            with open(os.open("a.png", os.O_CREAT | os.O_WRONLY, dir_fd=folder), "wb") as file:
                file.write(picture_number(number))
        (tmp_path / "made" / "d").rename(service.inbox / "d")
        service.wait_until(lambda: len(audit.logged(service.root)) == 1)
        (service.inbox / "good.png").write_bytes(picture_number(2))
        service.wait_until(lambda: len(audit.logged(service.root)) == 2)
        assert service.worker_pid == before, "the service was started again"
        assert service.stop() == 0
        assert os.listdir(out_of_reach) == ["a.png"]
        (service.inbox / "d").rename(tmp_path / "made" / "d")
    audit.check(service.root, [picture_number(0), picture_number(2)])


def test_who_holds_another_name_of_a_file_cannot_change_what_is_filed(
    service: Service, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(picture_number(1))
    os.link(outside, service.inbox / "inside.png")
    service.start("--once")
    assert service.ended() == 0
    outside.write_bytes(b"another picture")
    audit.check(service.root, [picture_number(1)])
