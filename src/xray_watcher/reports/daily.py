"""The daily summary: `logs/daily/DATE.json` and `.md`, folded from the ledger."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta, tzinfo
from typing import Any

from xray_watcher.core.naming import safe_name
from xray_watcher.core.notices import NO_SUBSCRIPTIONS, Notice, Subscriptions
from xray_watcher.core.summary import DayEntry, DayFigures
from xray_watcher.core.times import from_us, local_day, to_us
from xray_watcher.errors import Unavailable
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.rows import DayImage
from xray_watcher.records import NOTICE, SIMULATIONS, from_jsonl
from xray_watcher.system.clock import Clock
from xray_watcher.system.files import write_whole
from xray_watcher.system.mounts import GuardedFolder

Summary = dict[str, Any]

_MODE = 0o640
_LONGEST_WAIT = timedelta(days=3)  # a file that is never taken must not keep its day open for ever


def day_summary(
    ledger: LedgerReader, day: str, *, today: str, waiting_in_inbox: int = 0
) -> Summary:
    """The figures of one local day, as 2026-11-23, as they are now.

    A day before today is closed when nothing of it is pending or waits in the inbox.
    """
    return _RunningDay(day).summary(ledger, today, waiting_in_inbox if day == today else 0)


class _RunningDay:
    """The figures of one day, which follow the ledger: what is finished never changes."""

    def __init__(self, day: str) -> None:
        self._day = day
        self._figures = DayFigures(day)
        self._last_index = -1

    def summary(self, ledger: LedgerReader, today: str, waiting_in_inbox: int) -> Summary:
        for image in ledger.day_finished(self._day, after=self._last_index):
            self._figures.add(_finished(image))
            self._last_index = image.idx if image.idx is not None else self._last_index
        pending = [_pending(image) for image in ledger.day_pending(self._day)]
        closed = self._day < today and not pending and not waiting_in_inbox
        summary = self._figures.summary(pending, closed=closed, waiting_in_inbox=waiting_in_inbox)
        removed = ledger.day_removed(self._day) if closed else 0
        return summary | {"removed_by_retention": removed}


class DailySummaries:
    """Keeps the summary files of the days that are not closed up to date.

    Args:
        ledger: the truth.
        folder: where the files go; its parent must exist.
        every_s: at most this often, in seconds.
        zone: local time zone; None is the system's.
        clock: the time.
        waiting_in_inbox: returns how many files are there and not claimed.
        audience: the channels that a day's figures are sent to.
        first_seen_s: returns when each of those files that may be taken was first seen, on the
            monotonic clock. Their day waits for them: below the low-water mark they may lie there
            over midnight.
    """

    def __init__(
        self,
        ledger: Ledger,
        folder: str,
        every_s: float,
        zone: tzinfo | None,
        clock: Clock,
        waiting_in_inbox: Callable[[], int],
        subscriptions: Subscriptions = NO_SUBSCRIPTIONS,
        first_seen_s: Callable[[], Iterable[float]] = tuple,
    ) -> None:
        self._ledger = ledger
        self._folder = folder
        self._place = GuardedFolder(folder)
        self._every_s = every_s
        self._zone = zone
        self._clock = clock
        self._waiting_in_inbox = waiting_in_inbox
        self._subscriptions = subscriptions
        self._first_seen_s = first_seen_s
        self._next_s = float("-inf")
        self._days: dict[str, _RunningDay] = {}
        self._written: dict[str, Summary] = {}

    @property
    def next_due_s(self) -> float:
        """When the files are looked at again, on the monotonic clock."""
        return self._next_s

    def refresh(self, now_s: float) -> None:
        """Rewrite what has changed, unless that was done less than `every_s` ago.

        Raises:
            Unavailable: the files cannot be written.
        """
        if now_s >= self._next_s:
            self.write()
            self._next_s = now_s + self._every_s

    def write(self) -> None:
        """Rewrite what has changed.

        Raises:
            Unavailable: the files cannot be written.
        """
        today = local_day(self._clock.now(), self._zone)
        days = self._ledger.days_to_summarise(today)
        waiting = self._seen_on() if days != [today] else Counter[str]()
        waiting[today] = self._waiting_in_inbox()
        for day in days:
            self._write_day(day, today, waiting[day])

    def _seen_on(self) -> Counter[str]:
        """How many of the files that wait were first seen on each day."""
        now, now_s = self._clock.now(), self._clock.monotonic_s()
        ages = (timedelta(seconds=now_s - seen_s) for seen_s in self._first_seen_s())
        return Counter(local_day(now - age, self._zone) for age in ages if age < _LONGEST_WAIT)

    def _write_day(self, day: str, today: str, waiting: int) -> None:
        figures = self._days.setdefault(day, _RunningDay(day))
        summary = figures.summary(self._ledger, today, waiting)
        if self._written.get(day) == summary:
            return
        try:
            self._place.keep()
            write_whole(os.path.join(self._folder, f"{day}.json"), to_json(summary), _MODE)
            write_whole(os.path.join(self._folder, f"{day}.md"), to_markdown(summary), _MODE)
        except OSError as error:
            raise Unavailable(
                "summary",
                f"The summary in {self._folder} cannot be written "
                f"({os.strerror(error.errno or 0)}).",
            ) from error
        closed = summary["closed"]
        notices = self._notices(summary) if closed else []
        self._ledger.set_summarised(day, closed=closed, notices=notices)
        self._written[day] = summary
        if closed:
            del self._written[day], self._days[day]

    def _notices(self, summary: Summary) -> list[Notice]:
        figures = json.dumps({key: summary[key] for key in _NOTIFIED})
        return self._subscriptions.notices("summary", to_us(self._clock.now()), figures)


_NOTIFIED = (
    *("day", "received", "classified", "rejected", "pending", "by_level", "by_top_label"),
    *("by_flag", "by_reject_code", "models", "simulated"),
)
"""The figures that a message has of a summary, without names of folders."""


def to_json(summary: Summary) -> bytes:
    """The summary for programs."""
    return json.dumps(summary | {"notice": NOTICE}, indent=2).encode("ascii") + b"\n"


def to_markdown(summary: Summary) -> bytes:
    """The summary for people; also what `xray-watcher summary` prints."""
    title = f"# Chest X-rays of {summary['day']}"
    parts = [
        title if summary["closed"] else f"{title} (not closed yet)",
        f"*{NOTICE}*",
        *(f"**{banner}**" for banner in banners(summary["models"])),
        _balance(summary),
        _removed(summary.get("removed_by_retention", 0)),
        *(_table(*heading, summary[key]) for heading, key in _TABLES if summary[key]),
        _scores(summary["scores"]),
        _pace(summary),
    ]
    return ("\n\n".join(part for part in parts if part) + "\n").encode()


def banners(models: Iterable[str]) -> list[str]:
    """The warning for each simulating model among these, named as in a summary."""
    names = {model.partition(" ")[0] for model in models}
    return [SIMULATIONS[name] for name in sorted(names & SIMULATIONS.keys())]


_TABLES = (
    (("Risk level", "images"), "by_level"),
    (("Top condition", "images"), "by_top_label"),
    (("Source folder", "images"), "by_source"),
    (("Flag", "images"), "by_flag"),
    (("Rejected because", "images"), "by_reject_code"),
    (("Model", "images"), "models"),
)


def _balance(summary: Summary) -> str:
    waiting = summary["waiting_in_inbox"]
    return (
        f"Received {summary['received']} = classified {summary['classified']} + rejected "
        f"{summary['rejected']} + pending {summary['pending']}"
        + (f"; {waiting} more waiting in the inbox." if waiting else ".")
    )


def _removed(images: int) -> str:
    if not images:
        return ""
    return f"The files of {images} of them were removed by retention; their records stay."


def _table(first: str, second: str, rows: dict[str, int]) -> str:
    lines = [f"| {first} | {second} |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {_cell(name)} | {count} |" for name, count in rows.items())])


def _cell(name: str) -> str:
    """A source folder's name is foreign text: no markup, no table of its own."""
    text = safe_name(name) if name else "(inbox itself)"
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#!" else char for char in text)


def _scores(scores: dict[str, dict[str, float]]) -> str:
    if not scores:
        return ""
    lines = ["| Score | first quartile | median | third quartile |", "|---|---:|---:|---:|"]
    rows = (
        f"| {label} | {q['q1']:.3f} | {q['median']:.3f} | {q['q3']:.3f} |"
        for label, q in scores.items()
    )
    return "\n".join([*lines, *rows])


def _pace(summary: Summary) -> str:
    latency, rate = summary["latency_s"], summary["images_per_minute"]
    if latency is None:
        return ""
    speed = "" if rate is None else f"; {rate:g} images a minute"
    return (
        f"From arrival to filed: median {latency['p50']:.1f} s, 95 % within {latency['p95']:.1f} s"
        f"{speed}. First arrival {summary['first_received_at']}, "
        f"last {summary['last_received_at']}."
    )


def _pending(image: DayImage) -> DayEntry:
    return DayEntry("pending", _source(image), from_us(image.received_us))


def _finished(image: DayImage) -> DayEntry:
    assert image.filed_us is not None
    assert image.jsonl is not None
    record = from_jsonl(image.jsonl)
    model = record.model
    return DayEntry(
        state="classified" if image.outcome == "classified" else "rejected",
        source=_source(image),
        received_at=from_us(image.received_us),
        filed_at=from_us(image.filed_us),
        level=image.level,
        top_label=image.top_label,
        flags=record.flags,
        reject_code=image.reject_code,
        scores=record.all_probs or {},
        model=f"{model.name} {model.sha256} {model.precision}",
        simulated=record.simulated,
    )


def _source(image: DayImage) -> str:
    source, slash, _ = os.fsdecode(image.path).partition("/")
    return safe_name(source) if slash else ""
