"""Retention: what is old enough goes, everything else stays, and the records with it."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import audit
from rig import Rig
from service import COMMAND, environment
from xray_watcher.commands.fsck import check
from xray_watcher.commands.retention import OFF, clean_up, plan
from xray_watcher.config.settings import Settings
from xray_watcher.config.upkeep import RetentionSettings
from xray_watcher.core.times import to_us
from xray_watcher.errors import AlreadyRunning, Unavailable
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.rows import LogState
from xray_watcher.reports.daily import day_summary, to_markdown
from xray_watcher.retention.retention import BELIEVED, Retention
from xray_watcher.service.upkeep import build_retention
from xray_watcher.system.lock import InstanceLock

DAY_S = 86_400.0
HIGH = "classified_images/High"
LONG = {"high_days": 40, "medium_days": 40, "low_days": 40, "rejected_days": 40}


def settings_for(root: Path, **retention: int) -> Settings:
    return Settings(
        root=str(root),
        state_dir=str(root / "state"),
        timezone="Europe/Athens",
        retention=RetentionSettings(**{"keep_at_least_images": 0} | retention),
    )


class Old:
    """A rig whose images were filed long ago; `clean` is one day's run."""

    def __init__(self, root: Path, **retention: int) -> None:
        self.root = root
        self.settings = settings_for(root, **retention)
        self.rig = Rig(root)
        self.retention = self.made()

    def made(self) -> Retention:
        return build_retention(self.settings, self.rig.ledger, self.rig.spool, self.rig.clock)

    def restart(self) -> None:
        self.rig.crash()
        self.rig = Rig(self.root, clock=self.rig.clock)
        self.retention = self.made()

    def file(self, *contents: str) -> None:
        for content in contents:
            self.rig.drop(f"{content.replace(':', '-')}.jpg", content)
        self.rig.settle()

    def pass_days(self, days: float) -> None:
        """Days on which the service works and retention finds nothing that is old enough."""
        self.rig.tick(days * DAY_S)
        self.rig.tick(60.0)
        now = self.rig.clock.now()
        with self.rig.ledger.transaction():
            self.rig.ledger.set_meta(BELIEVED, f"{now - timedelta(days=1):%F} {to_us(now)}")

    def clean_days(self, days: int) -> list[int]:
        """One run a day; returns how many images lie there after each."""
        counts = []
        for _ in range(days):
            self.clean()
            counts.append(len(self.names()))
            self.rig.clock.passed_s += DAY_S
        return counts

    def clean(self) -> None:
        while self.retention.step():
            pass

    def names(self) -> list[str]:
        return sorted(Path(path).name for path in audit.filed(self.root))

    def differences(self) -> list[str]:
        return [str(difference) for difference in check(self.settings, deep=True)]


@pytest.fixture
def old(tmp_path: Path) -> Old:
    """Four images of each kind, filed 41 days ago, and one of today."""
    old = Old(tmp_path, **LONG, logs_days=40)
    old.file("picture:Edema#1", "picture:Effusion#2", "picture:Fracture#3", "unreadable")
    old.pass_days(41)
    old.file("picture:Edema#new")
    return old


def test_what_is_old_goes_and_its_record_stays(old: Old, tmp_path: Path) -> None:
    records = [old.rig.ledger.record_of(idx) for idx in range(5)]
    old.clean()
    assert old.names() == ["0004_picture-Edema#new.jpg"]
    assert [old.rig.ledger.record_of(idx) for idx in range(5)] == records
    row = old.rig.ledger.image_with_index(0)
    assert row is not None
    assert row.removal == "done"
    assert row.removed_us is not None
    assert os.listdir(tmp_path / "rejected") == [], "the reason beside an image went with it"
    assert old.differences() == []
    summary = day_summary(old.rig.ledger, "2026-11-23", today="2027-01-03")
    assert summary["removed_by_retention"] == 4
    assert b"The files of 4 of them were removed by retention" in to_markdown(summary)
    logs = sorted(os.listdir(tmp_path / "logs"))
    assert logs == ["daily", "results-2027-01-03.csv", "results-2027-01-03.jsonl"]
    assert (tmp_path / "logs" / "daily" / "2026-11-23.json").exists()


def test_nothing_goes_unless_it_is_set(tmp_path: Path) -> None:
    old = Old(tmp_path)
    old.file("picture:Edema#1", "unreadable")
    old.pass_days(4000)
    old.clean()
    assert len(old.names()) == 2
    assert list(plan(old.settings, old.rig.clock.now())) == [OFF]


def test_each_folder_goes_by_its_own_age(tmp_path: Path) -> None:
    old = Old(tmp_path, high_days=100, low_days=40)
    old.file("picture:Edema#1", "picture:Effusion#2", "picture:Fracture#3")
    old.pass_days(41)
    old.clean()
    assert old.names() == ["0000_picture-Edema#1.jpg", "0001_picture-Effusion#2.jpg"]
    old.pass_days(60)
    old.clean()
    assert old.names() == ["0001_picture-Effusion#2.jpg"]


def test_the_newest_of_each_folder_stay_however_old(tmp_path: Path) -> None:
    old = Old(tmp_path, **LONG, keep_at_least_images=2)
    for number in range(5):
        old.file(f"picture:Edema#{number}")
    old.file("picture:Fracture#9")
    old.pass_days(400)
    old.clean()
    assert old.names() == [
        *("0003_picture-Edema#3.jpg", "0004_picture-Edema#4.jpg", "0005_picture-Fracture#9.jpg")
    ]


def filed_while_the_clock_was_behind(old: Old, days: float, *contents: str) -> None:
    now = old.rig.clock.now()
    old.rig.clock.set_to(now - timedelta(days=days))
    old.file(*contents)
    old.rig.clock.set_to(now)


def test_what_was_filed_while_the_clock_was_behind_is_as_young_as_what_came_before_it(
    tmp_path: Path,
) -> None:
    old = Old(tmp_path, **LONG, logs_days=40)
    old.file("picture:Edema#1", "unreadable")
    filed_while_the_clock_was_behind(old, 60, "picture:Edema#2", "unreadable too")
    old.pass_days(1)  # the summaries are written
    high = next(iter(plan(old.settings, old.rig.clock.now())))
    old.clean()
    assert (high, len(old.names())) == ("High: delete none, keep 2", 4)
    assert (tmp_path / "logs" / "results-2026-09-24.csv").exists()
    old.pass_days(40)
    old.clean()
    assert old.names() == []
    assert sorted(os.listdir(tmp_path / "logs")) == ["daily"]


def test_what_is_filed_with_a_clock_behind_in_the_middle_of_the_cleaning_stays(
    tmp_path: Path,
) -> None:
    old = Old(tmp_path, **LONG)
    old.file(*(f"picture:Edema#{number}" for number in range(20)))
    old.pass_days(41)
    assert old.retention.step(), "there is more to remove"
    filed_while_the_clock_was_behind(old, 40.5, "picture:Edema#late")
    old.clean()
    assert old.names() == ["0020_picture-Edema#late.jpg"]


def test_no_question_of_retention_reads_all_images_for_each_few_that_go(old: Old) -> None:
    asked: list[str] = []
    old.rig.ledger.db.sqlite.set_trace_callback(asked.append)
    old.clean()
    old.rig.ledger.db.sqlite.set_trace_callback(None)
    of_images = [sql for sql in asked if "FROM image" in sql and sql.startswith("SELECT")]
    plans = {
        sql: [row[3] for row in old.rig.ledger.db.sqlite.execute(f"EXPLAIN QUERY PLAN {sql}")]
        for sql in of_images
    }
    assert len(plans) > 4
    for sql, steps in plans.items():
        assert {"SCAN image"}.isdisjoint(steps), (sql, steps)
    youngest = [sql for sql in of_images if "min(id)" in sql]
    assert len(youngest) == 4, "once for each folder with an age and images, not for each few"
    assert all("INDEX image_kept (folder=? AND filed_us>?)" in plans[sql][0] for sql in youngest)


@pytest.fixture
def known(tmp_path: Path) -> Old:
    """Two images of today, and a day on which retention has looked."""
    old = Old(tmp_path, **LONG)
    old.file("picture:Edema#1", "unreadable")
    old.clean()
    return old


def set_ahead(old: Old, days: float) -> None:
    old.rig.clock.set_to(old.rig.clock.now() + timedelta(days=days))


def test_a_clock_that_jumps_five_years_costs_two_days_worth_a_day(tmp_path: Path) -> None:
    old = Old(tmp_path, **LONG)
    for number in range(50):
        old.file(f"picture:Edema#{number}")
        old.pass_days(1)
    old.clean()
    assert len(old.names()) == 39, "those that are older than 40 days"
    set_ahead(old, 1826)
    with capture_logs() as logs:
        assert old.clean_days(3) == [37, 35, 33]
    behind = [line["behind_days"] for line in logs if line["event"] == "cleaned up"]
    assert behind == [1824, 1823, 1822], "the log says so each day"
    set_ahead(old, -1826)
    assert old.clean_days(3) == [33, 33, 33], "what went too early is made up for by waiting"


def test_a_clock_that_jumps_to_and_fro_costs_no_more_than_two_days_worth_a_day(
    known: Old,
) -> None:
    for _ in range(20):
        set_ahead(known, 2000)
        known.retention.refresh(known.rig.clock.monotonic_s())
        set_ahead(known, -1999)
        known.retention.refresh(known.rig.clock.monotonic_s())
        known.rig.clock.passed_s += 600
    noted = int((known.rig.ledger.meta(BELIEVED) or "").split()[1])
    assert noted <= to_us(known.rig.clock.now() + timedelta(days=2))


def test_a_restart_advances_the_believed_time_no_further_on_the_same_day(known: Old) -> None:
    set_ahead(known, 2000)
    known.clean()
    first = known.rig.ledger.meta(BELIEVED)
    for _ in range(3):
        known.restart()
        known.rig.ledger.db.sqlite.execute("DELETE FROM meta WHERE key = 'retention_day'")
        known.clean()
    assert known.rig.ledger.meta(BELIEVED) == first


def test_a_clock_that_was_behind_for_a_day_takes_back_nothing(known: Old) -> None:
    known.pass_days(41)
    set_ahead(known, -9000)  # a computer that begins in 2002 until it is told the time
    known.clean()
    set_ahead(known, 9000)
    known.clean()
    assert known.names() == []


def test_a_service_that_was_off_for_weeks_catches_up_two_days_a_run(tmp_path: Path) -> None:
    old = Old(tmp_path, **LONG)
    for number in range(50):
        old.file(f"picture:Edema#{number}")
        old.pass_days(1)
    old.clean()
    before = len(old.names())
    old.rig.clock.passed_s += 21 * DAY_S
    old.restart()
    counts = old.clean_days(21)
    assert counts[0] == before - 2
    assert len(old.names()) == before - 39, "what lay there is older than 40 days, but for none"
    assert all(a - b <= 2 for a, b in pairwise(counts)), "evenly"


def test_a_first_activation_over_years_of_images_removes_them_at_once(tmp_path: Path) -> None:
    """Images that arrived day by day are witnesses: the clock did not jump."""
    old = Old(tmp_path, **LONG)
    for number in range(30):
        old.file(f"picture:Edema#{number}")
    now = old.rig.clock.now()
    for image_id in range(1, 31):  # one every five days, and the last of today
        then = now - timedelta(days=5 * (30 - image_id))
        old.rig.ledger.db.sqlite.execute(
            "UPDATE image SET day = ?, filed_us = ? WHERE id = ?",
            (f"{then:%F}", to_us(then), image_id),
        )
    old.clean()
    assert len(old.names()) == 9, "those of the last 40 days: the newest bears witness of today"


def test_a_first_activation_with_a_clock_years_ahead_removes_nothing_young(
    tmp_path: Path,
) -> None:
    old = Old(tmp_path, **LONG)
    old.file("picture:Edema#1", "unreadable")
    set_ahead(old, 2000)
    old.file("picture:Edema#2")
    assert old.clean_days(10) == [3] * 10


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    if subprocess.run(["chattr", "+i", path], check=False, capture_output=True).returncode:
        pytest.skip("this file system knows no immutable files, or this is not root")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


def test_an_image_that_cannot_be_removed_keeps_no_other_and_is_told(tmp_path: Path) -> None:
    old = Old(tmp_path, **LONG, logs_days=40)
    old.file(*(f"picture:Edema#{number}" for number in range(40)), "unreadable")
    old.pass_days(41)
    name = "0003_picture-Edema#3.jpg"
    clock = old.rig.clock
    with immutable(tmp_path / HIGH / name):
        old.clean()
        with pytest.raises(Unavailable) as told:
            old.retention.refresh(clock.monotonic_s())
        assert old.names() == [name]
        assert told.value.reason.startswith(
            "1 files that are old enough cannot be removed (Operation not permitted)."
        )
        assert name not in told.value.reason
        assert old.retention.last.images == 40
        with pytest.raises(Unavailable):
            old.retention.refresh(clock.monotonic_s() + 60)
        old.restart()
        old.clean()
        with pytest.raises(Unavailable, match="1 files"):
            old.retention.refresh(clock.monotonic_s())
        old.rig.crash()
        assert clean_up(old.settings, clock).stuck == {f"High/{name}": "Operation not permitted"}
        old.rig = Rig(tmp_path, clock=clock)
        assert old.differences() == [], "it is filed as before"
    old.retention = old.made()
    old.pass_days(1)
    old.retention.refresh(clock.monotonic_s())
    old.clean()
    old.retention.refresh(clock.monotonic_s())
    assert old.names() == []


@pytest.mark.parametrize("code", [errno.EIO, errno.EPERM, errno.EBUSY, errno.ESTALE, errno.EUCLEAN])
@pytest.mark.parametrize("call", ["open", "unlink", "pread", "stat"])
def test_any_error_at_one_file_leaves_that_file_alone(
    tmp_path: Path, call: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Old(tmp_path, **LONG)
    old.file(*(f"picture:Edema#{number}" for number in range(20)))
    old.pass_days(41)
    real, is_bad = getattr(os, call), (tmp_path / HIGH / "0003_picture-Edema#3.jpg").stat().st_ino

    def failing(target: str | int, *arguments: object, **named: object) -> object:
        is_it = target == "0003_picture-Edema#3.jpg" or (
            call == "pread" and os.fstat(int(target)).st_ino == is_bad
        )
        if is_it:
            raise OSError(code, os.strerror(code))
        return real(target, *arguments, **named)

    monkeypatch.setattr(os, call, failing)
    old.clean()
    assert old.names() == ["0003_picture-Edema#3.jpg"]
    assert old.retention.last.stuck == {"High/0003_picture-Edema#3.jpg": os.strerror(code)}


def test_a_folder_out_of_reach_keeps_no_other_folder(old: Old, tmp_path: Path) -> None:
    high = tmp_path / HIGH
    old.retention._removals.begin([1], 1_000_000)  # begun in an earlier life, and it is away
    high.rename(tmp_path / "away")
    with pytest.raises(Unavailable, match="Nothing can be removed from"):
        old.clean()
    assert [name for name in old.names() if "Edema" not in name] == []
    (tmp_path / "away").rename(high)
    old.clean()
    assert old.names() == ["0004_picture-Edema#new.jpg"]


def test_a_log_that_cannot_be_removed_keeps_no_other_and_is_told(old: Old, tmp_path: Path) -> None:
    old.pass_days(41)
    old.file("picture:Edema#newer")
    with immutable(tmp_path / "logs" / "results-2026-11-23.csv"):
        old.clean()
        assert list(old.retention.last.stuck) == ["logs/results-2026-11-23"]
        assert not (tmp_path / "logs" / "results-2027-01-03.csv").exists()
    old.pass_days(1)
    old.clean()
    assert not (tmp_path / "logs" / "results-2026-11-23.csv").exists()


def test_a_person_s_command_goes_by_the_clock_as_it_is(known: Old) -> None:
    set_ahead(known, 2000)
    known.rig.crash()
    assert clean_up(known.settings, known.rig.clock).images == 2


STRANGERS: dict[str, Callable[[Path], object]] = {
    "changed": lambda path: path.write_text("picture:Edema#X"),
    "another size": lambda path: path.write_text("longer than it was filed"),
    "a link": lambda path: (path.rename(path.with_name("kept")), path.symlink_to("kept")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("change", STRANGERS.values(), ids=STRANGERS.keys())
def test_a_file_that_is_not_what_was_filed_stays(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    old = Old(tmp_path, **LONG)
    old.file("picture:Edema#1", "picture:Edema#2")
    high = tmp_path / "classified_images" / "High"
    change(high / "0000_picture-Edema#1.jpg")
    before = sorted(os.listdir(high))
    old.pass_days(41)
    old.clean()
    assert sorted(os.listdir(high)) == [name for name in before if not name.startswith("0001")]
    row = old.rig.ledger.image_with_index(0)
    assert row is not None
    assert row.removal is None
    assert old.retention.last.kept == 1


def test_what_the_ledger_does_not_know_stays(old: Old, tmp_path: Path) -> None:
    strangers = [
        tmp_path / "classified_images" / "High" / "0000_stranger.jpg",
        tmp_path / "rejected" / "notes.txt",
        tmp_path / "logs" / "results-2026-11-23.xlsx",
        tmp_path / "logs" / "results-2020-01-01.csv",
    ]
    for path in strangers:
        path.write_text("mine")
        os.utime(path, (0, 0))
    reason = next((tmp_path / "rejected").glob("*.json"))
    reason.write_text("somebody's own notes")
    old.clean()
    assert all(path.read_text() == "mine" for path in strangers)
    assert reason.read_text() == "somebody's own notes"


def test_an_image_that_is_missing_is_not_said_to_be_removed_by_retention(old: Old) -> None:
    (path,) = (path for path in audit.filed(old.root).values() if path.name.startswith("0000"))
    path.unlink()
    old.clean()
    assert any("missing: High/0000" in difference for difference in old.differences())
    assert old.names() == ["0004_picture-Edema#new.jpg"]


def test_an_open_image_s_log_stays_and_so_does_that_of_a_day_that_is_not_closed(
    tmp_path: Path,
) -> None:
    old = Old(tmp_path, logs_days=40)
    old.file("picture:Edema#1")
    old.rig.tick(41 * DAY_S)  # the summary is not written yet
    old.rig.ledger.db.sqlite.execute("UPDATE summary_day SET closed = 0")
    old.clean()
    log = tmp_path / "logs" / "results-2026-11-23.csv"
    assert log.exists()
    old.rig.tick(60)
    old.pass_days(1)
    old.rig.ledger.db.sqlite.execute("UPDATE image SET state = 'FILING'")
    old.clean()
    assert log.exists()


def test_a_log_that_somebody_has_changed_stays(old: Old, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "results-2026-11-23.csv"
    log.write_bytes(log.read_bytes() + b"my own row\r\n")
    old.clean()
    assert log.exists()
    assert log.with_suffix(".jsonl").exists()
    assert any("results-2026-11-23.csv" in difference for difference in old.differences())


def test_a_removed_log_is_not_made_again_even_if_the_clock_is_set_back(old: Old) -> None:
    old.clean()
    old.rig.clock.passed_s -= 41 * DAY_S
    old.restart()
    old.file("picture:Fracture#back")
    logs = os.listdir(old.root / "logs")
    assert "results-2026-11-23.2.csv" in logs
    assert "results-2026-11-23.csv" not in logs


def test_the_same_bytes_are_new_again_after_their_rejection_was_removed(old: Old) -> None:
    old.clean()
    old.rig.drop("again.jpg", "unreadable")
    old.rig.settle()
    record = json.loads(old.rig.ledger.record_of(5).jsonl)
    assert "retry_of" not in record


class Killed(BaseException):
    """What a kill is to the code that it meets."""


@pytest.mark.parametrize("moment", range(1, 40))
def test_a_kill_at_any_moment_is_gone_on_with(
    tmp_path: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Old(tmp_path, **LONG, logs_days=40)
    old.file("picture:Edema#1", "picture:Edema#2", "picture:Fracture#3", "unreadable")
    old.pass_days(41)
    left = moment

    def killing(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            done = real(*arguments, **named)
            left -= 1
            if left == 0:
                raise Killed
            return done

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", killing(os.unlink))
        patch.setattr(os, "fsync", killing(os.fsync))
        removals = old.retention._removals
        for name in ("begin", "end", "mark_log"):
            patch.setattr(removals, name, killing(getattr(removals, name)))
        try:
            old.clean()
        except Killed:
            pass
        else:
            assert moment > 20, "the kill met nothing"
    old.restart()
    for row in old.rig.ledger.filed_rows():  # what is not marked is there, whole
        assert row.folder is not None
        assert row.filed_name is not None
        assert os.path.exists(old.rig.spool.results.target_path(row.folder, row.filed_name))
    old.clean()
    assert old.names() == []
    assert old.differences() == []
    assert sorted(os.listdir(tmp_path / "logs")) == ["daily"]
    assert all(row is not None and row.removal == "done"
               for row in map(old.rig.ledger.image_with_index, range(4)))  # fmt: skip
    assert old.rig.ledger.totals().tally["retention_removed", "High", ""] == 2


def test_a_removal_that_was_begun_is_open_and_its_file_no_stranger(old: Old) -> None:
    old.retention._removals.begin([1], 1_000_000)
    assert [text for text in old.differences() if "log" not in text] == [
        "open: index 0 is being removed by retention (the service takes it up when it starts)"
    ]


def test_a_folder_out_of_reach_is_waited_for(old: Old, tmp_path: Path) -> None:
    high, away = tmp_path / "classified_images" / "High", tmp_path / "away"
    high.rename(away)
    with pytest.raises(Unavailable, match="can be removed"):
        old.clean()
    away.rename(high)
    old.clean()
    assert old.names() == ["0004_picture-Edema#new.jpg"]


def test_the_service_cleans_once_a_day_and_a_few_images_at_a_time(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, **LONG)
    made: list[Retention] = []

    def chores(rig: Rig) -> list[Retention]:
        made.append(build_retention(settings, rig.ledger, rig.spool, rig.clock))
        return made

    rig = Rig(tmp_path, chores=chores)
    for number in range(40):
        rig.drop(f"{number}.jpg", f"picture:Edema#{number}")
    rig.settle()
    rig.clock.passed_s += 41 * DAY_S
    with rig.ledger.transaction():  # days on which the service ran
        rig.ledger.set_meta(BELIEVED, f"2027-01-02 {to_us(rig.clock.now())}")
    rig.tick()
    assert len(audit.filed(tmp_path)) == 24
    rig.ticks(10)
    assert audit.filed(tmp_path) == {}
    assert made[0].last.images == 40
    rig.ticks(30)
    assert made[0].next_due_s > rig.clock.monotonic_s()


def test_the_command_says_what_would_go_then_does_it(old: Old) -> None:
    now = old.rig.clock.now()
    said = list(plan(old.settings, now))
    assert said[0].startswith("High: delete 1 (0.0 MB, filed before 2026-11-24T")
    assert said[0].endswith("keep 1")
    assert said[3].startswith("rejected: delete 1 ")
    assert said[4] == "logs: delete 1, results-2026-11-23 to results-2026-11-23"
    assert len(old.names()) == 5, "a dry run changes nothing"
    clock = old.rig.clock
    with InstanceLock(old.settings.folders.lock), pytest.raises(AlreadyRunning):
        clean_up(old.settings, clock)
    old.rig.crash()
    done = clean_up(old.settings, clock)
    assert (done.images, done.logs, done.kept) == (4, 1, 0)
    assert next(iter(plan(old.settings, now))) == "High: delete none, keep 1"
    assert clean_up(old.settings, clock).images == 0


def test_log_states_keep_their_meaning(old: Old) -> None:
    old.clean()
    assert [state.name for state in old.rig.ledger.log_states()] == ["results-2027-01-03"]
    assert isinstance(old.rig.ledger.log_state("results-2026-11-23"), LogState)


def test_the_command_is_killed_again_and_again_and_nothing_else_goes(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for number in range(100):
        rig.drop(f"{number}.jpg", f"unreadable {number}")
    rig.settle()
    rejected = tmp_path / "rejected"
    stranger = rejected / "0007_mine.jpg"
    stranger.write_text("mine")
    rig.ledger.db.sqlite.execute("UPDATE image SET filed_us = filed_us - 5000000000000")
    rig.crash()
    config = tmp_path / "x.toml"
    config.write_text(
        f'root = "{tmp_path}"\nstate_dir = "{tmp_path}/state"\n'
        "[retention]\nrejected_days = 40\nkeep_at_least_images = 20\n"
    )
    command = [*COMMAND, "retention", "--config", str(config)]
    chance = random.Random(3)
    for _ in range(3):
        before = len(os.listdir(rejected))
        with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and len(os.listdir(rejected)) == before:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.02))  # any moment will do
            process.kill()
    subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL)
    assert stranger.read_text() == "mine"
    kept, rest = divmod(len(os.listdir(rejected)) - 1, 2)
    assert rest == 0
    assert 20 <= kept < 20 + 16, "those of one batch are equally old"
    differences = [str(found) for found in check(settings_for(tmp_path), deep=True)]
    assert [text for text in differences if "0007_mine" not in text] == []
    with LedgerReader.open(str(tmp_path / "state" / "ledger.sqlite3")) as ledger:
        assert ledger.totals().tally["retention_removed", "rejected", ""] == 100 - kept
