"""The ways of telling. Each sends one message and returns when the other side has taken it.

Nothing here touches the ledger: a channel works in a thread of its own and may take as long as
its time-out. Errors name neither the message's content nor a secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.utils import formatdate
from typing import Protocol
from urllib.parse import urlsplit

from xray_watcher import __version__
from xray_watcher.config.care import CommandSettings, SmtpSettings, WebhookSettings
from xray_watcher.errors import XrayWatcherError
from xray_watcher.notify.texts import title_of, words_of

_SHORTEST_SECRET = 16
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TZ")


class DeliveryFailed(XrayWatcherError):
    """A message was not taken; it may be tried again."""


class SecretFileError(XrayWatcherError):
    """A file with a secret cannot be used: it is missing, too short, or open to everybody."""


class Channel(Protocol):
    """One way of telling."""

    def send(self, message_id: str, event: str, body: bytes, /) -> None:
        """Deliver a message.

        Raises:
            DeliveryFailed: it was not taken.
        """
        ...


def read_secret(path: str) -> bytes:
    """The secret in a file, without white space around it.

    Raises:
        SecretFileError: it cannot be used; the message names the file and not what is in it.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(4096).strip()
    except OSError as error:
        raise SecretFileError(f"{path} cannot be read ({os.strerror(error.errno or 0)}).") from None
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise SecretFileError(
            f"{path} is open to others (mode {stat.S_IMODE(mode):o}): chmod 640, or 600."
        )
    if not secret:
        raise SecretFileError(f"{path} is empty.")
    return secret


# -- HTTP ---------------------------------------------------------------------------------


class Webhook:
    """Posts JSON, signed as Standard Webhooks have it (https://www.standardwebhooks.com).

    Args:
        settings: `[notify.webhook]`.
    """

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._url = urlsplit(settings.url)
        self.check()

    def check(self) -> None:
        """See that its files can be used.

        Raises:
            SecretFileError: one cannot.
        """
        self._key()
        if self._url.scheme == "https":
            _tls(self._settings.ca_file)

    def send(self, message_id: str, event: str, body: bytes) -> None:
        """Post a message; any answer but 2xx is a failure, and no redirection is followed."""
        del event  # it stands in the body
        connection = self._connection()
        try:
            with _deadline(self._settings.timeout_seconds, lambda: connection.sock):
                connection.request("POST", self._target, body, self._headers(message_id, body))
                status = connection.getresponse().status
        except (OSError, http.client.HTTPException, SecretFileError) as error:
            raise DeliveryFailed(_reason(error)) from error
        finally:
            connection.close()
        if not 200 <= status < 300:
            raise DeliveryFailed(f"the answer was {status}")

    def _connection(self) -> http.client.HTTPConnection:
        host, port, timeout_s = self._url.hostname, self._url.port, self._settings.timeout_seconds
        assert host is not None, "the settings have checked it"
        if self._url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        context = _tls(self._settings.ca_file)
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)

    @property
    def _target(self) -> str:
        query = f"?{self._url.query}" if self._url.query else ""
        return (self._url.path or "/") + query

    def _headers(self, message_id: str, body: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"xray-watcher/{__version__}",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
        }
        key = self._key()
        if key is not None:
            headers["webhook-signature"] = signature(key, message_id, timestamp, body)
        return headers

    def _key(self) -> bytes | None:
        """Read anew each time, so that a secret can be changed while the service runs."""
        path = self._settings.secret_file
        if not path:
            return None
        secret = read_secret(path)
        if secret.startswith(b"whsec_"):
            with suppress(ValueError):
                secret = base64.b64decode(secret.removeprefix(b"whsec_"), validate=True)
        if len(secret) < _SHORTEST_SECRET:
            raise SecretFileError(f"{path} is too short: {_SHORTEST_SECRET} bytes at least.")
        return secret


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The signature of a message: HMAC-SHA256 over id, time and body, in base64."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


# -- mail ---------------------------------------------------------------------------------


class Mail:
    """Sends mails to one address.

    Args:
        settings: `[notify.smtp]`.
        to: the address.
    """

    def __init__(self, settings: SmtpSettings, to: str) -> None:
        self._settings = settings
        self._to = to
        self.check()

    def check(self) -> None:
        """See that its files can be used.

        Raises:
            SecretFileError: one cannot.
        """
        if self._settings.user:
            read_secret(self._settings.password_file)
        if self._settings.security != "none":
            _tls(self._settings.ca_file)

    def send(self, message_id: str, event: str, body: bytes) -> None:
        """Hand a mail to the server."""
        mail = self._mail(message_id, event, body)
        held: list[smtplib.SMTP] = []
        try:
            with _deadline(self._settings.timeout_seconds, lambda: held[0].sock if held else None):
                self._hand_over(mail, held)
        except (OSError, smtplib.SMTPException, SecretFileError, ValueError) as error:
            raise DeliveryFailed(_reason(error)) from error
        finally:
            for server in held:
                server.close()

    def _hand_over(self, mail: EmailMessage, held: list[smtplib.SMTP]) -> None:
        settings = self._settings
        tls = None if settings.security == "none" else _tls(settings.ca_file)
        server = _connected(settings, tls, held)
        if settings.security == "starttls":
            server.starttls(context=tls)
        if settings.user:
            password = read_secret(settings.password_file).decode()
            server.login(settings.user, password)
        server.send_message(mail)
        with suppress(OSError, smtplib.SMTPException):
            server.putcmd("quit")  # its answer is not waited for: the mail is taken

    def _mail(self, message_id: str, event: str, body: bytes) -> EmailMessage:
        told = json.loads(body)
        mail = EmailMessage()
        mail["From"] = self._settings.sender
        mail["To"] = self._to
        mail["Subject"] = title_of(told)
        mail["Date"] = formatdate(localtime=True)
        mail["Message-ID"] = f"<{message_id}@xray-watcher.invalid>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Xray-Watcher-Event"] = event
        mail.set_content(words_of(told))
        return mail


class _Smtp(smtplib.SMTP):
    """One that can be broken off while it connects."""

    def __init__(self, held: list[smtplib.SMTP], host: str, port: int, timeout: float) -> None:
        held.append(self)
        super().__init__(host, port, timeout=timeout)


class _SmtpTls(smtplib.SMTP_SSL):
    """The same, with TLS from the start."""

    def __init__(
        self,
        held: list[smtplib.SMTP],
        host: str,
        port: int,
        timeout: float,
        context: ssl.SSLContext | None,
    ) -> None:
        held.append(self)
        super().__init__(host, port, timeout=timeout, context=context)


def _connected(
    settings: SmtpSettings, tls: ssl.SSLContext | None, held: list[smtplib.SMTP]
) -> smtplib.SMTP:
    where = (settings.host, settings.port, settings.timeout_seconds)
    return _SmtpTls(held, *where, tls) if settings.security == "tls" else _Smtp(held, *where)


# -- a program ----------------------------------------------------------------------------


class Command:
    """Starts a program for each message; no shell is used.

    Args:
        settings: `[notify.command]`.
    """

    def __init__(self, settings: CommandSettings) -> None:
        self._settings = settings

    def send(self, message_id: str, event: str, body: bytes) -> None:
        """Start the program, give it the message, and wait for its exit code."""
        known = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        told = {"XRAY_WATCHER_MESSAGE_ID": message_id, "XRAY_WATCHER_EVENT": event}
        try:
            process = subprocess.Popen(
                self._settings.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=known | told,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise DeliveryFailed(_reason(error)) from error
        try:
            process.communicate(body, self._settings.timeout_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise DeliveryFailed("the program took too long and was ended") from None
        if process.returncode:
            raise DeliveryFailed(f"the program's exit code was {process.returncode}")


# -- helpers ------------------------------------------------------------------------------


@contextmanager
def _deadline(seconds: float, held: Callable[[], socket.socket | None]) -> Iterator[None]:
    """Break a connection off at the end of the time, however slowly the other side goes on.

    Raises:
        TimeoutError: that was done.
    """
    is_over = threading.Event()

    def break_off() -> None:
        is_over.set()
        connected = held()
        if connected is not None:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, break_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, smtplib.SMTPException) as error:
        # The connection's own limit may come first, which smtplib calls a disconnection.
        if is_over.is_set() or isinstance(error.__context__, TimeoutError):
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()


def _tls(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise SecretFileError(f"{ca_file} has no certificates that can be used.") from error


def _reason(error: BaseException) -> str:
    """What went wrong, in a few printable words."""
    if isinstance(error, smtplib.SMTPResponseException):
        text = f"the mail server said {error.smtp_code}"
    elif isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = {code for code, _ in error.recipients.values()}
        text = f"the mail server refused the address ({', '.join(map(str, sorted(codes)))})"
    elif isinstance(error, TimeoutError):
        text = "no answer in time"
    elif isinstance(error, SecretFileError):
        text = str(error)
    elif isinstance(error, OSError) and error.errno:
        text = os.strerror(error.errno) if error.errno > 0 else type(error).__name__
    else:
        text = type(error).__name__
    return text
