"""Progress bars for long work at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


@contextmanager
def progress_bar(*, total: int | None, unit: str, scale: bool = False) -> Iterator[Any]:
    """A bar on stderr that is removed at its end; silent when that is no terminal.

    `unit` is what is counted, with a space before it; `scale` writes large numbers as k, M, G.
    """
    with tqdm(total=total, unit=unit, unit_scale=scale, disable=None, leave=False) as bar:
        yield bar
