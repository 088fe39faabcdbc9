"""`xray-watcher status` and `summary`: how things are, whether the daemon runs or not."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from xray_watcher.config.folders import Folders
from xray_watcher.config.settings import Settings
from xray_watcher.core.status_report import StatusReport
from xray_watcher.core.times import from_us, local_day
from xray_watcher.core.values import LEVELS
from xray_watcher.errors import LedgerError, LedgerOutOfReach, Unavailable, UsageError
from xray_watcher.intake.watcher import build_inbox
from xray_watcher.intake.work_folder import find_work_folder
from xray_watcher.ledger.log_files import edited_copies
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.records import NOTICE, REJECTED, SIMULATIONS
from xray_watcher.reports.daily import Summary, day_summary
from xray_watcher.system.activity import read_activity
from xray_watcher.system.deadline import answer_in_time
from xray_watcher.system.disks import answering
from xray_watcher.system.files import read_facts
from xray_watcher.system.lock import is_held, read_holder
from xray_watcher.system.sandbox import lack_in_words

STALE_S = 30.0
"""A daemon that has reported nothing for this long hangs."""

ANSWER_S = 5.0
"""A folder that does not answer for this long is on a share that hangs."""


@dataclass(frozen=True, slots=True)
class DaemonState:
    """How the daemon is, by its lock and its heartbeat.

    Attributes:
        alive: whether a daemon runs.
        healthy: whether it runs and nothing is degraded.
        problems: why it is degraded, by component.
        report: of its last heartbeat; empty when it does not run.
    """

    alive: bool
    healthy: bool
    problems: dict[str, str]
    report: StatusReport


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What lies in the inbox; `problem` says why it cannot be known."""

    files: int | None
    ignored: int | None
    problem: str | None = None


def daemon_state(folders: Folders, now: datetime) -> DaemonState:
    """How the daemon is, without a look at any folder but the state's own.

    Args:
        folders: where its lock and heartbeat lie.
        now: the time, aware.
    """
    alive, report = _read_report(folders)
    problems = _problems(alive, report, None, now)
    return DaemonState(alive, alive and not problems, problems, report)


def collect_status(settings: Settings, now: datetime) -> dict[str, Any]:
    """How the service is: alive, healthy, counts of today, what waits, last error, disks.

    Args:
        now: the time, aware.

    Returns:
        The figures, ready for JSON. `healthy` is true when the daemon runs and nothing is
        degraded.
    """
    folders = settings.folders
    alive, report = _read_report(folders)
    waiting = _waiting(settings, report)
    problems = _problems(alive, report, waiting.problem, now)
    free = _free(folders)
    # A daemon whose disk was full before its first report cannot say so itself.
    for folder, free_there in free.items():
        if free_there < settings.intake.min_free_bytes:
            detail = f"Only {free_there / 1e6:.0f} MB are free under {folder}."
            problems.setdefault("disk", detail)
    try:
        facts = _ledger_facts(settings, now)
    except LedgerOutOfReach as error:
        problems["ledger"] = str(error)
        facts = _no_facts(settings, now)
    return {
        "alive": alive,
        "healthy": alive and not problems,
        "troubles": problems,
        "last_error": report.last_error,
        "process": read_holder(folders.lock) if alive else None,
        "version": report.version,
        "sandbox_lacks": report.sandbox_lacks,
        "model": None if report.model is None else asdict(report.model),
        **facts,
        "waiting_in_inbox": waiting.files,
        "unfinished_in_inbox": report.unfinished,
        "ignored_in_inbox": waiting.ignored,
        "retries": None if report.retries is None else asdict(report.retries),
        "edited_logs_kept": _edited_logs(folders.logs),
        "free_bytes": free,
        "notice": NOTICE,
    }


def collect_summary(settings: Settings, day: str | None, now: datetime) -> Summary:
    """The figures of one local day as the ledger has them now.

    Args:
        day: as 2026-11-23; None is today.
        now: the time, aware.

    Raises:
        UsageError: `day` is no date.
        LedgerError: there is no ledger.
    """
    today = local_day(now, settings.zone)
    try:
        wanted = today if day is None else date.fromisoformat(day).isoformat()
    except ValueError:
        raise UsageError(f"{day!a} is not a date; write it as {today}.") from None
    waiting = _waiting_now(settings) if wanted == today else 0
    with LedgerReader.open(settings.folders.ledger) as ledger:
        return day_summary(ledger, wanted, today=today, waiting_in_inbox=waiting)


def to_text(status: dict[str, Any]) -> str:
    """The status for people."""
    lines = [
        _first_line(status),
        *(f"  {component}: {detail}" for component, detail in status["troubles"].items()),
        *_model_lines(status["model"]),
        f"today {status['day']}: {_counts(status['today'])}",
        f"pending: {_pending(status)}",
        f"inbox: {_inbox(status)}",
        *_retry_lines(status["retries"]),
    ]
    if status["edited_logs_kept"]:
        lines.append(f"edited logs kept as .conflict-TIME: {status['edited_logs_kept']}")
    if status["sandbox_lacks"]:
        lines.append(lack_in_words(status["sandbox_lacks"]))
    if status["last_error"]:
        lines.append(f"last error: {status['last_error']}")
    lines += [f"free: {free / 1e9:.1f} GB at {at}" for at, free in status["free_bytes"].items()]
    return "\n".join([*lines, NOTICE])


def _read_report(folders: Folders) -> tuple[bool, StatusReport]:
    """Whether a daemon runs, and its report; one that was killed has left its last behind."""
    alive = is_held(folders.lock)
    return alive, StatusReport.from_json(read_facts(folders.heartbeat) if alive else {})


def _problems(
    alive: bool, report: StatusReport, inbox_problem: str | None, now: datetime
) -> dict[str, str]:
    problems = dict(report.problems)
    if inbox_problem is not None:
        problems["inbox"] = inbox_problem
    if alive and report.at is None:
        problems["starting"] = (
            "The daemon has reported nothing yet: it is starting, or the disk of its state is full."
        )
    elif report.at is not None:
        age_s = (now - report.at).total_seconds()
        if age_s > STALE_S:
            problems["hangs"] = _silence(report, age_s)
    return problems


def _silence(report: StatusReport, age_s: float) -> str:
    now = read_activity(report.pid)
    is_seen = now is not None and (now.state == "D" or now.wait)  # of others' processes, D alone
    waits = now is not None and is_seen and now.is_stuck_since(now)
    why = " It waits for a disk or share that does not answer." if waits else ""
    return f"The daemon has said nothing for {age_s:.0f} s.{why}"


def _waiting_now(settings: Settings) -> int:
    return _waiting(settings, _read_report(settings.folders)[1]).files or 0


def _waiting(settings: Settings, report: StatusReport) -> _Waiting:
    if report.at is None:
        return _looked_waiting(settings)
    return _Waiting(report.waiting_in_inbox, report.ignored)


def _looked_waiting(settings: Settings) -> _Waiting:
    inbox = settings.folders.inbox
    # Not in the child: SQLite hangs there when this process has the ledger open, as the web has.
    work = _known_work_folder(settings)
    try:
        files, ignored, problem = answer_in_time(lambda: _look(settings, work), ANSWER_S, inbox)
    except Unavailable as error:
        return _Waiting(None, None, error.reason)
    return _Waiting(files, ignored, problem)


def _look(settings: Settings, work: str | None) -> tuple[int | None, int | None, str | None]:
    try:
        look = build_inbox(settings, work or find_work_folder(settings.folders)).look()
    except (Unavailable, OSError) as error:
        return None, None, str(error)
    return len(look.files), look.ignored, None


def _known_work_folder(settings: Settings) -> str | None:
    try:
        with LedgerReader.open(settings.folders.ledger) as ledger:
            return ledger.meta("work")
    except LedgerError:
        return None


def _no_facts(settings: Settings, now: datetime) -> dict[str, Any]:
    day = local_day(now, settings.zone)
    return {"day": day, "today": {}, "pending": 0, "oldest_pending_s": None, "next_index": 0}


def _ledger_facts(settings: Settings, now: datetime) -> dict[str, Any]:
    facts = _no_facts(settings, now)
    if not os.path.exists(settings.folders.ledger):
        return facts
    with LedgerReader.open(settings.folders.ledger) as ledger:
        rows = ledger.open_rows()
        if rows:
            oldest = from_us(min(row.received_us for row in rows))
            facts["oldest_pending_s"] = round((now - oldest).total_seconds(), 1)
        return facts | {
            "today": ledger.day_counts(str(facts["day"])),
            "pending": len(rows),
            "next_index": ledger.next_index,
        }


def _edited_logs(folder: str) -> int | None:
    """How many there are; None when the folder does not answer."""
    try:
        count: int | None = answer_in_time(lambda: len(edited_copies(folder)), ANSWER_S, folder)
    except Unavailable:
        return None
    return count


def _free(folders: Folders) -> dict[str, int]:
    """Free bytes by folder, one folder for each file system."""
    asked = (folders.state, folders.inbox, folders.classified, folders.logs)
    free: dict[int, tuple[str, int]] = {}
    for folder, device, here in answering(asked, ANSWER_S):
        free.setdefault(device, (folder, here))
    return dict(free.values())


def _first_line(status: dict[str, Any]) -> str:
    if not status["alive"]:
        return "xray-watcher is not running"
    process = status["process"] or {}
    state = "healthy" if status["healthy"] else "DEGRADED"
    return (
        f"xray-watcher {status['version'] or ''} is running, {state} "
        f"(process {process.get('pid')} since {process.get('since')})"
    )


def _model_lines(model: dict[str, Any] | None) -> list[str]:
    if model is None:
        return []
    line = f"model: {model['name']} {model['sha256'][:12]} {model['precision']}"
    return [line, SIMULATIONS[model["name"]]] if model["simulated"] else [line]


def _counts(today: dict[str, int]) -> str:
    kinds = (*LEVELS, REJECTED, "pending")
    return ", ".join(f"{kind} {today.get(kind, 0)}" for kind in kinds)


def _retry_lines(retries: dict[str, Any] | None) -> list[str]:
    """How many images are tried again later, and why; nothing where none is."""
    if not retries or not retries["images"]:
        return []
    codes = ", ".join(f"{code} {count}" for code, count in retries["codes"].items())
    return [f"tried again: {retries['images']}, the first for {retries['oldest_s']:.0f} s; {codes}"]


def _pending(status: dict[str, Any]) -> str:
    if not status["pending"]:
        return "none"
    return f"{status['pending']}, the oldest for {status['oldest_pending_s']:.0f} s"


def _inbox(status: dict[str, Any]) -> str:
    waiting, ignored = status["waiting_in_inbox"], status["ignored_in_inbox"]
    return f"{_known(waiting)} waiting, {_known(ignored)} left alone"


def _known(count: int | None) -> str:
    return "?" if count is None else str(count)
