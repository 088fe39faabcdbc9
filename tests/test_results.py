"""The list of results in the ledger: what a filter finds, in what order, and how it is filled."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from many_results import root_with_results
from rig import Rig
from test_migrations import KILLED, killed_at, old_ledger
from xray_watcher.core.image_record import ImageRecord
from xray_watcher.core.result_keys import result_keys
from xray_watcher.effects import results
from xray_watcher.effects.results import FillResults
from xray_watcher.errors import Unavailable
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.results_queries import (
    Filter,
    Sort,
    check_whole,
    find_indexes,
    find_neighbours,
    missing_below,
    recent_sources,
)
from xray_watcher.records import from_jsonl

DROPS = {
    "a.jpg": "picture:Edema",
    "er/b.jpg": "picture:Fracture",
    "er/C.jpg": "picture:Edema#c",
    "d.jpg": "nan",
    "again.jpg": "picture:Edema",
    "ward/e.jpg": "picture:Effusion",
    "ward/f.jpg": "picture:Lung Lesion",
    "er/g.jpg": "words",
}
SORTS: tuple[Sort, ...] = ("newest", "score")
CHOICES: dict[str, tuple[str | None, ...]] = {
    "first_day": (None, "2026-11-24"),
    "last_day": (None, "2026-11-23"),
    "level": (None, "High", "Rejected"),
    "source": (None, "er", ""),
    "condition": (None, "Edema", "Effusion"),
    "label": (None, "Edema"),
    "flag": (None, "duplicate_of", "low_contrast"),
    "text": (None, "C.J"),
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("results") / "root")
    for name, content in DROPS.items():
        made.drop(name, content)
    made.settle()
    made.ticks(24 * 3600, 6 * 3600)
    for name, content in DROPS.items():
        made.drop(f"late/{name}", f"{content}#late")
    made.settle()
    yield made
    made.crash()


def records(ledger: LedgerReader) -> list[tuple[str, ImageRecord]]:
    """Day and record of every filed image."""
    rows = ledger.db.rows("SELECT day, jsonl FROM image JOIN record USING (idx) ORDER BY idx")
    return [(day, from_jsonl(line)) for day, line in rows]


def holds(wanted: Filter, day: str, record: ImageRecord) -> bool:
    """Whether an image belongs to a list, as its whole record tells."""
    scores = record.all_probs or {}
    return all((
        wanted.first_day is None or day >= wanted.first_day,
        wanted.last_day is None or day <= wanted.last_day,
        wanted.level in (None, record.risk_level),
        wanted.source in (None, record.source),
        wanted.condition is None or scores.get(wanted.condition, 0) >= 0.5,
        wanted.label in (None, record.top_label),
        wanted.flag is None or wanted.flag in record.flags,
        wanted.text is None or wanted.text.lower() in record.filename.lower(),
    ))  # fmt: skip


def order(sort: Sort, record: ImageRecord) -> tuple[int, ...]:
    rank = result_keys(record, {}).rank if sort == "score" else 0
    return (-rank, -record.index)


def test_every_filter_finds_what_the_records_hold_in_both_orders(rig: Rig) -> None:
    known = records(rig.ledger)
    sizes = set()
    for values in itertools.product(*CHOICES.values()):
        wanted = Filter(**dict(zip(CHOICES, values, strict=True)))
        for sort in SORTS:
            found = find_indexes(rig.ledger, wanted, 100, sort=sort)
            expected = [record for day, record in known if holds(wanted, day, record)]
            assert found == [r.index for r in sorted(expected, key=lambda r: order(sort, r))]
            sizes.add(len(found))
    assert {0, 1, 2, 16} <= sizes


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("wanted", [Filter(), Filter(level="High"), Filter(source="er")], ids=str)
def test_pages_join_forwards_and_backwards(rig: Rig, wanted: Filter, sort: Sort) -> None:
    whole = find_indexes(rig.ledger, wanted, 100, sort=sort)
    for size in (1, 3):
        for backwards in (False, True):
            seen = list[int]()
            while page := find_indexes(
                rig.ledger,
                wanted,
                size,
                sort=sort,
                after=seen[-1] if seen else None,
                backwards=backwards,
            ):
                seen += page
            assert seen == (whole[::-1] if backwards else whole)


@pytest.mark.parametrize("sort", SORTS)
def test_neighbours_are_those_of_the_list(rig: Rig, sort: Sort) -> None:
    wanted = Filter(level="High")
    whole = find_indexes(rig.ledger, wanted, 100, sort=sort)
    for before, index, after in zip([None, *whole], whole, [*whole[1:], None], strict=False):
        assert find_neighbours(rig.ledger, wanted, sort, index) == (before, after)


def test_the_sources_of_the_latest_images_are_offered(rig: Rig) -> None:
    assert recent_sources(rig.ledger) == ["", "er", "late", "ward"]


def test_an_image_is_in_the_list_exactly_when_it_is_filed(tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    rig = Rig(tmp_path, effects=(broken,))
    rig.drop("a.jpg", "picture:Edema")
    with pytest.raises(RuntimeError):
        rig.settle()
    assert find_indexes(rig.ledger, Filter(), 10) == []
    rig.crash()
    rig = Rig(tmp_path)
    rig.settle()
    assert find_indexes(rig.ledger, Filter(), 10) == [0]
    rig.crash()


# -- filling ------------------------------------------------------------------------------


def contents(path: str | Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return [
            *db.execute("SELECT * FROM result ORDER BY idx"),
            *db.execute("SELECT * FROM result_day ORDER BY day"),
        ]


def emptied(rig: Rig) -> str:
    """The ledger as the step to this version leaves it: nothing is in the list yet."""
    path = str(rig.root / "state" / "ledger.sqlite3")
    with rig.ledger.transaction():
        rig.ledger.db.execute("DELETE FROM result")
        rig.ledger.db.execute("DELETE FROM result_day")
        rig.ledger.set_meta("results_missing_below", str(rig.ledger.next_index))
    return path


def fill(path: str) -> None:
    ledger = Ledger(path)
    chore = FillResults(ledger, {})
    while chore.next_due_s <= 0:
        chore.refresh(0)
    ledger.close()


def rig_with_images(root: Path) -> Rig:
    made = Rig(root)
    for name, content in DROPS.items():
        made.drop(name, content)
    made.settle()
    return made


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Rig]:
    made = rig_with_images(tmp_path / "root")
    yield made
    made.crash()


def test_a_ledger_of_version_1_gets_its_list(tmp_path: Path) -> None:
    path = old_ledger(tmp_path / "ledger.sqlite3")
    fill(path)
    with LedgerReader.open(path) as ledger:
        filed = ledger.db.rows("SELECT idx FROM image WHERE state IN ('DONE', 'RETRIED')")
        assert sorted(find_indexes(ledger, Filter(), 100)) == sorted(idx for (idx,) in filed)
        assert missing_below(ledger) == 0


@pytest.mark.parametrize("size", [1, 3, 8, 500])
def test_slices_make_the_same_list_as_filing(
    filled: Rig, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(results, "_A_SLICE", size)
    path = emptied(filled)
    assert contents(path) == []
    before = rig_with_images(filled.root.parent / "other")
    before.crash()
    fill(path)
    assert contents(path) == contents(before.root / "state" / "ledger.sqlite3")


def test_the_newest_come_first_and_the_list_says_what_is_missing(
    filled: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_A_SLICE", 3)
    emptied(filled)
    chore = FillResults(filled.ledger, {})
    with pytest.raises(Unavailable, match="below the index 8 are not in it yet"):
        check_whole(filled.ledger)
    chore.refresh(0)
    assert find_indexes(filled.ledger, Filter(), 100) == [7, 6, 5]
    assert missing_below(filled.ledger) == 5


def test_images_are_filed_while_the_list_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_A_SLICE", 1)
    path = emptied(rig := rig_with_images(tmp_path))
    rig.crash()
    rig = Rig(tmp_path, chores=lambda rig: [FillResults(rig.ledger, {})])
    rig.drop("new.jpg", "picture:Edema#new")
    rig.settle()
    rig.ticks(10)
    rig.crash()
    with LedgerReader.open(path) as ledger:
        assert find_indexes(ledger, Filter(), 100) == [8, 7, 6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_a_kill_while_the_list_is_filled_leaves_nothing_out(
    filled: Rig, monkeypatch: pytest.MonkeyPatch, when: str, statement: str
) -> None:
    monkeypatch.setattr(results, "_A_SLICE", 3)
    whole = contents(path := str(filled.root / "state" / "ledger.sqlite3"))
    emptied(filled)
    assert killed_at(f"{when} {statement}", lambda: fill(path)) == KILLED
    with LedgerReader.open(path) as ledger:
        in_list = len(find_indexes(ledger, Filter(), 100))
    assert in_list == (3 if (when, statement) == ("after", "COMMIT") else 0)
    fill(path)
    assert contents(path) == whole


def test_a_record_that_nobody_can_read_keeps_no_other_out(filled: Rig) -> None:
    path = emptied(filled)
    filled.ledger.db.execute("UPDATE record SET jsonl = x'7b' WHERE idx = 4")
    fill(path)
    assert find_indexes(filled.ledger, Filter(), 100) == [7, 6, 5, 3, 2, 1, 0]


# -- very many ----------------------------------------------------------------------------

ROWS = 200_000
CPU_S = 0.04  # a fifth of the 0.2 s that a page of 1,000,000 may take


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerReader]:
    path = root_with_results(tmp_path_factory.mktemp("many") / "root", ROWS, records=False)
    with LedgerReader.open(path) as ledger:
        yield ledger


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize(
    ("wanted", "allowed_s"),
    [
        (Filter(), CPU_S),
        (Filter(level="High", first_day="2026-11-24", last_day="2026-11-30"), CPU_S),
        (Filter(source="icu", condition="Edema"), CPU_S),
        (Filter(flag="retry_of"), CPU_S),
        (Filter(source="nowhere", level="Low"), CPU_S),
        (Filter(text="nobody"), 5 * CPU_S),
    ],
    ids=str,
)
def test_any_first_page_is_quick_whatever_it_finds(
    many: LedgerReader, wanted: Filter, allowed_s: float, sort: Sort
) -> None:
    taken_s = []
    for _ in range(5):
        began_s = time.thread_time()
        find_indexes(many, wanted, 2_050, sort=sort)
        taken_s.append(time.thread_time() - began_s)
    assert min(taken_s) < allowed_s
