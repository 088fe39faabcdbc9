"""Tokens and the sessions that they open.

The token file has a line for each token: its role, its SHA-256 and its holder's name. It is read
again when it changes. A removed line ends its token and all sessions of that token.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass
from typing import Literal

import structlog

from xray_watcher.errors import ConfigError, UsageError
from xray_watcher.system.clock import Clock

TokenRole = Literal["view", "upload"]

SESSION_S = 12 * 3600.0
"""A person signs in anew after this long."""

_LINE = re.compile(r"(view|upload) ([0-9a-f]{64}) ([\w.@-]{1,64})", re.ASCII)
_CHECK_EVERY_S = 1.0
_SESSIONS_EACH = 20  # of one token; a ward may share it

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a token.

    Attributes:
        name: as the file has it; stands in the service's log.
        digest: SHA-256 of the token.
    """

    name: str
    role: TokenRole
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Session:
    """Whose it is, by the digest of the token, and when it ends."""

    digest: bytes
    until_s: float


def read_tokens(path: str) -> tuple[Holder, ...]:
    """Read a token file.

    Raises:
        ConfigError: it is missing, not ours alone, or a line of it is wrong.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            status = os.fstat(file.fileno())
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"web.token_file: {path} cannot be read ({error})"]) from error
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or status.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            [f"web.token_file: {path} must belong to this user alone: chmod 600 {path}"]
        )
    return tuple(_holder(path, number, line) for number, line in enumerate(lines, 1) if line)


def _holder(path: str, number: int, line: str) -> Holder:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ConfigError(
            [f"web.token_file: {path}:{number}: is no line as `xray-watcher token` writes it"]
        )
    role: TokenRole = "upload" if match[1] == "upload" else "view"
    return Holder(match[3], role, bytes.fromhex(match[2]))


def add_token(path: str, name: str, role: TokenRole) -> str:
    """Make a token and add it to the file, which is made where it is missing.

    Returns:
        The token; it stands nowhere else.

    Raises:
        UsageError: the name is none, or taken.
        ConfigError: the file cannot be used.
    """
    token = secrets.token_urlsafe(32)
    line = f"{role} {_digest(token).hex()} {name}"
    if _LINE.fullmatch(line) is None:
        raise UsageError(f"{name!a} is no name for a token: use letters, digits and . _ @ -")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError([f"web.token_file: {path} cannot be written ({error})"]) from error
    with open(fd, "w", encoding="ascii") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError([f"web.token_file: {path} is no file"])
        if any(holder.name == name for holder in read_tokens(path)):
            raise UsageError(f"{path} has a token of {name} already: remove its line first.")
        file.write(("" if _ends_with_a_line(fd) else "\n") + line + "\n")
    return token


def _ends_with_a_line(fd: int) -> bool:
    """Whether what is written next begins a line; an editor may have left the last one open."""
    size = os.fstat(fd).st_size
    return size == 0 or os.pread(fd, 1, size - 1) == b"\n"


class Tokens:
    """The tokens of a running service, and the sessions of people who signed in with one.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, path: str, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._version: tuple[int, ...] | None = _version(path)
        self._holders = read_tokens(path)
        self._next_check_s = clock.monotonic_s() + _CHECK_EVERY_S
        self._sessions: dict[bytes, _Session] = {}

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        now_s = self._clock.monotonic_s()
        return sum(now_s < session.until_s for session in self._sessions.values())

    def holder(self, token: str) -> Holder | None:
        """Who holds a token."""
        return self._with_digest(_digest(token))

    def open_session(self, holder: Holder) -> str:
        """Open a session for someone, whose oldest one ends if there are many; the secret of it."""
        now_s = self._clock.monotonic_s()
        self._sessions = {k: s for k, s in self._sessions.items() if now_s < s.until_s}
        theirs = [key for key, s in self._sessions.items() if s.digest == holder.digest]
        for key in theirs[: max(0, len(theirs) - _SESSIONS_EACH + 1)]:
            del self._sessions[key]
        secret = secrets.token_urlsafe(32)
        self._sessions[_digest(secret)] = _Session(holder.digest, now_s + SESSION_S)
        return secret

    def session_holder(self, secret: str) -> Holder | None:
        """Who opened a session, while it lasts and the token stands in the file."""
        session = self._sessions.get(_digest(secret))
        if session is None or self._clock.monotonic_s() >= session.until_s:
            return None
        return self._with_digest(session.digest)

    def close_session(self, secret: str) -> None:
        """End a session."""
        self._sessions.pop(_digest(secret), None)

    def _with_digest(self, digest: bytes) -> Holder | None:
        """Compare with every token; the time it takes does not depend on the digest."""
        self._reload_if_changed()
        found = [holder for holder in self._holders if hmac.compare_digest(holder.digest, digest)]
        return found[0] if found else None

    def _reload_if_changed(self) -> None:
        """Read the file again if it has changed; an unreadable file holds no token.

        An unreadable file is tried again at each check: its cause, such as a lack of descriptors,
        may end without a change of the file.
        """
        now_s = self._clock.monotonic_s()
        if now_s < self._next_check_s:
            return
        self._next_check_s = now_s + _CHECK_EVERY_S
        version = _version(self.path)
        if version == self._version:
            return
        was_readable = self._version is not None
        try:
            self._holders, self._version = read_tokens(self.path), version
        except ConfigError as error:
            self._holders, self._version = (), None
            if was_readable:
                _log.error(
                    "no token is valid until the file is repaired",
                    code="token_file_unusable",
                    detail=str(error),
                )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _version(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode, status.st_uid
