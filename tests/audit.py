"""An auditor's own reading of the folders and logs: nothing of the product's code is used."""

from __future__ import annotations

import csv
import hashlib
import json
import traceback
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LEVELS = ("High", "Medium", "Low")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def filed(root: Path) -> dict[str, Path]:
    """Every filed image by its path; reasons and hidden files are not images."""
    folders = [*(root / "classified_images" / level for level in LEVELS), root / "rejected"]
    folders += [root / "duplicates", root / ".xray-watcher" / "unread"]
    return {
        str(path): path
        for folder in folders
        for path in (folder.iterdir() if folder.exists() else ())
        if not path.name.startswith(".") and path.suffix != ".json"
    }


def jsonl_records(root: Path) -> list[dict[str, Any]]:
    """The records of a service that has stopped or is at rest: a torn line is a fault."""
    content = b"".join(log.read_bytes() for log in _logs(root, "jsonl"))
    assert not content or content.endswith(b"\n"), "the JSONL ends in a torn line"
    return [json.loads(line) for line in content.splitlines()]


def logged(root: Path) -> list[dict[str, Any]]:
    """The records of a service that may be writing now: those that stand whole in both logs."""
    lines = b"".join(log.read_bytes() for log in _logs(root, "jsonl")).splitlines(keepends=True)
    rows = sum(max(0, log.read_bytes().count(b"\r\n") - 1) for log in _logs(root, "csv"))
    return [json.loads(line) for line in lines[:rows] if line[-1:] == b"\n"]


def _logs(root: Path, form: str) -> list[Path]:
    """In the order in which they were begun: a day's second part behind its first."""
    return sorted((root / "logs").glob(f"results-*.{form}"), key=lambda log: log.with_suffix(""))


def csv_rows(root: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for log in _logs(root, "csv"):
        content = log.read_bytes()
        assert content.startswith(b"\xef\xbb\xbf"), "Excel knows UTF-8 by its byte-order mark"
        assert content.endswith(b"\r\n"), "the CSV ends in a torn row"
        lines = content.decode("utf-8-sig").splitlines(keepends=True)
        found = list(csv.DictReader(lines))
        assert len(found) == len(lines) - 1, "a row of the CSV has more than one line"
        rows += found
    return rows


def check(root: Path, arrived: Iterable[bytes], *, inbox: Path | None = None) -> None:
    """Every arrived file is found once in the folders, once in each log, under one index."""
    expected = Counter(sha256(content) for content in arrived)
    records, rows, files = jsonl_records(root), csv_rows(root), filed(root)
    left = [path for path in (inbox or root / "inbox").rglob("*.*g") if path.is_file()]
    assert not left, "files are left in the inbox"
    _check_same(Counter(sha256(path.read_bytes()) for path in files.values()), expected, "filed")
    told = [record["sha256"] or _unread(root, record, files) for record in records]
    _check_same(Counter(told), expected, "in the JSONL")
    assert [row["sha256"] or None for row in rows] == [record["sha256"] for record in records]
    assert [int(row["index"]) for row in rows] == [record["index"] for record in records]
    assert len({record["index"] for record in records}) == len(records), "an index stands twice"
    saved = [str(root / record["saved_path"]) for record in records]  # outside of it, absolute
    assert sorted(saved) == sorted(files)
    for path, record, row in zip(saved, records, rows, strict=True):
        _check_record(record, row, files[path])


UNREAD = ("unreadable", "too_large")
"""Rejections for which nobody has to have read the file."""


def _unread(root: Path, record: dict[str, Any], files: dict[str, Path]) -> str | None:
    """The hash of a file that was rejected unread."""
    if record["saved_path"] is None or record["rejected"]["code"] not in UNREAD:
        return None
    return sha256(files[str(root / record["saved_path"])].read_bytes())


def _check_same(
    found: Counter[str | None] | Counter[str], expected: Counter[str], where: str
) -> None:
    lost, extra = expected - found, found - expected
    assert not lost + extra, f"{where}: lost {dict(lost)}, too many {dict(extra)}"


def _check_record(record: dict[str, Any], row: dict[str, str], file: Path) -> None:
    assert (record["sha256"] or "") == row["sha256"]
    assert record["sha256"] in (None, sha256(file.read_bytes()))
    assert file.name.startswith(f"{record['index']:04d}_")
    assert record["risk_level"] == row["risk_level"]
    if "rejected" in record:
        reason = json.loads(file.with_name(file.name + ".json").read_text())
        assert reason["rejected"] == record["rejected"]
        assert record["risk_level"] == "Rejected"
    else:
        assert file.parent.name == record["risk_level"]


def check_indexes(root: Path) -> None:
    """The indexes are 0 to N-1 in the order of the log.

    So it is unless an image had to be decided anew (its writer went on, its name was taken), or
    an older ledger was restored: an index that was given is never given again.
    """
    indexes = [record["index"] for record in jsonl_records(root)]
    assert indexes == list(range(len(indexes))), f"the indexes have gaps: {indexes}"


def check_nothing_else(root: Path, *more: Path) -> None:
    """No half-made file is left: all that lies there is an image, a reason, a log or a summary."""
    known = set(filed(root)) | {str(root / ".xray-watcher" / n) for n in ("owner.json", "lock")}
    known |= {str(path) for path in root.glob("rejected/*.json")}
    known |= {str(path) for path in (root / "logs").rglob("*") if not path.name.startswith(".")}
    found = {str(path) for top in (root, *more) for path in top.rglob("*") if path.is_file()}
    assert found <= known, f"left behind: {sorted(found - known)[:3]}"


def check_summary(root: Path, day: str, received: int) -> dict[str, Any]:
    """The day's summary balances and counts what the logs hold."""
    summary: dict[str, Any] = json.loads((root / "logs" / "daily" / f"{day}.json").read_text())
    records = jsonl_records(root)
    assert summary["received"] == received
    parts = summary["classified"] + summary["rejected"] + summary["pending"]
    assert summary["received"] == parts
    assert summary["rejected"] == sum("rejected" in record for record in records)
    assert sum(summary["by_level"].values()) == summary["classified"]
    return summary


def named(error: AssertionError) -> str:
    """What was broken, in one line; an assertion without words is named by its source."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (str(error).splitlines() or [frame.line or f"{frame.filename}:{frame.lineno}"])[0]
