"""`notify.channels`: each way of telling, with receivers that take, fail, hang and drop."""

from __future__ import annotations

import base64
import email
import hashlib
import hmac
import json
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from certificates import make
from sinks import closed_port, http_sink, smtp_sink

from xray_watcher.config.upkeep import (
    CommandSettings,
    NotifySettings,
    SmtpSettings,
    WebhookSettings,
)
from xray_watcher.errors import ConfigError
from xray_watcher.notify.channels import Command, DeliveryFailed, Mail, Webhook
from xray_watcher.notify.secrets import SecretFileError, read_secret
from xray_watcher.notify.setup import build_channels, build_subscriptions
from xray_watcher.notify.texts import render_body, render_text, render_title

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ITEM = {
    "at": "2026-11-23T11:59:00.000Z",
    "index": 42,
    "risk_level": "High",
    "top_label": "Edema",
    "top_probability": 0.93,
    "flags": ["low_margin"],
    "simulated": True,
}
BODY = render_body("id-1", "high", [ITEM], count=3, now=NOW)
SECRET = b"a secret of some length"


def secret_file(folder: Path, content: bytes = SECRET, mode: int = 0o600) -> str:
    path = folder / "secret"
    path.write_bytes(content + b"\n")
    path.chmod(mode)
    return str(path)


def webhook(port: int, seconds: float = 20.0, **more: Any) -> Webhook:
    url = more.pop("url", f"http://127.0.0.1:{port}/hook?a=b")
    return Webhook(WebhookSettings(url=url, timeout_seconds=seconds, **more))


def mail(port: int, seconds: float = 20.0, **more: Any) -> Mail:
    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "timeout_seconds": seconds,
        "sender": "xray@hospital.example",
        "to": ("a@b.example",),
    }
    return Mail(SmtpSettings(**settings | more), "a@b.example")


# -- HTTP ---------------------------------------------------------------------------------


def test_a_webhook_is_signed_over_id_time_and_body(tmp_path: Path) -> None:
    with http_sink() as sink:
        webhook(sink.port, secret_file=secret_file(tmp_path)).send("id-1", "high", BODY)
    (headers,), (body,) = sink.headers, sink.bodies
    assert body == BODY
    assert headers["webhook-id"] == "id-1" == json.loads(body)["id"]
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = f"id-1.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["content-type"] == "application/json"


def test_a_secret_in_the_form_of_standard_webhooks_is_understood(tmp_path: Path) -> None:
    file = secret_file(tmp_path, b"whsec_" + base64.b64encode(SECRET))
    with http_sink() as sink:
        webhook(sink.port, secret_file=file).send("id-1", "high", BODY)
    (headers,) = sink.headers
    signed = f"id-1.{headers['webhook-timestamp']}.".encode() + BODY
    expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


@pytest.mark.parametrize("lost", ["padding", "alphabet"])
def test_a_secret_in_that_form_that_is_no_base64_is_refused(tmp_path: Path, lost: str) -> None:
    """Used as it stands, it would sign what no receiver can check."""
    key = base64.b64encode(b"\xfb\xff" * 16).decode()
    broken = key.rstrip("=") if lost == "padding" else key.replace("/", "_").replace("+", "-")
    with pytest.raises(SecretFileError, match="not base64") as raised:
        webhook(1, secret_file=secret_file(tmp_path, f"whsec_{broken}".encode()))
    assert broken not in str(raised.value)


def test_an_address_beyond_ascii_is_posted_to_as_browsers_do() -> None:
    with http_sink() as sink:
        webhook(1, url=f"http://127.0.0.1:{sink.port}/θ?to=θάλαμος").send("id-1", "high", BODY)
        host = f"http://röntgen.localhost:{sink.port}/"
        assert Webhook(WebhookSettings(url=host))._address().host == "xn--rntgen-wxa.localhost"
    assert sink.targets == ["/%CE%B8?to=%CE%B8%CE%AC%CE%BB%CE%B1%CE%BC%CE%BF%CF%82"]


def test_an_address_that_is_a_secret_stands_in_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "address"
    with http_sink() as first, http_sink() as second:
        for sink, mark in ((first, b""), (second, b"\xef\xbb\xbf")):
            file.write_bytes(mark + f"http://127.0.0.1:{sink.port}/T0/geheim\r\n".encode())
            file.chmod(0o640)
            if sink is first:
                made = Webhook(WebhookSettings(url_file=str(file)))
            made.send("id-1", "high", BODY)
    assert first.targets == second.targets == ["/T0/geheim"]
    assert list(build_channels(NotifySettings(webhook=WebhookSettings(url_file=str(file))))) == [
        "webhook"
    ]


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"http://h/geheim", 0o644, "open to others"),
        (b"", 0o600, "empty"),
        (b"http://geheim:x@h/", 0o600, "user or password"),
        (b"http://h:99999/geheim", 0o600, "port"),
        (b"http://h/geheim http://i/", 0o600, "blank"),
        ("http://h/geheim".encode("utf-16"), 0o600, "UTF-8"),
        ("http://h/geheim".encode("utf-16-le"), 0o600, "UTF-8"),
    ],
)
def test_a_file_without_an_address_of_use_is_told_and_not_repeated(
    tmp_path: Path, content: bytes, mode: int, said: str
) -> None:
    file = tmp_path / "address"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=said) as raised:
        build_channels(NotifySettings(webhook=WebhookSettings(url_file=str(file))))
    assert str(file) in str(raised.value)
    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize(
    ("mode", "said"),
    [("500", "500"), ("404", "404"), ("302", "302"), ("drop", "Disconnected")],
)
def test_any_answer_but_success_is_a_failure_and_none_is_followed(mode: str, said: str) -> None:
    with http_sink() as sink:
        sink.mode = mode
        with pytest.raises(DeliveryFailed, match=said):
            webhook(sink.port).send("id-1", "high", BODY)
        assert len(sink.bodies) == 1


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_a_webhook_is_broken_off_at_the_end_of_its_time(mode: str) -> None:
    with http_sink() as sink:
        sink.mode = mode
        began_s = time.monotonic()
        with pytest.raises(DeliveryFailed, match="no answer in time"):
            webhook(sink.port, 1.0).send("id-1", "high", BODY)
        assert time.monotonic() - began_s < 10


def test_a_webhook_where_nobody_listens_is_a_failure() -> None:
    with pytest.raises(DeliveryFailed, match="refused"):
        webhook(closed_port()).send("id-1", "high", BODY)


def test_a_host_that_nobody_knows_is_told_in_words() -> None:
    with pytest.raises(DeliveryFailed, match="name cannot be looked up"):
        webhook(1, url="http://nobody.invalid/").send("id-1", "high", BODY)


def test_https_takes_only_a_certificate_that_is_trusted(tmp_path: Path) -> None:
    context, certificate = make(tmp_path)
    with http_sink(tls=context) as sink:
        url = f"https://127.0.0.1:{sink.port}/"
        with pytest.raises(DeliveryFailed):
            webhook(sink.port, url=url).send("id-1", "high", BODY)
        assert sink.bodies == []
        webhook(sink.port, url=url, ca_file=certificate).send("id-1", "high", BODY)
        assert sink.bodies == [BODY]


# -- secrets ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o606])
def test_a_secret_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    settings = NotifySettings(
        webhook=WebhookSettings(url="http://x/", secret_file=secret_file(tmp_path, mode=mode))
    )
    with pytest.raises(ConfigError, match="open to others") as raised:
        build_channels(settings)
    assert SECRET.decode() not in str(raised.value)


@pytest.mark.parametrize(("content", "said"), [(b"", "empty"), (b"short", "too short")])
def test_a_secret_that_is_none_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(Exception, match=said):
        webhook(1, secret_file=secret_file(tmp_path, content))


def test_a_secret_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="cannot be read"):
        webhook(1, secret_file=str(tmp_path / "nowhere"))
    with pytest.raises(Exception, match="no certificates"):
        webhook(1, url="https://x/", ca_file=secret_file(tmp_path))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_a_secret_for_the_service_and_its_group_is_taken(tmp_path: Path, mode: int) -> None:
    assert read_secret(secret_file(tmp_path, mode=mode)) == SECRET


# -- mail ---------------------------------------------------------------------------------


def test_a_mail_says_in_words_what_happened_and_carries_the_id() -> None:
    with smtp_sink() as sink:
        mail(sink.port).send("id-1", "high", BODY)
    message = email.message_from_bytes(sink.bodies[0])
    assert message["Message-ID"] == "<id-1@xray-watcher.invalid>"
    assert message["Subject"] == "xray-watcher: SIMULATION, 3 High results"
    assert message["To"] == "a@b.example"
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_payload()
    assert "index 0042  High: Edema 0.930 (low_margin)" in text
    assert "and 2 more" in text
    assert "not a diagnosis" in text


def test_a_mail_says_what_is_degraded_and_what_works_again() -> None:
    items = [{"at": "2026-11-23T11:59:00.000Z", "cause": "disk", "detail": "It is full."}]
    degraded = json.loads(render_body("id-2", "degraded", items, count=1, now=NOW))
    assert render_title(degraded) == "xray-watcher: degraded: disk"
    assert "disk: It is full." in render_text(degraded)
    del items[0]["detail"]
    recovered = json.loads(render_body("id-3", "recovered", items, count=1, now=NOW))
    assert "disk: works again" in render_text(recovered)


@pytest.mark.parametrize(
    ("mode", "said"),
    [("refuse", "refused the address .550"), ("busy", "said 451"), ("drop", "Disconnected")],
)
def test_a_mail_that_is_not_taken_is_a_failure(mode: str, said: str) -> None:
    with smtp_sink() as sink:
        sink.mode = mode
        with pytest.raises(DeliveryFailed, match=said):
            mail(sink.port).send("id-1", "high", BODY)


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_a_mail_is_broken_off_at_the_end_of_its_time(mode: str) -> None:
    with smtp_sink() as sink:
        sink.mode = mode
        began_s = time.monotonic()
        with pytest.raises(DeliveryFailed, match="no answer in time"):
            mail(sink.port, 1.0).send("id-1", "high", BODY)
        assert time.monotonic() - began_s < 10


def test_a_mail_server_that_is_silent_is_told_from_one_that_hangs_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when the connection's own limit comes before ours."""
    monkeypatch.setattr(threading.Timer, "start", lambda _timer: None)
    with smtp_sink() as sink:
        sink.mode = "hang"
        with pytest.raises(DeliveryFailed, match="no answer in time"):
            mail(sink.port, 1.0).send("id-1", "high", BODY)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_goes_through_tls_and_after_a_login(tmp_path: Path, security: str) -> None:
    context, certificate = make(tmp_path)
    login = {"user": "xray", "password_file": secret_file(tmp_path, b"pass word")}
    with smtp_sink(tls=context, at_once=security == "tls") as sink:
        with pytest.raises(DeliveryFailed):
            mail(sink.port, security=security, **login).send("id-1", "high", BODY)
        assert sink.bodies == []
        trusting = mail(sink.port, security=security, ca_file=certificate, **login)
        trusting.send("id-1", "high", BODY)
    (said,) = sink.headers
    assert base64.b64decode(said["auth"]) == b"\0xray\0pass word"


PASSWORDS = ["plain-password-1", "Röntgen-Paßwort", "κωδικός ακτίνες"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("user", ["xray", "röntgen"])
@pytest.mark.parametrize("way", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_a_user_and_a_password_beyond_ascii_log_in(
    tmp_path: Path, way: str, user: str, password: str
) -> None:
    file = secret_file(tmp_path, b"\xef\xbb\xbf" + password.encode() + b"\r")
    with smtp_sink() as sink:
        sink.ways = f"GSSAPI {way}"
        mail(sink.port, user=user, password_file=file).send("id-1", "high", BODY)
    (said,) = sink.headers
    assert said["way"] == way
    given = base64.b64decode(said["auth"])
    digest = hmac.new(password.encode(), b"<a challenge>", "md5").hexdigest()
    assert (
        given
        == {
            "PLAIN": f"\0{user}\0{password}".encode(),
            "LOGIN": password.encode(),
            "CRAM-MD5": f"{user} {digest}".encode(),
        }[way]
    )
    if way == "LOGIN":
        assert base64.b64decode(said["user"]).decode() == user


@pytest.mark.parametrize(
    ("ways", "refused", "said"),
    [
        ("PLAIN LOGIN", "PLAIN LOGIN", "said 535"),
        ("GSSAPI", "", "offers none of"),
        ("", "", "offers none of"),
    ],
)
def test_a_login_that_is_not_taken_is_told_and_sends_no_mail(
    tmp_path: Path, ways: str, refused: str, said: str
) -> None:
    login = {"user": "xray", "password_file": secret_file(tmp_path)}
    with smtp_sink() as sink:
        sink.ways, sink.mode = ways, refused or "take"
        with pytest.raises(DeliveryFailed, match=said):
            mail(sink.port, **login).send("id-1", "high", BODY)
    assert sink.headers == []


def test_a_way_of_logging_in_that_is_refused_is_followed_by_the_next(tmp_path: Path) -> None:
    login = {"user": "xray", "password_file": secret_file(tmp_path)}
    with smtp_sink() as sink:
        sink.ways, sink.mode = "CRAM-MD5 PLAIN LOGIN", "CRAM-MD5 PLAIN"
        mail(sink.port, **login).send("id-1", "high", BODY)
    assert sink.headers[0]["way"] == "LOGIN"


@pytest.mark.parametrize(
    "content", ["Röntgen".encode("latin-1"), "geheim".encode("utf-16"), b"gehe\0im"]
)
def test_a_password_that_is_no_text_is_told_at_the_start(tmp_path: Path, content: bytes) -> None:
    smtp = SmtpSettings(
        host="h", sender="x@y.z", to=("a@b.c", "d@e.f"), user="xray",
        password_file=secret_file(tmp_path, content),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="UTF-8") as raised:
        build_channels(NotifySettings(smtp=smtp))
    assert len(raised.value.problems) == 1, "of one file once"
    assert "gehe" not in str(raised.value)


def test_every_file_that_cannot_be_used_is_told_at_once(tmp_path: Path) -> None:
    smtp = SmtpSettings(
        host="h", sender="x@y.z", to=("a@b.c",), user="xray", password_file=str(tmp_path / "pw")
    )
    hook = WebhookSettings(url="http://h/", secret_file=str(tmp_path / "key"))
    with pytest.raises(ConfigError) as raised:
        build_channels(NotifySettings(smtp=smtp, webhook=hook))
    assert len(raised.value.problems) == 2


def test_the_host_of_a_mail_address_is_sent_in_ascii() -> None:
    with smtp_sink() as sink:
        channel = Mail(
            SmtpSettings(
                host="127.0.0.1", port=sink.port, security="none", sender="x@köln.example"
            ),
            "it@krankenhaus-köln.example",
        )
        channel.send("id-1", "high", BODY)
    message = email.message_from_bytes(sink.bodies[0])
    assert message["From"] == "x@xn--kln-sna.example"
    assert message["To"] == "it@" + "krankenhaus-köln.example".encode("idna").decode()


def test_a_name_beyond_ascii_needs_a_server_that_takes_it() -> None:
    with smtp_sink() as sink:
        settings = SmtpSettings(host="127.0.0.1", port=sink.port, security="none", sender="x@y.z")
        with pytest.raises(DeliveryFailed, match="SMTPUTF8"):
            Mail(settings, "röntgen@h.example").send("id-1", "high", BODY)
    assert sink.bodies == []


def test_a_server_without_starttls_gets_neither_password_nor_mail(tmp_path: Path) -> None:
    login = {"user": "xray", "password_file": secret_file(tmp_path)}
    with smtp_sink() as sink, pytest.raises(DeliveryFailed):
        mail(sink.port, security="starttls", **login).send("id-1", "high", BODY)
    assert sink.headers == []


def test_every_address_is_a_channel_of_its_own() -> None:
    smtp = SmtpSettings(
        host="h", security="none", sender="x@y.z", to=("a@b.c", "d@e.f"), events=("high",)
    )
    settings = NotifySettings(smtp=smtp)
    assert list(build_channels(settings)) == ["smtp:a@b.c", "smtp:d@e.f"]
    assert [n.channel for n in build_subscriptions(settings).notices("high", 0, "7")] == [
        "smtp:a@b.c",
        "smtp:d@e.f",
    ]
    assert build_subscriptions(settings).notices("summary", 0, "{}") == []


# -- a program ----------------------------------------------------------------------------


def command(script: str, *arguments: str, seconds: float = 20.0) -> Command:
    argv = (sys.executable, "-c", script, *arguments)
    return Command(CommandSettings(argv=argv, timeout_seconds=seconds))


def test_a_program_reads_the_message_and_runs_without_a_shell(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = (
        "import json, os, sys; body = sys.stdin.read(); "
        "json.dump([body, sys.argv[2], dict(os.environ)], open(sys.argv[1], 'w'))"
    )
    command(script, str(out), "$(id); `id`").send("id-1", "high", BODY)
    body, argument, environment = json.loads(out.read_text())
    assert body == BODY.decode()
    assert argument == "$(id); `id`"
    assert environment["XRAY_WATCHER_MESSAGE_ID"] == "id-1"
    assert environment["XRAY_WATCHER_EVENT"] == "high"
    assert not any(name.startswith("XRAY_WATCHER_NOTIFY") for name in environment)


@pytest.mark.parametrize(("script", "said"), [("exit(3)", "exit code was 3"), ("1/0", "was 1")])
def test_a_program_that_fails_has_not_told(script: str, said: str) -> None:
    with pytest.raises(DeliveryFailed, match=said):
        command(script).send("id-1", "high", BODY)


def test_a_program_that_reads_nothing_may_have_told() -> None:
    command("pass").send("id-1", "high", b"x" * 1_000_000)


def test_a_program_that_is_not_there_is_a_failure() -> None:
    with pytest.raises(DeliveryFailed, match="No such file"):
        Command(CommandSettings(argv=("/nowhere/at/all",))).send("id-1", "high", BODY)


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open(sys.argv[1] + '.part', 'w').write(f'{os.getpid()} {child.pid}')\n"
        "os.rename(sys.argv[1] + '.part', sys.argv[1])\n"
        "time.sleep(60)"
    )
    with pytest.raises(DeliveryFailed, match="too long"):
        command(script, str(pids), seconds=8.0).send("id-1", "high", BODY)
    for pid in pids.read_text().split():
        until_s = time.monotonic() + 10
        while _is_alive(pid):
            assert time.monotonic() < until_s
            time.sleep(0.05)


def _is_alive(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
