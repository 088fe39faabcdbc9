"""The web application called directly, without a socket."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

HOST = "localhost:8080"


@dataclass(frozen=True)
class Answer:
    """What the application answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(
    app: ASGIApp,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    host: str = HOST,
) -> Answer:
    """Send one request and read the whole answer."""
    return asyncio.run(_call(app, _scope(method, path, headers, host), body))


def _scope(method: str, path: str, headers: Mapping[str, str] | None, host: str) -> dict[str, Any]:
    path, _, query = path.partition("?")
    sent = {"host": host, **(headers or {})}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in sent.items() if v],
        "client": ("192.0.2.7", 50000),
        "server": ("127.0.0.1", 8080),
    }


async def _call(app: ASGIApp, scope: dict[str, Any], body: bytes) -> Answer:
    messages: list[Message] = []
    incoming = [{"type": "http.request", "body": body, "more_body": False}]
    done = asyncio.Event()

    async def receive() -> Message:
        if incoming:
            return incoming.pop()
        await done.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            done.set()

    await app(scope, receive, send)
    start = messages[0]
    content = b"".join(m.get("body", b"") for m in messages[1:])
    headers = {k.decode().lower(): v.decode("latin-1") for k, v in start["headers"]}
    return Answer(start["status"], headers, content)


class Stream:
    """An answer that goes on: read as it comes, in a thread of its own."""

    def __init__(self) -> None:
        self._messages: queue.Queue[Message | None] = queue.Queue()

    def status(self) -> int:
        """The status that it began with; to be asked first."""
        message = self._messages.get(timeout=30)
        assert message is not None
        return int(message["status"])

    def goes_on(self) -> bool:
        """Whether more comes, and more again: the first of it may have been on its way."""
        while not self._messages.empty():
            self._messages.get()
        bodies = [self._messages.get(timeout=30) for _ in range(3)]
        return None not in bodies

    def ends(self, seconds: float = 10.0) -> bool:
        """Whether it comes to its end within this time."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            if self._messages.get(timeout=seconds) is None:
                return True
        return False

    async def run(self, app: ASGIApp, scope: dict[str, Any], has_left: asyncio.Event) -> None:
        """Read until it ends, or until the reader has left."""

        async def receive() -> Message:
            await has_left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            self._messages.put(message)

        await app(scope, receive, send)
        self._messages.put(None)


@contextmanager
def listening(app: ASGIApp, path: str, headers: Mapping[str, str]) -> Iterator[Stream]:
    """Listen to a stream for as long as the context lasts."""
    stream, has_left, loop = Stream(), asyncio.Event(), asyncio.new_event_loop()
    running = stream.run(app, _scope("GET", path, headers, HOST), has_left)
    thread = threading.Thread(target=loop.run_until_complete, args=(running,))
    thread.start()
    try:
        yield stream
    finally:
        loop.call_soon_threadsafe(has_left.set)
        thread.join(30)
        loop.close()
