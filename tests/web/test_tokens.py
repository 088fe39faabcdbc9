"""Tokens come back by themselves, and nobody's sessions end another's."""

from __future__ import annotations

import builtins
import errno
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from rig import HandClock
from xray_watcher.web.tokens import SESSION_S, Holder, Tokens, add_token


class Disk:
    """The token file's disk; it can fail for a moment."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errno: int | None = None
        self._path = str(path)
        self._open = builtins.open
        monkeypatch.setattr(builtins, "open", self.open)

    def open(self, path: Any, *more: Any, **named: Any) -> Any:
        if self.errno is not None and path == self._path:
            raise OSError(self.errno, "for a moment")
        return self._open(path, *more, **named)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_file_that_could_not_be_read_for_a_moment_is_read_again_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path, clock = tmp_path / "tokens", HandClock()
    first = add_token(str(path), "a", "view")
    tokens = Tokens(str(path), clock)
    second = add_token(str(path), "b", "view")
    disk = Disk(path, monkeypatch)
    disk.errno = number
    with capture_logs() as logs:
        for _ in range(5):
            clock.passed_s += 1
            assert tokens.holder(first) is None, "it fails closed"
    assert len(logs) == 1, "and says so once"
    disk.errno = None
    clock.passed_s += 1
    assert tokens.holder(first) is not None
    assert tokens.holder(second) is not None
    disk.errno = number
    clock.passed_s += 1
    assert tokens.holder(first) is not None, "what has not changed is not read again"


def test_a_file_that_is_gone_for_a_moment_is_read_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "tokens", HandClock()
    token = add_token(str(path), "a", "view")
    tokens = Tokens(str(path), clock)
    away = path.rename(tmp_path / "away")
    clock.passed_s += 1
    assert tokens.holder(token) is None
    away.rename(path)
    clock.passed_s += 1
    assert tokens.holder(token) is not None


def holder(tokens: Tokens, token: str) -> Holder:
    found = tokens.holder(token)
    assert found is not None
    return found


def test_ten_thousand_sign_ins_end_nobody_else_s_session(tmp_path: Path) -> None:
    path, clock = tmp_path / "tokens", HandClock()
    ward, flood = (add_token(str(path), name, "view") for name in ("ward", "flood"))
    tokens = Tokens(str(path), clock)
    mine = tokens.open_session(holder(tokens, ward))
    theirs = [tokens.open_session(holder(tokens, flood)) for _ in range(10_000)]
    assert tokens.session_holder(mine) is not None
    assert tokens.sessions == 21
    assert tokens.session_holder(theirs[-20]) is not None
    assert tokens.session_holder(theirs[-21]) is None, "the oldest of that holder ends"


def test_sessions_that_are_over_are_forgotten(tmp_path: Path) -> None:
    path, clock = tmp_path / "tokens", HandClock()
    token = add_token(str(path), "a", "view")
    tokens = Tokens(str(path), clock)
    for _ in range(5):
        tokens.open_session(holder(tokens, token))
    clock.passed_s += SESSION_S
    assert tokens.sessions == 0
    tokens.open_session(holder(tokens, token))
    assert len(tokens._sessions) == 1
