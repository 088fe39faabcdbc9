"""Crowds of clients that take what is everybody's, and how long others wait meanwhile.

    python tests/web/crowds.py                  # the table of docs/api.md, against this checkout
    python tests/web/crowds.py --source FOLDER  # against another one's `src`

Each crowd holds its places in another way; others then ask with a token of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from arrivals import picture_number

from service import COMMAND
from webservice import WebService, multipart

SOFT_LIMIT = 1024
"""Open files that a service may have where nobody has set more."""

LONGEST_S = 35.0
SETTLES_S = 1.5
BOUNDARY = b"Content-Type: multipart/form-data; boundary=xyz\r\n"


class Site:
    """A daemon, a web with tokens, and where it is asked: itself, or a proxy before it."""

    def __init__(self, folder: Path, source: str | None = None, web: str = "") -> None:
        tokens = folder / "tokens"
        self.service = WebService(
            folder / "root",
            web=f'token_file = "{tokens}"\n{web}',
            web_command=("prlimit", f"--nofile={SOFT_LIMIT}", *COMMAND),
        )
        if source:
            self.service.env["PYTHONPATH"] = source
        self.tokens = {
            name: self.service.command("token", name, "--role", role).stdout.strip()
            for name, role in (("crowd", "upload"), ("reader", "view"), ("other", "upload"))
        }
        self.service.start_both()
        self.port = self.service.port
        self.host = f"127.0.0.1:{self.service.port}"

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        """A connection of somebody's."""
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(LONGEST_S)
        try:
            client.connect(("127.0.0.1", self.port))
        except OSError:
            client.close()
            raise
        return client

    def head(self, line: str, token: str | None = None, more: bytes = b"") -> bytes:
        """The head of a request."""
        bearer = f"Authorization: Bearer {self.tokens[token]}\r\n" if token else ""
        return f"{line} HTTP/1.1\r\nHost: {self.host}\r\n{bearer}".encode() + more + b"\r\n"

    def asked(self, request: bytes) -> tuple[float, int]:
        """Seconds until somebody else has the beginning of an answer, and its status; 0 is none."""
        began_s = time.monotonic()
        status = 0
        with contextlib.suppress(OSError), self.connect() as client:
            client.sendall(request)
            words = client.recv(65536).split(b" ", 2)
            status = int(words[1]) if len(words) > 1 else 0
        return time.monotonic() - began_s, status

    def upload(self, token: str) -> bytes:
        """A whole upload of one picture."""
        body = multipart([("a.png", picture_number(1))])
        length = b"Content-Length: %d\r\n" % len(body)
        return self.head("POST /api/v1/batches", token, BOUNDARY + length) + body

    def others(self) -> Mapping[str, bytes]:
        """What others ask for."""
        return {
            "health": self.head("GET /healthz"),
            "status": self.head("GET /api/v1/status", "other"),
            "live page": self.head("GET /live/events", "other"),
            "upload": self.upload("other"),
        }

    def waited(self) -> dict[str, tuple[float, int]]:
        """How long others wait for each of these at the moment."""
        return {name: self.asked(request) for name, request in self.others().items()}


Crowd = Callable[[Site, list[socket.socket]], None]


@contextmanager
def crowd_of(site: Site, crowd: Crowd) -> Iterator[list[socket.socket]]:
    """A crowd that has come twice, for those that were turned away at first come again."""
    clients: list[socket.socket] = []
    try:
        crowd(site, clients)
        time.sleep(SETTLES_S)
        crowd(site, clients)
        time.sleep(SETTLES_S)
        yield clients
    finally:
        for client in clients:
            client.close()


def send(site: Site, clients: list[socket.socket], many: int, request: bytes, buffer: int) -> None:
    """So many clients that begin with this."""
    for _ in range(many):
        with contextlib.suppress(OSError):
            clients.append(site.connect(buffer))
            clients[-1].sendall(request)


def beginning(many: int, request: Callable[[Site], bytes], buffer: int = 0) -> Crowd:
    """Clients that send this and no more."""
    return lambda site, clients: send(site, clients, many, request(site), buffer)


def dripping(many: int, request: Callable[[Site], bytes], piece: bytes, every_s: float) -> Crowd:
    """Clients that begin with this, and send a piece every so often for as long as they may."""

    def crowd(site: Site, clients: list[socket.socket]) -> None:
        send(site, clients, many, request(site), 0)
        threading.Thread(target=drip, args=([*clients],), daemon=True).start()

    def drip(clients: list[socket.socket]) -> None:
        while clients:
            time.sleep(every_s)
            for client in [*clients]:
                try:
                    client.sendall(piece)
                except OSError:
                    clients.remove(client)

    return crowd


def endless(site: Site, token: str | None, line: str = "POST /predict_batch") -> bytes:
    """An upload that says it is large, up to the bytes of its first file."""
    part = b'--xyz\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    return site.head(line, token, BOUNDARY + b"Content-Length: 900000000\r\n") + part


def between(site: Site) -> bytes:
    """An upload that stops between two files."""
    first = multipart([("a.png", picture_number(2))]).removesuffix(b"--\r\n")
    head = site.head("POST /predict_batch", "crowd", BOUNDARY + b"Content-Length: 900000000\r\n")
    return head + first + b"\r\n"


def signing_in(many: int) -> Crowd:
    """One holder who signs in again and again, a hundred times on a connection."""

    def crowd(site: Site, clients: list[socket.socket]) -> None:
        body = f"token={site.tokens['reader']}".encode()
        form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n"
        request = site.head("POST /login", None, form % len(body)) + body
        for _ in range(many // 100):
            clients.append(site.connect())
            clients[-1].sendall(request * 100)
            answers = b""
            while answers.count(b"HTTP/1.1 303") < 100 and (more := clients[-1].recv(65536)):
                answers += more

    return crowd


CROWDS: Mapping[str, Crowd] = {
    "300 connections that send 1 byte": beginning(300, lambda _: b"G"),
    "1,200 connections that send 1 byte": beginning(1200, lambda _: b"G"),
    "300 heads, byte by byte": dripping(300, lambda _: b"GET / HTTP/1.1\r\nX: ", b"x", 0.3),
    "8 heads, byte by byte": dripping(8, lambda _: b"GET / HTTP/1.1\r\nX: ", b"x", 0.3),
    "300 sign-ins without their body, no token": beginning(
        300, lambda s: s.head("POST /login", None, b"Content-Length: 100\r\n")
    ),
    "8 sign-ins, byte by byte, no token": dripping(
        8, lambda s: s.head("POST /login", None, b"Content-Length: 100\r\n"), b"x", 0.3
    ),
    "300 uploads without a token that go on": dripping(
        300, lambda s: endless(s, None), b"x" * 500, 0.5
    ),
    "8 uploads at 1.1 kB/s": dripping(8, lambda s: endless(s, "crowd"), b"x" * 550, 0.5),
    "100 uploads at 1.1 kB/s": dripping(100, lambda s: endless(s, "crowd"), b"x" * 550, 0.5),
    "8 uploads that stop between files": beginning(8, between),
    "100 uploads that stop between files": beginning(100, between),
    "200 live pages of one reader": beginning(200, lambda s: s.head("GET /live/events", "reader")),
    "300 answers that nobody reads, no token": beginning(
        300, lambda s: s.head("GET /static/style.css"), 2048
    ),
    "300 answers that nobody reads": beginning(
        300, lambda s: s.head("GET /openapi.json", "reader"), 2048
    ),
    "8 answers that nobody reads": beginning(
        8, lambda s: s.head("GET /openapi.json", "reader"), 2048
    ),
    "10,000 sign-ins of one holder": signing_in(5_000),
}
"""The crowds, each with what it holds."""


def session(site: Site) -> bytes:
    """A request by the session of somebody else, who signs in now."""
    body = f"token={site.tokens['other']}".encode()
    form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n" % len(body)
    with site.connect() as client:
        client.sendall(site.head("POST /login", None, form) + body)
        cookie = client.recv(65536).split(b"set-cookie: ", 1)[1].split(b";", 1)[0]
    return site.head("GET /api/v1/status", None, b"Cookie: " + cookie + b"\r\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", help="the folder `src` of another checkout")
    parser.add_argument("--only", default="", help="crowds with these words")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    for name, crowd in CROWDS.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory(prefix="xray-watcher-crowds-") as folder:
            site = Site(Path(folder), options.source)
            signed_in = session(site)
            with crowd_of(site, crowd):
                waited = site.waited() | {"session": site.asked(signed_in)}
            site.service.kill()
        told = ", ".join(f"{what} {s:.2f} s ({status})" for what, (s, status) in waited.items())
        print(f"{name}: {told}", flush=True)


if __name__ == "__main__":
    main()
