"""What an open live page is told, without a browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rig import Rig
from xray_watcher.commands.status import DaemonState
from xray_watcher.config.settings import Settings
from xray_watcher.core.status_report import StatusReport
from xray_watcher.core.values import ModelInfo
from xray_watcher.records import SIMULATIONS
from xray_watcher.web.context import WebContext
from xray_watcher.web.pages.live import LiveFeed, Moment, _Viewer
from xray_watcher.web.pages.render import Pages

RUNNING = DaemonState(alive=True, healthy=True, problems={}, report=StatusReport())
DEAD = DaemonState(alive=False, healthy=False, problems={}, report=StatusReport())


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.crash()


@pytest.fixture
def pages(rig: Rig) -> Pages:
    settings = Settings(root=str(rig.root), state_dir=str(rig.root / "state"))
    return Pages(WebContext(settings, rig.clock))


@pytest.fixture
def viewer(pages: Pages) -> _Viewer:
    return _Viewer(pages, may_upload=True, last_index=-1)


def moment(pages: Pages, state: DaemonState) -> Moment:
    """How things are now, but for the state of the daemon."""
    return replace(asyncio.run(LiveFeed(pages).moment()), state=state)


def told(viewer: _Viewer, now: Moment) -> dict[str, str]:
    """The regions that the viewer is told of."""
    events = [event for event in viewer.news(now) if event.startswith("event: region\n")]
    data = [json.loads(event.partition("data: ")[2]) for event in events]
    return {region["name"]: region["html"] for region in data}


def test_the_header_says_that_the_service_has_died_and_says_it_once(
    pages: Pages, viewer: _Viewer
) -> None:
    assert "Service running" in told(viewer, moment(pages, RUNNING))["service"]
    assert told(viewer, moment(pages, RUNNING)) == {}
    assert "Service not running" in told(viewer, moment(pages, DEAD))["service"]
    assert told(viewer, moment(pages, DEAD)) == {}


def test_images_of_a_network_that_simulates_bring_its_banner(
    rig: Rig, pages: Pages, viewer: _Viewer
) -> None:
    assert told(viewer, moment(pages, RUNNING))["banners"].strip() == ""
    rig.drop("a.png", "picture:Edema")
    rig.settle()
    assert SIMULATIONS["untrained"] in told(viewer, moment(pages, RUNNING))["banners"]


def test_a_service_that_is_started_with_a_network_that_simulates_brings_its_banner(
    pages: Pages, viewer: _Viewer
) -> None:
    told(viewer, moment(pages, RUNNING))
    model = ModelInfo("phantom", "", "", simulated=True)
    simulating = replace(RUNNING, report=StatusReport(model=model))
    assert SIMULATIONS["phantom"] in told(viewer, moment(pages, simulating))["banners"]
    assert told(viewer, moment(pages, RUNNING))["banners"].strip() == ""


def test_what_is_degraded_stands_on_the_page_with_its_reason(pages: Pages, viewer: _Viewer) -> None:
    degraded = replace(RUNNING, healthy=False, problems={"disk": "Only 3 MB are free <here>."})
    shown = told(viewer, moment(pages, degraded))["state"]
    assert "<strong>disk</strong> Only 3 MB are free &lt;here&gt;." in shown
