"""`sealing`: what a decision fixes is so in the folders, in the ledger and in the record."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import audit
from rig import INCOMPLETE_S, Rig
from xray_watcher.commands import fsck
from xray_watcher.core.naming import PLAIN_NAME_BYTES, is_plain
from xray_watcher.imaging.decode_pool import DecodeOutcome
from xray_watcher.intake import filing as filing_module
from xray_watcher.intake.claims import Move, TargetTaken
from xray_watcher.intake.removing import remove_image
from xray_watcher.intake.returned import Returned


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.crash()


# -- its size -----------------------------------------------------------------------------


def test_the_size_of_an_image_whose_writer_went_on_is_that_of_the_filed_file(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, went_on = rig.decoder.submit, [b"#ten more."]

    def goes_on(path: str) -> Future[DecodeOutcome]:
        if went_on:
            with open(path, "ab") as writer:
                writer.write(went_on.pop())
        return submit(path)

    monkeypatch.setattr(rig.decoder, "submit", goes_on)
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    audit.check(rig.root, [b"picture:Edema#ten more."])
    (record,), (row,) = audit.jsonl_records(rig.root), rig.ledger.filed_rows()
    (filed,) = audit.filed(rig.root).values()
    assert record["bytes"] == row.size == filed.stat().st_size
    assert fsck.check(rig.settings, deep=True) == []
    assert row.sha256 is not None
    assert remove_image(str(filed), row.size, row.sha256) == "removed"


def test_the_size_of_an_image_that_vanished_is_that_of_the_last_look(rig: Rig) -> None:
    claim = rig.spool.inbox.claim

    def vanishes(path: str, image_id: int) -> bool:
        is_claimed = claim(path, image_id)
        Path(rig.spool.work.claimed_path(image_id)).unlink()
        return is_claimed

    rig.spool.inbox.claim = vanishes  # type: ignore[method-assign]
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    (record,) = audit.jsonl_records(rig.root)
    assert record["rejected"]["code"] == "missing"
    assert record["bytes"] == len("picture:Edema")


# -- its name -----------------------------------------------------------------------------

LONG = "Παπαδόπουλος " + "x" * 226 + ".jpg"
SHORT_NAMES = 143  # as eCryptfs has it


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def refusing(monkeypatch: pytest.MonkeyPatch, is_refused: Callable[[str], bool], kind: int) -> None:
    """Let the target folders refuse some names: in a look, in a rename, for a reason's file."""

    def wrapped(original: Callable[..., Any], place: int) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            folder, name = os.path.split(args[place])
            is_target = "classified" in folder or folder.endswith("rejected")
            if is_target and is_refused(name):
                raise OSError(kind, os.strerror(kind))
            return original(*args, **kwargs)

        return stepped

    for owner, step, place in (
        (filing_module.os, "lstat", 0),
        (filing_module, "rename_noreplace", 1),
        (filing_module, "write_whole", 0),
    ):
        monkeypatch.setattr(owner, step, wrapped(getattr(owner, step), place))


def is_too_long(name: str) -> bool:
    return len(os.fsencode(name)) > SHORT_NAMES


def is_foreign(name: str) -> bool:
    return not name.isascii()


def telling(monkeypatch: pytest.MonkeyPatch, longest: int | OSError) -> None:
    """Let the file system of the target folders say how long a name may be, or fail."""
    ask = os.statvfs

    def told(folder: str) -> os.statvfs_result:
        status = ask(folder)
        if "classified" not in folder and not folder.endswith("rejected"):
            return status  # it is asked for its room
        if isinstance(longest, OSError):
            raise longest
        return os.statvfs_result((*status[:9], longest))

    monkeypatch.setattr(os, "statvfs", told)


def drop_long_and_short(rig: Rig, content: str) -> list[bytes]:
    return [rig.drop(f"er/{LONG}", content), rig.drop("b.jpg", "picture:Fracture")]


def long_name(rig: Rig) -> str:
    """The name that the long one is filed under; its own stands in its record."""
    record = next(r for r in audit.jsonl_records(rig.root) if r["filename"] == LONG)
    assert record["inbox_path"] == f"er/{LONG}"
    name = os.path.basename(record["saved_path"])
    assert name.endswith(".jpg")
    return name


@pytest.mark.parametrize(("content", "beside"), [("picture:Edema", 0), ("no picture", 5)])
def test_a_name_is_as_long_as_its_folder_s_file_system_says(
    content: str, beside: int, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling(monkeypatch, SHORT_NAMES)
    refusing(monkeypatch, is_too_long, errno.ENAMETOOLONG)
    arrived = drop_long_and_short(rig, content)
    rig.ticks(60)
    audit.check(rig.root, arrived)
    audit.check_indexes(rig.root)
    assert len(long_name(rig).encode()) == SHORT_NAMES - beside
    assert long_name(rig).startswith("0000_Παπαδόπουλος x")


@pytest.mark.parametrize("told", [255, 0, 1530, OSError(errno.EIO, "Input/output error")])
def test_a_file_system_that_does_not_tell_or_takes_more_gets_255_bytes(
    told: int | OSError, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling(monkeypatch, told)
    arrived = drop_long_and_short(rig, "picture:Edema")
    rig.ticks(60)
    audit.check(rig.root, arrived)
    assert len(long_name(rig).encode()) == 255


@pytest.mark.parametrize("content", ["picture:Edema", "no picture"])
@pytest.mark.parametrize(
    ("is_refused", "kind"),
    [
        (is_too_long, errno.ENAMETOOLONG),  # though it said that it takes 255 bytes
        (is_foreign, errno.EILSEQ),
        (is_foreign, errno.EINVAL),  # as FAT says it
    ],
)
def test_an_image_whose_name_is_refused_is_filed_by_a_plain_one_and_stops_no_other(
    content: str,
    is_refused: Callable[[str], bool],
    kind: int,
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusing(monkeypatch, is_refused, kind)
    arrived = drop_long_and_short(rig, content)
    rig.ticks(60)
    audit.check(rig.root, arrived)
    assert is_plain(long_name(rig))
    assert len(long_name(rig)) == PLAIN_NAME_BYTES
    assert not rig.health.problems


def test_a_name_whose_reason_alone_is_too_long_is_refused_before_the_image_lies_there(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, is_too_long, errno.ENAMETOOLONG)
    arrived = [rig.drop("x" * 132 + ".jpg", "no picture")]  # 141 bytes with its index
    rig.ticks(60)
    audit.check(rig.root, arrived)
    assert fsck.check(rig.settings, deep=True) == []


def test_a_name_that_was_decided_before_a_restart_and_is_refused_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_args: Any, **_kwargs: Any) -> None:
        raise Killed

    before = Rig(tmp_path)
    arrived = drop_long_and_short(before, "picture:Edema")
    before.spool.results.file = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        before.ticks(60)
    before.crash()
    refusing(monkeypatch, is_too_long, errno.ENAMETOOLONG)
    rig = Rig(tmp_path)
    rig.ticks(60)
    audit.check(rig.root, arrived)
    rig.crash()


def test_a_folder_that_refuses_plain_names_too_is_out_of_order_and_no_image_is_decided_for_ever(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, lambda _name: True, errno.EINVAL)
    arrived = drop_long_and_short(rig, "picture:Edema")
    rig.ticks(600)
    assert "An image cannot be filed" in rig.health.problems["work"].reason
    assert rig.ledger.next_index <= 4  # each image was decided twice at most
    monkeypatch.undo()
    rig.ticks(600)
    audit.check(rig.root, arrived)
    assert not rig.health.problems


# -- what it is a retry of ----------------------------------------------------------------


def set_aside(rig: Rig, name: str) -> Path:
    """Drop a file and let it be set aside; returns where it lies."""
    rig.drop(name, "no picture")
    rig.settle()
    (path,) = rig.root.glob("rejected/*g")
    return path


def tidy_away(path: Path) -> None:
    path.unlink()
    path.with_name(f"{path.name}.json").unlink()


def put_back(rig: Rig, path: Path) -> None:
    """Hand a rejected file over once more, as `retry` does."""
    row = rig.ledger.image_with_index(int(path.name[:4]))
    assert row is not None
    rig.spool.put_back(Returned(int(path.name[:4]), row.path, "rejected", path.name))


def last_record(rig: Rig) -> dict[str, Any]:
    rig.settle()
    return audit.jsonl_records(rig.root)[-1]


@pytest.mark.parametrize("name", ["b.jpg", "er/a.jpg", "a.png", "a-.jpg", "a-x.jpg", "a2.jpg"])
def test_the_same_bytes_by_another_name_are_no_retry_of_a_file_that_was_tidied_away(
    name: str, rig: Rig
) -> None:
    tidy_away(set_aside(rig, "a.jpg"))
    rig.drop(name, "no picture")
    record = last_record(rig)
    assert record["index"] == 1
    assert "retry_of" not in record
    assert [row.state for row in rig.ledger.rejections()] == ["DONE", "DONE"]
    assert [found.kind for found in fsck.check(rig.settings, deep=True)] == ["missing"]


def test_a_file_put_back_beside_one_with_its_name_is_a_retry(rig: Rig) -> None:
    rejected = set_aside(rig, "er/a.jpg")
    rig.drop("er/a.jpg", "picture:Edema")
    put_back(rig, rejected)
    rig.settle()
    records = audit.jsonl_records(rig.root)[1:]
    assert {record["inbox_path"] for record in records} == {"er/a.jpg"}
    assert {record.get("retry_of"): record["risk_level"] for record in records} == {
        0: "Rejected",
        None: "High",
    }
    assert fsck.check(rig.settings, deep=True) == []


def test_equal_bytes_are_linked_to_the_very_rejection_that_was_put_back(rig: Rig) -> None:
    """All empty files have the same bytes; `retry_of` was wrong for three of 2,991 (C18)."""
    for name in ("scan.png", "scan-2.png", "scan-3.png"):
        rig.drop(name, "")
        rig.ticks(INCOMPLETE_S + 10, 5.0)
    paths = sorted(rig.root.glob("rejected/*.png"))
    for path in (paths[1], paths[0]):
        put_back(rig, path)
        rig.settle()
    records = audit.jsonl_records(rig.root)
    assert [(r["filename"], r.get("retry_of")) for r in records] == [
        ("scan.png", None), ("scan-2.png", None), ("scan-3.png", None),
        ("scan-2.png", 1), ("scan.png", 0),
    ]  # fmt: skip
    assert fsck.check(rig.settings, deep=True) == []


def test_a_file_that_was_adopted_without_an_ending_is_tried_again_too(tmp_path: Path) -> None:
    (tmp_path / ".xray-watcher").mkdir()
    (tmp_path / ".xray-watcher" / "000000000007").write_text("unreadable")
    (tmp_path / "inbox").mkdir()
    rig = Rig(tmp_path)
    rig.settle()
    (path,) = (p for p in rig.root.glob("rejected/*") if p.suffix != ".json")
    put_back(rig, path)
    rig.settle()
    last = audit.jsonl_records(rig.root)[-1]
    assert (last["inbox_path"], last["retry_of"]) == ("recovered/000000000007", 0)
    assert fsck.check(rig.settings, deep=True) == []
    rig.crash()


FORGED = {
    "other bytes": (b"other words", 0),
    "an image that was scored": (b"picture:Edema", 1),
    "an index that nobody has": (b"no picture", 99),
}


@pytest.mark.parametrize(("content", "index"), FORGED.values(), ids=FORGED.keys())
def test_what_claims_to_be_a_retry_is_one_only_if_the_ledger_bears_it_out(
    rig: Rig, content: bytes, index: int
) -> None:
    tidy_away(set_aside(rig, "a.jpg"))
    rig.drop("b.jpg", "picture:Edema")
    rig.settle()
    forged = Returned(index, b"a.jpg", "rejected", f"{index:04d}_a.jpg")
    folder = Path(rig.spool.handover.folder)
    (folder / f"{forged.name}.json").write_bytes(forged.to_json())
    (folder / f"{forged.name}.image").write_bytes(content)
    record = last_record(rig)
    assert record["index"] == 2
    assert "retry_of" not in record
    row = rig.ledger.image_with_index(0)
    assert row is not None
    assert row.state == "DONE"


def test_a_rejection_is_tried_again_once(rig: Rig) -> None:
    rejected = set_aside(rig, "a.jpg")
    put_back(rig, rejected)
    rig.settle()
    again = Returned(0, b"a.jpg", "rejected", "0000_a.jpg")
    folder = Path(rig.spool.handover.folder)
    (folder / f"{again.name}.image").write_text("no picture")
    assert "retry_of" not in last_record(rig)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_retry_that_is_decided_anew_is_still_one(is_killed: bool, tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rejected = set_aside(rig, "a.jpg")
    put_back(rig, rejected)
    file, withdraw, taken = (
        rig.spool.results.file,
        rig.ledger.withdraw,
        [TargetTaken("by another file")],
    )

    def file_later(move: Move) -> None:
        if taken:
            raise taken.pop()
        file(move)

    def killed(image_id: int) -> None:
        withdraw(image_id)
        raise Killed

    rig.spool.results.file = file_later  # type: ignore[method-assign]
    if is_killed:
        rig.ledger.withdraw = killed  # type: ignore[method-assign]
        with pytest.raises(Killed):
            rig.settle()
        assert [row.state for row in rig.ledger.rejections()] == ["DONE"]
        rig.crash()
        rig = Rig(tmp_path)
    record = last_record(rig)
    assert (record["index"], record["retry_of"]) == (2, 0)
    assert fsck.check(rig.settings, deep=True) == []
    rig.crash()
