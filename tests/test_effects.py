"""What follows from a filing is committed with it, or neither is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import audit
from rig import Rig
from xray_watcher.core.notices import Notice, Subscriptions
from xray_watcher.core.tally import CLASSIFIED, REJECTED, Tally
from xray_watcher.core.times import to_us
from xray_watcher.ledger.effect import Commit, Filing
from xray_watcher.records import to_jsonl

SUBSCRIPTIONS = Subscriptions({"mail": ("high", "rejected"), "hook": ("high",)})


class Killed(BaseException):
    """Stands for SIGKILL."""


class Failing:
    """An effect that adds something, and then fails until it is cured."""

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error
        self.seen: list[Filing] = []

    def __call__(self, filing: Filing, commit: Commit) -> None:
        self.seen.append(filing)
        commit.add_to_tally(Tally({("mine", "", ""): len(filing.records)}))
        commit.add_notices([Notice("mail", "mine", to_us(filing.filed_at), "")])
        if self.error is not None:
            raise self.error


def committed(root: Path, sql: str) -> list[tuple[object, ...]]:
    """What another process sees."""
    with closing(sqlite3.connect(root / "state" / "ledger.sqlite3")) as db:
        return db.execute(sql).fetchall()


def test_totals_and_notices_of_filed_images_are_in_the_ledger(tmp_path: Path) -> None:
    rig = Rig(tmp_path, subscriptions=SUBSCRIPTIONS)
    rig.drop("a.jpg", "picture:Edema")
    rig.drop("b.jpg", "words")
    rig.settle()
    totals = rig.ledger.totals()
    assert totals.tally[CLASSIFIED, "High", ""] == 1
    assert totals.tally[REJECTED, "corrupt", ""] == 1
    assert sorted(committed(tmp_path, "SELECT channel, event, subject FROM notice")) == [
        ("hook", "high", "0"), ("mail", "high", "0"), ("mail", "rejected", "1"),
    ]  # fmt: skip


def test_one_more_effect_costs_no_further_commit(tmp_path: Path) -> None:
    counts = []
    for name, effects in (("few", ()), ("more", (lambda *_: None, lambda *_: None))):
        rig = Rig(tmp_path / name, subscriptions=SUBSCRIPTIONS, effects=effects)
        statements: list[str] = []
        rig.ledger.db.sqlite.set_trace_callback(statements.append)
        rig.drop("a.jpg", "picture:Edema")
        rig.settle()
        counts.append(statements.count("COMMIT"))
        rig.crash()
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("error", [KeyError("level"), Killed()])
def test_an_effect_that_fails_is_heard_and_no_filing_is_lost(
    tmp_path: Path, error: BaseException
) -> None:
    effect = Failing(error)
    rig = Rig(tmp_path, subscriptions=SUBSCRIPTIONS, effects=(effect,))
    arrived = [rig.drop("a.jpg", "picture:Edema"), rig.drop("b.jpg", "words")]
    with pytest.raises(type(error)):
        rig.settle()
    assert committed(tmp_path, "SELECT DISTINCT state FROM image") == [("FILING",)]
    assert committed(tmp_path, "SELECT * FROM notice") == []
    assert committed(tmp_path, "SELECT * FROM tally WHERE series IN ('mine', 'classified')") == []
    effect.error = None
    carry_on(rig, tmp_path, effect)
    filed = audit.filed(tmp_path).values()
    assert {path.name: path.read_bytes() for path in filed} == dict(
        zip(("0000_a.jpg", "0001_b.jpg"), arrived, strict=True)
    )
    assert committed(tmp_path, "SELECT value FROM tally WHERE series = 'mine'") == [(2.0,)]
    assert committed(tmp_path, "SELECT count(*) FROM notice WHERE event = 'mine'") == [(1,)]
    assert [record["index"] for record in audit.jsonl_records(tmp_path)] == [0, 1]
    written = [json.loads(to_jsonl(record)) for record in effect.seen[-1].records]
    assert written == audit.jsonl_records(tmp_path)


def carry_on(rig: Rig, root: Path, effect: Callable[[Filing, Commit], None]) -> None:
    """Start again, as the outer process does."""
    rig.crash()
    again = Rig(root, subscriptions=SUBSCRIPTIONS, effects=(effect,))
    again.settle()
    again.crash()
