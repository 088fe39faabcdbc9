"""Clients that are slow, many, or never stop: they are cut off, and the others are answered."""

from __future__ import annotations

import re
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from arrivals import picture_number

from webservice import WebService, multipart

IMPATIENT = (sys.executable, str(Path(__file__).parent / "impatient_web.py"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    made = WebService(
        tmp_path_factory.mktemp("slow") / "root",
        web="uploads_at_once = 2",
        web_command=IMPATIENT,
    )
    made.start_both()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    """A web for which the kernel holds little: what is not read waits in the process itself."""
    made = WebService(tmp_path_factory.mktemp("narrow") / "root", web_command=IMPATIENT)
    made.env["XRAY_SEND_BUFFER"] = "4096"
    made.start_web()
    yield made
    made.kill()


def connect(service: WebService, receive_buffer: int = 0) -> socket.socket:
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(30)
    client.connect(("127.0.0.1", service.port))
    return client


def head(service: WebService, length: int = 1_000_000) -> bytes:
    return (
        b"POST /predict_batch HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: %d\r\n"
        b"Content-Type: multipart/form-data; boundary=xyz\r\n\r\n" % (service.port, length)
    )


def read_to_the_end(client: socket.socket) -> bytes:
    """What is answered until the other side closes."""
    answer = b""
    while chunk := client.recv(65536):
        answer += chunk
    return answer


def drip(client: socket.socket, content: bytes, seconds: float = 20.0) -> float:
    """Send a byte every 50 ms until the other side has had enough; returns how long that took."""
    began_s = time.monotonic()
    for byte in content:
        if time.monotonic() > began_s + seconds:
            break
        try:
            client.sendall(bytes([byte]))
        except OSError:
            break
        time.sleep(0.05)
    return time.monotonic() - began_s


@pytest.mark.parametrize("beginning", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_without_a_whole_head_is_closed(service: WebService, beginning: bytes) -> None:
    with connect(service) as client:
        client.sendall(beginning)
        assert read_to_the_end(client) == b""


def test_a_head_that_comes_byte_by_byte_is_cut_off(service: WebService) -> None:
    with connect(service) as client:
        assert drip(client, b"GET / HTTP/1.1\r\nX: " + b"y" * 1000) < 15


def test_a_second_head_on_the_same_connection_is_cut_off_as_well(service: WebService) -> None:
    with connect(service) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % service.port)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        assert drip(client, b"GET / HTTP/1.1\r\nX: " + b"y" * 1000) < 15


def test_a_head_without_end_is_refused(service: WebService) -> None:
    with connect(service) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 100_000)
        assert read_to_the_end(client).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("method", [b"HEAD", b"POST", b"GET", b"CONNECT"])
@pytest.mark.parametrize("end", [b"POST / HTTP/1.1\r\n", b"1\r\nxaa\r\n", b"0\r\n\r\n\0\0\r\n\r\n"])
def test_a_body_in_wrong_chunks_is_refused_without_a_mistake_of_ours(
    service: WebService, method: bytes, end: bytes
) -> None:
    """There is no body in the answer to HEAD, not even that of a refusal; the fuzzer found it."""
    with connect(service) as client:
        client.sendall(
            b"%s /healthz HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nTransfer-Encoding: chunked\r\n\r\n"
            % (method, service.port)
            + end
        )
        answer = read_to_the_end(client)
    assert re.match(rb"HTTP/1.1 (200|400|405)", answer)
    log = service.web_log.read_text()
    assert "crashed" not in log
    assert "Traceback" not in log


def test_a_request_with_two_lengths_is_refused_and_what_follows_it_is_no_request(
    service: WebService,
) -> None:
    """A proxy that goes by the other length would take what follows for a body (RFC 9112, 6.1)."""
    host = b"Host: 127.0.0.1:%d\r\n" % service.port
    lengths = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    hidden = b"GET /healthz HTTP/1.1\r\n" + host + b"\r\n"
    with connect(service) as client:
        client.sendall(b"POST /login HTTP/1.1\r\n" + host + lengths + b"0\r\n\r\n" + hidden)
        answer = read_to_the_end(client)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"malformed"' in answer
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_that_comes_too_slowly_is_cut_off_and_what_came_whole_is_filed(
    service: WebService,
) -> None:
    first = multipart([("slow.png", picture_number(1))]).removesuffix(b"--\r\n")
    with connect(service) as client:
        client.sendall(head(service) + first + b"\r\n")
        assert drip(client, b"X" * 1000) < 15
        answer = read_to_the_end(client)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"accepted":1' in answer
    service.wait_for(lambda: service.get("/api/v1/results")["results"][0]["filename"] == "slow.png")


def test_slow_clients_do_not_keep_the_others_from_being_answered(service: WebService) -> None:
    slow = [connect(service) for _ in range(40)]
    for client in slow:
        client.sendall(b"GET /healthz HTT")
    began_s = time.monotonic()
    assert service.http.get(f"{service.url}/healthz", timeout=20).status_code == 200
    assert time.monotonic() - began_s < 1.5
    for client in slow:
        client.close()


def test_more_uploads_than_places_are_told_to_come_again(service: WebService) -> None:
    """Those that go on are not slow: else they would make room for another."""
    holding = [connect(service) for _ in range(2)]
    for client in holding:
        part = b'--xyz\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        client.sendall(head(service, 10_000_000) + part + b"x" * 500_000)
    time.sleep(0.3)
    answer = service.predict(("a.png", picture_number(2)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "busy")
    for client in holding:
        client.close()
    service.wait_for(
        lambda: service.predict(("a.png", picture_number(2))).status_code == 200, seconds=30
    )


def test_a_client_that_was_refused_and_goes_on_sending_is_cut_off(service: WebService) -> None:
    with connect(service) as client:
        client.sendall(head(service, 10**9).replace(b"multipart/form-data", b"text/plain"))
        time.sleep(0.2)
        assert drip(client, b"x" * 1000) < 15
        assert client.recv(65536).startswith(b"HTTP/1.1 400")


def style(service: WebService, times: int, more: bytes = b"") -> bytes:
    """Requests for the style sheet, all at once."""
    request = b"GET /static/style.css HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n"
    return request % (service.port, more) * times


def is_cut_off(client: socket.socket, seconds: float) -> bool:
    """Whether the other side drops the connection within this time, though nothing is read."""
    poll = select.poll()
    poll.register(client, select.POLLHUP)
    return bool(poll.poll(seconds * 1000))


def is_cut_off_while_it_sips(client: socket.socket, seconds: float) -> bool:
    """Whether the other side drops the connection within this time, at 5 kB/s."""
    until_s = time.monotonic() + seconds
    try:
        while time.monotonic() < until_s:
            client.recv(1000)
            time.sleep(0.2)
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_refusal_reaches_a_client_that_still_sends_and_wants_no_other_request(
    service: WebService, version: bytes
) -> None:
    """As nginx does: it asks by HTTP/1.0, and says 502 where it can send no more."""
    host = b"Host: 127.0.0.1:%d\r\n" % service.port
    refused = b"POST /nowhere HTTP/%s\r\nConnection: close\r\n" % version + host
    with connect(service) as client:
        client.sendall(refused + b"Content-Length: 100000000\r\n\r\n" + bytes(1_000_000))
        for _ in range(10):
            time.sleep(0.1)
            client.sendall(bytes(100_000))
        answer = read_to_the_end(client)
    assert answer.startswith(b"HTTP/1.1 404")


def test_a_client_that_asks_and_never_reads_is_cut_off(service: WebService) -> None:
    with connect(service, 2048) as client:
        client.sendall(style(service, 200))
        assert is_cut_off(client, 10)


def test_a_client_that_takes_next_to_nothing_is_cut_off(service: WebService) -> None:
    """It would keep its connection for a day, and there are not many of them."""
    with connect(service, 2048) as client:
        client.sendall(style(service, 200))
        assert is_cut_off_while_it_sips(client, 10)


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n", b"Broken\r\n"])
@pytest.mark.parametrize("times", [1, 20])
def test_an_answer_that_is_given_and_never_read_is_dropped(
    narrow: WebService, times: int, more: bytes
) -> None:
    """Whoever closes the connection, the end of it waits for what is still to be written."""
    with connect(narrow, 2048) as client:
        client.sendall(style(narrow, times) + style(narrow, 1, more))
        assert is_cut_off(client, 15)


def test_a_client_that_reads_slowly_and_steadily_gets_everything(service: WebService) -> None:
    with connect(service, 2048) as client:
        client.sendall(style(service, 299) + style(service, 1, b"Connection: close\r\n"))
        answer = bytearray()
        while chunk := client.recv(20_000):
            answer += chunk
            time.sleep(len(chunk) / 500_000)
    assert answer.count(b"HTTP/1.1 200 OK") == 300


def test_nothing_of_all_this_is_left_behind(service: WebService) -> None:
    service.wait_for(lambda: service.uploads() == [], seconds=30)
