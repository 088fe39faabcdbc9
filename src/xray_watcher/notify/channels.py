"""The channels. Each sends one message and returns when the other side has taken it.

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
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, Protocol

from xray_watcher import __version__
from xray_watcher.config.upkeep import CommandSettings, SmtpSettings, WebhookSettings
from xray_watcher.core.addresses import WebAddress, host_name, mail_address, web_address
from xray_watcher.errors import XrayWatcherError
from xray_watcher.notify.login import log_in
from xray_watcher.notify.secrets import SecretFileError, read_key, read_secret_text
from xray_watcher.notify.texts import render_text, render_title

_ENVIRONMENT = ("PATH", "HOME", "LANG", "TZ")


class DeliveryFailed(XrayWatcherError):
    """A message was not taken; it may be tried again."""


class Channel(Protocol):
    """One way to send messages."""

    def send(self, message_id: str, event: str, body: bytes, /) -> None:
        """Deliver a message.

        Raises:
            DeliveryFailed: it was not taken.
        """
        ...


# -- HTTP ---------------------------------------------------------------------------------


class Webhook:
    """Posts JSON, signed as Standard Webhooks have it (https://www.standardwebhooks.com).

    Args:
        settings: `[notify.webhook]`.
    """

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self.check()

    def check(self) -> None:
        """See that its files can be used.

        Raises:
            SecretFileError: one cannot.
        """
        self._key()
        if self._address().is_tls:
            _tls(self._settings.ca_file)

    def send(self, message_id: str, event: str, body: bytes) -> None:
        """Post a message; any answer but 2xx is a failure, and no redirection is followed."""
        del event  # it stands in the body
        held: list[http.client.HTTPConnection] = []
        try:
            with _deadline(self._settings.timeout_seconds, lambda: held[0].sock if held else None):
                status = self._post(message_id, body, held)
        except (OSError, http.client.HTTPException, SecretFileError) as error:
            raise DeliveryFailed(_reason(error)) from error
        finally:
            for connection in held:
                connection.close()
        if not 200 <= status < 300:
            raise DeliveryFailed(f"the answer was {status}")

    def _post(self, message_id: str, body: bytes, held: list[http.client.HTTPConnection]) -> int:
        address = self._address()
        held.append(self._connection(address))
        held[0].request("POST", address.target, body, self._headers(message_id, body))
        return held[0].getresponse().status

    def _connection(self, to: WebAddress) -> http.client.HTTPConnection:
        timeout_s = self._settings.timeout_seconds
        if not to.is_tls:
            return http.client.HTTPConnection(to.host, to.port, timeout=timeout_s)
        context = _tls(self._settings.ca_file)
        return http.client.HTTPSConnection(to.host, to.port, timeout=timeout_s, context=context)

    def _address(self) -> WebAddress:
        """The address, read at each message as the key is."""
        path = self._settings.url_file
        if not path:
            return web_address(self._settings.url)
        try:
            return web_address(read_secret_text(path))
        except ValueError as error:
            raise SecretFileError(f"{path} holds no address that can be used: {error}.") from None

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
        """The key, read at each message, so that it can be changed while the service runs."""
        path = self._settings.secret_file
        return read_key(path) if path else None


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
            read_secret_text(self._settings.password_file)
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
        where = {"host": host_name(settings.host), "port": settings.port,
                 "timeout": settings.timeout_seconds}  # fmt: skip
        is_tls = settings.security == "tls"
        server = _SmtpTls(held, context=tls, **where) if is_tls else _Smtp(held, **where)
        if settings.security == "starttls":
            server.starttls(context=tls)
        if settings.user:
            log_in(server, settings.user, read_secret_text(settings.password_file))
        server.send_message(mail)
        with suppress(OSError, smtplib.SMTPException):
            server.putcmd("quit")  # its answer is not waited for: the mail is taken

    def _mail(self, message_id: str, event: str, body: bytes) -> EmailMessage:
        content = json.loads(body)
        mail = EmailMessage()
        mail["From"] = mail_address(self._settings.sender)
        mail["To"] = mail_address(self._to)
        mail["Subject"] = render_title(content)
        mail["Date"] = formatdate(localtime=True)
        mail["Message-ID"] = f"<{message_id}@xray-watcher.invalid>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Xray-Watcher-Event"] = event
        mail.set_content(render_text(content))
        return mail


class _Smtp(smtplib.SMTP):
    """One that can be broken off while it connects."""

    def __init__(self, held: list[smtplib.SMTP], **where: Any) -> None:
        held.append(self)
        super().__init__(**where)


class _SmtpTls(smtplib.SMTP_SSL):
    """The same, with TLS from the start."""

    def __init__(self, held: list[smtplib.SMTP], **where: Any) -> None:
        held.append(self)
        super().__init__(**where)


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
        ours = {"XRAY_WATCHER_MESSAGE_ID": message_id, "XRAY_WATCHER_EVENT": event}
        try:
            process = subprocess.Popen(
                self._settings.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=known | ours,
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
    match error:
        case smtplib.SMTPResponseException():
            text = f"the mail server said {error.smtp_code}"
        case smtplib.SMTPRecipientsRefused():
            codes = sorted({code for code, _ in error.recipients.values()})
            text = f"the mail server refused the address ({', '.join(map(str, codes))})"
        case smtplib.SMTPNotSupportedError():
            text = f"the mail server cannot do what is needed ({error})"
        case TimeoutError():
            text = "no answer in time"
        case SecretFileError():
            text = str(error)
        case socket.gaierror():
            text = "the host's name cannot be looked up"
        case OSError(errno=int(code)) if code > 0:
            text = os.strerror(code)
        case _:
            text = type(error).__name__
    return text
