"""The metrics for Prometheus: the ledger's running totals and the service's present status.

Counters come from the ledger, not from the memory of a process: they go on over restarts and
are the same whoever renders them, the web process for `/metrics`, the daemon for a file of
node_exporter's textfile collector, or `xray-watcher metrics`. docs/metrics.md lists them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from xray_watcher import __version__
from xray_watcher.config.folders import Folders
from xray_watcher.config.settings import Settings
from xray_watcher.core import tally as t
from xray_watcher.core.retries import REASONS
from xray_watcher.core.status_report import RetryFigures, StatusReport
from xray_watcher.core.times import to_us
from xray_watcher.core.values import LEVELS, REJECTIONS
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.rows import Totals
from xray_watcher.system.disks import answering
from xray_watcher.system.files import read_facts
from xray_watcher.system.lock import is_held, read_holder

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""What an HTTP answer with this text says of itself."""

COMPONENTS = (
    *("inbox", "uploads", "disk", "folders", "logs", "storage"),
    *("files", "decoder", "model", "summary"),
)
"""The components that are always listed; others are listed while they are degraded."""

_ANSWER_S = 2.0  # a scrape has ten seconds; the disks are five at most
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Situation:
    """How the service is at a moment, beside what the ledger holds.

    Attributes:
        now: the time, aware.
        report: of the running daemon; None when none runs.
        since: when it was started, aware, if that is known.
        free: free bytes by the name of a folder.
        min_free: with less than this nothing more is taken from the inbox; bytes.
        channels: the kinds of channels that are set up.
    """

    now: datetime
    report: StatusReport | None = None
    since: datetime | None = None
    free: Mapping[str, int] = field(default_factory=dict)
    min_free: int = 0
    channels: Sequence[str] = ()


def collect_metrics(settings: Settings, now: datetime) -> bytes:
    """The metrics in Prometheus' text format, whether the daemon runs or not.

    Raises:
        LedgerError: there is a ledger, and it cannot be read.
    """
    folders = settings.folders
    is_alive = is_held(folders.lock)
    situation = Situation(
        now=now,
        report=StatusReport.from_json(read_facts(folders.heartbeat)) if is_alive else None,
        since=_since(folders) if is_alive else None,
        free=_free(folders),
        min_free=settings.intake.min_free_bytes,
        channels=settings.notify.kinds,
    )
    if not os.path.exists(folders.ledger):
        return exposition(None, situation)
    with LedgerReader.open(folders.ledger) as ledger:
        return exposition(ledger.totals(), situation)


def exposition(totals: Totals | None, situation: Situation) -> bytes:
    """Render all metrics; there are no totals before there is a ledger."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families([*_now(situation), *_counted(totals, situation)]))
    return generate_latest(registry)


def folders_by_name(folders: Folders) -> dict[str, str]:
    """The folders whose free space is measured, by the name that stands beside it."""
    return {
        "state": folders.state,
        "inbox": folders.inbox,
        "classified": folders.classified,
        "rejected": folders.rejected,
        "logs": folders.logs,
    }


def _free(folders: Folders) -> dict[str, int]:
    by_name = folders_by_name(folders)
    free = {path: here for path, _, here in answering(by_name.values(), _ANSWER_S)}
    return {name: free[path] for name, path in by_name.items() if path in free}


def _since(folders: Folders) -> datetime | None:
    since = read_holder(folders.lock).get("since")
    return datetime.fromisoformat(since) if isinstance(since, str) else None


class Families:
    """The collector that the library asks for all families."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        return self._families


# -- how it is now ------------------------------------------------------------------------


def _now(situation: Situation) -> Iterator[Metric]:
    report = situation.report
    yield _gauge("up", "Whether the daemon runs.", report is not None)
    yield _info("build_info", "The program.", {"version": __version__})
    if report is not None:
        yield from _reported(report)
    if situation.since is not None:
        yield _gauge("start_time_seconds", "When the daemon was started; seconds since 1970.",
                     situation.since.timestamp())  # fmt: skip
    yield _gauges("disk_free_bytes", "Room on the disk of a folder.", "folder", situation.free)
    yield _gauge("disk_min_free_bytes", "With less room nothing is taken (intake.min_free_bytes).",
                 situation.min_free)  # fmt: skip


def _reported(report: StatusReport) -> Iterator[Metric]:
    """What the daemon reports; the report is empty while it starts."""
    if report.at is not None:
        yield _gauge("heartbeat_timestamp_seconds", "When the daemon last gave a sign of life.",
                     report.at.timestamp())  # fmt: skip
    degraded = dict.fromkeys(COMPONENTS, 0) | dict.fromkeys(report.problems, 1)
    yield _gauges("degraded", "Whether a component keeps the service from working in full.",
                  "component", degraded)  # fmt: skip
    for name, attribute, text in _REPORTED_GAUGES:
        value = getattr(report, attribute)
        if value is not None:
            yield _gauge(name, text, value)
    waiting = report.retries or RetryFigures()
    yield _gauges("retry_images", "Images that are tried again later, by reason.",
                  "reason", dict.fromkeys(REASONS, 0) | dict(waiting.codes))  # fmt: skip
    if waiting.oldest_s is not None:
        yield _gauge("retry_oldest_seconds", "For how long the first of them has failed.",
                     waiting.oldest_s)  # fmt: skip
    if report.model is not None:
        labels = {name: str(value) for name, value in asdict(report.model).items()}
        labels["simulated"] = str(report.model.simulated).lower()
        yield _info("model_info", "The network that is in use.", labels)


_REPORTED_GAUGES = (
    ("inbox_waiting_images", "waiting_in_inbox", "Files in the inbox that are not taken yet."),
    ("inbox_unfinished_images", "unfinished", "Those of them that are not whole yet."),
    ("inbox_ignored_files", "ignored", "Files in the inbox that are left alone."),
    ("inbox_oldest_seconds", "oldest_waiting_s", "Age of the oldest file that waits there."),
)

# -- what was counted ---------------------------------------------------------------------


def _counted(totals: Totals | None, situation: Situation) -> Iterator[Metric]:
    totals = totals or Totals(t.Tally(), 0, 0, None, None)
    classified = _values(totals, t.CLASSIFIED)
    rejected = _values(totals, t.REJECTED)
    received = sum(classified.values()) + sum(rejected.values()) + totals.claimed
    yield _counter("received", "Images taken from the inbox.", received)
    yield _counters("classified", "Images filed by risk.", "level",
                    dict.fromkeys(LEVELS, 0) | classified)  # fmt: skip
    yield _counters("rejected", "Rejected images, by reason.", "reason",
                    dict.fromkeys(REJECTIONS, 0) | rejected)  # fmt: skip
    yield _counters("top_condition", "Classified images by their highest score.", "label",
                    _values(totals, t.CONDITION))  # fmt: skip
    yield _counters("flagged", "Records with a flag.", "flag", _values(totals, t.FLAG))
    yield _counters("retention_removed", "Images that retention has removed.", "folder",
                    dict.fromkeys(LEVELS, 0) | _values(totals, t.REMOVED))  # fmt: skip
    yield _gauge("pending_images", "Images taken and not filed yet.", totals.pending)
    age_s = 0.0 if totals.oldest_us is None else (to_us(situation.now) - totals.oldest_us) / _US
    yield _gauge("pending_oldest_seconds", "Age of the oldest of them; 0 without any.",
                 max(age_s, 0.0))  # fmt: skip
    if totals.last_filed_us is not None:
        yield _gauge("last_filed_timestamp_seconds", "When an image was last filed.",
                     totals.last_filed_us / _US)  # fmt: skip
    for series, name, text, label in _HISTOGRAMS:
        yield _histogram(totals, series, name, text, label)
    yield from _notifications(totals, situation.channels)


def _notifications(totals: Totals, channels: Sequence[str]) -> Iterator[Metric]:
    """Messages and notices by kind of channel, without addresses."""
    none = dict.fromkeys(channels, 0.0)
    for name, text, by_channel in (
        ("notify_waiting_messages", "Messages that are not delivered yet.", totals.messages),
        ("notify_waiting_notices", "Notices that stand in no message yet.", totals.notices),
    ):
        by_kind = Counter(none)
        for channel, count in by_channel.items():
            by_kind[channel.partition(":")[0]] += count
        yield _gauges(name, text, "channel", by_kind)
    for series, text in _NOTIFICATIONS:
        yield _counters(series, text, "channel", none | _values(totals, series))


_NOTIFICATIONS = (
    (t.SENT, "Messages that were taken."),
    (t.NOT_TAKEN, "Failed attempts."),
    (t.GIVEN_UP, "Messages that were given up."),
)


_HISTOGRAMS = (
    (t.BATCH, "batch_images", "Images in a batch.", ""),
    (t.STAGE, "stage_seconds", "Time of one image in each stage of its way.", "stage"),
    (t.FILED, "filed_seconds", "From the first scan that found an image until it was filed.", ""),
    (t.SCORE, "score", "Calibrated scores of classified images, to see drift.", "label"),
)


def _values(totals: Totals, series: str) -> dict[str, float]:
    """The totals of one series of counters by their label."""
    return {label: value for (s, label, _), value in totals.tally.items() if s == series}


def _histogram(totals: Totals, series: str, name: str, text: str, label: str) -> Metric:
    family = HistogramMetricFamily(f"xray_watcher_{name}", text, labels=[label] if label else [])
    found = {which for s, which, _ in totals.tally if s == series}
    known = set(t.STAGES) if series == t.STAGE else set() if label else {""}
    for which in sorted(found | known):
        buckets, total = _buckets(totals, series, which)
        family.add_metric([which] if label else [], buckets=buckets, sum_value=total)
    return family


def _buckets(totals: Totals, series: str, label: str) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts by upper bound, and the sum of all values."""
    tally, so_far = totals.tally, 0.0
    buckets = []
    for bound in (*map(str, t.BOUNDS[series]), t.REST):
        so_far += tally[series, label, bound]
        buckets.append((bound, so_far))
    return buckets, tally[series, label, t.SUM]


# -- families -----------------------------------------------------------------------------


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"xray_watcher_{name}", text, value=float(value))


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"xray_watcher_{name}", text, labels=[label])
    for which, value in values.items():
        family.add_metric([which], float(value))
    return family


def _info(name: str, text: str, labels: Mapping[str, str]) -> Metric:
    family = GaugeMetricFamily(f"xray_watcher_{name}", text, labels=list(labels))
    family.add_metric(list(labels.values()), 1.0)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"xray_watcher_{name}", text, value=float(value))


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"xray_watcher_{name}", text, labels=[label])
    for which, value in values.items():
        family.add_metric([which], float(value))
    return family
