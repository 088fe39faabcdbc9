"""`web.charts`: shapes with the right lengths, and nothing in them that a strict policy refuses."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from markupsafe import Markup

from xray_watcher.web import charts

HOSTILE = '"><script>alert(1)</script>'


def shapes(chart: Markup, kind: str) -> list[ET.Element]:
    return [shape for shape in ET.fromstring(chart) if kind in shape.get("class", "").split()]


def widths(chart: Markup, kind: str) -> list[float]:
    return [float(shape.get("width", "nan")) for shape in shapes(chart, kind)]


@pytest.mark.parametrize(("share", "width"), [(0, 0), (0.5, 50), (1, 100), (1.5, 100), (-1, 0)])
def test_a_bar_is_as_long_as_its_share_and_no_longer_than_its_box(
    share: float, width: float
) -> None:
    assert widths(charts.bar(share), "fill") == [width]


def test_the_operating_point_is_marked_on_a_bar() -> None:
    (mark,) = shapes(charts.bar(0.9, "high", mark=0.6), "mark")
    assert mark.get("x1") == mark.get("x2") == "60"
    assert not shapes(charts.bar(0.9, "high"), "mark")


def test_a_spread_goes_from_the_first_to_the_third_quartile() -> None:
    (box,) = shapes(charts.spread(0.2, 0.3, 0.6, mark=0.5), "spread")
    assert float(box.get("x", "nan")) == 20
    assert float(box.get("width", "nan")) == pytest.approx(40)


def test_a_spread_of_equal_values_can_be_seen() -> None:
    assert widths(charts.spread(0.2, 0.2, 0.2, mark=0.5), "spread") == [0.5]


def test_the_parts_of_a_strip_fill_it() -> None:
    chart = charts.strip({"high": 1, "medium": 0, "low": 3})
    assert widths(chart, "fill") == [25, 75]
    assert not shapes(chart, "medium")


def test_a_strip_of_nothing_is_its_track() -> None:
    assert widths(charts.strip({"high": 0, "low": 0}), "track") == [100]


def test_columns_stand_on_the_ground_and_reach_their_share_of_the_ceiling() -> None:
    chart = charts.columns([0, 5, 10], ["a", "b", "c"], "Arrivals")
    found = [
        (float(c.get("y", "nan")), float(c.get("height", "nan"))) for c in shapes(chart, "column")
    ]
    assert found == [(100, 0), (50, 50), (0, 100)]


@pytest.mark.parametrize(
    ("greatest", "expected"),
    [(0, 2), (1, 2), (2, 2), (3, 3), (5, 5), (7, 8), (10, 10), (11, 12), (23, 24), (1131, 1200)],
)
def test_the_ceiling_is_a_round_number(greatest: int, expected: int) -> None:
    assert charts.ceiling(greatest) == expected


@pytest.mark.parametrize(
    "chart",
    [
        charts.bar(0.5, "high", mark=0.5),
        charts.spread(0.1, 0.2, 0.3, 0.5),
        charts.strip({"high": 1, "low": 2}),
        charts.columns([1, 2], [HOSTILE, HOSTILE], HOSTILE),
    ],
    ids=["bar", "spread", "strip", "columns"],
)
def test_no_chart_has_what_the_content_security_policy_or_a_reader_would_stumble_over(
    chart: Markup,
) -> None:
    assert "style=" not in chart
    assert "<script" not in chart
    root = ET.fromstring(chart)
    assert root.get("aria-hidden") == "true" or root.get("aria-label")


def test_a_title_that_is_hostile_stays_text() -> None:
    chart = charts.columns([1], [HOSTILE], HOSTILE)
    (column,) = shapes(chart, "column")
    assert column[0].text == HOSTILE
    assert ET.fromstring(chart).get("aria-label") == HOSTILE
