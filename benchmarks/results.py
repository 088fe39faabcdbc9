"""How long the first page of the list of results takes with a million records.

    python benchmarks/results.py --rows 1000000

Times are of the whole page, rendered, in milliseconds: the median of five, the processor's share of
it, and once with nothing of the ledger in the page cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.extend(str(Path(__file__).parents[1] / "tests" / part) for part in ("", "web"))

from asgi import call

from many_results import root_with_results
from rig import HandClock
from xray_watcher.config.settings import Settings
from xray_watcher.web.app import create_app

PAGES = {
    "all, newest": "",
    "all, by score": "sort=score",
    "level": "level=High",
    "level, by score": "level=High&sort=score",
    "one day": "day=2026-11-25",
    "a week of a source, High": "from=2026-11-24&to=2026-11-30&source=icu&level=High",
    "source, by score": "source=ward-7&sort=score",
    "condition": "condition=Edema",
    "highest condition and source": "label=Fracture&source=emergency",
    "flag": "flag=low_contrast",
    "flag that none has": "flag=retry_of",
    "source that none has": "source=nowhere",
    "nothing, by score": "flag=retry_of&source=nowhere&sort=score",
    "name, many": "q=edema",
    "name, one": "q=0012345-",
    "name, none, by score": "q=nobody&sort=score",
}


def times(rows: int) -> Iterator[tuple[str, float, float, float]]:
    """Title of a page; milliseconds on the clock, of the processor, and from a cold disk."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        ledger = root_with_results(root, rows, records=True)
        app = create_app(Settings(root=str(root), state_dir=str(root / "state")), HandClock())

        def measured(query: str) -> tuple[float, float]:
            began_s, cpu_s = time.monotonic(), time.process_time()
            answer = call(app, "GET", f"/results?{query}")
            assert answer.status == 200, answer.body
            return (time.monotonic() - began_s) * 1000, (time.process_time() - cpu_s) * 1000

        for title, query in PAGES.items():
            _forget(ledger)
            cold_ms, _ = measured(query)
            found = [measured(query) for _ in range(5)]
            yield title, *(statistics.median(each) for each in zip(*found, strict=True)), cold_ms


def _forget(path: str) -> None:
    """Take the file out of the page cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    print(f"{'first page of ' + format(options.rows, ','):34}{'ms':>8}{'cpu ms':>8}{'cold ms':>9}")
    for title, clock, cpu, cold in times(options.rows):
        print(f"{title:34}{clock:8.0f}{cpu:8.0f}{cold:9.0f}")


if __name__ == "__main__":
    main()
