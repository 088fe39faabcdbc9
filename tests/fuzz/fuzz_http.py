"""Fuzzing of `serve` over real sockets: made-up heads, bodies, chunks and pipelines.

    make fuzz-http                              # 10 minutes
    make fuzz-http ARGS="--seconds 60 --seed 5"

Whatever is sent, each answer must be HTTP with the security headers, each refusal must have its one
form, nothing may be logged as a mistake of ours, and after it all the process must have no more
descriptors, threads or memory than before. The seed makes the same requests again; which of them
the service had under way at the same time is left to chance.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "storms")]

from arrivals import picture_number  # noqa: E402

from webservice import WebService, multipart  # noqa: E402

CLIENTS = 4
WARM_UP_S = 8.0
ANSWER_S = 0.4
GROWTH_KB = 24_000
ROOM = 6
"""Descriptors or threads by which two quiet moments may differ: a ledger that is open, a worker."""

HEADERS = ("content-security-policy", "x-content-type-options", "cache-control")
PATHS = (
    "/", "/login", "/live", "/live/events", "/days", "/days/2026-11-30", "/images/0",
    "/images/0/result", "/images/0/picture.png", "/images/0/thumbnail.png", "/images/0/retry",
    "/logs/results-2026-11-30.csv", "/static/style.css", "/api/v1/results", "/api/v1/results/0",
    "/api/v1/summary/2026-11-30", "/api/v1/status", "/api/v1/batches", "/predict_batch", "/healthz",
    "/api/v1/batches/20261130T000000-000000000000", "/metrics", "/openapi.json", "/logout", "*",
    "http://evil.example/healthz", "//", "/%00", "/..%2f..%2fetc%2fpasswd",
)  # fmt: skip
TAKES_BODIES = ("/predict_batch", "/api/v1/batches", "/api/v1/batches", "/login")
METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "GET ", "\0", "é")
QUERIES = (
    "limit",
    "cursor",
    "day",
    "level",
    "after",
    "date",
    "next",
    "put_back",
    "v",
    "failed",
    "",
)
WORDS = (
    "", "0", "-1", "1e9", "9" * 30, "9" * 5000, "null", "Low", "2026-02-31", "\x1b]0;x\x07", "\0",
    "%", "'\"<script>", "../" * 20, "\u202e", "a" * 9000, "\r\n", "text/html", "chunked", "100",
    "100-continue", "close", "Upgrade", "websocket", "gzip", "bytes=0-0", "multipart/form-data",
    "multipart/form-data; boundary=xyz", 'multipart/form-data; boundary="x;y', "xray-watcher=z",
)  # fmt: skip
NAMES = (
    "Accept", "Authorization", "Connection", "Content-Encoding", "Content-Length", "Content-Type",
    "Cookie", "Expect", "Host", "Last-Event-ID", "Origin", "Range", "Sec-Fetch-Site", "Upgrade",
    "Transfer-Encoding", "X-Forwarded-Host", "X-Forwarded-Proto", "X", " X", "X ", "",
)  # fmt: skip


class Maker:
    """Makes requests.

    Args:
        seed: the same one makes the same requests.
        host: under which the service is known.
        tokens: that it knows.
    """

    def __init__(self, seed: int, host: str, tokens: list[str]) -> None:
        self.chance = random.Random(seed)
        self._host = host
        self._tokens = tokens

    def stream(self) -> bytes:
        """What one connection sends: a few requests, mostly whole, sometimes spoiled."""
        content = b"".join(self._request() for _ in range(self.chance.choice((1, 1, 1, 2, 5))))
        if self.chance.random() < 0.3:
            content = self._spoiled(content)
        return content

    def _request(self) -> bytes:
        chance = self.chance
        body = self._body()
        headers = [("Host", self._host)] if chance.random() < 0.95 else []
        if chance.random() < 0.7:
            headers.append(("Authorization", f"Bearer {chance.choice(self._tokens)}"))
        if body and chance.random() < 0.9:
            headers.append(("Content-Type", "multipart/form-data; boundary=xyz"))
        if chance.random() < 0.7:
            headers.append(("Connection", "close"))
        if chance.random() < 0.3:
            headers.append(("Accept", chance.choice(("text/html", "application/x-ndjson", "*/*"))))
        is_chunked = bool(body) and chance.random() < 0.3
        if is_chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        elif body:
            headers.append(("Content-Length", str(len(body) + chance.choice((0, 0, 0, 0, 1, -1)))))
        more = range(chance.choice((0, 0, 0, 1, 3)))
        headers += [(chance.choice(NAMES), chance.choice(WORDS)) for _ in more]
        chance.shuffle(headers)
        version = chance.choice(("HTTP/1.1",) * 9 + ("HTTP/1.0", "HTTP/2.0", "HTTP/1.1 x"))
        lines = [f"{self._method(body)} {self._target(body)} {version}"]
        lines += [f"{name}: {value}" for name, value in headers]
        head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
        return head + (self._in_chunks(body) if is_chunked else body)

    def _method(self, body: bytes) -> str:
        if self.chance.random() < 0.85:
            return "POST" if body else "GET"
        return self.chance.choice(METHODS)

    def _target(self, body: bytes) -> str:
        chance = self.chance
        path = chance.choice(TAKES_BODIES if body and chance.random() < 0.8 else PATHS)
        if chance.random() < 0.2:
            path += quote(chance.choice(WORDS))[:6000]
        if chance.random() < 0.3:
            path += f"?{chance.choice(QUERIES)}={quote(chance.choice(WORDS))}"
        return path

    def _body(self) -> bytes:
        chance = self.chance
        kind = chance.random()
        if kind < 0.55:
            return b""
        if kind < 0.65:
            return b"token=" + quote(chance.choice((*WORDS, *self._tokens))).encode() + b"&next=//x"
        if kind < 0.75:
            return chance.randbytes(chance.choice((1, 100, 30_000)))
        names = [chance.choice(WORDS) for _ in range(chance.choice((1, 1, 3)))]
        files = [(name, picture_number(chance.randrange(20)) * (chance.random() < 0.6))
                 for name in names]  # fmt: skip
        return multipart(files)

    def _in_chunks(self, body: bytes) -> bytes:
        at, pieces = 0, []
        while at < len(body):
            size = self.chance.randrange(1, 20_000)
            piece = body[at : at + size]
            pieces.append(
                b"%x%s\r\n%s\r\n" % (len(piece), self.chance.choice((b"", b";a=b")), piece)
            )
            at += size
        return b"".join([*pieces, self.chance.choice((b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b""))])

    def _spoiled(self, content: bytes) -> bytes:
        chance, spoiled = self.chance, bytearray(content)
        for _ in range(chance.choice((1, 1, 4))):
            at = chance.randrange(len(spoiled) + 1)
            match chance.randrange(4):
                case 0:
                    del spoiled[at : at + chance.randrange(1, 50)]
                case 1:
                    spoiled[at:at] = chance.randbytes(chance.randrange(1, 20))
                case 2:
                    del spoiled[at:]
                case _:
                    spoiled[at:at] = spoiled[: chance.randrange(1, 400)]
        return bytes(spoiled)


class Fuzz:
    """One service that is asked by several clients at once.

    Args:
        folder: a new one.
        seed: of all that is sent.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        tokens = folder / "tokens"
        self.service = WebService(folder / "root", web=f'token_file = "{tokens}"')
        made = [
            self.service.command("token", role, "--role", role).stdout.strip()
            for role in ("view", "upload")
        ]
        self.service.start_both()
        host = f"127.0.0.1:{self.service.port}"
        self._makers = [Maker(seed * CLIENTS + n, host, made) for n in range(CLIENTS)]
        self._is_over = threading.Event()
        self.statuses: Counter[str] = Counter()
        self.found: list[str] = []

    def run(self, seconds: float) -> None:
        """Ask for so long, and then look at what is left."""
        self._ask_for(min(WARM_UP_S, seconds))
        before = self._held()
        self._ask_for(seconds)
        after = self._held()
        for what, room in (("descriptors", ROOM), ("threads", ROOM), ("kB", GROWTH_KB)):
            if after[what] > before[what] + room:
                self.found.append(f"{what}: {before[what]} before, {after[what]} after")
        print(f"{sum(self.statuses.values())} answers {dict(self.statuses.most_common())}")
        print(f"before {before}, after {after}")
        for line in self.service.web_log.read_text(errors="replace").splitlines():
            if "crashed" in line or "Traceback" in line or not line.startswith("{"):
                self.found.append(f"log: {line[:600]}")

    def _ask_for(self, seconds: float) -> None:
        self._is_over.clear()
        clients = [threading.Thread(target=self._client, args=(one,)) for one in self._makers]
        for client in clients:
            client.start()
        self._is_over.wait(seconds)
        self._is_over.set()
        for client in clients:
            client.join()

    def _client(self, maker: Maker) -> None:
        while not self._is_over.is_set():
            sent = maker.stream()
            try:
                answer = self._answer(sent, maker.chance)
            except OSError as error:
                self.found.append(f"nobody accepts: {error}")
                return
            if problem := self._problem(answer):
                self.found.append(f"{problem}\n  sent {sent[:400]!r}\n  answer {answer[:600]!r}")
                self._is_over.set()

    def _answer(self, sent: bytes, chance: random.Random) -> bytes:
        answer = b""
        with socket.create_connection(("127.0.0.1", self.service.port), 20) as client:
            with suppress(OSError):
                cut = chance.randrange(len(sent) + 1)
                client.sendall(sent[:cut])
                client.sendall(sent[cut:])
            client.settimeout(ANSWER_S)
            with suppress(OSError):
                while len(answer) < 300_000 and (piece := client.recv(65536)):
                    answer += piece
        return answer

    def _problem(self, answer: bytes) -> str | None:
        """What is wrong with an answer; only the first of several is looked at."""
        if self.service.web is None or self.service.web.poll() is not None:
            return "the service has ended"
        answer = re.sub(rb"^(HTTP/1.1 100 .*?\r\n\r\n)+", b"", answer, flags=re.DOTALL)
        head, is_whole, body = answer.partition(b"\r\n\r\n")
        if not answer or not is_whole:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        if not re.fullmatch(r"HTTP/1\.1 [2-5]\d\d [A-Z][A-Za-z -]*", first):
            return "no answer of HTTP"
        status = first.split()[1]
        self.statuses[status] += 1
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        if missing := [name for name in HEADERS if name not in headers]:
            return f"without {missing}"
        if status == "500":
            return "failed"
        return _form_problem(int(status), headers, body)

    def _held(self) -> dict[str, int]:
        """What the process holds when it is quiet."""
        assert self.service.web is not None
        time.sleep(3)
        proc = Path(f"/proc/{self.service.web.pid}")
        facts = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        return {
            "descriptors": len(list((proc / "fd").iterdir())),
            "threads": int(facts["Threads"]),
            "kB": int(facts["VmRSS"].split()[0]),
        }


def _form_problem(status: int, headers: dict[str, str], body: bytes) -> str | None:
    """Whether a refusal has its one form; what came only in part is passed over."""
    length = int(headers.get("content-length", "-1"))
    if status < 400 or not 0 < length <= len(body) or body.startswith(b"HTTP/1.1 "):
        return None  # the last: an answer to HEAD, and the next one
    if headers["content-type"].startswith("text/html"):
        return None if b"<h1>" in body else "a page without a heading"
    try:
        error = json.loads(body[:length]).get("error", {})
    except ValueError:
        return "no JSON"
    if error.keys() == {"code", "message"} or status in (413, 503):  # results, health
        return None
    return "no form of ours"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="xray-watcher-fuzz-") as folder:
        fuzz = Fuzz(Path(folder), options.seed)
        try:
            fuzz.run(options.seconds)
        finally:
            fuzz.service.kill()
    for problem in fuzz.found:
        print(problem)
    sys.exit(1 if fuzz.found else 0)


if __name__ == "__main__":
    main()
