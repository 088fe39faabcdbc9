"""What one sees at once, what a result says it is, and the picture under hand and keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest
from browser import PHONE, WIDE, findings, watched_page
from pagesite import Site
from playwright.sync_api import Browser, Page, expect

WAIT_MS = 60_000
expect.set_options(timeout=WAIT_MS)
RULED = "High by rule, no condition reached its operating point (highest: "


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with watched_page(browser, site.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def normal(site: Site) -> int:
    """The index of a film on which no condition reached its operating point, filed High."""
    results = site.get("/api/v1/results?level=High&flag=no_finding")["results"]
    assert results, "the drawings hold a normal chest"
    return int(results[0]["index"])


# -- the live page -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["phone", "wide"])
def test_the_live_page_shows_a_high_image_without_scrolling(
    browser: Browser, site: Site, size: tuple[int, int]
) -> None:
    with watched_page(browser, site.url, size=size) as page:
        page.goto("/live")
        image = page.locator("[data-region=highs] img").first
        expect(image).to_have_js_property("naturalWidth", 192)
        box = image.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= size[1]


def test_the_newest_high_stands_first_and_comes_by_itself(
    page: Page, site: Site, drawings: Mapping[str, bytes]
) -> None:
    page.goto("/live")
    expect(page.locator("#link")).to_have_text("Updates by itself")
    name = next(name for name in drawings if "pneumothorax" in name)
    site.drop("emergency", {"newest.png": drawings[name]})
    first = page.locator("[data-region=highs] .result").first
    expect(first).to_contain_text("newest.png")
    expect(first.locator(".badge").first).to_have_text("High")


def test_a_service_that_is_well_takes_one_line(page: Page) -> None:
    page.goto("/live")
    region = page.locator("[data-region=state]")
    expect(region).to_contain_text("Running")
    assert (region.bounding_box() or {})["height"] < 60
    expect(region.get_by_text("Free space").first).to_be_hidden()
    region.locator("summary").click()
    expect(region.get_by_text("Free space").first).to_be_visible()


def test_three_rejected_images_are_shown_and_then_all(page: Page, site: Site) -> None:
    site.drop("ward-9", {f"nothing {number}.png": b"words" for number in range(5)})
    page.goto("/live")
    region = page.locator("[data-region=rejected]")
    everything = region.locator("summary")
    expect(everything).to_have_text(re.compile(r"All \d+"))
    expect(region.locator("li:visible")).to_have_count(3)
    expect(region.locator("li:visible").first).to_contain_text("from ward-9")
    total = int(everything.inner_text().split()[1])
    everything.click()
    expect(region.locator("li:visible")).to_have_count(total)


# -- what a result says --------------------------------------------------------------------


def test_a_film_without_a_finding_is_high_by_rule_and_its_badge_is_hollow(
    page: Page, site: Site, normal: int, drawings: Mapping[str, bytes]
) -> None:
    page.goto(f"/images/{normal}")
    expect(page.locator(".verdict")).to_contain_text(RULED)
    expect(page.locator(".verdict .badge")).to_have_class(re.compile("hollow"))
    surface, badge = (
        page.locator(selector).evaluate("e => getComputedStyle(e).backgroundColor")
        for selector in (".card >> nth=0", ".verdict .badge")
    )
    assert badge == surface
    name = next(name for name in drawings if "normal" in name)
    site.drop("ward-4", {"again normal.png": drawings[name]})
    page.goto("/live")
    item = page.locator("#latest .result", has_text="again normal.png")
    expect(item).to_contain_text(RULED)
    expect(item.locator(".badge")).to_have_class(re.compile("hollow"))
    expect(item.locator(".flags")).to_contain_text("Same file as 00")
    page.goto("/")
    page.set_input_files(
        "#files", [{"name": name, "mimeType": "image/png", "buffer": drawings[name]}]
    )
    page.get_by_role("button", name="Predict").click()
    item = page.locator("#group-high .result")
    expect(item).to_contain_text(RULED)
    expect(item.locator(".badge")).to_have_class(re.compile("hollow"))
    expect(page.locator("#found-high")).to_have_text("0 with a finding")


def test_a_condition_of_a_higher_level_stands_beside_the_badge_in_a_batch(page: Page) -> None:
    line = (
        '{"position": 0, "filename": "a.png", "index": 0, "top_label": "Effusion",'
        ' "top_probability": 0.73, "risk_level": "Medium", "top_predictions":'
        ' [{"label": "Effusion", "prob": 0.73}, {"label": "Edema", "prob": 0.63}],'
        ' "all_probs": {"Effusion": 0.73, "Edema": 0.63, "Pneumonia": 0.2}, "saved_path": "x",'
        ' "flags": ["higher_risk_present"], "sha256": "ab", "simulated": true, "model": null}\n'
        '{"summary": {}, "output_directory": "out", "batch": "b"}\n'
    )
    page.goto("/")
    page.route("**/thumbnail.png", lambda route: route.fulfill(status=204))
    page.route(
        "**/predict_batch",
        lambda route: route.fulfill(body=line, content_type="application/x-ndjson"),
    )
    page.set_input_files("#files", [{"name": "a.png", "mimeType": "image/png", "buffer": b"x"}])
    page.get_by_role("button", name="Predict").click()
    item = page.locator("#group-medium .result")
    expect(item.locator(".badge.also.high")).to_have_text("also Edema 63 % (High; point 50 %)")
    expect(item.locator(".top")).to_have_text("Effusion 73 % (point 50 %)")
    expect(item.locator(".three .bar .mark")).to_have_count(2)


# -- the picture ---------------------------------------------------------------------------


def picture(page: Page) -> tuple[int, str]:
    """The width of the picture on the screen in its own pixels' percent, and its filter."""
    expect(page.locator(".zoom")).to_have_text(re.compile(r"\d+ %"))
    words = page.locator(".zoom").inner_text()
    style = page.locator(".viewer img").evaluate("i => getComputedStyle(i).filter")
    return int(words.split()[0]), style


def test_the_picture_is_fitted_enlarged_and_inverted_by_keys(page: Page, normal: int) -> None:
    page.goto(f"/images/{normal}")
    viewer = page.locator(".viewer")
    expect(page.locator(".zoom")).to_have_text(re.compile(r"\d+ %"))
    fitting, _ = picture(page)
    before = viewer.bounding_box()
    viewer.focus()
    page.keyboard.press("1")
    assert picture(page)[0] == 100
    natural = page.locator(".viewer img").evaluate("i => [i.naturalWidth, i.clientWidth]")
    assert natural[0] == natural[1]
    expect(page.get_by_role("button", name="1:1")).to_have_attribute("aria-pressed", "true")
    assert viewer.bounding_box() == before  # in its place
    page.keyboard.press("+")
    assert picture(page)[0] == 125
    page.keyboard.press("i")
    assert picture(page)[1] == "invert(1)"
    expect(page.locator(".zoom")).to_have_text("125 %, inverted")
    assert findings(page) == []
    page.keyboard.press("i")
    page.keyboard.press("0")
    assert picture(page) == (fitting, "none")
    expect(page.get_by_role("button", name="Fit")).to_have_attribute("aria-pressed", "true")


def test_the_picture_follows_buttons_wheel_and_mouse(page: Page, normal: int) -> None:
    page.goto(f"/images/{normal}")
    expect(page.locator(".zoom")).to_have_text(re.compile(r"\d+ %"))
    fitting, _ = picture(page)
    page.get_by_role("button", name="Invert").click()
    assert picture(page)[1] == "invert(1)"
    page.get_by_role("button", name="Larger").click()
    assert picture(page)[0] > fitting
    page.get_by_role("button", name="Fit").click()
    page.locator(".viewer").hover()
    for _ in range(6):
        page.mouse.wheel(0, -100)
    expect(page.locator(".viewer")).to_have_class(re.compile("zoomed"))
    left = page.locator(".viewer").evaluate("v => v.scrollLeft")
    assert left > 0
    page.mouse.down()
    box = page.locator(".viewer").bounding_box() or {}
    page.mouse.move(box["x"] + box["width"] / 2 + 40, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    assert page.locator(".viewer").evaluate("v => v.scrollLeft") < left
    for _ in range(8):
        page.mouse.wheel(0, 100)
    expect(page.locator(".viewer")).not_to_have_class(re.compile("zoomed"))
    assert picture(page)[0] == fitting


def test_left_and_right_lead_to_the_images_beside(page: Page, site: Site) -> None:
    classified = [
        record["index"]
        for record in site.get("/api/v1/results?limit=100")["results"]
        if record["risk_level"] != "Rejected"
    ]
    first = next(index for index in sorted(classified) if index + 1 in classified)
    page.goto(f"/images/{first}")
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(f"/images/{first + 1}$"))
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile(f"/images/{first}$"))
    page.locator(".viewer").focus()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(f"/images/{first + 1}#viewer$"))
    expect(page.locator(".viewer")).to_be_focused()
    page.keyboard.press("1")
    page.keyboard.press("ArrowRight")  # moves the picture, which is larger than its frame
    expect(page).to_have_url(re.compile(f"/images/{first + 1}#viewer$"))


def test_the_picture_of_a_single_image_has_the_same_tools(
    page: Page, drawings: Mapping[str, bytes]
) -> None:
    name = next(name for name in drawings if "edema" in name)
    page.goto("/")
    page.get_by_label("Single Image").check()
    expect(page.locator("#select")).to_have_text("Select Image")
    page.set_input_files(
        "#files", [{"name": name, "mimeType": "image/png", "buffer": drawings[name]}]
    )
    page.get_by_role("button", name="Predict").click()
    page.locator("#single").get_by_role("button", name="Invert").click()
    assert picture(page)[1] == "invert(1)"
