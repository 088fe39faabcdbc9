"""Small charts as SVG, made on the server: no script, no style attribute, nothing from elsewhere.

Every chart fills its box at any width. Its words and numbers stand beside it as HTML, where they
keep their size and a screen reader finds them. The style sheet has the colours, by class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from markupsafe import Markup

_BAR_HEIGHT = 10
_COLUMN_WIDTH = 10
_COLUMN_GAP = 2
_COLUMNS_HEIGHT = 100

_STEPS = (10, 12, 16, 20, 24, 30, 40, 50, 60, 80)  # tenths of a power of ten

_BAR = Markup(
    '<svg class="bar" viewBox="0 0 100 {height}" preserveAspectRatio="none" aria-hidden="true"'
    ' focusable="false">{shapes}</svg>'
)
_RECT = Markup('<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>')
_MARK = Markup('<line class="mark" x1="{x:g}" x2="{x:g}" y1="0" y2="{height}"/>')
_COLUMNS = Markup(
    '<svg class="columns" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img"'
    ' aria-label="{label}" focusable="false">{shapes}</svg>'
)
_COLUMN = Markup(
    '<rect class="column" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}">'
    "<title>{title}</title></rect>"
)
_GRID_LINE = Markup('<line class="grid" x1="0" x2="{width}" y1="{y:g}" y2="{y:g}"/>')


def bar(share: float, kind: str = "plain", mark: float | None = None) -> Markup:
    """A horizontal bar.

    Args:
        share: its length, in 0..1.
        kind: a class for its colour, such as "high".
        mark: where a line is drawn across it, in 0..1; None draws none.
    """
    shapes = [_rect("track", 0, 100), _rect(f"fill {kind}", 0, 100 * _within(share))]
    if mark is not None:
        shapes.append(_MARK.format(x=100 * _within(mark), height=_BAR_HEIGHT))
    return _BAR.format(height=_BAR_HEIGHT, shapes=Markup().join(shapes))


def spread(low: float, middle: float, high: float, mark: float) -> Markup:
    """Where the middle half of many values lies, and their median.

    Args:
        low, middle, high: the quartiles, in 0..1.
        mark: where a line is drawn for comparison, in 0..1.
    """
    width = max(100 * (high - low), 0.5)  # all alike still shows
    shapes = [
        _rect("track", 0, 100),
        _rect("fill spread", 100 * low, width),
        _MARK.format(x=100 * _within(mark), height=_BAR_HEIGHT),
        _rect("median", max(100 * middle - 0.6, 0), 1.2),
    ]
    return _BAR.format(height=_BAR_HEIGHT, shapes=Markup().join(shapes))


def strip(counts: Mapping[str, int]) -> Markup:
    """One bar of several parts, each as wide as its share of the whole.

    Args:
        counts: by kind, which is also the class of its colour.
    """
    total = sum(counts.values())
    if not total:
        return _BAR.format(height=_BAR_HEIGHT, shapes=_rect("track", 0, 100))
    ends = [100 * end / total for end in accumulate(counts.values())]
    starts = [0.0, *ends]
    shapes = (
        _rect(f"fill {kind}", start, end - start)
        for kind, start, end in zip(counts, starts, ends, strict=False)
        if end > start
    )
    return _BAR.format(height=_BAR_HEIGHT, shapes=Markup().join(shapes))


def columns(values: Sequence[int], titles: Sequence[str], label: str) -> Markup:
    """Upright columns side by side, as high as `ceiling` of their greatest at most.

    Args:
        values: 0 or more each.
        titles: tool tips of the columns.
        label: the whole in words, for a screen reader.
    """
    top = ceiling(max(values, default=0))
    width = len(values) * _COLUMN_WIDTH
    lines = (_GRID_LINE.format(width=width, y=y) for y in (0, _COLUMNS_HEIGHT / 2, _COLUMNS_HEIGHT))
    heights = (value / top * _COLUMNS_HEIGHT for value in values)
    shapes = (
        _COLUMN.format(
            x=number * _COLUMN_WIDTH + _COLUMN_GAP / 2,
            y=_COLUMNS_HEIGHT - height,
            width=_COLUMN_WIDTH - _COLUMN_GAP,
            height=height,
            title=title,
        )
        for number, (height, title) in enumerate(zip(heights, titles, strict=True))
    )
    return _COLUMNS.format(
        width=width, height=_COLUMNS_HEIGHT, label=label, shapes=Markup().join((*lines, *shapes))
    )


def ceiling(greatest: int) -> int:
    """The round number at or above the greatest value; at least 2."""
    power = 1
    while True:
        for step in _STEPS:
            top = step * power // 10
            if step * power % 10 == 0 and top >= max(greatest, 2):
                return top
        power *= 10


def _rect(kind: str, x: float, width: float) -> Markup:
    return _RECT.format(kind=kind, x=x, y=0, width=width, height=_BAR_HEIGHT)


def _within(share: float) -> float:
    return min(max(share, 0.0), 1.0)
