"""The pages without a browser: what is in them, what they refuse, and the files they hand out."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from asgi import Answer, call
from starlette.applications import Starlette

from rig import Rig
from xray_watcher.config.settings import Settings
from xray_watcher.config.upkeep import RetentionSettings
from xray_watcher.core.times import local_day
from xray_watcher.ledger.page_queries import QUARTER_US, PageLedger
from xray_watcher.service.upkeep import build_retention
from xray_watcher.web.app import create_app
from xray_watcher.web.pages.figures import count_images, sum_hours
from xray_watcher.web.pages.render import bytes_text, percent
from xray_watcher.web.pages.views import image_view

HOSTILE = '"><img src=x onerror=alert(1)>.png'
SPOOFED = "harmless\u202egnp.exe.png"
DAY = "2026-11-23"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.crash()


def app_of(rig: Rig, **web: object) -> Starlette:
    settings = Settings(
        root=str(rig.root),
        state_dir=str(rig.root / "state"),
        timezone="Europe/Athens",
        web=Settings().web.model_copy(update=web),
    )
    return create_app(settings, rig.clock)


def get(rig: Rig, path: str) -> Answer:
    return call(app_of(rig), "GET", path)


def text_of(answer: Answer) -> str:
    """What a reader sees, more or less."""
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", answer.body.decode()).split()))


def test_before_the_service_has_run_the_pages_say_so(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path), state_dir=str(tmp_path / "state"))
    rig_free = create_app(settings, Rig(tmp_path / "clock").clock)
    assert "not running" in text_of(call(rig_free, "GET", "/"))
    assert "has not run here" in text_of(call(rig_free, "GET", "/live"))
    day = call(rig_free, "GET", f"/days/{DAY}")
    assert (day.status, "has not run here" in text_of(day)) == (404, True)
    assert call(rig_free, "GET", "/images/0").status == 404
    assert call(rig_free, "GET", "/logs/results-2026-11-23.csv").status == 404


def test_the_figures_of_the_live_page_balance(rig: Rig) -> None:
    rig.drop("a.png", "picture:Edema")
    rig.drop("b.png", "picture:Fracture")
    rig.drop("c.png", "words")
    rig.settle()
    shown = text_of(get(rig, "/live"))
    assert "received 3 = classified 2 + rejected 1 + pending 0" in shown
    assert "Edema 90 %" in shown
    assert "corrupt The picture is damaged" in shown


def test_a_day_shows_its_own_images_and_its_neighbours(rig: Rig) -> None:
    rig.drop("a.png", "picture:Edema")
    rig.settle()
    rig.tick(86_400)
    rig.drop("b.png", "picture:Fracture")
    rig.settle()
    first, second = (
        get(rig, f"/days/{DAY}").body.decode(),
        get(rig, "/days/2026-11-24").body.decode(),
    )
    assert 'rel="next" href="/days/2026-11-24"' in first
    assert 'rel="prev"' not in first
    assert 'rel="prev" href="/days/2026-11-23"' in second
    assert "Received 1 = classified 1 + rejected 0 + pending 0" in text_of(get(rig, f"/days/{DAY}"))


def test_the_downloads_are_the_very_bytes_of_the_logs(rig: Rig) -> None:
    for number in range(5):
        rig.drop(f"{number}.png", "picture:Edema")
    rig.settle()
    for form in ("csv", "jsonl"):
        answer = get(rig, f"/logs/results-{DAY}.{form}")
        assert answer.body == (rig.root / "logs" / f"results-{DAY}.{form}").read_bytes()
        assert "attachment" in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    "path",
    [
        "/logs/results-2026-11-22.csv",
        "/logs/../ledger.csv",
        "/logs/..%2fledger.csv",
        "/logs/results-2026-11-23.csv.csv",
        "/logs/%00.csv",
        "/days/yesterday",
        "/days/2026-W48",
        "/days/20261123",
        "/days/2026-13-01",
        "/images/7",
        "/images/99999999999999999999999999",
        "/images/99999999999999999999999999/picture.png",
        "/images/-1",
        "/images/0/huge.png",
        "/static/../app.py",
        "/static/%2e%2e%2fapp.py",
    ],
)
def test_what_is_not_there_is_not_found(rig: Rig, path: str) -> None:
    rig.drop("a.png", "picture:Edema")
    rig.settle()
    assert get(rig, path).status in (404, 405)


def test_one_image_shows_all_scores_flags_record_and_model(rig: Rig) -> None:
    rig.drop("ward/a.png", "picture:Edema")
    rig.settle()
    rig.drop("ward/again.png", "picture:Edema")
    rig.settle()
    shown = text_of(get(rig, "/images/1"))
    assert shown.count("operating point 50 %, reached") == 1
    assert shown.count("operating point 50 %, not reached") == 10
    for part in ("duplicate_of", "See 0000", "classified_images/High/0001_again.png", "ab" * 32):
        assert part in shown


def test_what_is_not_there_is_a_page_for_a_browser_and_json_for_a_program(rig: Rig) -> None:
    for path in ("/nosuch", "/images", "/days/2026-W48", "/static/nosuch.js"):
        page = call(app_of(rig), "GET", path, {"accept": "text/html,application/xhtml+xml"})
        assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "Live shows the latest images" in text_of(page)
        answer = call(app_of(rig), "GET", path, {"accept": "*/*"})
        assert answer.headers["content-type"] == "application/json"
        assert b'"code":"not_found"' in answer.body


def test_the_page_of_a_rejected_image_names_no_model_that_did_not_score_it(rig: Rig) -> None:
    rig.drop("a.png", "picture:Edema")
    rig.drop("b.png", "words")
    rig.settle()
    pages = [text_of(get(rig, f"/images/{index}")) for index in (0, 1)]
    classified, rejected = sorted(pages, key=lambda page: "Rejected" in page)
    assert "Precision" in classified
    assert "Precision" not in rejected
    for page in pages:
        assert re.search(r"Received 2026-11-23 \d\d:\d\d:\d\d ", page)
        assert "+02:00" not in page


def test_no_page_calls_a_score_what_it_is_not(rig: Rig) -> None:
    rig.drop("a.png", "picture:Edema")
    rig.settle()
    for path in ("/", "/live", f"/days/{DAY}", "/images/0"):
        shown = text_of(get(rig, path)).lower()
        assert "calibrated" not in shown
        assert "probabilit" not in shown
        assert "a score is not the chance of a disease" in shown


def test_a_day_says_its_busiest_hour_and_names_flags_in_words(rig: Rig) -> None:
    for _ in range(2):
        rig.drop("a.png", "picture:Edema")
        rig.settle()
    shown = text_of(get(rig, f"/days/{DAY}"))
    assert "Busiest hour 14:00, 2 images" in shown
    assert "Same file as duplicate_of 1" in shown
    assert "Images a minute" not in shown


def test_a_condition_of_a_higher_level_stands_beside_the_badge(rig: Rig) -> None:
    rig.drop("a.png", "picture:Edema")
    rig.settle()
    with PageLedger.open(str(rig.root / "state" / "ledger.sqlite3")) as ledger:
        (record,) = ledger.latest(1)
    lower = replace(record, risk_level="Medium", all_probs={"Edema": 0.63, "Effusion": 0.73})
    view = image_view(lower, Settings().risk_rules(), None)
    assert [(score.label, score.kind) for score in view.higher] == [("Edema", "high")]
    assert image_view(record, Settings().risk_rules(), None).higher == ()


def test_the_newest_high_images_of_a_day_come_first(rig: Rig) -> None:
    for number in range(6):
        rig.drop(f"{number}.png", f"picture:{'Edema' if number % 2 else 'Fracture'}")
        rig.settle()
    with PageLedger.open(str(rig.root / "state" / "ledger.sqlite3")) as ledger:
        found = ledger.latest_of_level(DAY, "High", 2)
        assert [record.filename for record in found] == ["5.png", "3.png"]
        assert ledger.latest_of_level("2026-11-22", "High", 2) == []


@pytest.mark.parametrize("name", [HOSTILE, SPOOFED, "a\nb.png", "\udcff.png"])
def test_a_hostile_name_is_text_everywhere(rig: Rig, name: str) -> None:
    rig.drop(name, "words")
    rig.drop(f"{HOSTILE[:9]}/{name}", "picture:Edema")
    rig.settle()
    for path in ("/live", f"/days/{DAY}", "/images/0", "/images/1"):
        answer = get(rig, path)
        assert answer.status == 200
        assert b"<img src=x" not in answer.body
        assert "\u202e" not in answer.body.decode()


def test_a_rejected_image_can_be_put_back_from_its_page(rig: Rig) -> None:
    rig.drop("a.png", "words")
    rig.settle()
    answer = call(app_of(rig), "POST", "/images/0/retry")
    assert (answer.status, answer.headers["location"]) == (303, "/live?put_back=0#rejected")
    assert not Path(rig.settings.folders.rejected, "0000_a.png").exists()
    rig.settle()
    assert "has a newer result" in text_of(get(rig, "/images/0"))
    assert "a.png" in text_of(get(rig, "/images/1"))


@pytest.mark.parametrize("index", [0, 7])
def test_only_rejected_images_can_be_put_back(rig: Rig, index: int) -> None:
    rig.drop("a.png", "picture:Edema")
    rig.settle()
    answer = call(app_of(rig), "POST", f"/images/{index}/retry")
    assert answer.status == 409
    assert "is not a rejected file" in text_of(answer)


def test_a_rejected_image_that_cannot_be_put_back_says_why(rig: Rig) -> None:
    rig.drop("ward/a.png", "words")
    rig.settle()
    rig.ledger.set_meta("work", rig.spool.work.path)  # as a start does
    rig.inbox.rename(rig.root / "unmounted")
    answer = call(app_of(rig), "POST", "/images/0/retry")
    assert answer.status == 409
    assert "It could not be put back: The inbox" in text_of(answer)
    assert "Is the share mounted?" in text_of(answer)


def test_assets_may_be_kept_when_their_address_changes_with_them(rig: Rig) -> None:
    marked = re.search(rb"/static/style.css\?v=\w+", get(rig, "/").body)
    assert marked is not None
    assert "immutable" in get(rig, marked[0].decode()).headers["cache-control"]
    assert get(rig, "/static/style.css?v=old").headers["cache-control"] == "no-cache"


def test_no_page_has_a_style_or_a_script_of_its_own(rig: Rig) -> None:
    rig.drop("a.png", "picture:Edema")
    rig.drop("b.png", "words")
    rig.settle()
    for path in ("/", "/live", f"/days/{DAY}", "/images/0", "/images/1", "/login"):
        page = get(rig, path).body.decode()
        assert " style=" not in page
        assert "<style" not in page
        assert not re.search(r"<script(?![^>]* src=\"/static/)", page)
        assert not re.search(r"\son\w+=", page)
        assert not re.search(r"(src|href|action)=\"(https?:)?//", page)


def test_a_ledger_that_cannot_be_read_is_told_on_a_page(rig: Rig) -> None:
    rig.ledger.close()
    (rig.root / "state" / "ledger.sqlite3").write_bytes(b"no database" * 100)
    for path in ("/live", f"/days/{DAY}", "/images/0"):
        answer = get(rig, path)
        assert answer.status == 503
        assert "cannot be read" in text_of(answer)


def test_no_question_to_the_ledger_reads_it_from_end_to_end(rig: Rig) -> None:
    rig.drop("a.png", "picture:Edema")
    rig.settle()
    asked: list[str] = []
    with PageLedger.open(str(rig.root / "state" / "ledger.sqlite3")) as ledger:
        ledger.db.sqlite.set_trace_callback(asked.append)
        ledger.record(0)
        ledger.was_retried(0)
        ledger.latest(5)
        ledger.latest_of_level(DAY, "High", 5)
        ledger.set_aside(DAY, 5)
        ledger.kinds(DAY)
        ledger.arrivals(DAY)
        ledger.neighbours(DAY)
        ledger.indexes_around(0)
        ledger.log_part(f"results-{DAY}", -1, 5)
        count_images(ledger, DAY, None)
        ledger.db.sqlite.set_trace_callback(None)
        for sql in asked:
            plan = [row[3] for row in ledger.db.sqlite.execute(f"EXPLAIN QUERY PLAN {sql}")]
            assert {"SCAN image"}.isdisjoint(plan), (sql, plan)
            if "image CROSS JOIN" in sql:
                assert not [step for step in plan if "B-TREE" in step]
            elif "CROSS JOIN" in sql:
                assert "SCAN record" in plan[0]  # backwards from the newest, up to the limit
                assert not [step for step in plan if "B-TREE" in step]
    assert len(asked) > 10


def test_arrivals_are_counted_by_the_hours_of_the_local_clock() -> None:
    midnight_us = 1_764_028_800_000_000  # 2025-11-25, UTC
    kathmandu = ZoneInfo("Asia/Kathmandu")  # 5 h 45 min ahead
    quarters = [(midnight_us, 2), (midnight_us + QUARTER_US, 3)]
    counts = sum_hours(quarters, kathmandu).counts
    assert (counts[5], counts[6], sum(counts)) == (2, 3, 5)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0, "0 %"), (0.001, "<1 %"), (0.125, "13 %"), (0.5, "50 %"), (0.996, ">99 %"), (1, "100 %")],
)
def test_a_share_in_percent(share: float, expected: str) -> None:
    assert percent(share) == expected


def test_sizes_in_fitting_units() -> None:
    texts = [bytes_text(count) for count in (0, 999, 1500, 2 * 10**9)]
    assert texts == ["0 bytes", "999 bytes", "1.5 kB", "2.0 GB"]


def test_an_image_that_retention_has_removed_says_so_and_is_not_put_back(rig: Rig) -> None:
    rig.drop("a.png", "picture:Edema")
    rig.drop("b.png", "words")
    rig.settle()
    old = RetentionSettings(high_days=40, rejected_days=40, keep_at_least_images=0)
    settings = Settings(root=str(rig.root), timezone="Europe/Athens", retention=old)
    retention = build_retention(settings, rig.ledger, rig.spool, rig.clock)
    filed = [*rig.root.glob("classified_images/*/*"), *rig.root.glob("rejected/*g")]
    while any(path.exists() for path in filed):  # the service runs all the while
        rig.clock.passed_s += 86_400
        while retention.step():
            pass
    day = local_day(rig.clock.now(), settings.zone)
    for index in (0, 1):
        answer = get(rig, f"/images/{index}")
        assert f"Its file was removed by retention on {day}" in text_of(answer)
        assert b"picture.png" not in answer.body
        assert b"/retry" not in answer.body
    picture = get(rig, "/images/0/picture.png")
    assert (picture.status, b"removed by retention" in picture.body) == (404, True)
