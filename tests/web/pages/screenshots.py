"""Takes the pictures of the pages in docs: drawn images, the phantom network, the real service.

python tests/web/pages/screenshots.py
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "web" / "pages")]

from browser import PHONE, Scheme, chromium, watched_page  # noqa: E402
from pagesite import Site  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Browser, Page, expect  # noqa: E402

from xray_watcher.phantom.files import draw_images  # noqa: E402

DOCS = TESTS.parent / "docs"
WIDTH = 1280


def main() -> None:
    """Start a site on drawings, open every page and write its picture."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        site = Site(Path(folder) / "xray")
        try:
            site.start_both()
            fill(site)
            take_all(site, browser)
        finally:
            site.kill()


def fill(site: Site) -> None:
    """Drop what a morning may bring."""
    drawn = {image.name: image.content for image in draw_images(40, seed=20261125)}
    names = [*drawn]
    site.drop("emergency", {name: drawn[name] for name in names[:14]})
    site.drop("ward-3", {name: drawn[name] for name in names[14:24]})
    site.drop(
        "emergency", {"notes.png": b"Nothing to see here.", "cut.png": drawn[names[3]][:9000]}
    )
    site.wait_until_filed(26)


def take_all(site: Site, browser: Browser) -> None:
    """Every page, two of them in the dark, one on a phone."""
    with watched_page(browser, site.url, size=(WIDTH, 1000)) as page:
        batch(page)
        save(page, "batch", 1560)
    live = "/live"
    taken: tuple[tuple[str, str, int, Scheme, int], ...] = (
        ("live", live, WIDTH, "light", 1160),
        ("live-dark", live, WIDTH, "dark", 1160),
        ("live-phone", live, PHONE[0], "light", 1100),
        ("day", "/days", WIDTH, "light", 1500),
        ("image", f"/images/{_index(site, 'cardiomegaly')}", 960, "light", 1180),
    )
    for name, path, width, scheme, height in taken:
        with watched_page(browser, site.url, size=(width, height), scheme=scheme) as page:
            page.goto(path)
            save(page, name, height)


def batch(page: Page) -> None:
    """Send a batch and wait for its end."""
    files: Mapping[str, bytes] = {
        image.name: image.content for image in draw_images(22, seed=7)
    } | {"screenshot.png": b"not an image"}
    page.goto("/")
    page.set_input_files(
        "#files",
        [{"name": n, "mimeType": "image/png", "buffer": content} for n, content in files.items()],
    )
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#spoken")).to_contain_text("Done.", timeout=60_000)


def save(page: Page, name: str, height: int) -> None:
    """Wait for the pictures in sight and write what is in sight."""
    assert page.viewport_size is not None
    page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
    page.wait_for_load_state("load")
    for picture in page.locator("img").all():
        if picture.evaluate("i => i.getBoundingClientRect().top < innerHeight"):
            expect(picture).not_to_have_js_property("naturalWidth", 0, timeout=60_000)
    shot = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    path = DOCS / f"web-{name}.png"
    shot.save(path, optimize=True)
    sys.stdout.write(f"{path.name}: {path.stat().st_size // 1000} kB\n")


def _index(site: Site, condition: str) -> int:
    paths = site.root.glob(f"classified_images/*/*{condition}*")
    return min(int(path.name.partition("_")[0]) for path in paths)


if __name__ == "__main__":
    main()
