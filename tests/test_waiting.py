"""What waits is counted for all, and named for those who may see names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from rig import GIVE_UP_S, INCOMPLETE_S, Rig
from xray_watcher.commands.waiting import read_waiting, to_text
from xray_watcher.core.retries import Reason
from xray_watcher.core.status_report import RetryFigures, StatusReport
from xray_watcher.errors import UsageError
from xray_watcher.service.heartbeat import Heartbeat
from xray_watcher.system.lock import InstanceLock

BROKEN = Reason("unreadable", "Input/output error")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.crash()


def test_an_image_that_waits_is_named_with_its_reason_and_what_happens_when(rig: Rig) -> None:
    rig.retries.failed(("claimed", 7), "ward/a.jpg", BROKEN, 100.0)
    (row,) = rig.waiting.named(110.0, 1_000_010.0)
    assert row == {
        "where": "claimed",
        "name": "ward/a.jpg",
        "code": "unreadable",
        "tries": 1,
        "detail": "Input/output error",
        "since": 1_000_000.0,
        "retry_at": 1_000_001.0,
        "rejected_at": 1_000_000.0 + GIVE_UP_S,
    }


def test_a_picture_without_its_end_is_named_with_the_time_of_its_rejection(rig: Rig) -> None:
    (rig.inbox / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 100)
    rig.ticks(20)
    now_s = rig.clock.monotonic_s()
    (row,) = rig.waiting.named(now_s, now_s)
    assert (row["name"], row["code"]) == ("half.jpg", "unfinished")
    assert row["rejected_at"] == row["since"] + INCOMPLETE_S
    assert rig.daemon.left == {"unfinished": 1}
    assert rig.waiting.problems(now_s)["files"] is None, "that is no trouble"


def test_the_figures_count_all_and_name_none(rig: Rig) -> None:
    rig.retries.failed(("claimed", 7), "DOE^JOHN.jpg", BROKEN, 100.0)
    rig.retries.failed(("inbox", "b.jpg"), "b.jpg", Reason("busy", "It is open."), 150.0)
    rig.retries.queue(("claimed", 8), "c.jpg", 150.0)  # it only waits for its turn
    figures = rig.waiting.figures(160.0)
    assert figures == RetryFigures(2, 60.0, {"unreadable": 1, "busy": 1}, 0)
    assert "DOE" not in str(rig.waiting.problems(160.0))


def test_the_command_names_what_the_service_wrote_and_no_name_speaks_to_the_terminal(
    rig: Rig,
) -> None:
    folders = rig.settings.folders
    rig.retries.failed(("inbox", "x"), "ward/\x1b]0;OWNED\x07.jpg", BROKEN, 100.0)
    names = lambda: rig.waiting.named(110.0, 1_795_000_000.0)  # noqa: E731
    heartbeat = Heartbeat(folders.heartbeat, StatusReport, names_path=folders.waiting, names=names)
    with InstanceLock(folders.lock):
        heartbeat.beat(0.0)
        assert os.stat(folders.waiting).st_mode & 0o007 == 0, "not for everybody's eyes"
        text = to_text(read_waiting(rig.settings), ZoneInfo("UTC"))
        assert "\x1b" not in text
        assert "inbox: ward/" in text
        assert "it cannot be read (Input/output error); since " in text
        rig.retries.forget(("inbox", "x"))
        heartbeat.beat(10.0)
        assert not os.path.exists(folders.waiting)
        assert to_text(read_waiting(rig.settings), None) == "Nothing waits for another try."


def test_without_a_service_the_command_says_so(rig: Rig) -> None:
    with pytest.raises(UsageError, match="does not run"):
        read_waiting(rig.settings)


def test_a_thousand_names_are_written_and_the_figures_count_the_rest(rig: Rig) -> None:
    for number in range(1200):
        rig.retries.failed(("inbox", f"{number}.jpg"), f"{number}.jpg", BROKEN, 100.0)
    assert len(rig.waiting.named(110.0, 110.0)) == 1000
    assert rig.waiting.figures(110.0).images == 1200
    assert json.dumps(rig.waiting.named(110.0, 110.0))
