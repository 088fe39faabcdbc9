"""A web server that serves one file, well or badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Manner = Literal[
    "well", "cuts", "cuts-once", "stalls", "lies-short", "lies-long", "page", "missing", "endless",
    "elsewhere", "to-a-file", "changes",
]  # fmt: skip


class Shop:
    """What is served, how, and what was asked for."""

    def __init__(self, content: bytes, manner: Manner) -> None:
        self.content = content
        self.manner = manner
        self.asked: list[str | None] = []
        self.url = ""


@contextmanager
def serving(content: bytes, manner: Manner = "well") -> Iterator[Shop]:
    """Serve some bytes at `url`, in a thread."""
    shop = Shop(content, manner)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _serve(self, shop)

        def log_message(self, *_args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    shop.url = f"http://127.0.0.1:{server.server_port}/weights.pt"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _serve(handler: BaseHTTPRequestHandler, shop: Shop) -> None:
    wanted = handler.headers.get("Range")
    shop.asked.append(wanted)
    if shop.manner == "missing":
        handler.send_error(404)
        return
    if shop.manner in ("elsewhere", "to-a-file") and not handler.path.endswith("/there"):
        target = "/there" if shop.manner == "elsewhere" else "file:///etc/passwd"
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()
        return
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
    if shop.manner == "changes":
        start = 0
    body = shop.content[start:]
    handler.send_response(206 if start else 200)
    handler.send_header(
        "Content-Type", "text/html" if shop.manner == "page" else "application/octet-stream"
    )
    handler.send_header("ETag", '"one"')
    length = {"lies-short": len(body) // 2, "lies-long": len(body) * 2}.get(shop.manner, len(body))
    if shop.manner != "endless":
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    _send_body(handler, shop, body)


def _send_body(handler: BaseHTTPRequestHandler, shop: Shop, body: bytes) -> None:
    try:
        if shop.manner == "cuts" or (shop.manner == "cuts-once" and len(shop.asked) == 1):
            handler.wfile.write(body[: len(body) // 2])
        elif shop.manner == "stalls":
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            threading.Event().wait(1.5)
        elif shop.manner == "endless":
            for _ in range(100):
                handler.wfile.write(body)
        else:
            handler.wfile.write(body)
        handler.wfile.flush()
    except (BrokenPipeError, ConnectionResetError):
        return
    handler.close_connection = True
