"""One site with images of every kind, and one browser, for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from browser import chromium
from pagesite import HOSTILE, Site
from playwright.sync_api import Browser

from machine import lacking, needs
from xray_watcher.phantom.files import draw_images


@pytest.fixture(scope="session")
def drawings() -> Mapping[str, bytes]:
    """Drawn chests by their names: the normal one and each condition, more than once."""
    return {image.name: image.content for image in draw_images(28, seed=5)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser; only while a module runs, for Playwright keeps an event loop running."""
    needs(lacking(chromium="chromium"))
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, drawings: Mapping[str, bytes]) -> Iterator[Site]:
    """A running site on which drawings, a bad file and hostile names were filed."""
    started = Site(tmp_path_factory.mktemp("site") / "root")
    first = [*drawings.items()][:12]
    try:
        started.start_both()
        started.drop("ward-3", dict(first))
        started.drop("<b>bold<b>", {HOSTILE: first[3][1], f"broken {HOSTILE}": b"nonsense"})
        started.wait_until_filed(14)
        yield started
    finally:
        started.kill()
