"""Debian's Chromium, driven by Playwright, with an eye on everything that a page does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, sync_playwright

Scheme = Literal["light", "dark"]

WIDE = (1280, 900)
PHONE = (390, 844)

# The browser talks to nobody but the pages.
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=MediaRouter,OptimizationHints,Translate",
)
_AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
_AXE_RUN = """async () => {
    const found = await axe.run(document, {resultTypes: ["violations"]});
    return found.violations.map(v => ({
        id: v.id, impact: v.impact, where: v.nodes.map(n => n.html + " " + n.failureSummary),
    }));
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that was just installed, as it were: no profile, no cache."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*_OPTIONS]
        )
        yield browser
        browser.close()


@contextmanager
def watched_page(
    browser: Browser, url: str, *, scheme: Scheme = "light", size: tuple[int, int] = WIDE
) -> Iterator[Page]:
    """A page in a context of its own; in the end it must have done nothing that it should not.

    Nothing was asked of another host, no error was reported, no dialogue was opened.
    """
    width, height = size
    context = browser.new_context(
        base_url=url, color_scheme=scheme, viewport={"width": width, "height": height}
    )
    page = context.new_page()
    faults: list[str] = []

    def on_request(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("blob", "data") and parts.netloc != urlsplit(url).netloc:
            faults.append(f"asked {request.url}")

    def on_console(message: ConsoleMessage) -> None:
        is_missing = message.text.startswith("Failed to load") and "404" in message.text
        if is_missing and message.location.get("url") == page.url:
            return  # the browser says so of a page that is one for a 404
        if message.type in ("error", "warning"):
            faults.append(f"{message.type}: {message.text}")

    def on_dialog(dialog: Dialog) -> None:
        faults.append(f"dialogue: {dialog.message}")
        dialog.dismiss()

    context.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("dialog", on_dialog)
    try:
        yield page
    finally:
        context.close()
    assert faults == []


def findings(page: Page) -> list[dict[str, Any]]:
    """What axe-core finds serious or critical about the page as it is."""
    page.evaluate(_AXE)
    found: list[dict[str, Any]] = page.evaluate(_AXE_RUN)
    return [outcome for outcome in found if outcome["impact"] in ("serious", "critical")]


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    pixels: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return pixels
