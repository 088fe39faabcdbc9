"""Crowds take what is everybody's: others are served within a second, and all of it comes back.

The crowds stand in `crowds.py`, which also makes the table of docs/api.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from crowds import BOUNDARY, CROWDS, Site, crowd_of, session

from webservice import free_port

HOME = Path(__file__).parents[2]
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
SERVED_S = 1.0

needs_nginx = pytest.mark.skipif(
    NGINX is None, reason="nginx is not on this machine: sh .ci/apt-install nginx-light"
)


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    """The crowds are ours, and each of them is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("shares"))
    yield made
    made.service.kill()


@pytest.fixture(scope="module")
def proxied(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The same service behind a real nginx, with the very lines of docs/api.md."""
    assert NGINX is not None
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    (lines,) = re.findall(r"```nginx\n(.*?)```", (HOME / "docs" / "api.md").read_text(), re.DOTALL)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{ worker_connections 4096; }}\nhttp {{ access_log off;\n{paths}"
        f"server {{ listen 127.0.0.1:{port}; server_name 127.0.0.1;\n"
        f"{lines.replace('127.0.0.1:8080', f'127.0.0.1:{site.service.port}')} }} }}\n"
    )
    running = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), "-e", "stderr"])
    direct = site.port
    site.port = port
    until_s = time.monotonic() + 30
    while site.asked(site.head("GET /healthz"))[1] != 200:
        assert running.poll() is None
        assert time.monotonic() < until_s
        time.sleep(0.1)
    yield site
    site.port = direct
    running.terminate()
    running.wait(20)


def taken(site: Site) -> dict[str, int]:
    """What is taken at the moment, as the status says it."""
    bearer = {"Authorization": f"Bearer {site.tokens['other']}"}
    answer = site.service.http.get(f"{site.service.url}/api/v1/status", headers=bearer, timeout=60)
    return {what: figure["taken"] for what, figure in answer.json()["web"].items()}


def check_others_are_served(site: Site, name: str) -> None:
    """Each who asks has an answer within a second, or within what it takes on a laden machine."""
    signed_in = session(site)
    alone_s = max(seconds for seconds, _ in site.waited().values())
    with crowd_of(site, CROWDS[name]):
        waited = site.waited() | {"session": site.asked(signed_in)}
    late = {what: told for what, told in waited.items() if told[0] > SERVED_S + 10 * alone_s}
    assert not late, (late, alone_s)
    assert {status for _, status in waited.values()} <= {200, 202}, waited


def check_all_comes_back(site: Site) -> None:
    def has_come_back() -> bool:
        now = taken(site)
        return now["connections"] < 20 and now["requests"] < 5 and now["uploads"] == 0

    site.service.wait_for(has_come_back, seconds=60)


@pytest.mark.parametrize("name", CROWDS)
def test_others_are_served_within_a_second(site: Site, name: str) -> None:
    check_others_are_served(site, name)
    check_all_comes_back(site)


@needs_nginx
@pytest.mark.parametrize("name", CROWDS)
def test_others_are_served_within_a_second_through_nginx(proxied: Site, name: str) -> None:
    check_others_are_served(proxied, name)
    check_all_comes_back(proxied)


@needs_nginx
def test_a_refusal_of_a_large_upload_comes_through_nginx(proxied: Site) -> None:
    body, length = bytes(20_000_000), b"Content-Length: 20000000\r\n"
    request = proxied.head("POST /predict_batch", None, BOUNDARY + length)
    for _ in range(20):
        with proxied.connect() as client:
            with contextlib.suppress(OSError):  # nginx, too, may have had enough
                client.sendall(request + body)
            assert client.recv(65536).startswith(b"HTTP/1.1 401")


def test_a_slow_upload_that_makes_room_is_told_so_and_what_came_whole_is_filed(site: Site) -> None:
    with crowd_of(site, CROWDS["8 uploads that stop between files"]) as clients:
        assert site.asked(site.upload("other"))[1] == 202
        clients[0].settimeout(30)
        told = clients[0].recv(65536).decode()
    assert told.startswith("HTTP/1.1 408")
    answer = json.loads(told.split("\r\n\r\n", 1)[1])
    assert answer["error"]["code"] == "too_slow"
    assert "Others wait" in answer["error"]["message"]
    assert answer["accepted"] == 1


def test_what_is_taken_stands_in_status_and_metrics(site: Site) -> None:
    with crowd_of(site, CROWDS["200 live pages of one reader"]):
        assert taken(site)["live_pages"] == 32, "half of them"
        bearer = {"Authorization": f"Bearer {site.tokens['other']}"}
        text = site.service.http.get(f"{site.service.url}/metrics", headers=bearer).text
    assert 'xray_watcher_web_taken{what="live_pages"} 32.0' in text
    assert 'xray_watcher_web_limit{what="live_pages"} 64.0' in text
    assert set(re.findall(r'xray_watcher_web_taken{what="(\w+)"}', text)) == {
        "connections", "requests", "uploads", "uploads_waiting", "live_pages", "sessions",
    }  # fmt: skip
    check_all_comes_back(site)


def test_nothing_of_all_this_stands_in_the_log_as_a_mistake(site: Site) -> None:
    log = site.service.web_log.read_text()
    assert "crashed" not in log
    assert "Traceback" not in log
    assert "EMFILE" not in log
    assert "Too many open files" not in log
