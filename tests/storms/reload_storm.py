"""The reload storm: both services are told to reload every second while images arrive.

    make reloadstorm        # a minute and 500 files; ARGS="--seconds 9 --files 50" for another

Files come into the inbox, clients upload, and others look at pages. Every file and every upload
must be filed once; no request may fail or break off.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import requests

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from arrivals import picture_number  # noqa: E402

import audit  # noqa: E402
from webservice import WebService  # noqa: E402


@dataclass
class Storm:
    """What a storm was."""

    reloads: int = 0
    restarts: int = 0
    files: int = 0
    uploads: int = 0
    pages: int = 0
    seconds: float = 0.0
    longest_upload_s: float = 0.0
    longest_page_s: float = 0.0
    failed: list[str] = field(default_factory=list)


def storm(root: Path, seconds: float, files: int) -> Storm:
    """Run one storm.

    Raises:
        AssertionError: a promise was broken.
    """
    found, over = Storm(files=files), threading.Event()
    service = WebService(root, web="uploads_per_minute = 100000")
    service.start_both()
    dropped = [picture_number(number) for number in range(files)]
    sent: list[bytes] = []
    jobs = [
        threading.Thread(target=drop, args=(service, dropped, seconds)),
        threading.Thread(target=repeat, args=(over, lambda: upload(service, sent, found))),
        threading.Thread(target=repeat, args=(over, lambda: look(service, found))),
    ]
    began_s = time.monotonic()
    for job in jobs:
        job.start()
    try:
        while time.monotonic() < began_s + seconds:
            time.sleep(1)
            assert service.process is not None
            assert service.web is not None
            for process in (service.process, service.web):
                process.send_signal(signal.SIGHUP)
            found.reloads += 1
        over.set()
        for job in jobs:
            job.join()
        service.wait_until(lambda: len(audit.jsonl_records(root)) >= files + len(sent))
        found.seconds = time.monotonic() - began_s
        assert service.stop() == 0
        assert service.stop_web() == 0
    finally:
        over.set()
        service.kill()
    assert not found.failed, found.failed[:5]
    audit.check(root, [*dropped, *sent])
    found.restarts = sum(e["event"] == "configuration reloaded" for e in service.events())
    assert found.restarts
    assert not [e for e in service.events() if e["level"] in ("error", "critical")]
    return found


def repeat(over: threading.Event, act: Callable[[], None]) -> None:
    """Do something again and again."""
    while not over.is_set():
        act()
        time.sleep(0.1)


def drop(service: WebService, contents: list[bytes], seconds: float) -> None:
    """Copy files into the inbox, spread over the time."""
    for number, content in enumerate(contents):
        (service.inbox / f"{number}.png").write_bytes(content)
        time.sleep(seconds / len(contents))


def upload(service: WebService, sent: list[bytes], found: Storm) -> None:
    """Send two images, and wait until they are filed."""
    contents = [picture_number(1_000_000 + found.uploads + n) for n in range(2)]
    form = [("files", (f"{n}.png", content)) for n, content in enumerate(contents)]
    began_s = time.monotonic()
    try:
        answer = requests.post(f"{service.url}/predict_batch", files=form, timeout=100)
    except requests.RequestException as error:
        found.failed.append(f"upload: {type(error).__name__}")
        return
    found.longest_upload_s = max(found.longest_upload_s, time.monotonic() - began_s)
    if answer.status_code != 200 or len(answer.json()["results"]) != len(contents):
        found.failed.append(f"upload: {answer.status_code} {answer.text[:200]}")
        return
    sent += contents
    found.uploads += len(contents)


def look(service: WebService, found: Storm) -> None:
    """Ask for a page, and whether all is well."""
    for path in ("/", "/healthz"):
        began_s = time.monotonic()
        try:
            answer = requests.get(service.url + path, timeout=60)
        except requests.RequestException as error:
            found.failed.append(f"{path}: {type(error).__name__}")
            return
        found.longest_page_s = max(found.longest_page_s, time.monotonic() - began_s)
        if answer.status_code != 200:
            found.failed.append(f"{path}: {answer.status_code} {answer.text[:200]}")
        found.pages += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--files", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = storm(Path(folder) / "root", options.seconds, options.files)
    print(json.dumps(vars(found), indent=2))


if __name__ == "__main__":
    main()
