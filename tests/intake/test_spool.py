"""`intake.spool`: the only module that moves images; nothing is overwritten or changed."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xray_watcher.core.naming import MAX_NAME_BYTES, indexed_name
from xray_watcher.core.values import HANDOVER, INBOX, Origin, SeenFile
from xray_watcher.errors import Unavailable
from xray_watcher.intake import filing as filing_module
from xray_watcher.intake import handover_source as handover_module
from xray_watcher.intake import work_folder as work_module
from xray_watcher.intake.claims import (
    ChangedAfterClaim,
    FileProblem,
    Move,
    NameRefused,
    TargetTaken,
)
from xray_watcher.intake.returned import Returned
from xray_watcher.intake.spool import Spool
from xray_watcher.intake.work_folder import is_unchanged
from xray_watcher.system import files
from xray_watcher.system.files import directory

WHOLE_PNG = b"\x89PNG\r\n\x1a\n" + bytes(30) + b"\x00\x00\x00\x00IEND\xaeB`\x82"
HALF_PNG = WHOLE_PNG[:-5]
OTHER = Path("/dev/shm")


@pytest.fixture(params=["one file system", "two file systems"])
def targets(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The folder of results; once on the file system of the inbox, once on another."""
    if request.param == "one file system":
        yield tmp_path / "results"
        return
    folder = OTHER / f"xray-watcher-spool-{os.getpid()}"
    if not OTHER.is_dir() or OTHER.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than the inbox."""
    folder = OTHER / f"xray-watcher-other-{os.getpid()}"
    if not OTHER.is_dir() or OTHER.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def spool(tmp_path: Path, targets: Path) -> Spool:
    made = Spool(
        str(tmp_path / "inbox"),
        str(tmp_path / "work"),
        {"High": str(targets / "High"), "rejected": str(targets / "rejected")},
        str(tmp_path),
    )
    made.make_inbox()
    made.results.make_targets()
    return made


def put(tmp_path: Path, path: str, content: bytes = WHOLE_PNG) -> SeenFile:
    file = tmp_path / "inbox" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return seen(tmp_path, path)


def seen(tmp_path: Path, path: str) -> SeenFile:
    status = (tmp_path / "inbox" / path).lstat()
    return SeenFile(path, status.st_size, status.st_mtime_ns, status.st_ino)


def claimed(spool: Spool, tmp_path: Path, image_id: int = 1, content: bytes = WHOLE_PNG) -> Move:
    put(tmp_path, "a.png", content)
    assert spool.inbox.claim("a.png", image_id)
    found = spool.work.examine(image_id)
    assert found is not None
    return Move(image_id, "High", "0000_a.png", found.sha256, found.signature)


def test_a_whole_file_is_ready_claimed_and_filed_unchanged(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    file = put(tmp_path, "er/a.png")
    path = tmp_path / "inbox" / "er" / "a.png"
    os.chmod(path, 0o640)
    os.utime(path, ns=(1_000, 1_600_000_000_123_456_789))
    file = seen(tmp_path, "er/a.png")
    assert spool.inbox.readiness(file, overdue=False, is_network=False) == "ready"
    assert spool.inbox.claim("er/a.png", 1)
    assert not path.exists()
    found = spool.work.examine(1)
    assert found is not None
    spool.sync_claims([Origin(INBOX, "er/a.png")])
    spool.results.file(Move(1, "High", "0000_a.png", found.sha256, found.signature))
    spool.results.sync_filed(["High"])
    filed = targets / "High" / "0000_a.png"
    assert filed.read_bytes() == WHOLE_PNG
    assert filed.stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert filed.stat().st_mode & 0o777 == 0o640
    assert os.listdir(targets / "High") == ["0000_a.png"]
    assert spool.work.claimed_ids() == set()


@pytest.mark.parametrize(
    ("content", "overdue", "expected"),
    [
        (HALF_PNG, False, "unfinished"),
        (HALF_PNG, True, "ready"),
        (b"", False, "unfinished"),
        (bytes(100), False, "unfinished"),
        (b"text", False, "ready"),
    ],
)
def test_what_looks_unfinished_is_not_ready_until_it_is_overdue(
    spool: Spool, tmp_path: Path, content: bytes, overdue: bool, expected: str
) -> None:
    file = put(tmp_path, "a.png", content)
    assert spool.inbox.readiness(file, overdue=overdue, is_network=False) == expected


def test_a_file_that_no_setting_takes_is_claimed_at_once_and_not_read(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "huge.png")
    os.truncate(tmp_path / "inbox" / "huge.png", 200 << 30)  # no room on the disk is needed
    file = seen(tmp_path, "huge.png")
    assert spool.inbox.readiness(file, overdue=False, is_network=False) == "ready"
    assert spool.inbox.claim("huge.png", 1)
    monkeypatch.setattr(work_module, "_open", None)
    found = spool.work.examine(1)
    assert found is not None
    assert (found.sha256, found.signature.size) == (None, 200 << 30)


def test_a_file_that_is_open_for_writing_is_busy(spool: Spool, tmp_path: Path) -> None:
    file = put(tmp_path, "a.png")
    with (tmp_path / "inbox" / "a.png").open("ab"):
        assert spool.inbox.readiness(file, overdue=False, is_network=False) == "busy"
    with (tmp_path / "inbox" / "a.png").open("rb"):
        assert spool.inbox.readiness(file, overdue=False, is_network=False) == "ready"


def test_a_file_that_changed_or_went_since_it_was_seen_is_not_ready(
    spool: Spool, tmp_path: Path
) -> None:
    file = put(tmp_path, "a.png")
    put(tmp_path, "a.png", WHOLE_PNG + b"\0")
    assert spool.inbox.readiness(file, overdue=False, is_network=False) == "changed"
    (tmp_path / "inbox" / "a.png").unlink()
    assert spool.inbox.readiness(file, overdue=False, is_network=False) == "gone"


def test_links_devices_and_linked_folders_are_never_followed(spool: Spool, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "b.png").write_bytes(WHOLE_PNG)
    file = put(tmp_path, "a.png")
    (tmp_path / "inbox" / "a.png").unlink()
    (tmp_path / "inbox" / "a.png").symlink_to(secret / "b.png")
    assert spool.inbox.readiness(file, overdue=False, is_network=False) == "gone"
    (tmp_path / "inbox" / "folder").symlink_to(secret)
    inside = SeenFile("folder/b.png", file.size, file.mtime_ns, file.inode)
    assert spool.inbox.readiness(inside, overdue=False, is_network=False) == "gone"
    assert not spool.inbox.claim("folder/b.png", 1)
    os.mkfifo(tmp_path / "inbox" / "pipe.png")
    assert (
        spool.inbox.readiness(seen(tmp_path, "pipe.png"), overdue=False, is_network=False) == "gone"
    )
    assert (secret / "b.png").exists()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, directory(str(path.parent)) as folder:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")  # its own path may be too long for one


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "b.png").write_bytes(WHOLE_PNG)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "link": lambda path: path.symlink_to(path.parent.parent / "secret.png"),
    "dangling link": lambda path: path.symlink_to(path.parent / "nowhere"),
    "pipe": os.mkfifo,
    "socket": make_socket,
    "folder": make_folder,
}


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES.keys())
def test_what_is_no_file_is_not_examined_filed_or_taken_up_when_it_was_claimed(
    spool: Spool, tmp_path: Path, targets: Path, make: Callable[[Path], object]
) -> None:
    (tmp_path / "secret.png").write_bytes(WHOLE_PNG)
    move = claimed(spool, tmp_path)
    path = Path(spool.work.claimed_path(1))
    path.unlink()
    make(path)
    assert spool.work.examine(1) is None
    with pytest.raises(ChangedAfterClaim):
        spool.results.file(move)
    assert spool.work.claimed_ids() == set()
    assert spool.work.leftovers() == [path.name]
    assert os.path.lexists(path)
    assert os.listdir(targets / "High") == []


@pytest.mark.parametrize("name", ["7", "0000000000007", "9" * 20, "9" * 250])
def test_numbers_that_are_no_names_of_ours_are_left_over(
    spool: Spool, tmp_path: Path, name: str
) -> None:
    (tmp_path / "work" / name).write_bytes(WHOLE_PNG)
    (tmp_path / "work" / f"{7:012d}").write_bytes(WHOLE_PNG)
    assert spool.work.claimed_ids() == {7}
    assert spool.work.leftovers() == [name]


def test_a_link_by_the_name_of_an_image_that_is_to_be_filed_is_not_followed(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    move = claimed(spool, tmp_path)
    (tmp_path / "secret.png").write_bytes(WHOLE_PNG)
    (targets / "High" / move.name).symlink_to(tmp_path / "secret.png")
    with pytest.raises(TargetTaken):
        spool.results.file(move)
    assert Path(spool.work.claimed_path(1)).read_bytes() == WHOLE_PNG


def test_a_claim_of_a_file_that_is_gone_is_no_claim(spool: Spool) -> None:
    assert not spool.inbox.claim("a.png", 1)
    assert not spool.inbox.claim("no/such/folder/a.png", 1)
    assert spool.work.examine(1) is None


def test_a_claim_that_was_done_already_is_found_done(spool: Spool, tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    assert spool.inbox.claim("a.png", 1)
    assert spool.inbox.claim("a.png", 1)


def test_a_file_with_a_second_name_gets_an_inode_of_its_own(spool: Spool, tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    os.link(tmp_path / "inbox" / "a.png", tmp_path / "second-name")
    assert spool.inbox.claim("a.png", 1)
    found = spool.work.examine(1)
    assert found is not None
    (tmp_path / "second-name").write_bytes(b"changed behind our back")
    assert is_unchanged(found)
    assert Path(found.path).read_bytes() == WHOLE_PNG


def test_a_name_that_is_taken_is_never_overwritten(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    move = claimed(spool, tmp_path)
    theirs = targets / "High" / "0000_a.png"
    theirs.write_text("theirs")
    with pytest.raises(TargetTaken):
        spool.results.file(move)
    assert theirs.read_text() == "theirs"
    assert Path(spool.work.claimed_path(1)).read_bytes() == WHOLE_PNG
    assert os.listdir(targets / "High") == ["0000_a.png"]


@pytest.mark.parametrize("kind", [errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL])
def test_a_name_that_the_folder_refuses_leaves_nothing_there_and_the_image_where_it_was(
    spool: Spool, tmp_path: Path, targets: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    rename = filing_module.rename_noreplace

    def refused(source: str, target: str, **kwargs: Any) -> None:
        if target.endswith("_ä.png") and os.path.dirname(source) == os.path.dirname(target):
            raise OSError(kind, os.strerror(kind))  # of a copy from another file system
        rename(source, target, **kwargs)
        if target.endswith("_ä.png"):
            os.rename(target, source)
            raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(filing_module, "rename_noreplace", refused)
    move = replace(claimed(spool, tmp_path), name="0000_ä.png", signature=None)
    with pytest.raises(NameRefused):
        spool.results.file(move)
    assert os.listdir(targets / "High") == []
    assert Path(spool.work.claimed_path(1)).read_bytes() == WHOLE_PNG


def test_a_name_is_refused_when_that_of_its_reason_is_too_long(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    move = replace(claimed(spool, tmp_path), name="0" * 251)
    with pytest.raises(NameRefused):
        spool.results.file(replace(move, with_reason=True))
    assert os.listdir(targets / "High") == []
    spool.results.file(move)
    assert os.listdir(targets / "High") == [move.name]


def test_a_claimed_file_that_changed_after_it_was_hashed_is_not_filed(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    move = claimed(spool, tmp_path)
    Path(spool.work.claimed_path(1)).write_bytes(WHOLE_PNG + b"more")
    with pytest.raises(ChangedAfterClaim):
        spool.results.file(move)
    assert os.listdir(targets / "High") == []


def test_filing_again_after_it_was_done_changes_nothing(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    move = claimed(spool, tmp_path)
    for _ in range(3):
        spool.results.file(move)
    assert (targets / "High" / "0000_a.png").read_bytes() == WHOLE_PNG


def test_filing_goes_on_after_a_kill_between_copy_and_removal(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    move = claimed(spool, tmp_path)
    (targets / "High" / "0000_a.png").write_bytes(WHOLE_PNG)
    spool.results.file(move)
    assert spool.work.claimed_ids() == set()
    assert os.listdir(targets / "High") == ["0000_a.png"]


def test_an_image_that_is_nowhere_is_said_to_be_nowhere(spool: Spool, tmp_path: Path) -> None:
    move = claimed(spool, tmp_path)
    os.unlink(spool.work.claimed_path(1))
    with pytest.raises(FileNotFoundError):
        spool.results.file(move)


def test_a_reason_is_written_beside_its_image(spool: Spool, tmp_path: Path, targets: Path) -> None:
    move = claimed(spool, tmp_path)
    spool.results.write_beside(move, b"{}")
    assert (targets / "High" / "0000_a.png.json").read_bytes() == b"{}"


def test_a_file_that_its_writer_goes_on_with_while_it_is_hashed_is_not_unchanged(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.png", WHOLE_PNG)
    assert spool.inbox.claim("a.png", 1)
    hashed = work_module.compute_sha256

    def while_somebody_writes(fd: int, at_most: int) -> bytes:
        digest = hashed(fd, at_most)
        with open(spool.work.claimed_path(1), "ab") as writer:
            writer.write(b"more")
        return digest

    monkeypatch.setattr(work_module, "compute_sha256", while_somebody_writes)
    claimed = spool.work.examine(1)
    assert claimed is not None
    assert not is_unchanged(claimed)


def reject(targets: Path, name: str = "0003_a.png") -> Path:
    """A rejected file with its reason; returns its folder."""
    folder = targets / "rejected"
    (folder / name).write_bytes(HALF_PNG)
    (folder / f"{name}.json").write_text("{}")
    return folder


def returned(path: bytes = b"ward/a.png", name: str = "0003_a.png") -> Returned:
    return Returned(3, path, "rejected", name)


def handed_over(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "work" / "uploads"))


@pytest.mark.parametrize(
    "path", [b"a.png", b"ward/night/a.png", b"w\xffrd/\xfe\n.png", b"d/" * 1100 + b"a.png"]
)
def test_a_rejected_file_is_handed_over_with_the_path_that_it_came_by(
    spool: Spool, tmp_path: Path, targets: Path, path: bytes
) -> None:
    assert spool.handover.look(0.0).arrivals == []
    folder = reject(targets)
    spool.put_back(returned(path))
    assert handed_over(tmp_path) == ["retry-000000000003.image", "retry-000000000003.json"]
    (arrival,) = spool.handover.look(1.0).arrivals
    assert os.fsencode(arrival.file.path) == path
    assert (arrival.origin, arrival.retry_of) == (Origin(HANDOVER, "retry-000000000003"), 3)
    assert not arrival.is_awaited
    assert (tmp_path / "work/uploads/retry-000000000003.image").read_bytes() == HALF_PNG
    assert os.listdir(folder) == []
    assert os.listdir(tmp_path / "inbox") == []  # no folder of senders is made


def test_a_long_greek_name_is_handed_over_too(spool: Spool, targets: Path) -> None:
    wanted = "α" * 125 + ".png"
    name = indexed_name(3, wanted, MAX_NAME_BYTES - len(".json"))
    assert spool.handover.look(0.0).arrivals == []
    reject(targets, name)
    spool.put_back(returned(f"ward/{wanted}".encode(), name))
    (arrival,) = spool.handover.look(1.0).arrivals
    assert arrival.file.path == f"ward/{wanted}"


@pytest.mark.parametrize(
    "facts",
    [
        None, b"no JSON", b"[]", b'{"inbox_path_b64": 7}', b'{"inbox_path_b64": "x"}',
        b'{"inbox_path_b64": "L2V0Yy9wYXNzd2Q="}', b'{"inbox_path_b64": "Li4vLi4vYQ=="}',
        b'{"inbox_path_b64": "YQBi", "folder": ["rejected"], "filed_name": "../../inbox"}',
    ],
)  # fmt: skip
def test_what_is_handed_over_without_a_path_of_ours_is_a_retry_all_the_same(
    spool: Spool, tmp_path: Path, facts: bytes | None
) -> None:
    assert spool.handover.look(0.0).arrivals == []
    image = tmp_path / "work/uploads/retry-000000000003.image"
    image.write_bytes(HALF_PNG)
    if facts is not None:
        image.with_suffix(".json").write_bytes(facts)
    (arrival,) = spool.handover.look(1.0).arrivals
    assert (arrival.file.path, arrival.retry_of) == ("recovered/000000000003", 3)


@pytest.mark.parametrize("name", ["retry-3", "retry-00000000000x", "retry-0000000000003", "retry-"])
def test_what_has_no_name_of_retry_is_an_upload(spool: Spool, tmp_path: Path, name: str) -> None:
    assert spool.handover.look(0.0).arrivals == []
    (tmp_path / f"work/uploads/{name}.image").write_bytes(HALF_PNG)
    facts = '{"filename": "retry_of", "retry_of": 3, "inbox_path_b64": "YQ=="}'
    (tmp_path / f"work/uploads/{name}.json").write_text(facts)
    (arrival,) = spool.handover.look(1.0).arrivals
    assert (arrival.file.path, arrival.retry_of) == ("web/retry_of", None)


@pytest.mark.parametrize("gone", ["inbox", "work"])
def test_nothing_is_put_back_while_the_share_of_the_inbox_is_away(
    spool: Spool, tmp_path: Path, targets: Path, gone: str
) -> None:
    folder = reject(targets)
    (tmp_path / gone).rename(tmp_path / "unmounted")
    with pytest.raises(Unavailable, match="mounted") as raised:
        spool.put_back(returned())
    assert raised.value.component == "inbox"
    assert sorted(os.listdir(folder)) == ["0003_a.png", "0003_a.png.json"]
    assert not (tmp_path / gone).exists()


def test_nothing_is_put_back_where_another_file_system_lies_under_the_inbox(
    spool: Spool, tmp_path: Path, targets: Path, other: Path
) -> None:
    folder = reject(targets)
    (tmp_path / "inbox").rmdir()
    (tmp_path / "inbox").symlink_to(other)
    with pytest.raises(Unavailable, match="mounted") as raised:
        spool.put_back(returned())
    assert raised.value.component == "inbox"
    assert sorted(os.listdir(folder)) == ["0003_a.png", "0003_a.png.json"]
    assert os.listdir(other) == []


def test_nothing_is_put_back_while_the_folder_of_uploads_is_away(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    folder = reject(targets)
    assert not spool.handover.look(0.0).arrivals
    (tmp_path / "work/uploads").rename(tmp_path / "unmounted")
    with pytest.raises(Unavailable, match="cannot be handed over") as raised:
        spool.put_back(returned())
    assert raised.value.component == "uploads"
    assert sorted(os.listdir(folder)) == ["0003_a.png", "0003_a.png.json"]
    assert not (tmp_path / "work/uploads").exists()


def test_a_file_that_is_gone_is_not_put_back(spool: Spool, tmp_path: Path, targets: Path) -> None:
    assert spool.handover.look(0.0).arrivals == []
    with pytest.raises(FileNotFoundError):
        spool.put_back(returned())
    assert handed_over(tmp_path) == []
    (targets / "rejected").rmdir()
    with pytest.raises(Unavailable, match="mounted"):
        spool.put_back(returned())
    (targets / "rejected").mkdir()


def test_an_image_that_cannot_go_back_is_told_and_stays(
    spool: Spool, targets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_names: str, **_folders: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    assert spool.handover.look(0.0).arrivals == []
    folder = reject(targets)
    monkeypatch.setattr(files, "rename_noreplace", refuse)
    with pytest.raises(Unavailable, match="Read-only"):
        spool.put_back(returned())
    assert sorted(os.listdir(folder)) == ["0003_a.png", "0003_a.png.json"]
    assert spool.handover.look(1.0).arrivals == []


def test_another_file_by_the_name_of_one_that_was_handed_over_stays(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    assert spool.handover.look(0.0).arrivals == []
    folder = reject(targets)
    spool.put_back(returned())
    (folder / "0003_a.png").write_bytes(b"somebody's")
    with pytest.raises(Unavailable, match="File exists"):
        spool.put_back(returned())
    assert (folder / "0003_a.png").read_bytes() == b"somebody's"
    assert (tmp_path / "work/uploads/retry-000000000003.image").read_bytes() == HALF_PNG


STEPS_BACK = ("handover.write_whole", "handover.sync_folder", "handover.move", "files.copy",
              "files.rename_noreplace", "files.sync_folder", "os.unlink")  # fmt: skip


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("step", STEPS_BACK)
def test_a_kill_at_any_step_of_the_way_back_loses_and_doubles_nothing(
    spool: Spool, targets: Path, step: str, nth: int, when: str
) -> None:
    assert spool.handover.look(0.0).arrivals == []
    folder = reject(targets)
    child = os.fork()
    if child == 0:
        try:
            die_at(step, nth, when)
            spool.put_back(returned())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    source = folder / "0003_a.png"
    arrivals = spool.handover.look(1.0).arrivals
    assert len(arrivals) + source.exists() == 1  # never both, and never none
    if not arrivals:
        spool.put_back(returned())
        arrivals = spool.handover.look(2.0).arrivals
    assert [arrival.retry_of for arrival in arrivals] == [3]
    assert arrivals[0].file.path == "ward/a.png"
    assert not source.exists()
    assert spool.handover.claim("retry-000000000003", 1)
    assert Path(spool.work.claimed_path(1)).read_bytes() == HALF_PNG


def die_at(step: str, nth: int, when: str) -> None:
    """Let this process end, as by a kill, at the nth call of a step."""
    owner, _, name = step.partition(".")
    module = {"handover": handover_module, "files": files, "os": os}[owner]
    original, calls = getattr(module, name), [0]

    def dying(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth and when == "before":
            os._exit(9)
        result = original(*args, **kwargs)
        if calls[0] == nth:
            os._exit(9)
        return result

    setattr(module, name, dying)


def test_paths_below_the_root_are_shown_relative(spool: Spool, targets: Path) -> None:
    shown = spool.results.shown_path("High", "0000_a.png")
    inside = str(targets).startswith(str(OTHER)) is False
    assert shown == ("results/High/0000_a.png" if inside else f"{targets}/High/0000_a.png")


def test_a_work_folder_that_is_away_is_waited_for(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "work").rmdir()
    with pytest.raises(Unavailable):
        spool.work.claimed_ids()
    put(tmp_path, "a.png")
    with pytest.raises(Unavailable):
        spool.inbox.claim("a.png", 1)
    assert (tmp_path / "inbox" / "a.png").exists()


def test_a_folder_that_cannot_be_made_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    spool = Spool(
        str(tmp_path / "inbox"),
        str(tmp_path / "work"),
        {"High": str(tmp_path / "results/High")},
        "/",
    )
    with pytest.raises(Unavailable, match="results/High"):
        spool.results.make_targets()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOENT])
def test_what_is_left_of_a_filed_image_is_read_once_and_removed_when_it_can_be(
    spool: Spool, tmp_path: Path, targets: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    move = claimed(spool, tmp_path)
    (targets / "High" / move.name).write_bytes(WHOLE_PNG)  # as after a copy
    unlink = os.unlink

    def refusing(path: str, **how: Any) -> None:
        if str(path) == spool.work.claimed_path(1):
            raise OSError(error, os.strerror(error))
        unlink(path, **how)

    with monkeypatch.context() as failing:
        failing.setattr(filing_module.os, "unlink", refusing)
        spool.results.file(move)
        assert Path(spool.work.claimed_path(1)).exists()
        failing.setattr(filing_module, "has_hash", None)  # it is not read again
        spool.clear_left()
        assert Path(spool.work.claimed_path(1)).exists()
    spool.clear_left()
    assert not Path(spool.work.claimed_path(1)).exists()
    assert (targets / "High" / move.name).read_bytes() == WHOLE_PNG


def test_a_stranger_s_file_in_the_work_folder_is_not_taken_for_the_claimed_one(
    spool: Spool, tmp_path: Path
) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "work" / f"{7:012d}").write_bytes(b"somebody else's")
    with pytest.raises(FileProblem):
        spool.inbox.claim("a.png", 7)
    assert (tmp_path / "inbox" / "a.png").read_bytes() == WHOLE_PNG
