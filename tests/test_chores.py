"""A chore that fails in a way that nobody expected costs itself alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

import audit
from rig import Rig
from xray_watcher.errors import StorageFailure, Unavailable
from xray_watcher.service.chores import Contained


class Faulty:
    """A chore with a fault that a test can mend."""

    component = "metrics"
    next_due_s = float("-inf")

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
        self.done = 0

    def refresh(self, now_s: float) -> None:
        assert now_s >= 0
        self.done += 1
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        if self.error is not None:
            raise self.error


def test_filing_goes_on_and_status_and_log_tell_of_the_fault(tmp_path: Path) -> None:
    chore = Faulty(ZeroDivisionError("Jane Doe"))
    rig = Rig(tmp_path, chores=lambda _rig: [Contained(chore)])
    with capture_logs() as logs:
        rig.drop("a.jpg", "picture:Edema#1")
        rig.settle()
        rig.ticks(200)
        assert len(audit.filed(tmp_path)) == 1
        assert "ZeroDivisionError in xray-watcher itself" in rig.health.problems["metrics"].reason
        assert chore.done > 3, "it is tried again"
        chore.stop = lambda: None  # type: ignore[method-assign]
        chore.error = None
        rig.ticks(70)
    assert "metrics" not in rig.health.problems
    told = [line for line in logs if line["event"] == "crashed: please report this"]
    assert len(told) == 1, "once, and not at each try"
    assert "Jane Doe" not in str(logs)


def test_a_fault_at_the_end_keeps_no_other_part_from_its_end() -> None:
    Contained(Faulty(ZeroDivisionError())).stop()


@pytest.mark.parametrize("error", [Unavailable("metrics", "full"), StorageFailure("no")])
def test_what_is_raised_on_purpose_stays_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as told:
        Contained(Faulty(error)).refresh(0.0)
    assert told.value is error


def test_a_wish_to_end_is_no_fault() -> None:
    with pytest.raises(KeyboardInterrupt):
        Contained(Faulty(KeyboardInterrupt())).refresh(0.0)
