"""`intake.spool`: the only module that moves images; nothing is overwritten or changed."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xray_watcher.core.naming import MAX_NAME_BYTES, indexed_name
from xray_watcher.core.values import SeenFile
from xray_watcher.errors import Unavailable
from xray_watcher.intake import spool as spool_module
from xray_watcher.intake.claims import ChangedAfterClaim, Move, NameRefused, TargetTaken
from xray_watcher.intake.spool import Spool
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
    made.make_targets()
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
    assert spool.claim("a.png", image_id)
    found = spool.examine(image_id)
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
    assert spool.readiness(file, overdue=False) == "ready"
    assert spool.claim("er/a.png", 1)
    assert not path.exists()
    found = spool.examine(1)
    assert found is not None
    spool.sync_claims(["er/a.png"])
    spool.file(Move(1, "High", "0000_a.png", found.sha256, found.signature))
    spool.sync_filed(["High"])
    filed = targets / "High" / "0000_a.png"
    assert filed.read_bytes() == WHOLE_PNG
    assert filed.stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert filed.stat().st_mode & 0o777 == 0o640
    assert os.listdir(targets / "High") == ["0000_a.png"]
    assert spool.claimed_ids() == set()


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
    assert spool.readiness(file, overdue=overdue) == expected


def test_a_file_that_is_open_for_writing_is_busy(spool: Spool, tmp_path: Path) -> None:
    file = put(tmp_path, "a.png")
    with (tmp_path / "inbox" / "a.png").open("ab"):
        assert spool.readiness(file, overdue=False) == "busy"
    with (tmp_path / "inbox" / "a.png").open("rb"):
        assert spool.readiness(file, overdue=False) == "ready"


def test_a_file_that_changed_or_went_since_it_was_seen_is_not_ready(
    spool: Spool, tmp_path: Path
) -> None:
    file = put(tmp_path, "a.png")
    put(tmp_path, "a.png", WHOLE_PNG + b"\0")
    assert spool.readiness(file, overdue=False) == "changed"
    (tmp_path / "inbox" / "a.png").unlink()
    assert spool.readiness(file, overdue=False) == "gone"


def test_links_devices_and_linked_folders_are_never_followed(spool: Spool, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "b.png").write_bytes(WHOLE_PNG)
    file = put(tmp_path, "a.png")
    (tmp_path / "inbox" / "a.png").unlink()
    (tmp_path / "inbox" / "a.png").symlink_to(secret / "b.png")
    assert spool.readiness(file, overdue=False) == "gone"
    (tmp_path / "inbox" / "folder").symlink_to(secret)
    inside = SeenFile("folder/b.png", file.size, file.mtime_ns, file.inode)
    assert spool.readiness(inside, overdue=False) == "gone"
    assert not spool.claim("folder/b.png", 1)
    os.mkfifo(tmp_path / "inbox" / "pipe.png")
    assert spool.readiness(seen(tmp_path, "pipe.png"), overdue=False) == "gone"
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
    path = Path(spool.work_path(1))
    path.unlink()
    make(path)
    assert spool.examine(1) is None
    with pytest.raises(ChangedAfterClaim):
        spool.file(move)
    assert spool.claimed_ids() == set()
    assert spool.leftovers() == [path.name]
    assert os.path.lexists(path)
    assert os.listdir(targets / "High") == []


@pytest.mark.parametrize("name", ["7", "0000000000007", "9" * 20, "9" * 250])
def test_numbers_that_are_no_names_of_ours_are_left_over(
    spool: Spool, tmp_path: Path, name: str
) -> None:
    (tmp_path / "work" / name).write_bytes(WHOLE_PNG)
    (tmp_path / "work" / f"{7:012d}").write_bytes(WHOLE_PNG)
    assert spool.claimed_ids() == {7}
    assert spool.leftovers() == [name]


def test_a_link_by_the_name_of_an_image_that_is_to_be_filed_is_not_followed(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    move = claimed(spool, tmp_path)
    (tmp_path / "secret.png").write_bytes(WHOLE_PNG)
    (targets / "High" / move.name).symlink_to(tmp_path / "secret.png")
    with pytest.raises(TargetTaken):
        spool.file(move)
    assert Path(spool.work_path(1)).read_bytes() == WHOLE_PNG


def test_a_claim_of_a_file_that_is_gone_is_no_claim(spool: Spool) -> None:
    assert not spool.claim("a.png", 1)
    assert not spool.claim("no/such/folder/a.png", 1)
    assert spool.examine(1) is None


def test_a_claim_that_was_done_already_is_found_done(spool: Spool, tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    assert spool.claim("a.png", 1)
    assert spool.claim("a.png", 1)


def test_a_file_with_a_second_name_gets_an_inode_of_its_own(spool: Spool, tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    os.link(tmp_path / "inbox" / "a.png", tmp_path / "second-name")
    assert spool.claim("a.png", 1)
    found = spool.examine(1)
    assert found is not None
    (tmp_path / "second-name").write_bytes(b"changed behind our back")
    assert spool.unchanged(found)
    assert Path(found.path).read_bytes() == WHOLE_PNG


def test_a_name_that_is_taken_is_never_overwritten(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    move = claimed(spool, tmp_path)
    theirs = targets / "High" / "0000_a.png"
    theirs.write_text("theirs")
    with pytest.raises(TargetTaken):
        spool.file(move)
    assert theirs.read_text() == "theirs"
    assert Path(spool.work_path(1)).read_bytes() == WHOLE_PNG
    assert os.listdir(targets / "High") == ["0000_a.png"]


@pytest.mark.parametrize("kind", [errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL])
def test_a_name_that_the_folder_refuses_leaves_nothing_there_and_the_image_where_it_was(
    spool: Spool, tmp_path: Path, targets: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    rename = spool_module.rename_noreplace

    def refused(source: str, target: str, **kwargs: Any) -> None:
        if target.endswith("_ä.png") and os.path.dirname(source) == os.path.dirname(target):
            raise OSError(kind, os.strerror(kind))  # of a copy from another file system
        rename(source, target, **kwargs)
        if target.endswith("_ä.png"):
            os.rename(target, source)
            raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(spool_module, "rename_noreplace", refused)
    move = replace(claimed(spool, tmp_path), name="0000_ä.png", signature=None)
    with pytest.raises(NameRefused):
        spool.file(move)
    assert os.listdir(targets / "High") == []
    assert Path(spool.work_path(1)).read_bytes() == WHOLE_PNG


def test_a_name_is_refused_when_that_of_its_reason_is_too_long(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    move = replace(claimed(spool, tmp_path), name="0" * 251)
    with pytest.raises(NameRefused):
        spool.file(replace(move, with_reason=True))
    assert os.listdir(targets / "High") == []
    spool.file(move)
    assert os.listdir(targets / "High") == [move.name]


def test_a_claimed_file_that_changed_after_it_was_hashed_is_not_filed(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    move = claimed(spool, tmp_path)
    Path(spool.work_path(1)).write_bytes(WHOLE_PNG + b"more")
    with pytest.raises(ChangedAfterClaim):
        spool.file(move)
    assert os.listdir(targets / "High") == []


def test_filing_again_after_it_was_done_changes_nothing(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    move = claimed(spool, tmp_path)
    for _ in range(3):
        spool.file(move)
    assert (targets / "High" / "0000_a.png").read_bytes() == WHOLE_PNG


def test_filing_goes_on_after_a_kill_between_copy_and_removal(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    move = claimed(spool, tmp_path)
    (targets / "High" / "0000_a.png").write_bytes(WHOLE_PNG)
    spool.file(move)
    assert spool.claimed_ids() == set()
    assert os.listdir(targets / "High") == ["0000_a.png"]


def test_an_image_that_is_nowhere_is_said_to_be_nowhere(spool: Spool, tmp_path: Path) -> None:
    move = claimed(spool, tmp_path)
    os.unlink(spool.work_path(1))
    with pytest.raises(FileNotFoundError):
        spool.file(move)


def test_a_reason_is_written_beside_its_image(spool: Spool, tmp_path: Path, targets: Path) -> None:
    move = claimed(spool, tmp_path)
    spool.write_beside(move, b"{}")
    assert (targets / "High" / "0000_a.png.json").read_bytes() == b"{}"


def test_a_file_that_its_writer_goes_on_with_while_it_is_hashed_is_not_unchanged(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.png", WHOLE_PNG)
    assert spool.claim("a.png", 1)
    hashed = spool_module.sha256_of

    def while_somebody_writes(fd: int) -> bytes:
        digest = hashed(fd)
        with open(spool.work_path(1), "ab") as writer:
            writer.write(b"more")
        return digest

    monkeypatch.setattr(spool_module, "sha256_of", while_somebody_writes)
    claimed = spool.examine(1)
    assert claimed is not None
    assert not spool.unchanged(claimed)


def test_an_image_goes_back_to_the_inbox_without_overwriting(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    (targets / "rejected" / "0003_a.png").write_bytes(HALF_PNG)
    (targets / "rejected" / "0003_a.png.json").write_text("{}")
    put(tmp_path, "er/a.png", b"a newer one")
    assert spool.put_back("rejected", "0003_a.png", "er/a.png") == "er/a-2.png"
    assert (tmp_path / "inbox" / "er" / "a-2.png").read_bytes() == HALF_PNG
    assert (tmp_path / "inbox" / "er" / "a.png").read_bytes() == b"a newer one"
    assert os.listdir(targets / "rejected") == []


def test_an_image_goes_back_into_folders_that_are_gone_however_deep_they_were(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    (targets / "rejected" / "0003_a.png").write_bytes(HALF_PNG)
    path = "d/" * 1100 + "a.png"
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    try:
        assert spool.put_back("rejected", "0003_a.png", path) == path
    finally:
        sys.setrecursionlimit(limit)
    back = tmp_path / "inbox" / path
    assert back.read_bytes() == HALF_PNG
    back.unlink()
    os.removedirs(back.parent)


def reject(targets: Path) -> Path:
    """A rejected file with its reason; returns its folder."""
    folder = targets / "rejected"
    (folder / "0003_a.png").write_bytes(HALF_PNG)
    (folder / "0003_a.png.json").write_text("{}")
    return folder


@pytest.mark.parametrize("gone", ["inbox", "work"])
def test_nothing_is_put_back_while_the_share_of_the_inbox_is_away(
    spool: Spool, tmp_path: Path, targets: Path, gone: str
) -> None:
    folder = reject(targets)
    (tmp_path / gone).rename(tmp_path / "unmounted")
    with pytest.raises(Unavailable, match="mounted") as raised:
        spool.put_back("rejected", "0003_a.png", "ward/a.png")
    assert raised.value.cause == "inbox"
    assert sorted(os.listdir(folder)) == ["0003_a.png", "0003_a.png.json"]
    assert not (tmp_path / gone).exists()
    assert not (tmp_path / "inbox" / "ward").exists()


def test_nothing_is_put_back_where_another_file_system_lies_under_the_inbox(
    spool: Spool, tmp_path: Path, targets: Path, other: Path
) -> None:
    folder = reject(targets)
    (tmp_path / "inbox").rmdir()
    (tmp_path / "inbox").symlink_to(other)
    with pytest.raises(Unavailable, match="mounted") as raised:
        spool.put_back("rejected", "0003_a.png", "ward/a.png")
    assert raised.value.cause == "inbox"
    assert sorted(os.listdir(folder)) == ["0003_a.png", "0003_a.png.json"]
    assert os.listdir(other) == []


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "link": lambda path: path.symlink_to(path.parent.parent / "elsewhere"),
    "dangling link": lambda path: path.symlink_to(path.parent / "nowhere"),
    "file": lambda path: path.write_text("theirs"),
}


@pytest.mark.parametrize("make", IN_THE_WAY.values(), ids=IN_THE_WAY.keys())
def test_an_image_is_not_put_back_through_a_link_or_over_what_is_no_folder(
    spool: Spool, tmp_path: Path, targets: Path, make: Callable[[Path], object]
) -> None:
    folder = reject(targets)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "inbox" / "ward").mkdir()
    make(tmp_path / "inbox" / "ward" / "7\n")
    with pytest.raises(Unavailable, match=r"ward/7%0A in the inbox is no folder") as raised:
        spool.put_back("rejected", "0003_a.png", "ward/7\n/sub/a.png")
    assert raised.value.cause == "inbox"
    assert sorted(os.listdir(folder)) == ["0003_a.png", "0003_a.png.json"]
    assert os.listdir(tmp_path / "elsewhere") == []
    assert os.listdir(tmp_path / "inbox" / "ward") == ["7\n"]


def test_a_link_by_the_name_of_a_part_is_not_written_through(
    spool: Spool, tmp_path: Path, targets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across file systems a file is put back under the name of a part first."""
    reject(targets)
    (tmp_path / "theirs").write_text("theirs")
    copy = files.copy

    def copied(source: str, part: str, **folder: int) -> None:
        (tmp_path / "inbox" / part).symlink_to(tmp_path / "theirs")
        copy(source, part, **folder)

    monkeypatch.setattr(files, "copy", copied)
    assert spool.put_back("rejected", "0003_a.png", "a.png") == "a.png"
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "inbox" / "a.png").read_bytes() == HALF_PNG
    assert os.listdir(tmp_path / "inbox") == ["a.png"]


def test_a_file_that_is_gone_is_not_put_back_and_no_folder_is_made_for_it(
    spool: Spool, tmp_path: Path, targets: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        spool.put_back("rejected", "0003_a.png", "ward/a.png")
    assert os.listdir(tmp_path / "inbox") == []
    (targets / "rejected").rmdir()
    with pytest.raises(Unavailable, match="mounted"):
        spool.put_back("rejected", "0003_a.png", "ward/a.png")
    (targets / "rejected").mkdir()


def refusing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the next rename of what is put back fail as the kernel would have it."""
    rename, first = files.rename_noreplace, [number]

    def refuse(source: str, target: str, **folders: int) -> None:
        if first:
            raise OSError(first[0], os.strerror(first.pop()))
        rename(source, target, **folders)

    monkeypatch.setattr(files, "rename_noreplace", refuse)


@pytest.mark.parametrize("length", [118, 125])
def test_a_long_greek_name_goes_back_across_file_systems(
    spool: Spool, tmp_path: Path, targets: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    wanted = "α" * length + ".png"
    name = indexed_name(3, wanted, MAX_NAME_BYTES - len(".json"))
    (targets / "rejected" / name).write_bytes(HALF_PNG)
    refusing(monkeypatch, errno.EXDEV)
    assert spool.put_back("rejected", name, f"ward/{wanted}") == f"ward/{wanted}"
    assert (tmp_path / "inbox" / "ward" / wanted).read_bytes() == HALF_PNG
    assert os.listdir(tmp_path / "inbox" / "ward") == [wanted]
    assert os.listdir(targets / "rejected") == []


def test_an_image_that_cannot_go_back_is_told_by_name_and_stays(
    spool: Spool, targets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = reject(targets)
    for number in (errno.EROFS, errno.ENOENT):  # the second when a sender removes its folder again
        refusing(monkeypatch, number)
        with pytest.raises(Unavailable, match="cannot go back into the inbox") as raised:
            spool.put_back("rejected", "0003_a.png", "ward/a.png")
        assert raised.value.cause == "inbox"
        assert sorted(os.listdir(folder)) == ["0003_a.png", "0003_a.png.json"]


@pytest.mark.parametrize("gone", ["work", "work/uploads"])
def test_an_upload_is_not_put_back_while_the_folder_of_uploads_is_away(
    spool: Spool, tmp_path: Path, targets: Path, gone: str
) -> None:
    folder = reject(targets)
    assert spool.uploads.look(0.0) == []
    (tmp_path / gone).rename(tmp_path / "unmounted")
    source = str(folder / "0003_a.png")
    with pytest.raises(Unavailable, match="put back") as raised:
        spool.uploads.put_back(source, "20261123T120001-0123456789ab-000000", "a.png")
    assert raised.value.cause == "uploads"
    assert sorted(os.listdir(folder)) == ["0003_a.png", "0003_a.png.json"]
    assert not (tmp_path / gone).exists()


def test_paths_below_the_root_are_shown_relative(spool: Spool, targets: Path) -> None:
    shown = spool.shown_path("High", "0000_a.png")
    inside = str(targets).startswith(str(OTHER)) is False
    assert shown == ("results/High/0000_a.png" if inside else f"{targets}/High/0000_a.png")


def test_a_work_folder_that_is_away_is_waited_for(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "work").rmdir()
    with pytest.raises(Unavailable):
        spool.claimed_ids()
    put(tmp_path, "a.png")
    with pytest.raises(Unavailable):
        spool.claim("a.png", 1)
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
        spool.make_targets()


def test_a_stranger_s_file_in_the_work_folder_is_not_taken_for_the_claimed_one(
    spool: Spool, tmp_path: Path
) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "work" / f"{7:012d}").write_bytes(b"somebody else's")
    with pytest.raises(Unavailable):
        spool.claim("a.png", 7)
    assert (tmp_path / "inbox" / "a.png").read_bytes() == WHOLE_PNG
