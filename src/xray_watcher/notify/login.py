"""Logging in at a mail server with names and passwords that need not be ASCII.

`smtplib` encodes both as ASCII and fails for all others; servers take UTF-8 (RFC 4616).
"""

from __future__ import annotations

import base64
import hmac
import smtplib
from collections.abc import Callable, Mapping

_TAKEN = (235, 503)  # 503: already logged in
_GO_ON = 334


def log_in(server: smtplib.SMTP, user: str, password: str) -> None:
    """Log in by the first way that the server offers and takes.

    Args:
        server: connected, with TLS begun where it is to be.
        user: who.
        password: their password.

    Raises:
        smtplib.SMTPException: the server offers no way that we know, or refuses.
        OSError: the connection broke.
    """
    server.ehlo_or_helo_if_needed()
    offered = server.esmtp_features.get("auth", "").upper().split()
    ways = [way for way in _WAYS if way in offered]
    if not ways:
        raise smtplib.SMTPNotSupportedError(f"the server offers none of {', '.join(_WAYS)}")
    for way in ways:
        code, said = _try(server, way, user.encode(), password.encode())
        if code in _TAKEN:
            return
    raise smtplib.SMTPAuthenticationError(code, said)


def _try(server: smtplib.SMTP, way: str, user: bytes, password: bytes) -> tuple[int, bytes]:
    begun = f"{way} {_encoded(_plain(user, password, b''))}" if way == "PLAIN" else way
    code, said = server.docmd("AUTH", begun)
    for answer in _WAYS[way]:
        if code == _GO_ON:
            code, said = server.docmd(_encoded(answer(user, password, said)))
    return server.docmd("*") if code == _GO_ON else (code, said)


def _cram_md5(user: bytes, password: bytes, challenge: bytes) -> bytes:
    digest = hmac.new(password, base64.b64decode(challenge), "md5").hexdigest()
    return user + b" " + digest.encode()


def _plain(user: bytes, password: bytes, _challenge: bytes) -> bytes:
    return b"\0" + user + b"\0" + password


_WAYS: Mapping[str, tuple[Callable[[bytes, bytes, bytes], bytes], ...]] = {
    "CRAM-MD5": (_cram_md5,),  # the one that does not show the password
    "PLAIN": (_plain,),
    "LOGIN": (lambda user, _password, _challenge: user, lambda _user, password, _: password),
}
"""What is answered to each challenge, by way of logging in; the first that is offered is tried."""


def _encoded(answer: bytes) -> str:
    return base64.b64encode(answer).decode("ascii")
