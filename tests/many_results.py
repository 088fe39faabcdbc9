"""A ledger with very many results, made from a few by SQL."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from rig import LABELS, Rig

SOURCES = ("icu", "emergency", *(f"ward-{number}" for number in range(1, 19)))
A_DAY = 10_000

_NUMBERS = (
    "(WITH RECURSIVE number (n) AS (SELECT :few UNION ALL SELECT n + 1 FROM number"
    " WHERE n + 1 < :rows) SELECT n, n % :few AS base FROM number)"
)
_IMAGES = (
    "INSERT INTO image (state, path, size, received_us, settled_us, day, attempts, sha256, idx,"
    " outcome, level, top_label, reject_code, folder, filed_name, filed_us)"
    " SELECT state, path, size, received_us, settled_us,"
    " date('2026-11-23', (n / :a_day) || ' days'),"
    " attempts, randomblob(32), n, outcome, level, top_label, reject_code, folder, filed_name,"
    f" filed_us FROM {_NUMBERS} JOIN image ON idx = base"
)
_RECORDS = (
    "INSERT INTO record SELECT n, log, CAST(json_set(CAST(jsonl AS TEXT), '$.index', n)"
    f" || char(10) AS BLOB), csv FROM {_NUMBERS} JOIN record ON idx = base"
)
_RESULTS = (
    "INSERT INTO result SELECT n, date('2026-11-23', (n / :a_day) || ' days'),"
    " rank / 1000000 * 1000000 + abs(random() % 1000000), top, present, flags, source,"
    f" printf('%07d-%s', n, name) FROM {_NUMBERS} JOIN result ON idx = base"
)
_DAYS = "INSERT OR REPLACE INTO result_day SELECT day, min(idx), max(idx) FROM result GROUP BY day"


def root_with_results(root: Path, rows: int, *, records: bool) -> str:
    """File an image of each kind from each source, and repeat them.

    Args:
        root: is made.
        rows: how many there are in the end.
        records: whether the repeated ones have records too, some kilobytes each.

    Returns:
        The path of the ledger.
    """
    rig = Rig(root)
    for number, source in enumerate(SOURCES):
        for label in LABELS:
            rig.drop(f"{source}/chest-{label}.png", f"picture:{label}#{number}")
    rig.drop("nothing.png", "nan")
    rig.settle()
    few = rig.ledger.next_index
    rig.crash()
    path = str(root / "state" / "ledger.sqlite3")
    with closing(sqlite3.connect(path)) as db, db:
        values = {"few": few, "rows": rows, "a_day": A_DAY}
        for sql in (_IMAGES, *([_RECORDS] if records else []), _RESULTS):
            db.execute(sql, values)
        db.execute(_DAYS)
        db.execute("UPDATE meta SET value = ? WHERE key = 'next_index'", (str(rows),))
    return path
