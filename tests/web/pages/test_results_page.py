"""The page of results: its filter in the address, its pages, its files, its way through images."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from asgi import Answer, call

import audit
from rig import Rig
from xray_watcher.config.settings import Settings
from xray_watcher.web.app import create_app

HOSTILE = '"><img src=x onerror=alert(1)>.png'
MANY = 60


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("results-page") / "root")
    for number in range(MANY):
        made.drop(f"icu/{number:02d}.png", f"picture:Edema#{number}")
    made.drop(f"a & b/{HOSTILE}", "picture:Fracture")
    made.drop("bad.png", "words")
    made.drop("icu/again.png", "picture:Edema#0")
    made.settle()
    yield made
    made.crash()


def get(rig: Rig, path: str) -> Answer:
    settings = Settings(
        root=str(rig.root), state_dir=str(rig.root / "state"), timezone="Europe/Athens"
    )
    return call(create_app(settings, rig.clock), "GET", path)


def shown(answer: Answer) -> list[int]:
    """The indexes that the page lists."""
    assert answer.status == 200, answer.body
    rows = answer.body.decode().partition('<ol class="results list">')[2]
    return [int(index) for index in re.findall(r'class="name">.*?href="/images/(\d+)\?', rows)]


def link(answer: Answer, rel: str) -> str | None:
    found = re.search(rf'rel="{rel}"[^>]*? href="([^"]+)"', answer.body.decode())
    return None if found is None else html.unescape(found[1])


def text_of(answer: Answer) -> str:
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", answer.body.decode()).split()))


def walk(rig: Rig, path: str | None, rel: str) -> list[list[int]]:
    pages = []
    while path is not None:
        answer = get(rig, path)
        pages.append(shown(answer))
        path = link(answer, rel)
    return pages


@pytest.mark.parametrize("query", ["", "sort=score", "source=icu&level=High&sort=score"])
def test_the_links_lead_through_the_whole_list_and_back(rig: Rig, query: str) -> None:
    pages = walk(rig, f"/results?{query}", "next")
    assert [len(page) for page in pages] == [50, (61 if "icu" in query else 63) - 50]
    back = walk(rig, f"/results?{query}&before={pages[1][0]}", "prev")
    assert back == [pages[0]]
    record = audit.jsonl_records(rig.root)
    assert {*chain(*pages)} == {
        each["index"] for each in record if "icu" not in query or each["source"] == "icu"
    }


def test_the_form_keeps_what_was_asked_and_empty_fields_ask_for_nothing(rig: Rig) -> None:
    answer = get(rig, "/results?from=&to=&level=Low&source=&condition=&label=&flag=&q=&sort=score")
    assert len(shown(answer)) == 1
    page = answer.body.decode()
    assert '<option value="Low" selected>' in page
    assert '<option value="score" selected>' in page
    assert "/results.csv?level=Low&amp;sort=score" in page
    assert "1 shown: level Low." in text_of(answer)
    assert "Research and triage aid" in text_of(answer)
    assert "<script" not in page


def test_a_hostile_name_and_source_are_text_and_lead_to_their_image(rig: Rig) -> None:
    answer = get(rig, "/results?source=a+%26+b&q=ONERROR")
    (index,) = shown(answer)
    assert "<img src=x" not in answer.body.decode()
    image = get(rig, f"/images/{index}?source=a+%26+b&q=ONERROR&sort=newest")
    assert 'href="/results?source=a+%26+b&amp;q=ONERROR&amp;sort=newest"' in image.body.decode()
    assert "<script>" not in get(rig, "/results?q=%3Cscript%3E").body.decode()


def test_a_row_says_score_and_point_flags_in_words_and_why_it_was_rejected(rig: Rig) -> None:
    assert "Edema score 90 (point 50)" in text_of(get(rig, "/results?q=again"))
    assert "The same bytes were scored before. See" in text_of(get(rig, "/results?q=again"))
    assert "The picture is damaged" in text_of(get(rig, "/results?level=Rejected&source=."))


@pytest.mark.parametrize("sort", ["newest", "score"])
def test_previous_and_next_of_an_image_stay_within_the_list(rig: Rig, sort: str) -> None:
    query = f"/results?level=High&source=icu&sort={sort}"
    expected = [*chain(*walk(rig, query, "next"))]
    path: str | None = f"/images/{expected[0]}?level=High&source=icu&sort={sort}"
    seen = []
    while path is not None:
        seen.append(int(re.findall(r"/images/(\d+)", path)[0]))
        answer = get(rig, path)
        path = link(answer, "next")
    assert seen == expected
    last = link(answer, "prev")
    assert last is not None
    assert last.startswith(f"/images/{expected[-2]}?")


def test_the_files_hold_just_that_list(rig: Rig) -> None:
    expected = [r for r in audit.jsonl_records(rig.root)[::-1] if r["source"] == "icu"]
    assert get(rig, "/results.json?source=icu").json == {"results": expected, "next": None}
    assert get(rig, "/results.json?q=nobody").json == {"results": [], "next": None}
    answer = get(rig, "/results.csv?source=icu&sort=score")
    rows = [*csv.DictReader(io.StringIO(answer.body.decode("utf-8-sig")))]
    assert [int(row["index"]) for row in rows] == [record["index"] for record in expected]
    (log,) = (rig.root / "logs").glob("*.csv")
    lines = {*log.read_bytes().splitlines()}
    assert {*answer.body.splitlines()} <= lines


def test_a_file_of_a_long_list_is_sent_in_pieces(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xray_watcher.web.pages.results._LINES_AT_ONCE", 7)
    found = get(rig, "/results.json").json["results"]
    assert found == audit.jsonl_records(rig.root)[::-1]
    assert get(rig, "/results.csv").body.count(b"\n") == len(found) + 1


@pytest.mark.parametrize("query", ["level=Middle", "colour=red", "cursor=-1", "from=soon"])
@pytest.mark.parametrize("page", ["results", "results.csv", "results.json"])
def test_a_wrong_address_says_what_is_wrong(rig: Rig, page: str, query: str) -> None:
    answer = get(rig, f"/{page}?{query}")
    assert answer.status == 400
    assert query.partition("=")[0] in answer.json["error"]["message"]


def test_before_the_service_has_run_the_list_is_empty(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path), state_dir=str(tmp_path / "state"))
    app = create_app(settings, Rig(tmp_path / "clock").clock)
    assert "No image is found" in text_of(call(app, "GET", "/results"))
    assert call(app, "GET", "/results.json").json["results"] == []


def test_a_list_that_is_being_filled_says_so_and_refuses_the_files(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.drop("a.png", "picture:Edema")
    rig.settle()
    rig.ledger.set_meta("results_missing_below", "1")
    assert "being filled after an upgrade" in text_of(get(rig, "/results"))
    for path in ("/results.csv", "/results.json", "/api/v1/results", "/api/v1/results?sort=score"):
        answer = get(rig, path)
        assert (answer.status, answer.json["error"]["code"]) == (503, "unavailable")
    rig.crash()


@pytest.mark.parametrize("page", ["/days/2026-11-23", "/live"])
def test_each_count_of_a_page_leads_to_a_list_of_as_many_images(rig: Rig, page: str) -> None:
    body = get(rig, page).body.decode()
    links = re.findall(r'<a href="(/results\?day=[^"]+)">([\d,]+)</a>', body)
    assert len(links) >= (10 if "days" in page else 6)
    for address, count in links:
        assert sum(map(len, walk(rig, html.unescape(address), "next"))) == int(count), address
