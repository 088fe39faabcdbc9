"""`daemon`: turns of the loop with the clock in hand; nothing here sleeps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

import audit
from rig import INCOMPLETE_S, QUIET_S, SCAN_S, SETTLE_S, Rig
from xray_watcher.errors import Unavailable
from xray_watcher.imaging.decode_pool import DecodeOutcome
from xray_watcher.intake.claims import Move
from xray_watcher.intake.handover_source import HandoverSource
from xray_watcher.intake.watcher import Scan
from xray_watcher.intake.work_folder import WorkFolder
from xray_watcher.service import daemon as daemon_module

JPEG_WITHOUT_END = b"\xff\xd8\xff\xe0" + b"picture" * 100


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.crash()


def test_a_file_is_filed_when_it_has_settled_and_the_inbox_is_quiet(rig: Rig) -> None:
    arrived = rig.drop("a.jpg", "picture:Edema")
    rig.tick()
    rig.ticks(SETTLE_S + QUIET_S - 0.5)
    assert (rig.inbox / "a.jpg").exists()
    rig.ticks(1.0)
    assert (rig.root / "classified_images/High/0000_a.jpg").read_bytes() == arrived
    audit.check(rig.root, [arrived])


def test_a_file_that_grows_stays_where_it_is_until_it_stands_still(rig: Rig) -> None:
    for length in range(8):
        rig.drop("a.jpg", "picture:Edema#" + "x" * length)
        rig.ticks(1.5)
    assert not audit.filed(rig.root)
    rig.settle()
    audit.check(rig.root, [b"picture:Edema#xxxxxxx"])


def test_a_file_that_its_writer_holds_open_is_not_taken_however_long_he_pauses(rig: Rig) -> None:
    with open(rig.inbox / "a.jpg", "w") as writer:
        writer.write("picture:Ed")
        writer.flush()
        rig.ticks(60)
        assert not audit.filed(rig.root)
        writer.write("ema")
    rig.settle()
    audit.check(rig.root, [b"picture:Edema"])


def test_a_look_that_hung_for_long_is_followed_by_the_next_within_half_a_minute(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_scan = rig.arrivals.inbox._inbox.begin_scan

    def hung() -> Iterator[Scan | None]:
        rig.clock.passed_s += 600  # until the share answered again
        return begin_scan()

    rig.tick()
    monkeypatch.setattr(rig.arrivals.inbox._inbox, "begin_scan", hung)
    rig.ticks(SCAN_S)
    monkeypatch.undo()
    arrived = rig.drop("a.jpg", "picture:Edema")
    rig.ticks(30 + SCAN_S + SETTLE_S + QUIET_S)
    audit.check(rig.root, [arrived])


def test_a_work_folder_that_is_away_is_not_made_anew_for_uploads(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    work = WorkFolder(str(mounted), str(mounted / ".xray-watcher"))
    source = HandoverSource(work, lambda _folder, _name: False)
    with pytest.raises(Unavailable):
        source.look(0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_file_under_a_temporary_name_is_left_alone_until_it_is_renamed(rig: Rig) -> None:
    rig.drop("a.jpg.part", "picture:Edema")
    rig.drop(".b.jpg", "picture:Edema")
    rig.ticks(20)
    assert rig.daemon.ignored == 2
    os.rename(rig.inbox / "a.jpg.part", rig.inbox / "a.jpg")
    rig.settle()
    audit.check(rig.root, [b"picture:Edema"], inbox=rig.root / "nowhere")
    assert (rig.inbox / ".b.jpg").exists()


def test_a_picture_without_its_end_is_given_time_and_then_rejected(rig: Rig) -> None:
    (rig.inbox / "a.jpg").write_bytes(JPEG_WITHOUT_END)
    rig.ticks(INCOMPLETE_S - 5, step_s=SCAN_S)
    assert not audit.filed(rig.root)
    assert rig.settling.unfinished == 1
    rig.ticks(30, step_s=SCAN_S)
    audit.check(rig.root, [JPEG_WITHOUT_END])
    assert audit.jsonl_records(rig.root)[0]["risk_level"] == "Rejected"


def test_a_picture_without_its_end_that_is_finished_later_is_taken_then(rig: Rig) -> None:
    (rig.inbox / "a.jpg").write_bytes(JPEG_WITHOUT_END)
    rig.ticks(300, step_s=SCAN_S)
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    audit.check(rig.root, [b"picture:Edema"])


def test_folders_links_and_pipes_with_an_image_name_are_left_alone(rig: Rig) -> None:
    (rig.inbox / "folder.jpg").mkdir()
    (rig.inbox / "link.jpg").symlink_to(rig.root / "state" / "lock")
    os.mkfifo(rig.inbox / "pipe.png")
    rig.ticks(60)
    assert not audit.filed(rig.root)
    assert (rig.inbox / "link.jpg").is_symlink()
    assert rig.daemon.ignored == 2


def test_subfolders_of_any_depth_are_taken_and_the_first_names_the_source(rig: Rig) -> None:
    arrived = [
        rig.drop("er/night/late/a.jpg", "picture:Edema"),
        rig.drop("b.png", "picture:Effusion"),
    ]
    rig.settle()
    audit.check(rig.root, arrived)
    sources = {r["filename"]: r["source"] for r in audit.jsonl_records(rig.root)}
    assert sources == {"a.jpg": "er", "b.png": ""}


def test_a_file_that_is_no_picture_is_set_aside_and_its_neighbours_are_scored(rig: Rig) -> None:
    arrived = [
        rig.drop("a.jpg", "picture:Edema"),
        rig.drop("b.jpg", "these are notes"),
        rig.drop("c.jpg", "picture:Fracture"),
    ]
    rig.settle()
    audit.check(rig.root, arrived)
    levels = [record["risk_level"] for record in audit.jsonl_records(rig.root)]
    assert levels == ["High", "Rejected", "Low"]


def test_scores_that_are_no_numbers_are_a_failure_and_never_a_level(rig: Rig) -> None:
    arrived = [rig.drop("a.jpg", "nan"), rig.drop("b.jpg", "picture:Effusion")]
    rig.settle()
    audit.check(rig.root, arrived)
    first, second = audit.jsonl_records(rig.root)
    assert first["rejected"]["code"] == "not_finite"
    assert second["risk_level"] == "Medium"


def test_the_same_bytes_again_are_scored_and_flagged(rig: Rig) -> None:
    arrived = [rig.drop("a.jpg", "picture:Edema"), rig.drop("b.jpg", "picture:Edema")]
    rig.settle()
    arrived.append(rig.drop("a.jpg", "picture:Edema"))
    rig.settle()
    audit.check(rig.root, arrived)
    assert [r["duplicate_of"] for r in audit.jsonl_records(rig.root)] == [None, 0, 0]


def test_the_same_bytes_again_are_set_aside_unscored_when_that_is_wished(tmp_path: Path) -> None:
    rig = Rig(tmp_path, duplicates="set-aside")
    arrived = [rig.drop("a.jpg", "picture:Edema")]
    rig.settle()
    arrived.append(rig.drop("b.jpg", "picture:Edema"))
    rig.settle()
    audit.check(rig.root, arrived)
    assert audit.jsonl_records(rig.root)[1]["saved_path"] == "duplicates/0001_b.jpg"
    assert rig.engine.batches == [1]
    rig.crash()


def test_the_same_name_five_times_gives_five_images(rig: Rig) -> None:
    arrived = []
    for number in range(5):
        arrived.append(rig.drop("a.jpg", f"picture:Edema#{number}"))
        rig.settle()
    audit.check(rig.root, arrived)


def test_a_flood_is_worked_off_oldest_first_in_full_batches(rig: Rig) -> None:
    arrived = []
    for number in range(100):
        arrived.append(rig.drop(f"{number:03d}.jpg", f"picture:Edema#{number}"))
        os.utime(rig.inbox / f"{number:03d}.jpg", (1_000_000 + number, 1_000_000 + number))
    most_in_hand = 0
    for _ in range(40):
        rig.tick(0.5)
        most_in_hand = max(most_in_hand, rig.pipeline.open_batches)
    audit.check(rig.root, arrived)
    names = [record["filename"] for record in audit.jsonl_records(rig.root)]
    assert names == sorted(names)
    assert rig.engine.batches == [16] * 6 + [4]
    assert most_in_hand <= daemon_module.MAX_OPEN_BATCHES


def test_while_a_batch_is_scored_the_next_one_is_with_the_decoders(rig: Rig) -> None:
    for number in range(100):
        rig.drop(f"{number:03d}.jpg", f"picture:Edema#{number}")
    classify, submit = rig.engine.classify, rig.decoder.submit
    submitted: list[str] = []
    submitted_by_then: list[int] = []

    def watched(batch: np.ndarray) -> np.ndarray:
        submitted_by_then.append(len(submitted))
        return classify(batch)

    def counted(path: str) -> Future[DecodeOutcome]:
        submitted.append(path)
        return submit(path)

    rig.engine.classify, rig.decoder.submit = watched, counted  # type: ignore[method-assign]
    rig.settle()
    assert len(submitted_by_then) == 7
    for number, found in enumerate(submitted_by_then):
        assert found >= min((number + 2) * 16, 100)


def test_while_a_batch_is_filed_the_next_one_is_scored(rig: Rig) -> None:
    arrived = [rig.drop(f"{n:02}.jpg", f"picture:Edema#{n}") for n in range(32)]
    classify, file = rig.engine.classify, rig.spool.results.file
    is_second_scored = Event()

    def watched(batch: np.ndarray) -> np.ndarray:
        if rig.engine.batches:
            is_second_scored.set()
        return classify(batch)

    def file_then(move: Move) -> None:
        assert is_second_scored.wait(30), "the network waits for the first to be filed"
        file(move)

    rig.engine.classify, rig.spool.results.file = watched, file_then  # type: ignore[method-assign]
    rig.settle()
    audit.check(rig.root, arrived)
    assert rig.engine.batches == [16, 16]


def test_a_copy_in_the_batch_that_is_scored_ahead_is_set_aside_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path, duplicates="set-aside", max_size=2)
    contents = ["Edema#1", "Edema#2", "Edema#1", "Edema#3", "Edema#3", "Edema#2"]
    arrived = [rig.drop(f"{n}.jpg", f"picture:{text}") for n, text in enumerate(contents)]
    rig.settle()
    audit.check(rig.root, arrived)
    records = audit.jsonl_records(rig.root)
    aside = [r["filename"] for r in records if r["saved_path"].startswith("duplicates/")]
    assert sorted(aside) == ["2.jpg", "4.jpg", "5.jpg"]
    rig.crash()


def test_a_network_that_fails_on_the_next_batch_keeps_back_that_one_alone(rig: Rig) -> None:
    arrived = [rig.drop(f"{n:02}.jpg", f"picture:Edema#{n}") for n in range(20)]
    classify = rig.engine.classify

    def fails_on_a_small_one(batch: np.ndarray) -> np.ndarray:
        if len(batch) < 16:
            raise RuntimeError("out of memory")
        return classify(batch)

    rig.engine.classify = fails_on_a_small_one  # type: ignore[method-assign]
    rig.ticks(12)
    assert len(audit.jsonl_records(rig.root)) == 16
    assert "out of memory" in rig.health.problems["model"].reason
    rig.engine.classify = classify  # type: ignore[method-assign]
    rig.ticks(70)
    audit.check(rig.root, arrived)
    assert not rig.health.problems


def test_a_trickle_without_a_quiet_moment_is_taken_when_the_first_has_waited(rig: Rig) -> None:
    waited_s = 0.0
    while not rig.engine.batches:
        rig.drop(f"{waited_s}.jpg", f"picture:Edema#{waited_s}")
        rig.tick(0.5)
        waited_s += 0.5
        assert waited_s < 30
    assert waited_s <= SETTLE_S + 10 + 1.5


# -- when something of ours is out of order ------------------------------------------------


def test_a_failing_network_keeps_the_images_and_goes_on_by_itself(rig: Rig) -> None:
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(20)]
    rig.engine.broken = True
    rig.ticks(60)
    assert "model" in rig.health.problems
    assert not audit.filed(rig.root)
    assert len(list(rig.inbox.iterdir())) == 4, "no more is claimed than the first batch"
    rig.engine.broken = False
    rig.ticks(120)
    assert not rig.health.problems
    audit.check(rig.root, arrived)


def test_a_decoder_that_cannot_start_keeps_the_images_and_goes_on_by_itself(rig: Rig) -> None:
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(3)]
    rig.decoder.broken = True
    rig.ticks(30)
    rig.decoder.broken = False
    rig.ticks(90)
    assert not rig.health.problems
    audit.check(rig.root, arrived)


def test_a_decoder_that_fails_after_a_while_is_tried_less_and_less_often(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is at a picture again, nothing shows that the trouble is gone."""
    arrived = rig.drop("a.jpg", "picture:Edema")
    begun: list[Future[DecodeOutcome]] = []

    def submit(_path: str) -> Future[DecodeOutcome]:
        begun.append(Future())
        return begun[-1]

    monkeypatch.setattr(daemon_module, "_DECODE_WAIT_S", 0.0)
    with monkeypatch.context() as failing:
        failing.setattr(rig.decoder, "submit", submit)
        for _ in range(240):
            rig.tick(0.5)
            if begun and not begun[-1].done():
                assert len(begun) == 1 or "decoder" in rig.health.problems
                begun[-1].set_exception(Unavailable("decoder", "It was killed."))
        assert 4 <= len(begun) <= 9  # 1, 2, 4, 8, 16, 32 seconds apart
    rig.ticks(90)
    assert not rig.health.problems
    audit.check(rig.root, [arrived])


def test_below_the_low_water_mark_of_a_disk_nothing_is_claimed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "free_bytes", lambda _folder: -1)
    arrived = rig.drop("a.jpg", "picture:Edema")
    rig.ticks(60)
    assert (rig.inbox / "a.jpg").exists()
    assert "min_free_bytes" in rig.health.problems["disk"].reason
    monkeypatch.undo()
    rig.ticks(90)
    audit.check(rig.root, [arrived])


def test_an_inbox_that_is_away_is_waited_for_and_not_made_anew(rig: Rig) -> None:
    arrived = [rig.drop("a.jpg", "picture:Edema")]
    rig.settle()
    os.rename(rig.inbox, rig.root / "away")
    rig.ticks(120)
    assert "inbox" in rig.health.problems
    assert not rig.inbox.exists()
    os.rename(rig.root / "away", rig.inbox)
    arrived.append(rig.drop("b.jpg", "picture:Fracture"))
    rig.ticks(120)
    assert not rig.health.problems
    audit.check(rig.root, arrived)


def test_a_results_folder_that_somebody_deletes_is_made_again(rig: Rig) -> None:
    arrived = rig.drop("a.jpg", "picture:Edema")
    shutil.rmtree(rig.root / "classified_images")
    rig.settle()
    audit.check(rig.root, [arrived])


def test_a_results_folder_that_cannot_be_written_delays_the_images_only(rig: Rig) -> None:
    arrived = rig.drop("a.jpg", "picture:Edema")
    high = rig.root / "classified_images" / "High"
    high.rmdir()
    high.write_text("in the way")
    rig.ticks(30)
    assert "work" in rig.health.problems
    high.unlink()
    high.mkdir()
    rig.ticks(120)
    assert not rig.health.problems
    audit.check(rig.root, [arrived])


def test_a_name_that_somebody_has_taken_is_never_overwritten(rig: Rig) -> None:
    theirs = rig.root / "classified_images" / "High" / "0000_a.jpg"
    theirs.write_text("not ours")
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    assert theirs.read_text() == "not ours"
    assert audit.jsonl_records(rig.root)[0]["saved_path"] == "classified_images/High/0001_a.jpg"


def test_a_name_that_is_taken_between_decision_and_move_gets_the_image_decided_anew(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = rig.root / "classified_images" / "High" / "0000_a.jpg"
    decide = rig.ledger.decide

    def taken_meanwhile(*args: Any, **kwargs: Any) -> None:
        decide(*args, **kwargs)
        theirs.write_text("not ours")

    monkeypatch.setattr(rig.ledger, "decide", taken_meanwhile)
    arrived = rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    theirs_now = theirs.read_text()
    theirs.unlink()
    audit.check(rig.root, [arrived])
    assert theirs_now == "not ours"
    assert audit.jsonl_records(rig.root)[0]["index"] == 1


def test_a_claimed_file_that_somebody_deletes_is_recorded_as_missing(rig: Rig) -> None:
    rig.engine.broken = True
    rig.drop("a.jpg", "picture:Edema")
    rig.ticks(20)
    work = (rig.root / ".xray-watcher").iterdir()
    (work_file,) = (path for path in work if path.name.isdecimal())
    work_file.unlink()
    rig.engine.broken = False
    rig.ticks(120)
    (record,) = audit.jsonl_records(rig.root)
    assert record["rejected"]["code"] == "missing"
    assert record["saved_path"] is None


def test_once_ends_with_an_error_when_something_is_out_of_reach(rig: Rig) -> None:
    shutil.rmtree(rig.inbox)
    with pytest.raises(Unavailable, match="inbox"):
        rig.daemon.run(once=True)


# -- days ---------------------------------------------------------------------------------


def test_the_summary_balances_and_a_day_that_is_over_is_closed(rig: Rig) -> None:
    arrived = [rig.drop("a.jpg", "picture:Edema"), rig.drop("er/b.jpg", "no picture")]
    rig.settle()
    rig.tick(61)
    summary = audit.check_summary(rig.root, "2026-11-23", received=len(arrived))
    assert summary["by_source"] == {"": 1, "er": 1}
    assert not summary["closed"]
    rig.tick(12 * 3600)  # over midnight in Athens
    assert audit.check_summary(rig.root, "2026-11-23", received=len(arrived))["closed"]
    rig.drop("c.jpg", "picture:Edema")
    rig.settle()
    rig.tick(61)
    log = rig.root / "logs" / "results-2026-11-24.jsonl"
    assert log.read_bytes().count(b"\n") == 1
    assert (rig.root / "logs" / "daily" / "2026-11-24.json").exists()


def test_what_takes_the_place_of_a_file_that_is_being_claimed_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the next file, nor the next start; it stays in the work folder, and `fsck` names it."""
    rig = Rig(tmp_path)
    begin_claims, secret = rig.ledger.begin_claims, rig.root / "secret.jpg"
    secret.write_text("picture:Edema")

    def swapped(claims: Any) -> list[int]:
        monkeypatch.undo()
        (rig.inbox / "a.jpg").unlink()
        (rig.inbox / "a.jpg").symlink_to(secret)
        return begin_claims(claims)

    monkeypatch.setattr(rig.ledger, "begin_claims", swapped)
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    rig.drop("b.jpg", "picture:Fracture")
    rig.settle()
    rig.crash()
    again = Rig(rig.root, clock=rig.clock)
    again.drop("c.jpg", "picture:Pneumonia")
    again.settle()
    assert not again.health.problems
    first, *others = again.records()
    assert '"missing"' in first
    assert [f'"inbox_path":"{name}.jpg"' in line for name, line in zip("bc", others, strict=True)]
    assert again.spool.work.leftovers() == [f"{1:012d}"]
    again.crash()


@pytest.mark.parametrize("is_done", [True, False])
def test_a_claim_whose_answer_never_came_is_looked_after_when_the_share_is_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    claim, is_away = rig.spool.inbox.claim, [True]

    def away(path: str, image_id: int) -> bool:
        if not is_away[0]:
            return claim(path, image_id)
        if is_done:
            claim(path, image_id)
        raise Unavailable("inbox", "The share went away.")

    def listed() -> set[int]:
        if is_away[0]:
            raise Unavailable("inbox", "The share is away.")
        return WorkFolder.claimed_ids(rig.spool.work)

    monkeypatch.setattr(rig.spool.inbox, "claim", away)
    monkeypatch.setattr(rig.spool.work, "claimed_ids", listed)
    content = rig.drop("ward/a.png", "picture:Edema")
    rig.ticks(20)
    assert "work" in rig.health.problems
    is_away[0] = False
    rig.ticks(90)
    assert not rig.health.problems
    audit.check(rig.root, [content])
    (line,) = rig.records()
    assert '"inbox_path":"ward/a.png"' in line


def test_what_cannot_be_claimed_is_out_of_order_until_it_can(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turns between two tries prove nothing: the service must not call itself well."""

    def full(*_: object) -> None:
        raise Unavailable("disk", "The disk of the ledger is full: make room there.")

    monkeypatch.setattr(rig.ledger, "begin_claims", full)
    arrived = rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    for _ in range(60):
        rig.tick(0.5)
        assert "work" in rig.health.problems
    monkeypatch.undo()
    rig.ticks(70)
    assert not rig.health.problems
    audit.check(rig.root, [arrived])


def test_what_could_not_be_claimed_and_was_taken_away_keeps_nothing_out_of_order(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Unavailable("disk", "The disk of the ledger is full: make room there.")

    monkeypatch.setattr(rig.ledger, "begin_claims", full)
    rig.drop("a.jpg", "picture:Edema")
    (rig.inbox / "b.jpg").write_bytes(JPEG_WITHOUT_END)
    rig.settle()
    assert "work" in rig.health.problems
    os.unlink(rig.inbox / "a.jpg")
    rig.ticks(70)
    assert not rig.health.problems
    assert (rig.inbox / "b.jpg").exists()  # what is unfinished is not claimed yet


def test_a_large_batch_on_a_slow_processor_tells_of_progress_all_along(tmp_path: Path) -> None:
    """Or the watchdog would end the service within it, and again within its repetition."""
    rig = Rig(tmp_path, max_size=1024)
    classify, file = rig.engine.classify, rig.spool.results.file
    before: list[int] = []  # beats before each part

    def slowly(batch: Any) -> Any:
        while before and len(rig.beats_s) == before[-1]:
            pass  # the clock in hand does not go on by itself while progress is told
        before.append(len(rig.beats_s))
        rig.clock.passed_s += 0.5 * len(batch)
        return classify(batch)

    def across(move: Any) -> None:
        rig.clock.passed_s += 0.5
        file(move)

    rig.engine.classify, rig.spool.results.file = slowly, across  # type: ignore[method-assign]
    arrived = [rig.drop(f"{n}.jpg", f"picture:Edema#{n}") for n in range(300)]
    rig.settle()
    audit.check(rig.root, arrived)
    assert rig.clock.passed_s > 300 * (0.5 + 0.5)
    gaps_s = [later - earlier for earlier, later in pairwise(rig.beats_s)]
    assert max(gaps_s) <= 40
    rig.crash()
