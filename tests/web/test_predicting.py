"""Uploads through the real web to the real daemon, whose network alone is a stub."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from arrivals import picture_number

import audit
from webservice import WebService, lines_of, multipart, raw_request

LEVELS = ("High", "Medium", "Low")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    """One pair of processes for the tests that leave both alive."""
    made = WebService(tmp_path_factory.mktemp("web") / "root")
    made.start_both()
    yield made
    made.kill()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[WebService]:
    """A pair of processes for a test that kills them."""
    made = WebService(tmp_path / "root")
    made.start_both()
    yield made
    made.kill()


def pictures(count: int, start: int) -> list[tuple[str, bytes]]:
    return [(f"p{n}.png", picture_number(n)) for n in range(start, start + count)]


@contextmanager
def sending(service: WebService, body: bytes, count: int) -> Iterator[None]:
    """An upload of which so many bytes are sent; at the end of the block its client goes away."""
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(
            b"POST /predict_batch HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: %d\r\n"
            b"Content-Type: multipart/form-data; boundary=xyz\r\n\r\n" % (service.port, len(body))
        )
        client.sendall(body[:count])
        yield


# -- the answer -----------------------------------------------------------------------------


def test_the_answer_holds_every_file_in_the_order_of_the_request(shared: WebService) -> None:
    files = pictures(20, 100)
    answer = shared.predict(*files).json()
    assert [r["filename"] for r in answer["results"]] == [name for name, _ in files]
    for result, (_, content) in zip(answer["results"], files, strict=True):
        assert result["sha256"] == hashlib.sha256(content).hexdigest()
        assert (shared.root / result["saved_path"]).read_bytes() == content
        assert result["saved_path"].startswith(f"classified_images/{result['risk_level']}/")
        assert len(result["top_predictions"]) == 3
        assert result["top_predictions"][0] == {
            "label": result["top_label"],
            "prob": result["top_probability"],
        }
        assert result["all_probs"][result["top_label"]] == result["top_probability"]
        assert result["simulated"] is True
        assert result["model"]["name"] == "untrained"
        assert "error" not in result
    assert sum(answer["summary"][level] for level in LEVELS) == 20
    assert answer["summary"]["Rejected"] == 0
    assert answer["output_directory"] == "classified_images"


def test_a_file_that_cannot_be_scored_says_so_in_its_place_and_harms_no_other(
    shared: WebService,
) -> None:
    good = picture_number(200)
    files = [
        ("a.png", good),
        ("notes.txt", b"these are notes"),
        ("b.png", picture_number(201)),
        ("cut.png", good[: len(good) // 2]),
        ("empty.jpg", b""),
        ("c.png", picture_number(202)),
    ]
    response = shared.predict(*files)
    assert response.status_code == 200
    results = response.json()["results"]
    levels = [result["risk_level"] == "Rejected" for result in results]
    assert levels == [False, True, False, True, True, False]
    codes = [result["error"]["code"] for result in results if "error" in result]
    assert codes == ["wrong_format", "incomplete", "empty"]
    for result, (_, content) in zip(results, files, strict=True):
        assert isinstance(result["index"], int)
        assert (shared.root / result["saved_path"]).read_bytes() == content
    assert results[1]["top_label"] is None, "the guide's example prints it for every file"
    assert response.json()["summary"]["Rejected"] == 3


def test_the_records_are_those_of_the_folder_with_the_source_web(shared: WebService) -> None:
    (result,) = shared.predict(*pictures(1, 210)).json()["results"]
    record = shared.get(f"/api/v1/results/{result['index']}")
    assert (record["source"], record["filename"]) == ("web", "p210.png")
    assert record["all_probs"] == result["all_probs"]
    assert record in audit.jsonl_records(shared.root)


def test_the_same_bytes_twice_are_two_results_of_which_the_second_has_a_flag(
    shared: WebService,
) -> None:
    content = picture_number(220)
    first, second = shared.predict(("a.png", content), ("a.png", content)).json()["results"]
    assert second["flags"][-1] == "duplicate_of"
    assert second["duplicate_of"] == first["index"] != second["index"]


def test_names_of_every_kind_are_data_and_never_a_path(shared: WebService) -> None:
    names = [
        "../../etc/cron.d/x.png",
        "..%2f..%2fx.png",
        "/etc/passwd",
        "C:\\films\\a.png",
        "n" * 300 + ".png",
        "<img src=x onerror=alert(1)>.png",
        "=cmd|'/c calc'!A1.png",
        "пример.png",
    ]
    before = {path for path in shared.root.parent.rglob("*") if path.is_file()}
    answer = shared.predict(*((name, picture_number(230 + n)) for n, name in enumerate(names)))
    results = answer.json()["results"]
    assert [r["filename"] for r in results[:4]] == ["x.png", "..%2f..%2fx.png", "passwd", "a.png"]
    new = {path for path in shared.root.parent.rglob("*") if path.is_file()} - before
    images = {str(path.relative_to(shared.root)) for path in new if path.suffix in (".png", "")}
    logs = {name for name in images if name.startswith(("logs/", ".xray-watcher/"))}
    assert images - logs == {r["saved_path"] for r in results}


# -- line by line and later -----------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_an_upload_can_be_followed_to_its_rows_by_the_id_of_its_request(
    shared: WebService, count: int
) -> None:
    files = [*pictures(count, 700 + 10 * count), ("no.png", b"no picture")][:count]
    answer = shared.predict(*files).json()
    request_id = answer["request_id"]
    assert answer["batch"] == request_id
    indexes = {result["index"] for result in answer["results"]}
    assert [result["request_id"] for result in answer["results"]] == [request_id] * count
    lines = [r for r in audit.jsonl_records(shared.root) if r.get("request_id") == request_id]
    assert {line["index"] for line in lines} == indexes
    rows = [r for r in audit.csv_rows(shared.root) if r["request_id"] == request_id]
    assert {int(row["index"]) for row in rows} == indexes
    (index, *_) = indexes
    assert shared.get(f"/api/v1/results/{index}")["request_id"] == request_id
    state = shared.get(f"/api/v1/batches/{request_id}")
    assert (state["request_id"], state["state"], state["done"]) == (request_id, "done", count)
    page = shared.http.get(f"{shared.url}/images/{index}", timeout=60).text
    assert request_id in page


def test_the_answers_of_both_other_forms_name_the_request_too(shared: WebService) -> None:
    streamed = shared.predict(*pictures(2, 760), headers={"Accept": "application/x-ndjson"})
    *results, last = lines_of(streamed)
    assert {result["request_id"] for result in results} == {last["request_id"]} == {last["batch"]}
    form = [("files", file) for file in pictures(2, 770)]
    taken = shared.http.post(f"{shared.url}/api/v1/batches", files=form, timeout=60).json()
    assert taken["request_id"] == taken["batch"]
    shared.wait_for(lambda: shared.get(taken["url"])["state"] == "done")
    rows = [r for r in audit.csv_rows(shared.root) if r["request_id"] == taken["request_id"]]
    assert len(rows) == 2


def test_the_request_of_an_upload_outlives_a_kill_before_it_is_filed(own: WebService) -> None:
    form = [("files", file) for file in pictures(3, 790)]
    taken = own.http.post(f"{own.url}/api/v1/batches", files=form, timeout=60).json()
    own.kill()
    own.start_both()
    own.wait_for(lambda: own.get(taken["url"])["state"] == "done")
    rows = [r for r in audit.csv_rows(own.root) if r["request_id"] == taken["request_id"]]
    assert len(rows) == 3


def test_asked_for_lines_it_sends_each_result_as_soon_as_it_is_known(shared: WebService) -> None:
    files = [*pictures(40, 300), ("no.png", b"no picture")]
    answer = shared.predict(*files, headers={"Accept": "application/x-ndjson"}, stream=True)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    *results, last = lines_of(answer)
    assert sorted(result["position"] for result in results) == list(range(41))
    for result in results:
        assert result["filename"] == files[result["position"]][0]
    assert results[-1]["index"] == max(r["index"] for r in results)
    assert last["output_directory"] == "classified_images"
    assert sum(last["summary"].values()) == 41
    assert last["summary"]["Rejected"] == 1


def test_a_batch_is_taken_at_once_and_asked_for_later(shared: WebService) -> None:
    form = [("files", file) for file in [*pictures(5, 400), ("no.png", b"no picture")]]
    answer = shared.http.post(f"{shared.url}/api/v1/batches", files=form, timeout=60)
    assert answer.status_code == 202
    taken = answer.json()
    assert (taken["files"], taken["accepted"], taken["refused"]) == (6, 6, [])
    assert taken["url"] == answer.headers["location"] == f"/api/v1/batches/{taken['batch']}"
    shared.wait_for(lambda: shared.get(taken["url"])["state"] == "done")
    state = shared.get(taken["url"])
    assert (state["files"], state["done"]) == (6, 6)
    assert [r["filename"] for r in state["results"]] == [name for _, (name, _) in form]
    assert state["summary"]["Rejected"] == 1


@pytest.mark.parametrize("batch", ["nothing", "20261123T120000-0123456789ab", "..%2f", "%00", "*"])
def test_a_batch_that_is_not_known_is_not_found(shared: WebService, batch: str) -> None:
    answer = shared.http.get(f"{shared.url}/api/v1/batches/{batch}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/json", b"{}", "malformed"),
        ("multipart/form-data", b"x", "malformed"),
        ("multipart/form-data; boundary=" + "b" * 300, b"x", "malformed"),
        ("multipart/form-data; boundary=xyz", b"garbage", "malformed"),
        ("multipart/form-data; boundary=xyz", b"--xyz--\r\n", "no_files"),
        ("multipart/form-data; boundary=xyz", b"", "malformed"),
        (
            "multipart/form-data; boundary=xyz",
            (
                b'--xyz\r\nContent-Disposition: form-data; name="files"; filename=""\r\n\r\n\r\n'
                b"--xyz--\r\n"
            ),
            "no_files",
        ),
        (
            "multipart/form-data; boundary=xyz",
            b'--xyz\r\nContent-Disposition: form-data; name="other"\r\n\r\nvalue\r\n--xyz--\r\n',
            "no_files",
        ),
        ("multipart/form-data; boundary=xyz", b"--xyz\r\n" + b"a: b\r\n" * 10_000, "malformed"),
        ("multipart/form-data; boundary=xyz", b"--xyz\r\na: " + b"b" * 100_000, "malformed"),
    ],
)
def test_a_body_that_is_no_form_of_files_is_refused_with_a_sentence(
    shared: WebService, content_type: str, body: bytes, code: str
) -> None:
    headers = {"Host": f"127.0.0.1:{shared.port}", "Content-Type": content_type}
    status, _, answer = raw_request(shared.port, "POST", "/predict_batch", headers, body)
    assert status == 400
    error = json.loads(answer)["error"]
    assert error["code"] == code
    assert error["message"].endswith(".")


def test_ten_thousand_part_headers_are_refused_and_the_files_before_them_are_filed(
    shared: WebService,
) -> None:
    body = multipart([("first.png", picture_number(500))]).removesuffix(b"--\r\n")
    body += b"\r\n" + b"a: b\r\n" * 10_000
    headers = {
        "Host": f"127.0.0.1:{shared.port}",
        "Content-Type": "multipart/form-data; boundary=xyz",
    }
    status, _, answer = raw_request(shared.port, "POST", "/predict_batch", headers, body)
    refused = json.loads(answer)
    assert (status, refused["error"]["code"], refused["accepted"]) == (400, "malformed", 1)
    url = f"/api/v1/batches/{refused['batch']}"
    shared.wait_for(lambda: shared.get(url)["done"] == 1)
    assert shared.get(url)["results"][0]["filename"] == "first.png"


class Chunks:
    """A body of unknown length that begins as a file and then is zeros."""

    def __init__(self, megabytes: int, *, then: bytes = b"") -> None:
        self.megabytes = megabytes
        self.then = then

    def __iter__(self) -> Iterator[bytes]:
        yield multipart([("big.png", b"")]).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        yield from (bytes(1 << 20) for _ in range(self.megabytes))
        yield b"\r\n" + (self.then or b"--xyz--\r\n")


def post_chunks(service: WebService, chunks: Chunks) -> requests.Response:
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    url = f"{service.url}/predict_batch"
    return service.http.post(url, data=iter(chunks), headers=headers, timeout=60)


def test_a_body_of_65_megabytes_in_chunks_is_refused_and_leaves_nothing(
    shared: WebService,
) -> None:
    answer = post_chunks(shared, Chunks(65))
    assert answer.status_code == 413
    (result,) = answer.json()["results"]
    assert (result["risk_level"], result["error"]["code"]) == ("Rejected", "too_large")
    assert (result["index"], result["saved_path"]) == (None, None)
    assert shared.uploads() == []


def test_a_file_that_is_too_large_harms_no_other_of_its_request(shared: WebService) -> None:
    answer = post_chunks(shared, Chunks(65, then=multipart(pictures(2, 510))))
    assert answer.status_code == 200
    levels = [result["risk_level"] == "Rejected" for result in answer.json()["results"]]
    assert levels == [True, False, False]
    assert answer.json()["summary"]["Rejected"] == 1


def test_a_request_that_says_it_is_too_large_is_refused_before_it_is_read(
    shared: WebService,
) -> None:
    headers = {
        "Host": f"127.0.0.1:{shared.port}",
        "Content-Type": "multipart/form-data; boundary=xyz",
        "Content-Length": "999999999999",
        "Expect": "100-continue",
    }
    status, _, answer = raw_request(shared.port, "POST", "/predict_batch", headers)
    assert (status, json.loads(answer)["error"]["code"]) == (413, "too_large")


# -- when something is down -------------------------------------------------------------------


def test_without_the_daemon_uploads_are_refused_and_the_rest_is_answered(own: WebService) -> None:
    (done,) = own.predict(*pictures(1, 600)).json()["results"]
    own.stop()
    answer = own.predict(*pictures(1, 601))
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "not_running"
    assert "not running" in answer.json()["error"]["message"]
    assert own.uploads() == []
    health = own.http.get(f"{own.url}/healthz")
    assert (health.status_code, health.json()["reasons"]) == (503, ["not_running"])
    assert own.get(f"/api/v1/results/{done['index']}")["index"] == done["index"]
    assert own.get("/api/v1/status")["alive"] is False


def test_a_daemon_that_is_killed_meanwhile_loses_nothing_and_the_answer_comes_later(
    own: WebService,
) -> None:
    files = pictures(60, 700)
    answers: list[requests.Response] = []
    client = threading.Thread(target=lambda: answers.append(own.predict(*files)))
    client.start()
    own.wait_for(lambda: len(audit.logged(own.root)) >= 10)
    os.kill(own.worker_pid, 9)
    assert own.process is not None
    own.process.wait(30)
    own.start()
    client.join(100)
    (answer,) = answers
    assert answer.status_code == 200
    assert [r["filename"] for r in answer.json()["results"]] == [name for name, _ in files]
    own.stop()
    audit.check(own.root, [content for _, content in files])
    assert own.uploads() == []


def test_a_web_that_is_killed_has_lost_nothing_that_it_had_handed_over(own: WebService) -> None:
    content = [picture_number(n) for n in range(800, 830)]
    body = multipart([(f"{n}.png", one) for n, one in enumerate(content)])
    cut = body.index(content[20]) + 40  # in the middle of the twenty-first
    with sending(own, body, cut):
        own.wait_for(lambda: len(audit.logged(own.root)) == 20)
        own.kill_web()
    own.start_web()
    own.stop()
    audit.check(own.root, content[:20])
    assert [name for name in own.uploads() if name.endswith(".image")] == []


def test_a_client_that_goes_away_loses_nothing_that_it_had_sent(shared: WebService) -> None:
    content = [picture_number(n) for n in range(900, 906)]
    body = multipart([(f"gone{n}.png", one) for n, one in enumerate(content)])
    hashes = {hashlib.sha256(one).hexdigest() for one in content}

    def filed() -> set[str]:
        return hashes & {record["sha256"] for record in audit.logged(shared.root)}

    with sending(shared, body, body.index(content[3]) + 10):
        shared.wait_for(lambda: len(filed()) == 3)
        assert len(shared.uploads()) <= 1, "the file that comes in, if it has been begun"
    shared.wait_for(lambda: shared.uploads() == [])
    assert len(filed()) == 3, "the file that was cut off is none"


def test_a_client_that_does_not_wait_for_its_answer_finds_everything_filed(
    shared: WebService,
) -> None:
    files = pictures(30, 950)
    hashes = {hashlib.sha256(content).hexdigest() for _, content in files}

    def filed() -> set[str]:
        return hashes & {record["sha256"] for record in audit.logged(shared.root)}

    body = multipart(files)
    with sending(shared, body, len(body)):
        shared.wait_for(lambda: bool(filed()))
    shared.wait_for(lambda: filed() == hashes)


def test_a_batch_outlives_a_restart_of_the_web(own: WebService) -> None:
    files = pictures(8, 1000)
    form = [("files", file) for file in [("large.png", bytes(68_000_000)), *files]]
    taken = own.http.post(f"{own.url}/api/v1/batches", files=form, timeout=60).json()
    assert (taken["files"], taken["accepted"]) == (9, 8)
    own.wait_for(lambda: own.get(taken["url"])["state"] == "done")
    assert own.get(taken["url"])["done"] == 9
    own.kill_web()
    own.start_web()
    state = own.get(taken["url"])
    assert (state["state"], state["files"], state["done"]) == ("done", 8, 8)
    assert [result["filename"] for result in state["results"]] == [name for name, _ in files]


def test_both_doors_at_once_lose_and_double_nothing(own: WebService) -> None:
    files = pictures(30, 1100)
    others = [picture_number(n) for n in range(1200, 1230)]
    for number, content in enumerate(others):
        (own.inbox / f"{number}.png").write_bytes(content)
    results = own.predict(*files).json()["results"]
    assert len(results) == 30
    own.wait_until(lambda: len(audit.logged(own.root)) == 60)
    own.stop()
    audit.check(own.root, [*(content for _, content in files), *others])


def test_the_web_ends_with_exit_code_0_when_it_is_told_to(own: WebService) -> None:
    assert own.stop_web() == 0


def test_a_disk_that_is_nearly_full_takes_nothing_and_goes_on_by_itself(tmp_path: Path) -> None:
    made = WebService(tmp_path / "root")
    text = made.config.read_text()
    made.config.write_text(text.replace("min_free_bytes = 0", f"min_free_bytes = {10**15}"))
    made.start()
    made.start_web()
    try:
        made.wait_for(lambda: made.get("/healthz")["reasons"] == ["disk"])
        answer = made.predict(*pictures(1, 1300))
        assert (answer.status_code, answer.json()["error"]["code"]) == (507, "no_room")
        assert "min_free_bytes" in answer.json()["error"]["message"]
        assert made.uploads() == []
    finally:
        made.kill()


def test_uploads_beyond_the_rate_are_told_to_come_again(tmp_path: Path) -> None:
    made = WebService(tmp_path / "root", web="uploads_per_minute = 2")
    made.start_both()
    try:
        codes = [made.predict(*pictures(1, 1310 + n)).status_code for n in range(4)]
        assert codes == [200, 200, 429, 429]
    finally:
        made.kill()


def test_a_batch_that_has_begun_is_answered_although_its_token_is_removed(tmp_path: Path) -> None:
    tokens, go = tmp_path / "tokens", tmp_path / "go"
    made = WebService(tmp_path / "root", web=f'token_file = "{tokens}"')
    made.env["XRAY_STUB_WAITS_FOR"] = str(go)
    token = made.command("token", "ct", "--role", "upload").stdout.strip()
    bearer = {"Authorization": f"Bearer {token}"}
    made.start_both()
    status = f"{made.url}/api/v1/status"
    try:
        with ThreadPoolExecutor(1) as client:
            answer = client.submit(made.predict, *pictures(2, 1320), headers=bearer)
            made.wait_for(lambda: requests.get(status, headers=bearer).json()["pending"] == 2)
            tokens.write_text("")
            made.wait_for(lambda: requests.get(status, headers=bearer).status_code == 401)
            assert not answer.done()
            go.touch()
            assert answer.result(100).status_code == 200
    finally:
        go.touch()
        made.kill()


def test_a_rejected_upload_is_put_back_by_the_command_and_tried_again(own: WebService) -> None:
    (rejected,) = own.predict(("notes", b"no picture")).json()["results"]
    assert own.command("retry", str(rejected["index"])).returncode == 0
    url = f"/api/v1/results/{rejected['index'] + 1}"
    own.wait_for(lambda: own.get(url).get("retry_of") == rejected["index"])
    assert own.get(url)["source"] == "web"
    own.stop()
    assert len(audit.filed(own.root)) == 1


# -- how much -------------------------------------------------------------------------------


def peak_mb(service: WebService) -> float:
    """The most memory that `serve` has held."""
    assert service.web is not None
    status = Path(f"/proc/{service.web.pid}/status").read_text()
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(kilobytes) * 1024 / 1e6


def test_more_files_than_the_library_takes_are_answered_in_order_with_flat_memory(
    own: WebService,
) -> None:
    """The short form; `make bench-http ARGS=--long` sends 10,000 files and 5 GB."""
    own.predict(*pictures(5, 2000))
    before = peak_mb(own)
    files = [(f"{n}.png", picture_number(n % 50)) for n in range(1500)]
    answer = requests.post(
        f"{own.url}/predict_batch", files=[("files", file) for file in files], timeout=250
    ).json()
    assert [r["filename"] for r in answer["results"]] == [name for name, _ in files]
    assert sum(answer["summary"].values()) == 1500
    assert peak_mb(own) < min(before + 20, 120)


def test_large_files_do_not_stay_in_memory(own: WebService) -> None:
    before = peak_mb(own)
    part = multipart([("big.png", b"")]).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    def body() -> Iterator[bytes]:
        for _ in range(6):
            yield part
            yield from (b"x" * (1 << 20) for _ in range(50))
            yield b"\r\n"
        yield b"--xyz--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    answer = own.http.post(f"{own.url}/predict_batch", data=body(), headers=headers, timeout=100)
    codes = [result["error"]["code"] for result in answer.json()["results"]]
    assert codes == ["wrong_format"] * 6
    assert peak_mb(own) < min(before + 20, 120)
