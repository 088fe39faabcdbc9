"""Every refusal has one form: JSON for programs, a page for people, and an explained code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from asgi import Answer, call
from secured import FORM, OURS, Secured, secured_app, settings_of
from starlette.applications import Starlette
from starlette.datastructures import Headers
from test_security import ROUTES, STREAM, concrete

from rig import HandClock
from xray_watcher.web.app import create_app
from xray_watcher.web.context import WebContext
from xray_watcher.web.refusals import CODES, Refused

HOME = Path(__file__).parents[2]
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Starlette:
    """An application without tokens and without a ledger."""
    return create_app(settings_of(tmp_path_factory.mktemp("refusals")), HandClock())


@pytest.fixture
def secured(tmp_path: Path) -> Secured:
    return secured_app(tmp_path, tmp_path / "tokens")


def check_is_json(answer: Answer, code: str) -> None:
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["error"].keys() == {"code", "message"}
    assert (answer.status, answer.json["error"]["code"]) == (CODES[code], code)


def check_is_page(answer: Answer, status: int) -> None:
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.status == status
    assert b"<h1>" in answer.body
    assert b"no diagnosis" in answer.body or b"not a diagnosis" in answer.body


def test_every_code_stands_in_the_documents_with_its_status_and_no_other() -> None:
    table = (HOME / "docs" / "api.md").read_text().split("## Refusals", 1)[1].split("\n## ", 1)[0]
    documented = {
        code: int(status)
        for status, codes in re.findall(r"^\| (\d+) \| ([^|]+) \|", table, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    assert documented == CODES


def test_every_code_is_used() -> None:
    source = "".join(
        path.read_text()
        for path in (HOME / "src" / "xray_watcher" / "web").rglob("*.py")
        if path.name != "refusals.py"
    )
    assert [code for code in CODES if f'"{code}"' not in source] == []


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nowhere", "not_found"),
        ("GET", "/images/7", "not_found"),
        ("GET", "/images/7/result", "not_found"),
        ("GET", "/images/7/picture.png", "ledger"),
        ("GET", "/images/x", "not_found"),
        ("GET", "/days/2026-02-31", "not_found"),
        ("GET", "/days/2026-02-28", "not_found"),
        ("GET", "/logs/nothing.csv", "not_found"),
        ("GET", "/static/nothing", "not_found"),
        ("GET", "/api/v1/results", "ledger"),
        ("GET", "/api/v1/results?limit=x", "wrong_query"),
        ("GET", "/api/v1/summary/x", "wrong_request"),
        ("DELETE", "/api/v1/results", "wrong_method"),
        ("GET", "/predict_batch", "wrong_method"),
        ("POST", "/predict_batch", "malformed"),
        ("POST", "/images/7/retry", "not_put_back"),
    ],
)
def test_a_program_gets_json_and_a_person_a_page(
    app: Starlette, method: str, path: str, code: str
) -> None:
    check_is_json(call(app, method, path), code)
    check_is_json(call(app, method, path, {"accept": "*/*"}), code)
    check_is_page(call(app, method, path, BROWSER), CODES[code])


def test_a_wrong_method_names_the_right_ones(app: Starlette) -> None:
    for headers in ({}, BROWSER):
        assert call(app, "GET", "/predict_batch", headers).headers["allow"] == "POST"


def test_the_gate_and_the_doorman_refuse_in_the_same_form(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, evil = secured.app, {"origin": "https://evil.example"}
    check_is_json(call(app, "GET", "/healthz", host="evil.example"), "wrong_host")
    check_is_page(call(app, "GET", "/healthz", BROWSER, host="evil.example"), 421)
    check_is_json(call(app, "POST", "/login", FORM | evil), "foreign_origin")
    check_is_page(call(app, "POST", "/login", FORM | evil | BROWSER), 403)
    check_is_json(call(app, "GET", "/live"), "token_needed")
    check_is_page(call(app, "POST", "/predict_batch", BROWSER), 401)
    viewer = secured.headers("view")
    check_is_json(call(app, "POST", "/predict_batch", viewer), "forbidden")
    check_is_page(call(app, "POST", "/predict_batch", viewer | BROWSER), 403)
    for _ in range(10):
        secured.sign_in("wrong")
    check_is_json(secured.sign_in("wrong"), "too_many_tries")
    check_is_page(call(app, "POST", "/login", FORM | OURS | BROWSER, b"token=x"), 429)

    def broken(_self: WebContext) -> None:
        raise RuntimeError

    monkeypatch.setattr(WebContext, "ledger", broken)
    check_is_json(call(app, "GET", "/api/v1/results", viewer), "failed")
    check_is_page(call(app, "GET", "/api/v1/results", viewer | BROWSER), 500)


def test_what_a_page_quotes_is_text() -> None:
    page = bytes(Refused("not_found", "<script>{x}</script>").answer(Headers(BROWSER)).body)
    assert b"&lt;script&gt;{x}" in page


@pytest.mark.parametrize(("method", "path", "_role"), ROUTES)
def test_a_slash_too_many_leads_nowhere(app: Starlette, method: str, path: str, _role: str) -> None:
    """Starlette's own redirect names http, and a client would send its images there unencrypted."""
    if path == "/":
        return
    answer = call(app, method, concrete(path) + "/")
    assert (answer.status, answer.headers.get("location")) == (404, None)


@pytest.mark.parametrize(("method", "path", "_role"), [r for r in ROUTES if r[1] != STREAM])
@pytest.mark.parametrize("headers", [{}, BROWSER, {"x-forwarded-proto": "https"}])
def test_no_redirect_names_a_host(
    secured: Secured, method: str, path: str, _role: str, headers: dict[str, str]
) -> None:
    for role in ("anyone", "upload"):
        answer = call(secured.app, method, concrete(path), secured.headers(role) | headers)
        assert re.match(r"/(?![/\\])", answer.headers.get("location", "/"))


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 5000, "-1", "１", "1e3", "0x1", "x", " 1"])
def test_an_event_id_that_is_none_of_ours_is_passed_over(app: Starlette, digits: str) -> None:
    app.state.is_ending = True  # so that the stream has an end
    try:
        assert call(app, "GET", f"/live/events?after={digits}").status == 200
        sent = {"last-event-id": digits if digits.isascii() else "\xb2"}
        assert call(app, "GET", "/live/events", sent).status == 200
    finally:
        app.state.is_ending = False
