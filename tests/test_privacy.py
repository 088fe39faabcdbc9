"""Names and contents that could be a patient's never get into the service's own log at INFO."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import hostile
import pictures
import pytest
from arrivals import picture_number

import audit
from service import STUB, Service
from webservice import WebService
from xray_watcher.web.tokens import add_token

NAME = "DOE^JOHN_19700101"
PLANTED = ("DOE", "JOHN", "19700101")
LARGE_PAGES = 40_000  # 160 MB: a decoder without a picture has less
LARGE = hostile.heavy_or_damaged_unseen()["large and deep"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "root", command=STUB)
    yield made
    made.kill()


def start(service: Service, **env: str) -> None:
    service.env = env
    begun = service.log.read_text().count('"watching"') if service.log.exists() else 0
    service.start()
    service.wait_until(
        lambda: service.log.exists() and service.log.read_text().count('"watching"') > begun
    )


def put(service: Service, name: str, content: bytes) -> None:
    path = service.inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def wait_for_records(service: Service, count: int) -> None:
    service.wait_until(lambda: len(audit.logged(service.root)) >= count)


def events(service: Service) -> set[str]:
    return {str(event["event"]) for event in service.events()}


def crash_decoders(service: Service, until_records: int) -> None:
    """Crash whatever child has a large picture in hand, until the picture is blamed for it."""
    until_s = time.monotonic() + 90
    while len(audit.logged(service.root)) < until_records:
        assert time.monotonic() < until_s, service.log.read_text()
        for children in Path(f"/proc/{service.worker_pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for pid in children.read_text().split():
                    if int(Path(f"/proc/{pid}/statm").read_text().split()[1]) > LARGE_PAGES:
                        os.kill(int(pid), signal.SIGSEGV)
        time.sleep(0.01)


def test_planted_names_are_nowhere_in_the_service_s_log(service: Service) -> None:
    with_text = pictures.with_chunks(
        hostile.PNG, pictures.chunk(b"tEXt", b"Patient\0" + NAME.encode())
    )
    put(service, f"{NAME}.png", picture_number(1))
    put(service, f"{NAME}/{NAME}.png", with_text)
    put(service, f"ward of {NAME}/again.png", picture_number(1))  # a duplicate
    put(service, f"{NAME} cut.png", hostile.PNG[:300])
    put(service, f"{NAME} no picture.jpg", NAME.encode())
    (service.inbox / f"{NAME} link.png").symlink_to(f"/nowhere/{NAME}")
    os.mkfifo(service.inbox / f"{NAME} pipe.png")

    start(service)
    wait_for_records(service, 5)
    assert service.command("retry", "--all").returncode == 0
    wait_for_records(service, 7)

    for level in audit.LEVELS:  # the name that the next image is to get is taken
        taken = service.root / "classified_images" / level / f"0007_{NAME} 2.png"
        taken.write_bytes(b"somebody's")
    logs = service.root / "logs"  # degraded: results cannot be logged, nor images filed
    logs.rename(service.root / "away")
    logs.write_text("in the way")
    put(service, f"{NAME} 2.png", picture_number(2))
    service.wait_until(lambda: "degraded" in service.log.read_text())
    logs.unlink()
    (service.root / "away").rename(logs)
    wait_for_records(service, 8)
    (csv,) = logs.glob("results-*.csv")
    csv.write_bytes(csv.read_bytes().replace(NAME.encode(), b"mine"))
    put(service, f"{NAME} 3.png", picture_number(3))
    wait_for_records(service, 9)

    put(service, f"{NAME} crash.png", LARGE)  # a decoder that ends while it has the picture
    crash_decoders(service, until_records=10)

    work = service.root / ".xray-watcher"  # a kill while one is in hand
    put(service, f"{NAME} again.png", LARGE)
    service.wait_until(lambda: any(path.name.isdecimal() for path in work.iterdir()))
    service.kill()
    start(service, XRAY_WATCHER_INTAKE__DUPLICATES="set-aside")
    put(service, f"{NAME} aside.png", picture_number(2))
    wait_for_records(service, 12)
    assert service.stop() == 0

    told = service.log.read_text()
    for word in PLANTED:
        assert word not in told
    assert events(service) >= {
        "name taken by a file that is not ours",
        "degraded",
        "recovered",
        "a log was changed by somebody; theirs is kept",
        "recovering",
        "filed",
    }
    codes = {r["rejected"]["code"] for r in audit.jsonl_records(service.root) if "rejected" in r}
    assert codes >= {"incomplete", "wrong_format", "decoder_crash", "duplicate"}


@pytest.fixture
def both(tmp_path: Path) -> Iterator[WebService]:
    made = WebService(tmp_path / "root", web=f'token_file = "{tmp_path / "tokens"}"')
    yield made
    made.kill()


def test_names_and_tokens_are_in_no_log_of_the_web_either(both: WebService, tmp_path: Path) -> None:
    token = add_token(str(tmp_path / "tokens"), "modality-1", "upload")
    right, wrong = ({"Authorization": f"Bearer {one}"} for one in (token, f"wrong-{NAME}"))
    both.start_both()
    files = [(f"{NAME}.png", picture_number(1)), (f"{NAME}.jpg", NAME.encode())]
    assert both.predict(*files, headers=right).status_code == 200
    assert both.predict(*files, headers=wrong).status_code == 401
    assert both.predict((f"{NAME}.png", b"")).status_code == 401
    for path in (f"/api/v1/results?filename={NAME}", f"/{NAME}", f"/image/{NAME}"):
        for headers in (right, wrong):
            both.http.get(both.url + path, headers=headers, timeout=60)
    strange = {"Host": NAME, "Origin": NAME, "User-Agent": NAME, "Referer": NAME, **right}
    assert both.http.get(both.url + "/", headers=strange, timeout=60).status_code == 421
    both.http.post(both.url + "/login", data={"token": f"wrong-{NAME}"}, timeout=60)
    assert both.stop_web() == 0
    assert both.stop() == 0
    told = both.log.read_text() + both.web_log.read_text()
    for word in (*PLANTED, token):
        assert word not in told
    assert "a wrong token" in told
