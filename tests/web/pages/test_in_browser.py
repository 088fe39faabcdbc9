"""The pages in a real browser, on the real service: what people see, and what must never happen."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from browser import PHONE, WIDE, Scheme, findings, overflow, watched_page
from pagesite import FORMULA, HOSTILE, Site
from playwright.sync_api import Browser, Page, expect

from xray_watcher.core.catalogue import DEFAULT_WEIGHTS
from xray_watcher.core.times import local_day
from xray_watcher.records import NOTICE, SIMULATIONS
from xray_watcher.system.clock import SystemClock

WAIT_MS = 60_000
expect.set_options(timeout=WAIT_MS)  # a loaded machine is no fault of the pages
GRACE_S = 8  # what the server would wait for an answer that does not end
LEVELS = ("High", "Medium", "Low", "Rejected")


def payload(name: str, content: bytes) -> dict[str, object]:
    return {"name": name, "mimeType": "image/png", "buffer": content}


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with watched_page(browser, site.url) as opened:
        opened.set_default_timeout(WAIT_MS)
        yield opened


@pytest.fixture(scope="module")
def addresses(site: Site) -> Mapping[str, str]:
    """Every page by what it shows."""
    today = local_day(SystemClock().now(), ZoneInfo("Europe/Athens"))
    return {
        "batch": "/",
        "live": "/live",
        "day": f"/days/{today}",
        "image": f"/images/{site.parse_index(HOSTILE)}",
        "rejected image": f"/images/{site.parse_index('broken ' + HOSTILE)}",
        "sign in": "/login",
        "nothing": "/images/999999",
        "results": "/results?sort=score",
    }


PAGES = ("batch", "live", "day", "image", "rejected image", "sign in", "nothing", "results")


def predict(page: Page, files: list[dict[str, object]]) -> None:
    page.goto("/")
    page.set_input_files("#files", files)  # type: ignore[arg-type]
    page.get_by_role("button", name="Predict").click()


# -- the batch page ------------------------------------------------------------------------


def test_a_batch_with_bad_files_among_it(page: Page, drawings: Mapping[str, bytes]) -> None:
    files = [payload(name, content) for name, content in drawings.items()]
    files[5:5] = [payload(HOSTILE, b"nonsense"), payload(FORMULA, files[0]["buffer"][:9000])]  # type: ignore[index]
    assert len(files) == 30
    predict(page, files)
    expect(page.locator("#spoken")).to_contain_text("Done.", timeout=WAIT_MS)
    expect(page.locator("#result-words")).to_contain_text("30 of 30")
    expect(page.locator("#upload-bar")).to_have_js_property("value", 1)

    counts = {name: int(page.locator(f"#count-{name.lower()}").inner_text()) for name in LEVELS}
    assert sum(counts.values()) == 30
    assert counts["Rejected"] == 2
    assert min(counts.values()) > 0
    headings = page.locator("#results .group:visible h3").all_inner_texts()
    groups = [" ".join(heading.split()) for heading in headings]
    assert groups == [f"{name} ({counts[name]})" for name in LEVELS]
    for name in LEVELS:
        expect(page.locator(f"#group-{name.lower()} .result")).to_have_count(counts[name])

    is_pneumothorax = page.locator(".top strong", has_text="Pneumothorax")
    card = page.locator("#group-high .result").filter(has=is_pneumothorax).first
    card.scroll_into_view_if_needed()
    expect(card.locator(".top strong")).to_have_text("Pneumothorax")
    assert re.fullmatch(r"[<>]?\d+ %", card.locator(".confidence").inner_text())
    expect(card.locator(".three li")).to_have_count(3)
    expect(card.locator(".point")).to_have_text("(point 50 %)")
    expect(card.locator(".path")).to_contain_text("classified_images/High/")
    expect(card.locator("img")).to_have_js_property("naturalWidth", 192)

    page.locator("#group-rejected").scroll_into_view_if_needed()
    expect(page.locator("#group-rejected")).to_contain_text(HOSTILE)
    expect(page.locator("#group-rejected")).to_contain_text("wrong_format")
    expect(page.locator("#group-rejected img")).to_have_count(0)

    _check_downloads(page, [str(file["name"]) for file in files])
    batch = page.request.get(page.locator("#batch").get_attribute("href") or "").json()
    assert (batch["state"], batch["files"]) == ("done", 30)


def _check_downloads(page: Page, names: list[str]) -> None:
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    text = Path(download.value.path()).read_text("utf-8-sig")
    rows = [*csv.DictReader(io.StringIO(text))]
    assert [row["filename"].removeprefix("'") for row in rows] == names
    assert rows[6]["filename"] == f"'{FORMULA}"
    assert {row["notice"] for row in rows} == {NOTICE}
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    saved = json.loads(Path(download.value.path()).read_text("utf-8"))
    assert [result["filename"] for result in saved["results"]] == names
    assert sum(saved["summary"].values()) == 30


def test_a_single_image_is_shown_in_full(page: Page, drawings: Mapping[str, bytes]) -> None:
    name = next(name for name in drawings if "edema" in name)
    page.goto("/")
    page.get_by_label("Single Image").check()
    page.set_input_files("#files", [payload(name, drawings[name])])  # type: ignore[arg-type]
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#single .verdict")).to_contain_text("Edema")
    expect(page.locator("#single .scores tbody tr")).to_have_count(11)
    expect(page.locator("#single .film img")).not_to_have_js_property("naturalWidth", 0)


def test_a_folder_is_taken_with_what_lies_deeper_and_others_are_named(
    page: Page, drawings: Mapping[str, bytes], tmp_path: Path
) -> None:
    deeper = tmp_path / "study" / "a" / "b"
    deeper.mkdir(parents=True)
    for name, content in [*drawings.items()][:3]:
        (deeper / name).write_bytes(content)
    (tmp_path / "study" / "notes.txt").write_text("not an image")
    page.goto("/")
    page.set_input_files("#folder", tmp_path / "study")
    expect(page.locator("#chosen-words")).to_contain_text("3 images selected")
    expect(page.locator("#left-out")).to_contain_text("notes.txt")


def test_files_can_be_dropped(page: Page) -> None:
    page.goto("/")
    transfer = page.evaluate_handle(
        "() => { const t = new DataTransfer();"
        " for (const n of ['a.png', 'b.txt']) t.items.add(new File(['x'], n)); return t; }"
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    expect(page.locator("#chosen-words")).to_contain_text("1 image selected")
    expect(page.locator("#left-out")).to_contain_text("b.txt")


def test_the_batch_page_works_by_keyboard_alone(page: Page, drawings: Mapping[str, bytes]) -> None:
    page.on("filechooser", lambda _chooser: None)  # the dialogue is ours from the beginning
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Batch Risk Classification")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Select Image")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([payload(name, drawings[name]) for name in [*drawings][:3]])  # type: ignore[arg-type]
    expect(page.get_by_role("button", name="Predict")).to_be_enabled(timeout=WAIT_MS)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Predict")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#results-title")).to_be_focused(timeout=WAIT_MS)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="CSV")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator("#results .result a").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("h1 .index")).to_be_visible()


def test_the_results_are_there_before_the_focus_moves_to_them(page: Page) -> None:
    """Or a quick Tab would run past them."""
    page.goto("/")
    page.route("**/predict_batch", lambda route: route.fulfill(**_lines(_answer(4))))
    page.evaluate(
        "document.getElementById('results-title').addEventListener('focus', () => {"
        " window.seen = document.querySelectorAll('#results .result').length; })"
    )
    page.set_input_files("#files", [payload(f"{n}.png", b"x") for n in range(4)])  # type: ignore[arg-type]
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#results-title")).to_be_focused(timeout=WAIT_MS)
    assert page.evaluate("window.seen") == 4


def test_a_thousand_results_leave_the_page_responsive(page: Page) -> None:
    """The answer is made up, and comes at once: what is measured is the page alone."""
    page.goto("/")
    page.route("**/predict_batch", lambda route: route.fulfill(**_lines(_answer(1000))))
    page.route(re.compile("thumbnail"), lambda route: route.fulfill(status=204))
    page.evaluate(
        "window.longest = 0; new PerformanceObserver(list => { for (const e of list.getEntries())"
        " window.longest = Math.max(window.longest, e.duration); }).observe({type: 'longtask'})"
    )
    page.set_input_files("#files", [payload(f"{n}.png", b"x") for n in range(1000)])  # type: ignore[arg-type]
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#results .result")).to_have_count(1000, timeout=WAIT_MS)
    assert page.evaluate("window.longest") < 1000  # 550 on a slow and busy machine
    assert page.locator("#group-high .result").count() == 250


def _answer(files: int) -> str:
    results = [
        {
            "position": n, "filename": f"{n}.png", "index": n, "top_label": "Edema",
            "top_probability": 0.87, "risk_level": LEVELS[n % 4],
            "top_predictions": [{"label": "Edema", "prob": 0.87}] * 3,
            "all_probs": {"Edema": 0.87}, "saved_path": f"classified_images/High/{n}.png",
            "flags": ["low_margin"], "sha256": "ab", "simulated": True, "model": None,
            "duplicate_of": None, "error": None,
        }
        for n in range(files)
    ]  # fmt: skip
    last = {"summary": dict.fromkeys(LEVELS, files // 4), "output_directory": "out", "batch": "b"}
    return "".join(json.dumps(line) + "\n" for line in [*results, last])


def _lines(body: str) -> dict[str, Any]:
    return {"body": body, "content_type": "application/x-ndjson"}


def test_an_answer_that_breaks_off_with_a_reason_shows_that_reason(page: Page) -> None:
    sentence = "The service has stopped before every image was filed."
    error = {"error": {"code": "stopped", "message": sentence}, "batch": "b", "accepted": 2}
    first, *_ = _answer(4).splitlines()
    page.goto("/")
    page.route(
        "**/predict_batch",
        lambda route: route.fulfill(**_lines(f"{first}\n{json.dumps(error)}\n")),
    )
    page.set_input_files("#files", [payload(f"{n}.png", b"x") for n in range(2)])  # type: ignore[arg-type]
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#problem")).to_contain_text(f"{sentence} 1 image of 2 had a result.")
    expect(page.locator("#problem")).not_to_contain_text("ended early")


def test_a_batch_of_which_nothing_was_taken_shows_why(
    browser: Browser, tmp_path: Path, drawings: Mapping[str, bytes]
) -> None:
    site = Site(tmp_path / "root")
    site.config.write_text(site.config.read_text().replace("[batch]", "max_bytes = 1024\n[batch]"))
    try:
        site.start_both()
        page = browser.new_page(base_url=site.url)
        predict(page, [payload(name, drawings[name]) for name in [*drawings][:2]])
        expect(page.locator("#group-rejected .result")).to_have_count(2)
        expect(page.locator("#group-rejected")).to_contain_text("too_large")
        expect(page.locator("#problem")).to_be_hidden()
        page.close()
    finally:
        site.kill()


def test_an_upload_that_is_refused_is_told_with_its_reason(
    browser: Browser, tmp_path: Path, drawings: Mapping[str, bytes]
) -> None:
    site = Site(tmp_path / "root")
    try:
        site.start_web()
        page = browser.new_page(base_url=site.url)
        page.goto("/")
        expect(page.locator("main")).to_contain_text("The service is not running")
        predict(page, [payload(name, drawings[name]) for name in [*drawings][:1]])
        expect(page.locator("#problem")).to_contain_text(re.compile("service|running"))
        expect(page.get_by_role("button", name="Select Image")).to_be_enabled()
        page.close()
    finally:
        site.kill()


# -- the live page -------------------------------------------------------------------------


def test_the_live_page_shows_images_as_they_are_filed(
    page: Page, site: Site, drawings: Mapping[str, bytes]
) -> None:
    page.goto("/live")
    expect(page.locator("#link")).to_have_text("Updates by itself")
    high = page.locator(".tile.high dd")
    before = int(high.inner_text())
    name = next(name for name in drawings if "pneumothorax" in name)
    site.drop("emergency", {"late pneumothorax.png": drawings[name]})
    item = page.locator("#latest .result", has_text="late pneumothorax.png")
    expect(item).to_be_visible()
    expect(item).to_have_class(re.compile("high"))
    expect(item.locator(".badge")).to_have_text("High")
    expect(item.locator(".badge svg")).to_be_visible()
    expect(item.locator("img")).to_have_js_property("naturalWidth", 192)
    expect(page.locator("#spoken")).to_contain_text("High: late pneumothorax.png, Pneumothorax")
    expect(high).to_have_text(str(before + 1))


def test_a_rejected_image_is_shown_with_its_reason_and_can_be_put_back(
    page: Page, site: Site
) -> None:
    page.goto("/live")
    site.drop("emergency", {"not-an-image.png": b"words"})
    row = page.locator(".rejections li", has_text="not-an-image.png")
    expect(row).to_contain_text("wrong_format")
    index = site.parse_index("not-an-image.png")
    row.get_by_role("button", name="Retry").click()
    expect(page.locator(".done")).to_contain_text(f"Image {index} was put back")
    site.wait_until(lambda: site.parse_index("not-an-image.png") > index)
    expect(row.locator("a").first).to_have_attribute(
        "href", f"/images/{site.parse_index('not-an-image.png')}"
    )
    page.goto(f"/images/{index}")
    expect(page.locator("main")).to_contain_text("has a newer result")


def test_where_a_file_is_gone_the_page_shows_that_there_is_no_picture(
    browser: Browser, site: Site, drawings: Mapping[str, bytes]
) -> None:
    site.drop("emergency", {"gone.png": next(iter(drawings.values()))})
    site.wait_until(lambda: site.parse_index("gone.png") >= 0)
    (path,) = site.root.glob("classified_images/*/????_gone.png")
    content = path.read_bytes()
    path.unlink()
    try:
        page = browser.new_page(base_url=site.url)
        page.goto("/live")
        item = page.locator("#latest .result", has_text="gone.png")
        expect(item.locator(".thumb.none")).to_be_visible(timeout=WAIT_MS)
        page.close()
    finally:
        path.write_bytes(content)


def test_an_open_live_page_tells_of_a_service_that_dies_and_of_a_network_that_simulates(
    browser: Browser, tmp_path: Path, drawings: Mapping[str, bytes]
) -> None:
    site = Site(tmp_path / "root")
    site.config.write_text(site.config.read_text().replace('"phantom"', f'"{DEFAULT_WEIGHTS}"'))
    try:
        site.start_web()
        with watched_page(browser, site.url) as page:
            page.goto("/live")
            expect(page.locator("#link")).to_have_text("Updates by itself")
            expect(page.locator(".simulation")).to_have_count(0)
            site.start("--weights", "phantom")
            expect(page.locator(".service")).to_have_text("Service running")
            name, content = next(iter(drawings.items()))
            site.drop("ward", {name: content})
            expect(page.locator("#latest .result")).to_have_count(1)
            expect(page.locator(".simulation")).to_be_visible()
            site.stop(signal.SIGKILL)
            expect(page.locator(".service")).to_have_text("Service not running")
            expect(page.locator(".simulation")).to_have_text(SIMULATIONS["phantom"])
    finally:
        site.kill()


def test_the_server_ends_in_time_although_a_live_page_is_open(
    browser: Browser, tmp_path: Path
) -> None:
    site = Site(tmp_path / "root")
    try:
        site.start_web()
        page = browser.new_page()
        page.goto(f"{site.url}/live")
        expect(page.locator("#link")).to_have_text("Updates by itself")
        expect(page.locator(".state")).to_contain_text("Not running")
        began_s = time.monotonic()
        assert site.stop_web() == 0
        assert time.monotonic() - began_s < GRACE_S
        expect(page.locator("#link")).to_contain_text("Connection lost")
        expect(page.locator(".service")).to_have_text("Connection lost")
        page.close()
    finally:
        site.kill()


# -- every page ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_every_page_says_that_it_is_no_diagnosis_and_a_simulation(
    page: Page, addresses: Mapping[str, str], name: str
) -> None:
    page.goto(addresses[name])
    expect(page.locator(".notice")).to_have_text(NOTICE)
    expect(page.locator(".simulation")).to_have_text(SIMULATIONS["phantom"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(
    browser: Browser, site: Site, addresses: Mapping[str, str], name: str, scheme: Scheme
) -> None:
    with watched_page(browser, site.url, scheme=scheme) as page:
        page.goto(addresses[name])
        assert findings(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_results_of_a_batch(
    browser: Browser, site: Site, drawings: Mapping[str, bytes], scheme: Scheme
) -> None:
    with watched_page(browser, site.url, scheme=scheme) as page:
        predict(page, [payload(n, drawings[n]) for n in [*drawings][:11]] + [payload(HOSTILE, b"")])
        expect(page.locator("#spoken")).to_contain_text("Done.", timeout=WAIT_MS)
        expect(page.locator("#results .result")).to_have_count(12)
        assert findings(page) == []


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("size", [PHONE, (320, 700), WIDE], ids=["phone", "small phone", "wide"])
def test_no_page_scrolls_sideways(
    browser: Browser,
    site: Site,
    addresses: Mapping[str, str],
    name: str,
    size: tuple[int, int],
) -> None:
    with watched_page(browser, site.url, size=size) as page:
        page.goto(addresses[name])
        assert overflow(page) <= 0


@pytest.mark.parametrize("name", PAGES)
def test_a_hostile_name_is_text_wherever_it_stands(
    page: Page, addresses: Mapping[str, str], name: str
) -> None:
    page.goto(addresses[name])
    assert page.locator("img[src='x']").count() == 0
    assert page.locator("b", has_text="bold").count() == 0
    if name in ("live", "day", "image", "rejected image"):
        expect(page.locator("main")).to_contain_text(HOSTILE)


def test_every_link_leads_somewhere(page: Page, addresses: Mapping[str, str]) -> None:
    found: set[str] = set()
    for address in addresses.values():
        page.goto(address)
        for attribute in ("href", "src"):
            elements = page.locator(f"[{attribute}^='/']").all()
            found |= {element.get_attribute(attribute) or "" for element in elements}
    assert len(found) > 30
    answers = {address: page.request.get(address).status for address in found}
    assert {address: status for address, status in answers.items() if status != 200} == {}


# -- signing in ----------------------------------------------------------------------------


def test_who_may_only_look_is_not_offered_to_change_anything(
    browser: Browser, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    site = Site(tmp_path / "root", f"token_file = {json.dumps(str(tokens))}")
    token = site.command("token", "reader", "--role", "view").stdout.split()[-1]
    site.http.headers["Authorization"] = f"Bearer {token}"
    try:
        site.start_both()
        site.drop("ward", {"words.png": b"words"})
        site.wait_until_filed(1)
        with watched_page(browser, site.url) as page:
            page.goto("/live")
            expect(page).to_have_url(re.compile("/login"))
            _sign_in(page, "wrong")
            expect(page.get_by_role("alert")).to_contain_text("not known")
            page.goto("/live")
            _sign_in(page, token)
            expect(page).to_have_url(re.compile("/live$"))
            expect(page.locator(".rejections li")).to_contain_text("words.png")
            expect(page.locator("#link")).to_have_text("Updates by itself")
            assert page.get_by_role("button", name="Retry").count() == 0
            page.goto("/")
            expect(page.locator("main")).to_contain_text("allows looking, not uploading")
            page.get_by_role("button", name="Sign out").click()
            page.goto("/live")
            expect(page).to_have_url(re.compile("/login"))
    finally:
        site.kill()


def test_an_open_live_page_whose_token_is_removed_says_that_one_has_to_sign_in_again(
    browser: Browser, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    site = Site(tmp_path / "root", f"token_file = {json.dumps(str(tokens))}")
    first, second = (
        site.command("token", name, "--role", "view").stdout.split()[-1] for name in ("a", "b")
    )
    try:
        site.start_web()
        page = browser.new_page(base_url=site.url)
        page.goto("/live")
        _sign_in(page, first)
        expect(page.locator("#link")).to_have_text("Updates by itself")
        tokens.write_text(tokens.read_text().splitlines(keepends=True)[1])
        expect(page.locator("#link")).to_have_text("You are signed out: sign in again")
        page.get_by_role("link", name="sign in again").click()
        _sign_in(page, second)
        expect(page).to_have_url(re.compile("/live$"))
        expect(page.locator("#link")).to_have_text("Updates by itself")
        page.close()
    finally:
        site.kill()


def test_a_live_page_that_is_refused_for_another_reason_goes_on_trying(
    browser: Browser, site: Site
) -> None:
    page = browser.new_page(base_url=site.url)
    page.route("**/live/events*", lambda route: route.fulfill(status=502))
    page.goto("/live")
    expect(page.locator("#link")).to_have_text("Connection lost; trying again")
    expect(page.locator(".service")).to_have_text("Connection lost")
    page.unroute("**/live/events*")
    expect(page.locator("#link")).to_have_text("Updates by itself")
    expect(page.locator(".service")).to_contain_text("Service")
    page.close()


def _sign_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
