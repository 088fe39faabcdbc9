"""The real service, killed again and again while it tells: none is lost, none told as another."""

from __future__ import annotations

import itertools
import json
import random
import time
from pathlib import Path

from sinks import Received, closed_port, http_sink, smtp_sink, wait_for

from service import Service, call

SECRET = "the secret of the hook"


def telling(service: Service, text: str) -> None:
    service.config.write_text(service.config.read_text() + text)


def hook(tmp_path: Path, sink: Received) -> str:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    return f"""
[notify]
per_minute = 60
[notify.webhook]
url = "http://127.0.0.1:{sink.port}/"
secret_file = "{secret}"
timeout_seconds = 2
events = ["rejected"]
"""


def told(sink: Received) -> dict[str, dict[str, object]]:
    """The messages by their id, as a receiver keeps them; one that came again is the same."""
    messages: dict[str, dict[str, object]] = {}
    for body in list(sink.bodies):
        message = json.loads(body)
        assert messages.setdefault(message["id"], message) == message
    return messages


def test_kills_lose_no_message_and_split_none(tmp_path: Path) -> None:
    service = Service(tmp_path / "root")
    chance = random.Random(7)
    numbers = itertools.count()

    def drop(files: int) -> None:
        for number in itertools.islice(numbers, files):
            (service.inbox / f"patient-{number}.jpg").write_bytes(b"none %d" % number)

    with http_sink() as sink:
        telling(service, hook(tmp_path, sink))
        try:
            for mode in ("take", "500", "drop", "hang", "take"):
                sink.mode = mode
                sink.arrived.clear()
                drop(6)
                service.start()
                sink.arrived.wait(30)
                time.sleep(chance.uniform(0.0, 0.4))  # any moment will do
                service.kill()
            sink.mode = "take"
            sink.released.set()
            drop(2)
            service.start()
            total = next(numbers)

            def is_all_told() -> bool:
                return sum(int(str(m["count"])) for m in told(sink).values()) >= total

            service.wait_until(is_all_told)
            taken = len(sink.bodies)
            service.stop()
            service.start()  # what was taken and noted is not told again
            (service.inbox / "one-more.jpg").write_bytes(b"none")
            service.wait_until(lambda: len(sink.bodies) > taken)
            service.stop()
        finally:
            service.kill()
    messages = told(sink)
    indexes = [item["index"] for m in messages.values() for item in m["items"]]  # type: ignore[attr-defined]
    assert sorted(indexes) == list(range(total + 1))
    assert json.loads(sink.bodies[-1])["items"][0]["index"] == total
    log = service.log.read_text()
    assert SECRET not in log
    assert "patient-" not in log
    assert "127.0.0.1" not in log


def test_a_test_message_goes_through_each_channel(tmp_path: Path) -> None:
    service = Service(tmp_path / "root")
    config = ("--config", str(service.config))
    assert "No channel is set up" in call("notify", "test", *config).stderr
    with http_sink() as sink, smtp_sink() as mails:
        telling(
            service,
            f"""
[notify.webhook]
url = "http://127.0.0.1:{sink.port}/"
[notify.smtp]
host = "127.0.0.1"
port = {mails.port}
security = "none"
sender = "xray@hospital.example"
to = ["a@hospital.example", "b@hospital.example"]
[notify.command]
argv = ["/bin/false"]
""",
        )
        done = call("notify", "test", *config)
        assert done.returncode == 1
        assert done.stdout.splitlines() == [
            "webhook: taken",
            "smtp:a@hospital.example: taken",
            "smtp:b@hospital.example: taken",
            "command: FAILED, the program's exit code was 1",
        ]
        assert json.loads(sink.bodies[0])["event"] == "test"
        assert len(mails.bodies) == 2
        assert b"xray-watcher: a test" in mails.bodies[0]


def test_a_service_with_a_secret_that_everybody_may_read_does_not_start(tmp_path: Path) -> None:
    service = Service(tmp_path / "root")
    telling(service, hook(tmp_path, Received(port=closed_port())))
    (tmp_path / "secret").chmod(0o644)
    done = service.command("run", "--once")
    assert done.returncode == 78
    assert "chmod 640" in done.stderr
    assert SECRET not in done.stderr


def test_one_run_to_the_end_tells_before_it_ends(tmp_path: Path) -> None:
    service = Service(tmp_path / "root")
    (service.inbox / "a.jpg").write_bytes(b"none")
    with http_sink() as sink:
        telling(service, hook(tmp_path, sink))
        assert service.command("run", "--once").returncode == 3
        wait_for(lambda: bool(sink.bodies), 5)
