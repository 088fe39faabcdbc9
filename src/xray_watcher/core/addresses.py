"""Addresses as people write them into the settings, in the form in which they are sent.

Every complaint leaves the address itself out: it may hold a password or be a secret as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_PRINTED = "".join(map(chr, range(0x21, 0x7F)))
_TWO_FORMS = re.compile("[ß\u03c2\u200c\u200d]")  # IDNA 2003 and 2008 make two names of these


@dataclass(frozen=True, slots=True)
class WebAddress:
    """Where messages are posted, all in ASCII.

    Attributes:
        is_tls: whether it is https.
        host: a name or an IP address, without brackets.
        port: the one that is named, else the scheme's.
        target: path and query as they are sent.
    """

    is_tls: bool
    host: str
    port: int
    target: str


def web_address(text: str) -> WebAddress:
    """Read an http:// or https:// address.

    Args:
        text: as people write it; letters beyond ASCII are sent as browsers do (IDNA, UTF-8).

    Raises:
        ValueError: it cannot be used; the message says why and holds no part of it.
    """
    scheme, colon, _ = text.partition("://")
    if not colon or scheme.lower() not in _PORTS:
        raise ValueError("it begins with neither http:// nor https://")
    if not text.isprintable() or " " in text:
        raise ValueError("it has a blank or a control character in it; write %20 for a blank")
    try:
        parts = urlsplit(text)
    except ValueError:  # its message may hold the address
        raise ValueError("its host cannot be read; an IPv6 address stands in [ ]") from None
    if "@" in parts.netloc:
        raise ValueError("a user or password before the host is not supported")
    port = _port(parts.netloc) or _PORTS[scheme.lower()]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = host_name(parts.hostname or "")
    return WebAddress(scheme.lower() == "https", host, port, quote(target, safe=_PRINTED))


def host_name(text: str) -> str:
    """The ASCII form of a host's name or IP address.

    Raises:
        ValueError: it is none; the message says why and holds no part of it.
    """
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    if _TWO_FORMS.search(text):
        raise ValueError("its host has a letter with two ASCII forms; write the one meant, xn--...")
    try:
        host = text.encode("idna").decode("ascii")
    except UnicodeError:  # also an empty part between two dots, and one that is too long
        host = ""
    if not _HOST.fullmatch(host):
        raise ValueError("its host is neither a name nor an IP address")
    return host


def mail_address(text: str) -> str:
    """A mail address with the ASCII form of its host; what stands before the @ stays.

    Raises:
        ValueError: it is none; the message says why and holds no part of it.
    """
    user, at, host = text.rpartition("@")
    if not at or not re.fullmatch(r"[^\s@<>,]+", user) or not user.isprintable():
        raise ValueError("it is not of the form name@host")
    return f"{user}@{host_name(host)}"


def _port(netloc: str) -> int | None:
    """The port that stands behind the host; None for none."""
    _, colon, digits = netloc.rpartition("]")[2].rpartition(":")
    if not colon or not digits:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", digits) or not 1 <= int(digits) <= 65535:
        raise ValueError("its port is no number from 1 to 65535")
    return int(digits)
