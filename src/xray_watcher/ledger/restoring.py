"""Takes back into a restored ledger the records that the logs hold and it does not.

A ledger that comes back from a backup knows nothing of what was filed since; the logs do. They are
projections of the ledger, so the service would keep them aside as somebody's and write them anew,
and the day's CSV would be short. Instead, what stands in both logs of a day, whole, paired and as
this program writes it, becomes rows and records again, all in one commit. A log in which anything
else stands is left to the rule for logs that somebody has edited.
"""

from __future__ import annotations

import base64
import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile

import structlog

from xray_watcher.core.image_record import ImageRecord
from xray_watcher.core.tally import Tally, tally_image
from xray_watcher.core.times import to_us
from xray_watcher.core.values import DUPLICATES_FOLDER, REJECTED_FOLDER
from xray_watcher.errors import Unavailable
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.restored import NotOurs, Restored
from xray_watcher.ledger.results_queries import MISSING_BELOW
from xray_watcher.ledger.rows import LogLine
from xray_watcher.ledger.states import State
from xray_watcher.ledger.used_indexes import last_index_in
from xray_watcher.records import (
    CSV_COLUMNS,
    FIRST_CSV_COLUMNS,
    SCHEMA,
    CsvLayout,
    from_jsonl,
    to_jsonl,
)
from xray_watcher.system.files import names_in

_LOG = re.compile(r"(results-\d{4}-\d\d-\d\d(?:\.\d+)?)\.jsonl", re.ASCII)
_DAY = len("results-2026-11-23")
_TIMES = ("classified_at", "received_at")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Pair:
    """One record as both logs hold it; `day` is the local day on which it was received."""

    record: ImageRecord
    jsonl: bytes
    csv: bytes
    day: str

    @property
    def index(self) -> int:
        return int(self.record.index)  # a line that somebody wrote may hold a text


@dataclass(slots=True)
class _Taken:
    """What has been taken back, and what follows from it."""

    records: int = 0
    beyond: int = 0
    tally: Tally = field(default_factory=Tally)
    days: set[str] = field(default_factory=set)
    retried: list[int] = field(default_factory=list)


def logs_ahead(ledger: LedgerReader, folder: str) -> list[str]:
    """Names of the logs that hold records with indexes that the ledger has not given yet.

    Args:
        ledger: is asked last: a service decides before it logs.
        folder: of the logs.

    Raises:
        OSError: a log cannot be read.
    """
    found = sorted(match[1] for name in names_in(folder) if (match := _LOG.fullmatch(name)))
    last = {name: last_index_in(os.path.join(folder, f"{name}.jsonl")) for name in found}
    return [name for name in found if last[name] >= ledger.next_index]


def take_back(ledger: Ledger, folder: str) -> int:
    """Take back what the logs hold and the ledger does not; nothing in all but restored ledgers.

    A ledger that knows no image at all takes back the newest day only: years would take long.

    Args:
        ledger: is written.
        folder: of the logs.

    Returns:
        How many records.

    Raises:
        Unavailable: a log cannot be read, or the disk of the ledger is full; nothing was changed.
    """
    try:
        names = logs_ahead(ledger, folder)
        if ledger.next_index == 0:
            names = [name for name in names if name[:_DAY] == names[-1][:_DAY]]
        return _take_back(ledger, folder, names) if names else 0
    except OSError as error:
        raise Unavailable(
            "logs", f"The logs in {folder} cannot be read ({os.strerror(error.errno or 0)})."
        ) from error


def _take_back(ledger: Ledger, folder: str, names: Sequence[str]) -> int:
    restored, first = Restored(ledger), ledger.next_index
    with ledger.transaction():
        taken = [_take_log(restored, folder, name, first) for name in names]
        for each in taken:
            restored.mark_retried(each.retried)
            restored.open_days(each.days)
            ledger.add_to_tally(each.tally)
        beyond = str(max([first, *(each.beyond for each in taken)]))
        ledger.set_meta("next_index", beyond)
        ledger.set_meta(MISSING_BELOW, beyond)
    records = sum(each.records for each in taken)
    _log.warning("records are taken back from the logs", code="records_restored", records=records)
    return records


def _take_log(restored: Restored, folder: str, name: str, first: int) -> _Taken:
    """Take back one log, or nothing of it if anything in it was not written by this program."""
    taken = _Taken()
    try:
        with restored.log(name, _header(folder, name)):
            for pair in _pairs(folder, name):
                line = LogLine(pair.index, name, pair.jsonl, pair.csv)
                if pair.index >= first:
                    restored.insert(line, _columns_of(pair))
                elif not restored.finish(line, _us(pair.record.classified_at)):
                    continue
                _count(pair, taken)
    except NotOurs:
        _log.warning(
            "a log is not taken back: it was changed, or has other columns",
            code="log_not_restored",
            name=name,
        )
        return _Taken()
    return taken


def _count(pair: _Pair, taken: _Taken) -> None:
    record = pair.record
    waited_us = _us(record.classified_at) - _us(record.received_at)
    tally_image(taken.tally, record, waited_us / 1e6)
    taken.records += 1
    taken.beyond = max(taken.beyond, pair.index + 1)
    taken.days.add(pair.day)
    if record.retry_of is not None:
        taken.retried.append(record.retry_of)


def _columns_of(pair: _Pair) -> dict[str, object]:
    """The row of the table `image` that a record stands for."""
    record = pair.record
    try:
        received_us, saved = _us(record.received_at), record.saved_path
        code = None if record.rejected is None else record.rejected.code
        return {
            "state": State.DONE,
            "path": _path_of(record),
            "size": int(record.bytes),
            "received_us": received_us,
            "settled_us": received_us + round(record.timings_ms.settle * 1000),
            "day": pair.day,
            "attempts": 1,
            "sha256": record.sha256 and bytes.fromhex(record.sha256),
            "idx": pair.index,
            "outcome": "classified" if code is None else "rejected",
            "level": record.risk_level if code is None else None,
            "top_label": record.top_label,
            "reject_code": code,
            "folder": None if saved is None else _folder_of(record.risk_level, code),
            "filed_name": None if saved is None else os.path.basename(saved),
            "filed_us": _us(record.classified_at),
            "retry_of": record.retry_of,
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise NotOurs from error


def _path_of(record: ImageRecord) -> bytes:
    if record.inbox_path_b64 is not None:
        return base64.b64decode(record.inbox_path_b64, validate=True)
    return os.fsencode(record.inbox_path)


def _folder_of(level: str, code: str | None) -> str:
    if code is None:
        return level
    return DUPLICATES_FOLDER if code == "duplicate" else REJECTED_FOLDER


def _us(text: str) -> int:
    return to_us(datetime.fromisoformat(text))


def _header(folder: str, name: str) -> bytes:
    try:
        with open(os.path.join(folder, f"{name}.csv"), "rb") as rows:
            return rows.readline()
    except FileNotFoundError as error:
        raise NotOurs from error


def _pairs(folder: str, name: str) -> Iterator[_Pair]:
    """The records of a log, in order; what a kill has torn off at the end of either is left out.

    Raises:
        NotOurs: the logs hold something else, or not the same images.
    """
    path, before = os.path.join(folder, name), -1
    with open(f"{path}.jsonl", "rb") as lines, open(f"{path}.csv", "rb") as rows:
        columns = next(csv.reader([_text(rows.readline()).removeprefix("\ufeff")]), [])
        layout = _layout(columns)
        for line, row in zip(lines, rows, strict=False):
            if not (line.endswith(b"\n") and row.endswith(b"\r\n")):
                return
            pair = _paired(line, row, columns, layout)
            if pair.index <= before:
                raise NotOurs
            before = pair.index
            yield pair


def _layout(columns: Sequence[str]) -> CsvLayout:
    """The layout of a log with these columns; one of an older version lacks the newest ones.

    Raises:
        NotOurs: no version of this program has written it.
    """
    pairs = zip(columns, CSV_COLUMNS, strict=False)
    fixed = [ours for _, ours in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    if len(fixed) < FIRST_CSV_COLUMNS:
        raise NotOurs
    return CsvLayout(columns[len(fixed) :], UTC, fixed)


def _paired(line: bytes, row: bytes, columns: Sequence[str], layout: CsvLayout) -> _Pair:
    try:
        record = from_jsonl(line)
        cells, expected = _cells(row, columns), _cells(layout.row(record), columns)
        if record.schema != SCHEMA or to_jsonl(record) != line or cells != expected:
            raise NotOurs
        (received_at,) = (cell for name, cell in _named(row, columns) if name == "received_at")
        day = datetime.fromisoformat(received_at).date().isoformat()
    except (AttributeError, TypeError, ValueError, csv.Error) as error:
        raise NotOurs from error
    return _Pair(record, line, row, day)


def _cells(row: bytes, columns: Sequence[str]) -> list[str | datetime]:
    """The cells of a row; local times as moments, for the zone may have been another."""
    named = _named(row, columns)
    return [datetime.fromisoformat(cell) if name in _TIMES else cell for name, cell in named]


def _named(row: bytes, columns: Sequence[str]) -> list[tuple[str, str]]:
    (values,) = csv.reader([_text(row)])
    return list(zip(columns, values, strict=True))


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise NotOurs from error
