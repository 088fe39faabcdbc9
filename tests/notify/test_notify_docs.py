"""docs/notify.md keeps its word: its settings load, its example checks a real signature."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sinks import http_sink

from xray_watcher.config.loading import load_settings
from xray_watcher.config.upkeep import EVENTS, WebhookSettings
from xray_watcher.notify.channels import Webhook
from xray_watcher.notify.texts import render_body

DOCS = (Path(__file__).parents[2] / "docs" / "notify.md").read_text()


def test_the_settings_in_the_documentation_are_sound(tmp_path: Path) -> None:
    blocks = re.findall(r"(?:^    .*\n)+", DOCS, re.MULTILINE)
    text = "".join(block for block in blocks if block.lstrip().startswith("["))
    file = tmp_path / "x.toml"
    file.write_text('root = "/srv/xray"\n' + text)
    notify = load_settings(str(file), {}, {"HOME": "/"}).settings.notify
    assert notify.kinds == ("webhook", "smtp", "command")
    assert notify.smtp.security == "starttls"


def test_every_event_is_documented() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \|", DOCS, re.MULTILINE)) == EVENTS


def test_the_message_in_the_documentation_has_the_fields_that_are_sent() -> None:
    (block,) = [b for b in re.findall(r"(?:^    .*\n)+", DOCS, re.MULTILINE) if '"schema"' in b]
    documented = json.loads(block)
    sent = json.loads(
        render_body("id", "high", [], count=0, now=datetime(2026, 11, 23, tzinfo=UTC))
    )
    assert list(documented) == list(sent)


def test_the_check_in_the_documentation_knows_our_signature(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code, scope)
    secret = tmp_path / "secret"
    secret.write_bytes(b"a secret of some length")
    secret.chmod(0o600)
    with http_sink() as sink:
        url = f"http://127.0.0.1:{sink.port}/"
        Webhook(WebhookSettings(url=url, secret_file=str(secret))).send("id", "test", b"{}")
    (headers,), (body,) = sink.headers, sink.bodies
    assert scope["is_ours"](headers, body, b"a secret of some length")
    assert not scope["is_ours"](headers, body + b" ", b"a secret of some length")
    assert not scope["is_ours"](headers | {"webhook-timestamp": "1"}, body, b"a secret of some")
    assert not scope["is_ours"](headers | {"webhook-id": "x"}, body, b"a secret of some length")
