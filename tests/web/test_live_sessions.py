"""The stream of a live page ends with whatever let its reader in."""

from __future__ import annotations

from pathlib import Path

import pytest
from asgi import call, listening
from secured import OURS, Secured, secured_app, settings_of

from rig import HandClock
from xray_watcher.web.app import create_app
from xray_watcher.web.pages import live
from xray_watcher.web.tokens import SESSION_S

STREAM = "/live/events"


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secured:
    chatty(monkeypatch)
    return secured_app(tmp_path, tmp_path / "tokens")


def chatty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that says many times a second that it is still there."""
    monkeypatch.setattr(live, "_EVERY_S", 0.01)
    monkeypatch.setattr(live, "_BEAT_S", 0.0)


def rewrite(secured: Secured, old: str, new: str) -> None:
    """Change the token file, and let the time pass after which it is looked at again."""
    text = secured.token_file.read_text()
    assert old in text
    secured.token_file.write_text(text.replace(old, new))
    secured.clock.passed_s += 2


def line_of(secured: Secured, role: str) -> str:
    lines = secured.token_file.read_text().splitlines(keepends=True)
    return next(line for line in lines if line.startswith(role))


@pytest.mark.parametrize("role", ["view", "upload"])
@pytest.mark.parametrize("signs_in", [True, False])
def test_a_stream_ends_when_the_line_of_its_token_is_removed(
    secured: Secured, role: str, signs_in: bool
) -> None:
    headers = secured.cookie(role) if signs_in else secured.headers(role)
    with listening(secured.app, STREAM, headers) as stream:
        assert stream.status() == 200
        assert stream.goes_on()
        rewrite(secured, line_of(secured, role), "")
        assert stream.ends()


def test_a_stream_goes_on_when_the_line_of_another_token_is_removed(secured: Secured) -> None:
    with listening(secured.app, STREAM, secured.cookie("view")) as stream:
        rewrite(secured, line_of(secured, "upload"), "")
        assert stream.goes_on()


def test_a_stream_ends_when_its_token_may_do_less_than_what_it_shows(secured: Secured) -> None:
    with listening(secured.app, STREAM, secured.cookie("upload")) as stream:
        assert stream.goes_on()
        rewrite(secured, "upload ", "view ")
        assert stream.ends()


def test_a_stream_ends_with_its_session(secured: Secured) -> None:
    with listening(secured.app, STREAM, secured.cookie("view")) as stream:
        secured.clock.passed_s += SESSION_S - 1
        assert stream.goes_on()
        secured.clock.passed_s += 2
        assert stream.ends()


def test_a_stream_ends_when_its_reader_signs_out_and_not_when_another_does(
    secured: Secured,
) -> None:
    mine, another = secured.cookie("view"), secured.cookie("view")
    with listening(secured.app, STREAM, mine) as stream:
        call(secured.app, "POST", "/logout", another | OURS)
        assert stream.goes_on()
        call(secured.app, "POST", "/logout", mine | OURS)
        assert stream.ends()


def test_where_nobody_needs_a_token_a_stream_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chatty(monkeypatch)
    clock = HandClock()
    with listening(create_app(settings_of(tmp_path), clock), STREAM, {}) as stream:
        assert stream.status() == 200
        clock.passed_s += 2 * SESSION_S
        assert stream.goes_on()
