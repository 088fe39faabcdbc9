"""What a kill leaves behind is taken up at the next start, wherever it struck."""

from __future__ import annotations

import os
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import audit
from rig import Rig
from xray_watcher.commands import fsck, retry
from xray_watcher.core.naming import parse_index
from xray_watcher.intake import filing as filing_module
from xray_watcher.pipeline.batches import MAX_ATTEMPTS


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


# Every step of an image's way that changes something outside this process.
STEPS = (
    ("ledger", "begin_claims"),
    ("spool.inbox", "claim"),
    ("spool.work", "sync"),
    ("spool.inbox", "sync"),
    ("ledger", "decide"),
    ("spool.results", "file"),
    ("spool.results", "write_beside"),
    ("spool.results", "sync_filed"),
    ("logs", "append"),
    ("ledger", "finish"),
)
RECOVERY_STEPS = (
    ("ledger", "drop_claims"),
    ("ledger", "count_attempts"),
)


def drop_all(rig: Rig) -> list[bytes]:
    return [
        rig.drop("a.jpg", "picture:Edema"),
        rig.drop("ward/b.jpg", "no picture"),
        rig.drop("c.jpg", "picture:Fracture"),
        rig.drop("again.jpg", "picture:Edema"),
        rig.drop("d.png", "picture:Effusion"),
    ]


def kill_at(rig: Rig, part: str, step: str, when: str, nth: int) -> None:
    """Make the daemon die just before or just after the nth call of a step."""
    owner = attrgetter(part)(rig)
    original: Callable[..., Any] = getattr(owner, step)
    calls = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and when == "before":
            raise Killed
        result = original(*args, **kwargs)
        if calls == nth and when == "after":
            raise Killed
        return result

    setattr(owner, step, dying)


def run_until_killed(rig: Rig) -> bool:
    try:
        rig.settle()
    except Killed:
        return True
    else:
        return False
    finally:
        rig.crash()


def run_to_the_end(root: Path) -> Rig:
    rig = Rig(root)
    rig.settle()
    return rig


@pytest.mark.parametrize("nth", [1, 2, 4])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("part", "step"), STEPS)
def test_a_kill_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, part: str, step: str, when: str, nth: int
) -> None:
    rig = Rig(tmp_path, max_size=2)
    arrived = drop_all(rig)
    kill_at(rig, part, step, when, nth)
    was_killed = run_until_killed(rig)
    assert was_killed or nth > 1
    run_to_the_end(tmp_path).crash()
    audit.check(tmp_path, arrived)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("part", "step"), [*RECOVERY_STEPS, *STEPS])
@pytest.mark.parametrize(
    "first", [("spool.inbox", "claim"), ("ledger", "decide"), ("logs", "append")]
)
def test_a_kill_during_recovery_loses_and_doubles_nothing(
    tmp_path: Path, first: tuple[str, str], part: str, step: str, when: str
) -> None:
    rig = Rig(tmp_path)
    arrived = drop_all(rig)
    kill_at(rig, *first, "after", 1)
    assert run_until_killed(rig)
    again = Rig(tmp_path)
    kill_at(again, part, step, when, 1)
    run_until_killed(again)
    run_to_the_end(tmp_path).crash()
    audit.check(tmp_path, arrived)


@pytest.mark.parametrize("keep", [0, 1, 100, 5000])
def test_a_torn_log_line_is_completed_and_not_doubled(tmp_path: Path, keep: int) -> None:
    rig = Rig(tmp_path)
    arrived = drop_all(rig)
    kill_at(rig, "ledger", "finish", "before", 1)
    assert run_until_killed(rig)
    for log in (tmp_path / "logs").glob("results-*"):
        os.truncate(log, min(keep, log.stat().st_size))
    run_to_the_end(tmp_path).crash()
    audit.check(tmp_path, arrived)
    assert not list((tmp_path / "logs").glob("*.conflict-*"))


def test_a_kill_between_copy_and_removal_across_file_systems_files_the_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    arrived = [rig.drop("a.jpg", "picture:Edema")]

    def refuse(source: str, target: str, **kwargs: Any) -> None:
        if ".xray-watcher/" in source and "classified" in target:
            raise OSError(18, "Invalid cross-device link")
        rename(source, target, **kwargs)

    def die(path: str, **kwargs: Any) -> None:
        if ".xray-watcher/" in path:
            raise Killed
        unlink(path, **kwargs)

    rename, unlink = filing_module.rename_noreplace, os.unlink
    monkeypatch.setattr(filing_module, "rename_noreplace", refuse)
    monkeypatch.setattr(filing_module.os, "unlink", die)
    assert run_until_killed(rig)
    monkeypatch.undo()
    run_to_the_end(tmp_path).crash()
    audit.check(tmp_path, arrived)
    assert not [path for path in (tmp_path / ".xray-watcher").iterdir() if path.name.isdecimal()]


def test_a_picture_that_ends_the_service_again_and_again_is_rejected_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    arrived = [rig.drop("a.jpg", "picture:Edema"), rig.drop("b.jpg", "picture:Fracture")]
    poison = arrived[0]

    def killed_by_poison(rig: Rig) -> None:
        submit = rig.decoder.submit

        def dying(path: str) -> Any:
            if Path(path).read_bytes() == poison:
                raise Killed
            return submit(path)

        rig.decoder.submit = dying  # type: ignore[method-assign]

    starts = 0
    while True:
        killed_by_poison(rig)
        starts += 1
        if not run_until_killed(rig):
            break
        assert starts < 50
        rig = Rig(tmp_path)
    assert starts == MAX_ATTEMPTS + 1
    audit.check(tmp_path, arrived)
    records = {record["filename"]: record for record in audit.jsonl_records(tmp_path)}
    assert records["a.jpg"]["rejected"]["code"] == "interrupted"
    assert records["b.jpg"]["risk_level"] == "Low"


def test_a_file_in_the_work_folder_that_no_row_knows_is_taken_up(tmp_path: Path) -> None:
    Rig(tmp_path).crash()
    work = tmp_path / ".xray-watcher"
    (work / "000000000001").write_text("picture:Edema")
    (work / "000000000002").write_text("picture:Fracture")
    run_to_the_end(tmp_path).crash()
    audit.check(tmp_path, [b"picture:Edema", b"picture:Fracture"])


@pytest.mark.parametrize("where", ["inbox", "work"])
def test_a_file_that_is_taken_away_while_a_claim_is_open_is_recorded_as_missing(
    tmp_path: Path, where: str
) -> None:
    rig = Rig(tmp_path)
    rig.drop("DOE^JOHN.jpg", "picture:Edema")
    kept = rig.drop("b.jpg", "picture:Fracture")
    if where == "inbox":
        kill_at(rig, "spool", "claim", "before", 1)
    else:
        kill_at(rig, "spool", "sync_claims", "after", 2)  # the first is of the start
    assert run_until_killed(rig)
    folder = rig.inbox if where == "inbox" else rig.root / ".xray-watcher"
    taken = next(
        path for path in folder.rglob("*") if path.is_file() and b"Edema" in path.read_bytes()
    )
    taken.unlink()
    with capture_logs() as logged:
        again = Rig(tmp_path)
        again.settle()
    assert "DOE" not in str(logged)
    missing, scored = sorted(audit.jsonl_records(tmp_path), key=lambda r: "rejected" not in r)
    assert (missing["filename"], missing["rejected"]["code"]) == ("DOE^JOHN.jpg", "missing")
    assert scored["sha256"] == audit.sha256(kept)
    again.crash()


def test_the_index_goes_on_after_a_restart_and_is_never_used_again(tmp_path: Path) -> None:
    arrived = []
    for start in range(3):
        rig = Rig(tmp_path)
        arrived.append(rig.drop(f"{start}.jpg", f"picture:Edema#{start}"))
        rig.settle()
        rig.crash()
        for path in (tmp_path / "classified_images" / "High").iterdir():
            path.rename(tmp_path / path.name)  # somebody takes the results away
    assert sorted(parse_index(path.name) for path in tmp_path.glob("0*.jpg")) == [0, 1, 2]


def put_back_one(root: Path) -> tuple[Rig, list[bytes]]:
    """A daemon with a rejected file that `retry` has just handed over; all bytes that arrived."""
    rig = Rig(root)
    arrived = [rig.drop("ward/a.jpg", "nan"), rig.drop("b.jpg", "picture:Edema")]
    rig.settle()
    (outcome,) = retry.put_back(rig.settings, [], rig.clock.now(), every=True)
    assert outcome.problem is None
    return rig, arrived


def check_put_back(root: Path, arrived: list[bytes]) -> None:
    """It is filed once, under its own name and source, and linked to its rejection."""
    first, *_, last = sorted(
        (r for r in audit.jsonl_records(root) if r["inbox_path"] == "ward/a.jpg"),
        key=lambda record: int(record["index"]),
    )
    assert (last["filename"], last["source"]) == ("a.jpg", "ward")
    assert last["retry_of"] == first["index"]
    assert [r.get("retry_of") for r in audit.jsonl_records(root)].count(first["index"]) == 1
    filed = [path.read_bytes() for path in audit.filed(root).values()]
    assert sorted(filed) == sorted(arrived)


def test_a_rejected_file_that_is_put_back_is_scored_and_linked_to_its_rejection(
    tmp_path: Path,
) -> None:
    rig, arrived = put_back_one(tmp_path)
    rig.settle()
    check_put_back(tmp_path, arrived)
    assert fsck.check(rig.settings, deep=True) == []
    rig.crash()


def test_a_file_that_is_put_back_while_no_service_runs_is_taken_at_the_next_start(
    tmp_path: Path,
) -> None:
    rig, arrived = put_back_one(tmp_path)
    rig.crash()
    run_to_the_end(tmp_path).crash()
    check_put_back(tmp_path, arrived)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("part", "step"), [*STEPS, ("spool.handover", "claim"), ("spool.handover", "sync")]
)
def test_a_kill_at_any_step_loses_doubles_and_unlinks_no_file_that_was_put_back(
    tmp_path: Path, part: str, step: str, when: str
) -> None:
    rig, arrived = put_back_one(tmp_path)
    kill_at(rig, part, step, when, 1)
    was_killed = run_until_killed(rig)
    assert was_killed or part == "spool.inbox"
    rig = run_to_the_end(tmp_path)
    check_put_back(tmp_path, arrived)
    assert fsck.check(rig.settings, deep=True) == []
    rig.crash()
