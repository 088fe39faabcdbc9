"""Receivers of messages on loopback that can be told to misbehave."""

from __future__ import annotations

import base64
import http.client
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """What came, and how to behave: `mode` may be changed at any time, `ways` of logging in too."""

    mode: str = "take"
    ways: str = "PLAIN"
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def note(self, headers: dict[str, str], body: bytes) -> None:
        self.headers.append(headers)
        self.bodies.append(body)
        self.arrived.set()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(
        self, handler: type[_Handler], sink: Received, tls: ssl.SSLContext | None, *, at_once: bool
    ) -> None:
        super().__init__(("127.0.0.1", sink.port), handler)
        sink.port = self.server_address[1]
        self.sink, self.tls, self.tls_at_once = sink, tls, at_once

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the other side went away: that is what is tested


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def setup(self) -> None:
        self.sink = self.server.sink
        if self.server.tls_at_once:
            self.begin_tls()
        super().setup()

    def begin_tls(self) -> None:
        assert self.server.tls is not None
        self.request = self.server.tls.wrap_socket(self.request, server_side=True)

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def drip(self, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            if self.sink.released.wait(0.1):
                return


@contextmanager
def _serving(server: _Server) -> Iterator[Received]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.sink
    finally:
        server.sink.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def http_sink(
    received: Received | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Received]:
    """Modes: take, 500 (or another number), hang, drip, drop (reads all, then closes)."""
    server = _Server(_Http, received or Received(), tls, at_once=tls is not None)
    with _serving(server) as sink:
        yield sink


class _Http(_Handler):
    def handle(self) -> None:
        self.sink.targets.append(self.rfile.readline().decode("ascii").split()[1])
        headers = http.client.parse_headers(self.rfile)
        mode = self.sink.mode
        body = self.rfile.read(int(headers["Content-Length"]))
        self.sink.note({name.lower(): value for name, value in headers.items()}, body)
        if mode == "hang":
            self.sink.released.wait(60)
        elif mode == "drip":
            self.drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 600)
        elif mode != "drop":
            status = "200" if mode == "take" else mode
            elsewhere = f"http://127.0.0.1:{self.sink.port}/elsewhere"
            self.wfile.write(f"HTTP/1.1 {status} So\r\nLocation: {elsewhere}\r\n\r\n".encode())


@contextmanager
def smtp_sink(
    received: Received | None = None, tls: ssl.SSLContext | None = None, *, at_once: bool = False
) -> Iterator[Received]:
    """Modes: take, refuse (the address), busy (the mail), hang, drip, drop (takes, then closes).

    A mode that names ways of logging in refuses those.

    With `tls` it offers STARTTLS, and `at_once` it begins with TLS.
    """
    with _serving(_Server(_Smtp, received or Received(), tls, at_once=at_once)) as sink:
        yield sink


class _Smtp(_Handler):
    def handle(self) -> None:
        self.said: dict[str, str] = {}
        if self.sink.mode in ("hang", "drip"):
            self.sink.arrived.set()
            self.drip(b"2" * 600 if self.sink.mode == "drip" else b"")
            self.sink.released.wait(60)
            return
        self.say("220 sink")
        while line := self.rfile.readline().decode().strip():
            answer = getattr(self, f"on_{line.split()[0].lower()}", None)
            if answer is None:
                self.say("250 well")
            elif answer(line) == "end":
                return

    def say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    def on_ehlo(self, _line: str) -> None:
        can_begin = self.server.tls is not None and not self.server.tls_at_once
        self.say("250-sink")
        if can_begin and "tls" not in self.said:
            self.say("250-STARTTLS")
        self.say(f"250 AUTH {self.sink.ways}" if self.sink.ways else "250 HELP")

    def on_starttls(self, _line: str) -> None:
        self.say("220 go on")
        self.begin_tls()
        self.said["tls"] = "yes"
        super().setup()

    def on_auth(self, line: str) -> None:
        way, *first = line.split()[1:]
        self.said["way"] = way
        if way == "PLAIN":
            self.said["auth"] = first[0]
        elif way == "LOGIN":
            self.said["user"] = self.ask("Username:")
            self.said["auth"] = self.ask("Password:")
        else:
            self.said["auth"] = self.ask("<a challenge>")
        self.say("535 no" if way in self.sink.mode else "235 welcome")

    def ask(self, challenge: str) -> str:
        self.say(f"334 {base64.b64encode(challenge.encode()).decode()}")
        return self.rfile.readline().decode().strip()

    def on_rcpt(self, _line: str) -> None:
        self.say("550 nobody here" if self.sink.mode == "refuse" else "250 well")

    def on_quit(self, _line: str) -> str:
        self.say("221 bye")
        return "end"

    def on_data(self, _line: str) -> str | None:
        self.say("354 go on")
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line)
        self.sink.note(dict(self.said), b"".join(lines))
        if self.sink.mode == "drop":
            return "end"
        self.say("451 later" if self.sink.mode == "busy" else "250 taken")
        return None


def wait_for(is_so: Any, seconds: float = 30.0, *, turn: Any = lambda: None) -> None:
    """Take turns until something is so."""
    until_s = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until_s, "it did not come about"
        turn()
        time.sleep(0.01)


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
