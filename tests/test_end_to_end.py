"""The real service on real folders, with real signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import audit
from service import STUB, Service, call
from xray_watcher.config.settings import Settings
from xray_watcher.phantom.files import NORMAL, draw_images

REAL_IMAGES = sorted(Path(__file__).parents[2].glob("shared/images/*.*g"))
OTHER_FILE_SYSTEM = Path("/dev/shm")
STRANGE_NAMES = (
    b"with spaces and 'quotes' \".png",
    b"new\nline.png",
    b"=cmd|' /C calc'!A0.png",
    b"\xff\xfe not utf-8 \x80.png",
    b"x" * 251 + b".png",
    "Ωμέγα 胸部.png".encode(),
    b"<img src=x onerror=alert(1)>.png",
    b"%2e%2e%2fetc.png",
    b"CON.PNG",
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "root")
    yield made
    made.kill()


@pytest.fixture
def filing(tmp_path: Path) -> Iterator[Service]:
    """A service whose network costs nothing, where what it files is asked and not what it sees."""
    made = Service(tmp_path / "root", command=STUB)
    yield made
    made.kill()


def small_picture(number: int) -> bytes:
    """A picture of a few hundred bytes, each another."""
    pixels = np.random.default_rng(number).integers(0, 256, (24, 24), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def put(folder: Path, name: str | bytes, content: bytes) -> bytes:
    path = os.path.join(os.fsencode(folder), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return content


def records(service: Service) -> int:
    logs = (service.root / "logs").glob("results-*.jsonl")
    return sum(log.read_bytes().count(b"\n") for log in logs)


def test_every_image_is_accounted_for_over_a_stop_and_a_start(service: Service) -> None:
    arrived = [put(service.inbox, path.name, path.read_bytes()) for path in REAL_IMAGES]
    arrived += [
        put(service.inbox, b"ward/" + name, small_picture(n))
        for n, name in enumerate(STRANGE_NAMES)
    ]
    arrived.append(put(service.inbox, "notes.png", b"not a picture"))
    arrived.append(put(service.inbox, "empty.jpg", b""))
    arrived.append(put(service.inbox, b"y" * 251 + b".png", b"a long name and no picture"))
    arrived.append(put(service.inbox, "cut.png", small_picture(100)[:300]))
    service.start()
    service.wait_until(lambda: records(service) >= 8)
    assert service.stop() == 0
    for number in range(5):  # one name in five folders, and one name five times in one folder
        arrived.append(put(service.inbox, f"pacs{number}/IM0001.png", small_picture(200 + number)))
    arrived.append(put(service.inbox, "again.png", small_picture(200)))
    service.start()
    for number in range(5):
        arrived.append(put(service.inbox, "pacs/IM0001.png", small_picture(300 + number)))
        service.wait_until(lambda: not (service.inbox / "pacs" / "IM0001.png").exists())
    service.wait_until(lambda: records(service) >= len(arrived))
    assert service.stop(signal.SIGINT) == 0
    audit.check(service.root, arrived)
    (day,) = {path.stem for path in (service.root / "logs" / "daily").glob("*.json")}
    summary = audit.check_summary(service.root, day, received=len(arrived))
    assert summary["rejected"] == 4
    assert summary["simulated"]
    assert json.loads(service.command("summary", "--json").stdout) == summary | {
        "notice": summary["notice"]
    }


def test_three_hundred_files_at_once_are_filed_once_each(filing: Service) -> None:
    arrived = [put(filing.inbox, f"{n % 7}/{n}.png", small_picture(n)) for n in range(300)]
    filing.start("--once")
    assert filing.ended() == 0
    audit.check(filing.root, arrived)


@pytest.mark.skipif(not OTHER_FILE_SYSTEM.is_dir(), reason="needs a second file system at /dev/shm")
def test_inbox_and_results_may_lie_on_different_file_systems(tmp_path: Path) -> None:
    results = OTHER_FILE_SYSTEM / f"xray-watcher-{os.getpid()}"
    service = Service(
        tmp_path / "root",
        command=STUB,
        XRAY_WATCHER_INTAKE__CLASSIFIED=str(results / "classified_images"),
        XRAY_WATCHER_INTAKE__REJECTED=str(results / "rejected"),
        XRAY_WATCHER_INTAKE__LOGS=str(results / "logs"),
    )
    arrived = [put(service.inbox, f"{n}.png", small_picture(n)) for n in range(5)]
    arrived.append(put(service.inbox, "notes.jpg", b"not a picture"))
    try:
        service.start("--once")
        assert service.ended() == 3
        audit.check(results, arrived, inbox=service.inbox)
    finally:
        service.kill()
        shutil.rmtree(results, ignore_errors=True)


def test_a_second_service_on_the_same_ledger_or_inbox_is_refused(
    filing: Service, tmp_path: Path
) -> None:
    filing.start()
    filing.wait_until(lambda: filing.log.exists() and bool(filing.log.read_text()))
    same = filing.command("run")
    assert same.returncode == 11
    assert f"process {filing.worker_pid}" in same.stderr
    other = filing.command("run", "--state-dir", str(tmp_path / "other-state"))
    assert other.returncode == 11
    assert f"process {filing.worker_pid}" in other.stderr


def test_a_stop_while_the_network_is_loaded_takes_no_time(service: Service) -> None:
    service.start()
    service.wait_until(lambda: service.log.exists() and "watching" in service.log.read_text())
    began_s = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize("moment_s", [0.0, 0.1, 0.2, 0.4])
def test_a_stop_while_it_still_starts_is_an_orderly_end(service: Service, moment_s: float) -> None:
    put(service.inbox, "a.png", small_picture(1))
    service.start()
    service.wait_until(lambda: service.hears(signal.SIGTERM))
    time.sleep(moment_s)
    assert service.stop() == 0
    assert (service.inbox / "a.png").exists()


def test_a_second_signal_ends_the_service_at_once(service: Service) -> None:
    arrived = [put(service.inbox, f"{n}.png", small_picture(n)) for n in range(40)]
    service.start()
    service.wait_until(lambda: records(service) > 0)
    assert service.process is not None
    service.process.send_signal(signal.SIGTERM)
    service.wait_until(lambda: "stopping" in service.log.read_text())
    assert service.stop() == 128 + signal.SIGTERM
    service.start("--once")
    assert service.ended() == 0
    audit.check(service.root, arrived)


def test_a_kill_loses_and_doubles_nothing(service: Service) -> None:
    arrived = [put(service.inbox, f"{n}.png", small_picture(n)) for n in range(40)]
    for _ in range(2):
        done = records(service)
        service.start()
        service.wait_until(lambda done=done: records(service) > done)  # type: ignore[misc]
        service.kill()
    service.start("--once")
    assert service.ended() == 0
    audit.check(service.root, arrived)


def test_status_tells_how_things_are_with_and_without_the_service(service: Service) -> None:
    put(service.inbox, "a.png", small_picture(1))
    put(service.inbox, "Thumbs.db", b"")
    before = service.command("status", "--json")
    assert before.returncode == 4
    assert not json.loads(before.stdout)["alive"]
    service.start()
    service.wait_until(lambda: records(service) == 1)
    service.wait_until(
        lambda: bool(json.loads(service.command("status", "--json").stdout)["model"])
    )
    during = json.loads(service.command("status", "--json").stdout)
    assert during["healthy"]
    assert during["model"]["name"] == "untrained"
    assert during["ignored_in_inbox"] == 1
    assert sum(during["today"].values()) == 1
    assert service.stop() == 0
    put(service.inbox, "b.png", small_picture(2))
    after = json.loads(service.command("status", "--json").stdout)
    assert not after["alive"]
    assert after["waiting_in_inbox"] == 1
    assert after["next_index"] == 1


def test_a_rejected_file_is_tried_again_when_it_is_put_back(filing: Service) -> None:
    put(filing.inbox, "ward/a.png", b"not a picture")
    filing.start()
    filing.wait_until(lambda: records(filing) == 1)
    assert filing.command("retry", "no-such-file.png").returncode == 2
    back = filing.command("retry", "--all")
    assert back.returncode == 0
    assert "0000_a.png: waits to be tried again as ward/a.png" in back.stdout
    filing.wait_until(lambda: records(filing) == 2)
    assert audit.jsonl_records(filing.root)[1]["retry_of"] == 0
    assert [path.name for path in audit.filed(filing.root).values()] == ["0001_a.png"]


def test_neither_names_nor_bytes_of_a_patient_get_into_the_service_log(service: Service) -> None:
    put(service.inbox, "DOE^JOHN_19700101.png", small_picture(1))
    put(service.inbox, "ward-of-DOE/DOE^JANE.jpg", b"DOE^JANE is not a picture")
    service.start("--once")
    assert service.ended() == 3
    assert "DOE" not in service.log.read_text()
    assert any(event["event"] == "filed" for event in service.events())


CRASHING = """
import sys
from xray_watcher.cli import main as cli
from xray_watcher.intake.watcher import Inbox

def begin_scan(self):
    raise FileNotFoundError(2, "No such file or directory", "/inbox/DOE^JOHN_19700101.png")

Inbox.begin_scan = begin_scan
sys.argv[0] = "xray-watcher"
cli.main()
"""


def test_an_error_that_nobody_expected_is_told_without_naming_a_file(tmp_path: Path) -> None:
    script = tmp_path / "crashing.py"
    script.write_text(CRASHING)
    service = Service(tmp_path / "root", command=(sys.executable, str(script)))
    service.start()
    assert service.ended() == 1
    assert "DOE" not in service.log.read_text()
    last = service.events()[-1]
    assert last["kind"] == "FileNotFoundError"
    assert last["where"][-1].endswith("begin_scan")


def test_a_log_that_cannot_be_written_stops_nothing(filing: Service) -> None:
    put(filing.inbox, "a.png", small_picture(1))
    filing.log = Path("/dev/full")  # as a log on a disk that is full, or a journal that is gone
    filing.start("--once")
    assert filing.ended() == 0
    audit.check(filing.root, [small_picture(1)])


def test_missing_weights_end_the_service_with_the_three_ways_on(service: Service) -> None:
    ended = service.command("run", "--weights", "densenet121-res224-nih")
    assert ended.returncode == 10
    assert not (service.root / "classified_images").exists()
    for way in ("weights fetch", "weights import", 'weights = "phantom"'):
        assert way in ended.stderr


def test_drawn_chests_are_filed_under_the_level_of_what_was_drawn(service: Service) -> None:
    level_of = Settings().risk_rules().level_of
    drawn = {image.name: image for image in draw_images(36, seed=7)}
    arrived = [put(service.inbox, name, image.content) for name, image in drawn.items()]
    service.start("--once", "--weights", "phantom")
    assert service.ended() == 0
    audit.check(service.root, arrived)
    agreed = 0
    for record in audit.jsonl_records(service.root):
        assert record["simulated"]
        assert record["model"]["name"] == "phantom"
        expected = drawn[record["filename"]].drawn
        if expected == NORMAL:
            agreed += "no_finding" in record["flags"]
        else:
            is_found = record["top_label"] == expected
            agreed += is_found and record["risk_level"] == level_of[expected]
    assert agreed >= 0.9 * len(drawn)


def test_the_demonstration_shows_everything_and_ends_by_itself(tmp_path: Path) -> None:
    found = call("demo", "--folder", str(tmp_path))
    assert found.returncode == 0, found.stdout + found.stderr
    for shown in (
        "28 files dropped, 28 accounted for",
        "-- The folder --",
        "-- The CSV",
        "-- The day's summary --",
        "-- Drawn and found --",
        "wrong_format",
        "incomplete",
        "duplicate_of",
        "trained on drawings, meaningless on patients",
        "not a diagnosis",
    ):
        assert shown in found.stdout
    (root,) = tmp_path.iterdir()
    assert str(root) in found.stdout
