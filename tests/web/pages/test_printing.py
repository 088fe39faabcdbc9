"""What Chromium prints, read from the PDF: words, their colours, and what stands where."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pypdfium2
import pytest
from browser import Scheme, watched_page
from pagesite import HOSTILE, Site
from playwright.sync_api import Browser
from pypdfium2 import raw

from xray_watcher.records import NOTICE, SIMULATIONS

PALE = 0x55  # of 255: nothing on paper is lighter than this grey
SIMULATION = SIMULATIONS["phantom"]


@pytest.fixture(scope="module")
def film(site: Site) -> str:
    return f"/images/{site.parse_index(HOSTILE)}"


@pytest.fixture(scope="module")
def rejected(site: Site) -> str:
    return f"/images/{site.parse_index('broken ' + HOSTILE)}"


def printed(browser: Browser, site: Site, address: str, scheme: Scheme = "light") -> list[str]:
    """The words of each sheet, after a look at the colour of every one of them."""
    with watched_page(browser, site.url, scheme=scheme) as page:
        page.goto(address)
        content = page.pdf(format="A4")
    document = pypdfium2.PdfDocument(content)
    for sheet in document:
        for words, colour in coloured(sheet):
            assert max(colour[:3]) <= PALE, (words, colour)
            assert colour[3] == 255, (words, colour)
    return [" ".join(sheet.get_textpage().get_text_bounded().split()) for sheet in document]


def coloured(sheet: pypdfium2.PdfPage) -> Iterator[tuple[str, list[int]]]:
    text = sheet.get_textpage()
    for item in sheet.get_objects(filter=[raw.FPDF_PAGEOBJ_TEXT], max_depth=15):
        channels = [ctypes.c_uint() for _ in range(4)]
        assert raw.FPDFPageObj_GetFillColor(item, *channels)
        length = raw.FPDFTextObj_GetText(item, text, None, 0)
        found = ctypes.create_string_buffer(length)
        raw.FPDFTextObj_GetText(
            item, text, ctypes.cast(found, ctypes.POINTER(raw.FPDF_WCHAR)), length
        )
        yield found.raw[:-2].decode("utf-16-le"), [channel.value for channel in channels]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ["/", "/live", "/days", "{film}", "{rejected}", "/nothing"])
def test_what_warns_is_not_pale_on_paper(
    browser: Browser, site: Site, film: str, rejected: str, address: str, scheme: Scheme
) -> None:
    first, *_ = printed(browser, site, address.format(film=film, rejected=rejected), scheme)
    assert NOTICE in first
    assert SIMULATION in first


def test_a_verdict_stands_with_its_notice_its_picture_and_its_scores(
    browser: Browser, site: Site, film: str
) -> None:
    first, *rest = printed(browser, site, film)
    verdict = first.index("(point 50 %)")
    assert verdict < first.index(SIMULATION, verdict) < first.index("All scores")
    assert first.count(NOTICE) == 2  # at the head, and in the verdict
    assert "Pneumothorax" in first[first.index("All scores") :]
    assert rest
    assert all("Record" in sheet or "Model" in sheet for sheet in rest)  # none for the foot alone


@pytest.mark.parametrize(
    ("heading", "end"),
    [
        ("Scores of all images", "Enlarged Cardiomediastinum"),
        ("Top conditions", "Pneumothorax"),
        ("Figures", "Model"),
        ("Images by level", "pending"),
    ],
)
def test_no_heading_of_a_day_is_torn_from_its_table(
    browser: Browser, site: Site, heading: str, end: str
) -> None:
    (sheet,) = (text for text in printed(browser, site, "/days") if heading in text)
    assert end in sheet[sheet.index(heading) :]


def test_a_picture_that_was_enlarged_is_printed_whole(
    browser: Browser, site: Site, film: str
) -> None:
    with watched_page(browser, site.url) as page:
        page.goto(film)
        page.get_by_role("button", name="1:1").click()
        page.emulate_media(media="print")
        frame, image = (
            page.locator(selector).bounding_box() or {} for selector in (".viewer", ".viewer img")
        )
    assert image["width"] <= frame["width"]
    assert image["height"] <= frame["height"] + 1
