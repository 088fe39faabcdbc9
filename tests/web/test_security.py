"""Nobody gets in: hosts, origins, roles, tokens, sessions and headers, for every route there is."""

from __future__ import annotations

import hashlib
import os
from base64 import urlsafe_b64decode
from pathlib import Path
from urllib.parse import urlencode

import pytest
from asgi import call
from secured import FORM, OURS, Secured, secured_app, settings_of
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rig import HandClock, Rig
from xray_watcher.config.settings import Settings
from xray_watcher.errors import ConfigError, UsageError
from xray_watcher.web import pages
from xray_watcher.web.app import allowed_hosts, create_app
from xray_watcher.web.authentication import COOKIE, ROLES
from xray_watcher.web.context import WebContext
from xray_watcher.web.security import SecuredRoute
from xray_watcher.web.tokens import SESSION_S, Tokens, add_token, read_tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a ledger that has one image."""
    made: Path = tmp_path_factory.mktemp("security")
    rig = Rig(made / "root")
    rig.drop("a.jpg", "picture:Edema")
    rig.drop("b.jpg", "nan")
    rig.settle()
    rig.crash()
    return made


@pytest.fixture
def secured(folder: Path, tmp_path: Path) -> Secured:
    return secured_app(folder, tmp_path / "tokens")


@pytest.fixture(scope="module")
def open_app(folder: Path) -> Starlette:
    """An application without tokens, as on a workstation."""
    return create_app(settings_of(folder), HandClock())


def all_routes() -> list[tuple[str, str, str]]:
    """Method, path and role of every route that the application has."""
    app = create_app(Settings(root="/nowhere", state_dir="/nowhere"), HandClock())
    return [
        (method, route.path, route.role)
        for route in app.routes
        if isinstance(route, SecuredRoute)
        for method in sorted(route.methods or ())
    ]


ROUTES = all_routes()
STREAM = "/live/events"  # it goes on for as long as somebody listens


def concrete(path: str) -> str:
    for name, value in {
        "{index:index}": "0",
        "{day}": "2026-11-23",
        "{batch}": "20261123T120000-0123456789ab",
        "{log}": "results-2026-11-23",
        "{name}": "nothing",
    }.items():
        path = path.replace(name, value)
    assert "{" not in path, f"say what stands for the parameter of {path}"
    return path


# -- the matrix -----------------------------------------------------------------------------


def test_every_route_of_the_application_says_which_role_it_needs(open_app: Starlette) -> None:
    assert all(isinstance(route, SecuredRoute) for route in open_app.routes)
    assert {path for _, path, _ in ROUTES} >= {
        "/predict_batch", "/api/v1/batches", "/api/v1/batches/{batch}", "/api/v1/results",
        "/api/v1/results/{index:index}", "/api/v1/summary/{day}", "/api/v1/status", "/healthz",
        "/openapi.json", "/login", "/logout", "/",
    }  # fmt: skip


def test_a_route_that_says_no_role_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endpoint(_request: Request) -> Response:
        return JSONResponse({})

    monkeypatch.setattr(pages, "routes", lambda _context: [Route("/x", endpoint)])
    with pytest.raises(TypeError, match="role"):
        create_app(settings_of(folder), HandClock())


@pytest.mark.parametrize(("method", "path", "needed"), ROUTES)
@pytest.mark.parametrize("role", ROLES)
def test_the_matrix_of_routes_and_roles(
    secured: Secured, method: str, path: str, needed: str, role: str
) -> None:
    if path == STREAM and ROLES.index(role) >= ROLES.index(needed):
        return
    answer = call(secured.app, method, concrete(path), secured.headers(role))
    if ROLES.index(role) >= ROLES.index(needed):
        assert answer.status not in (401, 403)
    else:
        assert answer.status == (401 if role == "anyone" else 403)
        assert method == "HEAD" or set(answer.json) == {"error"}


def test_without_a_token_only_health_signing_in_and_static_files_are_reached() -> None:
    for_anyone = {path for _, path, role in ROUTES if role == "anyone"}
    assert for_anyone == {"/healthz", "/login", "/logout", "/static/{name}"}
    changing = {(path, role) for method, path, role in ROUTES if method not in ("GET", "HEAD")}
    assert {role for path, role in changing if path not in ("/login", "/logout")} == {"upload"}


def test_health_tells_whoever_has_no_token_no_detail(secured: Secured) -> None:
    told = call(secured.app, "GET", "/healthz").json
    assert told == {
        "healthy": False, "alive": False, "reasons": ["not_running"], "troubles": None,
    }  # fmt: skip
    more = call(secured.app, "GET", "/healthz", secured.headers("view")).json
    assert "xray-watcher run" in more["troubles"]["not_running"]


# -- hosts and origins ------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "_needed"), ROUTES)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example:8080", "127.0.0.1:80", ""]
)
def test_no_route_answers_under_a_name_that_is_not_ours(
    open_app: Starlette, method: str, path: str, _needed: str, host: str
) -> None:
    answer = call(open_app, method, concrete(path), host=host)
    assert answer.status == 421


def test_two_hosts_in_one_request_are_none(open_app: Starlette) -> None:
    answer = call(open_app, "GET", "/healthz", {"Host": "localhost:8080"}, host="evil.example")
    assert answer.status == 421


def test_the_names_that_are_answered_are_exact(folder: Path) -> None:
    settings = settings_of(folder, allowed_hosts=("xray.example.org", "proxy:8443"), port=9000)
    hosts = allowed_hosts(settings)
    assert {"xray.example.org", "xray.example.org:9000", "proxy:8443", "localhost:9000"} <= {*hosts}
    assert "[fd00::7]:8080" in allowed_hosts(settings_of(folder, host="fd00::7"))
    app = create_app(settings, HandClock())
    assert call(app, "GET", "/healthz", host="XRAY.example.org").status == 503
    assert call(app, "GET", "/healthz", host="sub.xray.example.org").status == 421


CHANGES = [(m, p) for m, p, _ in ROUTES if m not in ("GET", "HEAD")]
FOREIGN: list[dict[str, str]] = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:8081"},
    {"origin": "http://localhost"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"origin": "http://localhost:8080", "sec-fetch-site": "cross-site"},
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize("headers", FOREIGN)
def test_another_site_s_page_changes_nothing(
    open_app: Starlette, method: str, path: str, headers: dict[str, str]
) -> None:
    body = b"token=x"
    answer = call(open_app, method, concrete(path), FORM | headers, body)
    assert (answer.status, answer.json["error"]["code"]) == (403, "foreign_origin")
    text = {"content-type": "text/plain"} | headers
    assert call(open_app, method, concrete(path), text, b'{"a": 1}').status == 403


@pytest.mark.parametrize("headers", [{}, OURS, {"sec-fetch-site": "same-origin"}])
def test_programs_and_our_own_pages_are_not_taken_for_another_site(
    open_app: Starlette, headers: dict[str, str]
) -> None:
    answer = call(open_app, "POST", "/predict_batch", headers)
    assert (answer.status, answer.json["error"]["code"]) == (400, "malformed")


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:8080"])
def test_no_origin_is_ever_allowed_to_read(open_app: Starlette, origin: str) -> None:
    for method in ("GET", "OPTIONS"):
        answer = call(open_app, method, "/api/v1/results", {"origin": origin})
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p, _ in ROUTES if p != STREAM])
def test_every_answer_carries_the_security_headers(
    open_app: Starlette, method: str, path: str
) -> None:
    headers = call(open_app, method, concrete(path)).headers
    policy = dict(
        one.strip().split(" ", 1) for one in headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert (policy["frame-ancestors"], policy["object-src"]) == ("'none'", "'none'")
    assert headers["x-content-type-options"] == "nosniff"


def test_an_error_of_ours_is_told_without_a_detail(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: WebContext) -> None:
        raise RuntimeError("secret")

    app = create_app(settings_of(folder), HandClock())
    monkeypatch.setattr(WebContext, "ledger", broken)
    answer = call(app, "GET", "/api/v1/results")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "content-security-policy" in answer.headers


# -- paths ----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/static/", "/logs/", "/days/", "/images/", "/api/v1/summary/"])
@pytest.mark.parametrize(
    "tail",
    [
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "....//....//etc/passwd",
        "..\\..\\etc\\passwd",
        "\0",
        "a\0.css",
        "%2e%2e/%2e%2e/etc/passwd",
        "~root/.ssh/id_rsa",
        "results-2026-11-23/../../state/ledger.sqlite3",
        "..",
        ".",
        "style.css/../../../config.py",
    ],
)
def test_no_path_leads_out(open_app: Starlette, prefix: str, tail: str) -> None:
    answer = call(open_app, "GET", prefix + tail)
    assert answer.status in (400, 404)
    assert b"root:" not in answer.body
    assert b"SQLite" not in answer.body


# -- tokens and sessions ----------------------------------------------------------------------


def test_a_token_stands_nowhere_but_its_hash_does(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    token = add_token(str(path), "ward-7", "view")
    assert token not in path.read_text()
    assert path.read_text() == f"view {hashlib.sha256(token.encode()).hexdigest()} ward-7\n"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="already"):
        add_token(str(path), "ward-7", "upload")
    for name in ("", "a b", "x" * 65, "a\nupload", "é"):
        with pytest.raises(UsageError):
            add_token(str(path), name, "view")
    assert len(read_tokens(str(path))) == 1


def test_a_token_gets_a_line_of_its_own_though_the_last_one_has_no_end(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    add_token(str(path), "a", "view")
    path.write_text(path.read_text().removesuffix("\n"))  # as an editor may leave it
    token = add_token(str(path), "b", "upload")
    assert [holder.name for holder in read_tokens(str(path))] == ["a", "b"]
    holder = Tokens(str(path), HandClock()).holder(token)
    assert holder is not None
    assert (holder.name, holder.role) == ("b", "upload")


def test_the_byte_order_mark_of_a_windows_editor_locks_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    token = add_token(str(path), "a", "view")
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert Tokens(str(path), HandClock()).holder(token) is not None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_token_file_that_others_may_read_is_not_used(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "tokens"
    add_token(str(path), "a", "view")
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        Tokens(str(path), HandClock())


@pytest.mark.parametrize("content", ["view abc name\n", "root " + "0" * 64 + " a\n", "\xff\xfe"])
def test_a_token_file_with_a_wrong_line_is_not_used(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens"
    path.touch(0o600)
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match="token_file"):
        read_tokens(str(path))


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer wrong",
        "Bearer ",
        "Bearer",
        "Basic {token}",
        "{token}",
        "Bearer {token}x",
        "Bearer \xff",
    ],
)
def test_a_wrong_token_opens_nothing(secured: Secured, authorization: str) -> None:
    header = authorization.format(token=secured.tokens["upload"])
    answer = call(secured.app, "GET", "/api/v1/results", {"authorization": header})
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_token_whose_line_is_removed_opens_nothing_any_more(secured: Secured) -> None:
    cookie = secured.cookie("upload")
    assert call(secured.app, "GET", "/api/v1/results", cookie).status == 200
    kept = secured.token_file.read_text().splitlines(keepends=True)[:1]
    secured.token_file.write_text("".join(kept))
    secured.clock.passed_s += 2
    for headers in (secured.headers("upload"), cookie):
        assert call(secured.app, "GET", "/api/v1/results", headers).status == 401
    assert call(secured.app, "GET", "/api/v1/results", secured.headers("view")).status == 200
    secured.token_file.chmod(0o644)
    secured.clock.passed_s += 2
    assert call(secured.app, "GET", "/api/v1/results", secured.headers("view")).status == 401


def test_a_person_signs_in_with_a_token_and_holds_a_strict_cookie(secured: Secured) -> None:
    answer = secured.sign_in(secured.tokens["view"], next="/days")
    assert (answer.status, answer.headers["location"]) == (303, "/days")
    attributes = answer.headers["set-cookie"].lower()
    assert "httponly" in attributes
    assert "samesite=strict" in attributes
    assert secured.tokens["view"] not in answer.headers["set-cookie"]
    assert "secure" not in attributes
    assert call(secured.app, "GET", "/api/v1/results", secured.cookie("view")).status == 200


def test_behind_a_proxy_with_tls_the_cookie_is_for_tls_alone(secured: Secured) -> None:
    body = urlencode({"token": secured.tokens["view"]}).encode()
    origin = {"origin": "https://localhost:8080"}
    answer = call(secured.app, "POST", "/login", FORM | origin, body)
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert cookie.startswith("__Host-xray-watcher=")
    assert {one.lower() for one in attributes} >= {"secure", "path=/", "httponly"}
    assert not [one for one in attributes if one.lower().startswith("domain")]
    assert call(secured.app, "GET", "/api/v1/results", {"cookie": cookie}).status == 200
    theirs = secured.cookie("upload")["cookie"]  # as another service of this host may set it
    both = {"cookie": f"{theirs}; {cookie}"} | OURS
    assert call(secured.app, "POST", "/predict_batch", both).status == 403, "ours, a viewer's"
    call(secured.app, "POST", "/logout", {"cookie": cookie} | OURS)
    assert call(secured.app, "GET", "/api/v1/results", {"cookie": cookie}).status == 401


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", ""]
)
def test_signing_in_leads_to_no_other_site(secured: Secured, elsewhere: str) -> None:
    answer = secured.sign_in(secured.tokens["view"], next=elsewhere)
    assert answer.headers["location"] == "/live"  # what the role view can do


def test_a_session_ends(secured: Secured) -> None:
    cookie = secured.cookie("view")
    secured.clock.passed_s += SESSION_S - 1
    assert call(secured.app, "GET", "/api/v1/results", cookie).status == 200
    secured.clock.passed_s += 2
    assert call(secured.app, "GET", "/api/v1/results", cookie).status == 401
    cookie = secured.cookie("view")
    call(secured.app, "POST", "/logout", cookie | OURS)
    assert call(secured.app, "GET", "/api/v1/results", cookie).status == 401


def test_a_cookie_changes_nothing_unless_the_browser_says_that_the_page_is_ours(
    secured: Secured,
) -> None:
    cookie = secured.cookie("upload")
    assert call(secured.app, "POST", "/predict_batch", cookie).status == 401
    assert call(secured.app, "POST", "/predict_batch", cookie | OURS).status == 400
    assert call(secured.app, "POST", "/predict_batch", cookie | {"origin": "null"}).status == 403


def test_a_viewer_who_signed_in_may_not_upload(secured: Secured) -> None:
    answer = call(secured.app, "POST", "/predict_batch", secured.cookie("view") | OURS)
    assert answer.status == 403


def test_wrong_tokens_are_not_heard_without_end_and_a_right_one_always_gets_in(
    secured: Secured,
) -> None:
    """Behind a proxy all people have one address: whoever guesses must not keep the others out."""
    for _ in range(10):
        assert secured.sign_in("wrong").headers["location"] == "/login?failed=1"
    assert secured.sign_in("wrong").status == 429
    assert secured.sign_in(secured.tokens["view"]).headers["location"] == "/live"
    assert secured.sign_in("wrong").status == 429, "a right one changes nothing for wrong ones"
    secured.clock.passed_s += 61
    assert secured.sign_in("wrong").headers["location"] == "/login?failed=1"


def test_a_program_with_a_wrong_token_is_refused_each_time_and_keeps_nobody_out(
    secured: Secured,
) -> None:
    """It is not counted, for nobody guesses 256 bits."""
    assert all(len(urlsafe_b64decode(t + "=")) * 8 == 256 for t in secured.tokens.values())
    wrong = {"authorization": f"Bearer {secured.tokens['view'][::-1]}"}
    statuses = {call(secured.app, "GET", "/api/v1/status", wrong).status for _ in range(50)}
    assert statuses == {401}
    assert call(secured.app, "GET", "/api/v1/status", secured.headers("view")).status == 200
    assert secured.sign_in("wrong").headers["location"] == "/login?failed=1"


def test_a_person_without_a_session_is_sent_to_the_sign_in_page(secured: Secured) -> None:
    answer = call(secured.app, "GET", "/days", {"accept": "text/html,*/*"})
    assert (answer.status, answer.headers["location"]) == (303, "/login?next=/days")


def test_a_form_that_is_too_large_is_refused(secured: Secured) -> None:
    assert secured.sign_in("x" * 100_000).status == 413


@pytest.mark.parametrize("value", ["", "x", '"', "a=b; c", "\xff", COOKIE + "=" + "z" * 9000])
def test_a_strange_cookie_is_no_session(secured: Secured, value: str) -> None:
    answer = call(secured.app, "GET", "/api/v1/results", {"cookie": f"{COOKIE}={value}; {value}"})
    assert answer.status == 401


@pytest.mark.parametrize(
    "theirs", ['prefs={"a":1}', "[x]=1", "a b=c", 'q="', "naked", "=", "\xff=1"]
)
def test_a_cookie_of_another_application_does_not_hide_ours(secured: Secured, theirs: str) -> None:
    ours = secured.cookie("view")["cookie"]
    for both in (f"{theirs}; {ours}", f"{ours}; {theirs}"):
        assert call(secured.app, "GET", "/api/v1/results", {"cookie": both}).status == 200
    call(secured.app, "POST", "/logout", {"cookie": f"{theirs}; {ours}"} | OURS)
    assert call(secured.app, "GET", "/api/v1/results", {"cookie": ours}).status == 401


def test_what_a_browser_tells_a_proxy_does_not_end_a_session(secured: Secured) -> None:
    headers = secured.cookie("view") | {"authorization": "Basic d2FyZDpzZWNyZXQ="}
    assert call(secured.app, "GET", "/api/v1/results", headers).status == 200
    headers["authorization"] = "Bearer wrong"
    assert call(secured.app, "GET", "/api/v1/results", headers).status == 401, "ours, and wrong"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_token_file_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    add_token(str(path), "a", "view")
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match="belong"):
        read_tokens(str(path))
