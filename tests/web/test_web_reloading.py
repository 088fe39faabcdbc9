"""SIGHUP to `serve`: new settings for new requests, and nothing under way is cut off."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from arrivals import picture_number

from webservice import WebService, free_port


@pytest.fixture
def service(tmp_path: Path) -> Iterator[WebService]:
    made = WebService(tmp_path / "root")
    yield made
    made.kill()


def events(service: WebService, name: str) -> list[dict[str, Any]]:
    lines = service.web_log.read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def reload(service: WebService, old: str, new: str, event: str = "configuration reloaded") -> None:
    """Change the file, ask `serve` to read it, and wait until it says that."""
    text = service.config.read_text()
    assert old in text
    service.config.write_text(text.replace(old, new))
    count = len(events(service, event))
    assert service.web is not None
    service.web.send_signal(signal.SIGHUP)
    service.wait_for(lambda: len(events(service, event)) > count)


def test_a_request_in_progress_is_answered_by_what_it_came_to(service: WebService) -> None:
    service.start_both()
    received: list[requests.Response] = []

    def body() -> Iterator[bytes]:
        whole = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
            + picture_number(1)
            + b"\r\n--x--\r\n"
        )
        yield whole[:200]
        may_end.wait(60)
        yield whole[200:]

    def send() -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        url = f"{service.url}/predict_batch"
        received.append(requests.post(url, data=body(), headers=headers, timeout=100))

    may_end = threading.Event()
    client = threading.Thread(target=send)
    client.start()
    service.wait_for(lambda: service.get("/api/v1/status")["web"]["uploads"]["taken"] == 1)
    reload(service, "[web]\n", "[web]\nmax_files = 1\n")
    (told,) = events(service, "configuration reloaded")
    assert told["changed"] == ["web.max_files"]
    may_end.set()
    client.join()
    assert received[0].status_code == 200
    files = [("files", (f"{n}.png", picture_number(n + 2))) for n in range(2)]
    refused = service.http.post(f"{service.url}/predict_batch", files=files, timeout=60)
    assert refused.json()["error"]["code"] == "too_many_files"


def test_another_port_is_listened_on_and_the_old_connection_still_answered(
    service: WebService,
) -> None:
    service.start_web()
    other = free_port()
    reload(service, f"port = {service.port}", f"port = {other}")
    assert requests.get(f"http://127.0.0.1:{other}/healthz", timeout=60).status_code == 503
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{service.url}/healthz", timeout=60)
    assert service.stop_web() == 0


@pytest.mark.parametrize("wrong", ["port = 99999", "port = {taken}", 'token_file = "/nowhere"'])
def test_wrong_settings_change_nothing(service: WebService, wrong: str) -> None:
    service.start_web()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = wrong.format(taken=taken.getsockname()[1])
        new = text if text.startswith("port") else f"port = {service.port}\n{text}"
        reload(service, f"port = {service.port}", new, "configuration not reloaded")
    assert service.http.get(f"{service.url}/healthz", timeout=60).status_code == 503
    assert not events(service, "configuration reloaded")


def test_reloads_leave_no_process_and_no_thread_behind(service: WebService) -> None:
    service.start_web()
    assert service.web is not None
    tasks = Path(f"/proc/{service.web.pid}/task")

    def threads() -> int:
        return len(list(tasks.iterdir()))

    reload(service, "[web]", "[web]")
    before = threads()
    for _ in range(8):
        reload(service, "[web]", "[web]")
    service.wait_for(lambda: threads() <= before + 2)
    assert not "".join(file.read_text() for file in tasks.glob("*/children")).split()
