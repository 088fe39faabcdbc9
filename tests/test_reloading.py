"""SIGHUP: the whole configuration takes effect by another inner process, or nothing changes."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import audit
from service import STUB, Service
from xray_watcher.config.loading import differences, load_settings
from xray_watcher.config.settings import Settings
from xray_watcher.errors import ConfigError, Unavailable, WeightsError
from xray_watcher.service import renewing
from xray_watcher.service.renewing import load_in_child
from xray_watcher.system.lock import is_held

EXAMPLE = Path(__file__).parents[1] / "config" / "xray-watcher.toml"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "root", STUB)
    yield made
    made.kill()


def noise_png(seed: int) -> bytes:
    """A picture of its own."""
    pixels = np.random.default_rng(seed).integers(0, 256, (80, 90), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def logged(service: Service, event: str) -> list[Any]:
    return [e for e in service.events() if e["event"] == event]


def reload(service: Service, **changes: str) -> None:
    """Change a file that holds `key = value` lines, and ask for it to be read."""
    text = service.config.read_text()
    for key, value in changes.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert count == 1
    service.config.write_text(text)
    assert service.process is not None
    service.process.send_signal(signal.SIGHUP)


# -- loading and checking -----------------------------------------------------------------


def test_settings_come_back_from_the_process_that_checks_them_as_they_were() -> None:
    flags = {"state_dir": "/tmp/state"}
    first = load_settings(str(EXAMPLE), flags, {}).settings
    assert load_in_child(lambda: load_settings(str(EXAMPLE), flags, {}).settings) == first


def test_every_problem_of_wrong_settings_is_told() -> None:
    def load() -> Settings:
        raise ConfigError(["one", "two"])

    with pytest.raises(ConfigError) as caught:
        load_in_child(load)
    assert caught.value.problems == ("one", "two")


@pytest.mark.parametrize("error", [WeightsError("not installed"), RuntimeError("a fault of ours")])
def test_whatever_goes_wrong_with_a_check_refuses_the_settings(error: Exception) -> None:
    def load() -> Settings:
        raise error

    with pytest.raises(ConfigError):
        load_in_child(load)


def test_a_configuration_on_a_share_that_hangs_is_waited_for_so_long_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewing, "_ANSWER_S", 0.2)
    with pytest.raises(Unavailable, match="the configuration does not answer"):
        load_in_child(lambda: signal.pause() and Settings())  # type: ignore[func-returns-value]


def test_keys_that_differ_are_named() -> None:
    old = Settings(root="/srv/xray")
    new = Settings(root="/srv/other", model={"threads": 3}, batch={"max_size": 3})  # type: ignore[arg-type]
    found = set(differences(old, new))
    assert {"root", "model.threads", "batch.max_size", "intake.inbox"} <= found
    assert "intake.suffixes" not in found


# -- the real service ---------------------------------------------------------------------


def test_a_running_service_refuses_a_broken_file_and_goes_on_as_it_was(service: Service) -> None:
    service.start()
    service.wait_until(lambda: bool(logged(service, "network ready")))
    worker, text = service.worker_pid, service.config.read_text()
    reload(service, quiet_seconds="-1")
    service.wait_until(lambda: bool(logged(service, "configuration not reloaded")))
    (refused,) = logged(service, "configuration not reloaded")
    assert re.search(r"root.toml:\d+: batch.quiet_seconds: -1", refused["problems"][0])
    secret = service.root.parent / "secret"
    secret.write_text("too short")
    secret.chmod(0o600)
    hook = f'[notify.webhook]\nurl = "http://h/"\nsecret_file = "{secret}"\n'
    service.config.write_text(text + hook)
    reload(service)
    service.wait_until(lambda: len(logged(service, "configuration not reloaded")) == 2)
    assert "too short" in logged(service, "configuration not reloaded")[1]["problems"][0]
    service.config.write_text(text)
    reload(service, weights='"densenet121-res224-all"')
    service.wait_until(lambda: len(logged(service, "configuration not reloaded")) == 3)
    assert "weights" in logged(service, "configuration not reloaded")[2]["problems"][0]
    service.config.write_text(text)  # for `status` must read it too
    wanted = "The configuration was not reloaded, nothing has changed."
    service.wait_until(lambda: wanted in service.command("status").stdout)
    assert service.worker_pid == worker
    assert service.stop() == 0


def test_every_key_takes_effect_the_inbox_too(service: Service) -> None:
    service.start()
    service.wait_until(lambda: bool(logged(service, "network ready")))
    first, worker = noise_png(seed=1), service.worker_pid
    (service.inbox / "a.png").write_bytes(first)
    service.wait_until(lambda: len(audit.jsonl_records(service.root)) == 1)
    other = service.root / "other-inbox"
    text = service.config.read_text().replace("[intake]", '[intake]\ninbox = "other-inbox"')
    service.config.write_text(text)
    reload(service, min_side="17", timezone='"Europe/Rome"')
    service.wait_until(lambda: bool(logged(service, "configuration reloaded")))
    (taken,) = logged(service, "configuration reloaded")
    assert set(taken["changed"]) == {"timezone", "intake.inbox", "intake.min_side"}
    assert service.worker_pid != worker
    second = noise_png(seed=2)
    (other / "b.png").write_bytes(second)
    service.wait_until(lambda: len(audit.jsonl_records(service.root)) == 2)
    assert "Europe/Rome" not in service.log.read_text()
    assert "last error" not in service.command("status").stdout
    assert service.stop() == 0


def test_settings_that_only_a_start_can_find_wrong_bring_the_former_ones_back(
    service: Service,
) -> None:
    """Here an inbox that is no folder; the check before touches none."""
    service.start()
    service.wait_until(lambda: bool(logged(service, "network ready")))
    (service.root / "file").write_text("")
    text = service.config.read_text()
    service.config.write_text(text.replace("[intake]", '[intake]\ninbox = "file"'))
    reload(service)
    service.wait_until(lambda: bool(logged(service, "configuration not reloaded")))
    service.config.write_text(text)
    wanted = "The configuration was not reloaded, the service goes on with the former one."
    service.wait_until(lambda: wanted in service.command("status").stdout)
    picture = noise_png(seed=3)
    (service.inbox / "a.png").write_bytes(picture)
    service.wait_until(lambda: len(audit.jsonl_records(service.root)) == 1)
    audit.check(service.root, [picture])
    assert service.stop() == 0


def test_the_service_counts_as_running_all_through_a_reload(service: Service) -> None:
    """So uploads are taken; and no other program takes the ledger meanwhile."""
    service.start()
    service.wait_until(lambda: bool(logged(service, "network ready")))
    state = service.root.parent / "root-state"
    (lock,) = state.glob("lock")
    heartbeat = state / "heartbeat.json"
    service.wait_until(heartbeat.exists)
    gaps: list[str] = []

    def is_over() -> bool:
        if not is_held(str(lock)):
            gaps.append("lock")
        if not heartbeat.exists():
            gaps.append("heartbeat")
        return bool(logged(service, "configuration reloaded"))

    reload(service)
    service.wait_until(is_over)
    assert not gaps
    assert service.stop() == 0
    assert not is_held(str(lock))
    assert not heartbeat.exists()
