"""`reports.metrics`: what Prometheus is told, over restarts and with years of images."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from rig import Rig
from xray_watcher.config.settings import Settings
from xray_watcher.core.status_report import StatusReport
from xray_watcher.core.tally import Tally
from xray_watcher.core.values import REJECTIONS
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.rows import Totals
from xray_watcher.reports.metrics import Situation, collect_metrics, exposition
from xray_watcher.reports.textfile import MetricsFile
from xray_watcher.service.chores import Chore
from xray_watcher.system.lock import InstanceLock

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
Samples = dict[tuple[str, ...], float]


def samples(text: bytes) -> Samples:
    """Every sample by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def counted(rig: Rig) -> Samples:
    return samples(exposition(rig.ledger.totals(), Situation(now=rig.clock.now())))


def counters(found: Samples) -> Samples:
    endings = ("_total", "_bucket", "_count", "_sum")
    return {key: value for key, value in found.items() if key[0].endswith(endings)}


def test_received_is_classified_and_rejected_and_pending(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for number, label in enumerate(("Edema", "Edema", "Fracture")):
        rig.drop(f"{number}.jpg", f"picture:{label}#{number}")
    rig.drop("x.jpg", "unreadable")
    rig.settle()
    found = counted(rig)
    assert found["xray_watcher_received_total",] == 4
    assert found["xray_watcher_classified_total", "High"] == 2
    assert found["xray_watcher_classified_total", "Medium"] == 0
    assert found["xray_watcher_classified_total", "Low"] == 1
    assert found["xray_watcher_rejected_total", "corrupt"] == 1
    assert found["xray_watcher_pending_images",] == 0
    assert found["xray_watcher_top_condition_total", "Edema"] == 2
    assert found["xray_watcher_stage_seconds_count", "file"] == 4
    assert found["xray_watcher_stage_seconds_count", "infer"] == 3
    assert found["xray_watcher_filed_seconds_count",] == 4
    assert found["xray_watcher_batch_images_sum",] == 4
    assert found["xray_watcher_score_count", "Edema"] == 3
    assert 1.8 <= found["xray_watcher_score_sum", "Edema"] <= 1.9
    assert found["xray_watcher_last_filed_timestamp_seconds",] <= rig.clock.now().timestamp()


def test_an_image_in_hand_is_pending_and_has_an_age(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.engine.broken = True
    rig.drop("a.jpg", "picture:Edema")
    rig.ticks(20)
    found = counted(rig)
    assert found["xray_watcher_pending_images",] == 1
    assert found["xray_watcher_pending_oldest_seconds",] > 5
    rig.engine.broken = False
    rig.ticks(90)
    found = counted(rig)
    assert found["xray_watcher_received_total",] == 1
    assert found["xray_watcher_pending_images",] == 0
    assert found["xray_watcher_pending_oldest_seconds",] == 0


def test_no_counter_falls_over_a_kill_and_a_restart(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.drop("a.jpg", "picture:Edema#1")
    rig.settle()
    rig.drop("b.jpg", "picture:Edema#2")
    rig.engine.broken = True
    rig.ticks(20)
    before = counters(counted(rig))
    rig.crash()
    again = Rig(tmp_path, clock=rig.clock)
    after = counters(counted(again))
    assert {key: value for key, value in before.items() if after[key] < value} == {}
    again.settle()
    found = counters(counted(again))
    assert {key: value for key, value in before.items() if found[key] < value} == {}
    assert found["xray_watcher_received_total",] == 2
    assert found["xray_watcher_classified_total", "High"] == 2
    again.crash()


def test_every_reason_and_level_is_there_before_its_first_image() -> None:
    found = samples(exposition(None, Situation(now=NOW)))
    for reason in REJECTIONS:
        assert found["xray_watcher_rejected_total", reason] == 0
    assert found["xray_watcher_classified_total", "High"] == 0
    assert found["xray_watcher_stage_seconds_count", "queue"] == 0
    assert found["xray_watcher_up",] == 0


def test_buckets_are_cumulative_and_end_in_the_count() -> None:
    tally = Tally({("batch_images", "", "1.0"): 2, ("batch_images", "", "16.0"): 3})
    tally["batch_images", "", "+Inf"] = 1
    found = samples(exposition(Totals(tally, 0, 0, None, None), Situation(now=NOW)))
    buckets = [v for key, v in found.items() if key[0] == "xray_watcher_batch_images_bucket"]
    assert buckets == sorted(buckets)
    assert found["xray_watcher_batch_images_bucket", "8.0"] == 2
    assert found["xray_watcher_batch_images_bucket", "16.0"] == 5
    assert found["xray_watcher_batch_images_bucket", "+Inf"] == 6
    assert found["xray_watcher_batch_images_count",] == 6


def test_what_the_daemon_reports_is_passed_on() -> None:
    told = {
        "at": "2026-11-23T11:59:58.000Z",
        "troubles": {"disk": "full", "strange": "new"},
        "waiting_in_inbox": 3,
        "unfinished": 1,
        "ignored": 0,
        "oldest_waiting_s": None,
        "waiting": {"images": 2, "oldest_s": 9.0, "codes": {"busy": 2}, "barred": 0},
        "model": {"name": "phantom", "sha256": "ab", "precision": "float32", "simulated": True},
    }
    situation = Situation(
        NOW, StatusReport.from_json(told), NOW - timedelta(hours=1), {"inbox": 5_000_000}, 1_000
    )
    found = samples(exposition(None, situation))
    assert found["xray_watcher_up",] == 1
    assert found["xray_watcher_degraded", "disk"] == 1
    assert found["xray_watcher_retry_images", "busy"] == 2
    assert found["xray_watcher_retry_images", "unreadable"] == 0
    assert found["xray_watcher_retry_oldest_seconds",] == 9.0
    assert found["xray_watcher_degraded", "strange"] == 1
    assert found["xray_watcher_degraded", "inbox"] == 0
    assert found["xray_watcher_inbox_waiting_images",] == 3
    assert found["xray_watcher_heartbeat_timestamp_seconds",] == NOW.timestamp() - 2
    assert found["xray_watcher_start_time_seconds",] == NOW.timestamp() - 3600
    assert found["xray_watcher_disk_free_bytes", "inbox"] == 5_000_000
    assert found["xray_watcher_disk_min_free_bytes",] == 1_000
    assert found["xray_watcher_model_info", "phantom", "float32", "ab", "true"] == 1


def test_without_a_daemon_or_a_ledger_it_is_told_that_none_is_up(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path / "root"), state_dir=str(tmp_path / "state"))
    found = samples(collect_metrics(settings, NOW))
    assert found["xray_watcher_up",] == 0
    assert found["xray_watcher_received_total",] == 0
    assert not [key for key in found if key[0] == "xray_watcher_disk_free_bytes"]


def test_a_daemon_that_has_told_nothing_yet_is_up(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path), state_dir=str(tmp_path))
    (tmp_path / "inbox").mkdir()
    with InstanceLock(settings.folders.lock):
        found = samples(collect_metrics(settings, NOW))
    assert found["xray_watcher_up",] == 1
    assert found["xray_watcher_disk_free_bytes", "inbox"] > 0


MILLION = """
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999999)
INSERT INTO image (state, path, size, received_us, settled_us, day, attempts, sha256, idx, outcome,
  level, top_label, folder, filed_name, filed_us)
SELECT 'DONE', CAST(i || '.jpg' AS BLOB), 9, i, i, date('2020-01-01', (i / 500) || ' days'), 1,
  randomblob(32), i, 'classified', 'High', 'Edema', 'High', i || '_a.jpg', i FROM n
"""


def test_a_scrape_of_a_million_images_is_quick(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with Ledger(str(state / "ledger.sqlite3")) as ledger:
        ledger.db.sqlite.execute("PRAGMA synchronous = OFF")
        ledger.db.sqlite.execute(MILLION)
    settings = Settings(root=str(tmp_path), state_dir=str(state))
    took = []
    for _ in range(5):
        began_s = time.process_time()  # other tests run beside this one
        collect_metrics(settings, NOW)
        took.append(time.process_time() - began_s)
    assert min(took) < 0.3, took


# -- the file for node_exporter -----------------------------------------------------------


def with_file(path: Path) -> Callable[[Rig], list[Chore]]:
    def chores(rig: Rig) -> list[Chore]:
        disks = {"inbox": str(rig.inbox), "logs": "/nowhere"}
        return [
            MetricsFile(
                str(path),
                15.0,
                rig.ledger,
                lambda: StatusReport(at=NOW),
                disks=disks,
                min_free=7,
                channels=(),
                clock=rig.clock,
            )
        ]

    return chores


def test_the_file_is_written_at_most_so_often_and_says_at_the_end_that_none_is_up(
    tmp_path: Path,
) -> None:
    path = tmp_path / "xray.prom"
    rig = Rig(tmp_path, chores=with_file(path))
    before = os.umask(0o027)  # the unit's; node_exporter is another user
    try:
        rig.tick()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    found = samples(path.read_bytes())
    assert found["xray_watcher_up",] == 1
    assert found["xray_watcher_disk_free_bytes", "inbox"] > 0
    assert ("xray_watcher_disk_free_bytes", "logs") not in found
    rig.drop("a.jpg", "picture:Edema")
    path.write_bytes(b"")
    rig.ticks(14)
    assert path.read_bytes() == b""
    rig.ticks(1.5)
    assert samples(path.read_bytes())["xray_watcher_received_total",] == 1
    rig.daemon._drain()
    assert samples(path.read_bytes())["xray_watcher_up",] == 0
    assert samples(path.read_bytes())["xray_watcher_received_total",] == 1
    assert [name for name in os.listdir(tmp_path) if "tmp" in name] == []


def test_a_file_that_cannot_be_written_is_told_and_keeps_no_image_from_its_way(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "collector"
    rig = Rig(tmp_path, chores=with_file(folder / "xray.prom"))
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    assert len(rig.records()) == 1
    assert "metrics.textfile" in rig.health.problems["metrics"].reason
    assert rig.daemon.is_finished
    assert rig.daemon._next_due_s() > rig.clock.monotonic_s(), "the loop would spin"
    folder.mkdir()
    rig.ticks(61)
    assert "metrics" not in rig.health.problems
    assert (folder / "xray.prom").exists()
