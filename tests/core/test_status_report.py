"""`core.status_report`: the heartbeat's JSON is the same for all versions."""

import json
from datetime import UTC, datetime

from xray_watcher.core.status_report import RetryFigures, StatusReport
from xray_watcher.core.values import ModelInfo

REPORT = StatusReport(
    version="1.0.0",
    pid=7,
    at=datetime(2026, 11, 23, 12, tzinfo=UTC),
    model=ModelInfo("phantom", "ab", "float32", simulated=True),
    is_ready=True,
    retries=RetryFigures(2, 9.0, {"busy": 2}, 1),
    problems={"disk": "It is full."},
)


def test_the_keys_are_those_that_monitoring_knows() -> None:
    assert set(REPORT.to_json()) == {
        *("version", "pid", "at", "sandbox_lacks", "model", "ready", "waiting_in_inbox"),
        *("unfinished", "uploads", "oldest_waiting_s", "ignored", "batches_in_hand"),
        *("filed_since_start", "waiting", "troubles", "last_error"),
    }


def test_a_report_is_read_as_it_was_written() -> None:
    assert StatusReport.from_json(json.loads(json.dumps(REPORT.to_json()))) == REPORT


def test_a_missing_file_is_an_empty_report() -> None:
    assert StatusReport.from_json({}) == StatusReport()


def test_a_file_of_another_version_is_read_as_far_as_it_is_known() -> None:
    facts = {"at": "2026-11-23T12:00:00.000Z", "new": 1, "waiting": {"images": 3, "also_new": 4}}
    found = StatusReport.from_json(facts)
    assert found == StatusReport(at=REPORT.at, retries=RetryFigures(images=3))
