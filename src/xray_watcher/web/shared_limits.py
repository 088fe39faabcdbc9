"""Limits that all clients of this process share, and how much of each is taken."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from xray_watcher.reports.metrics import Families
from xray_watcher.system.clock import Clock
from xray_watcher.web.answers import UploadRequests
from xray_watcher.web.connections import Connections
from xray_watcher.web.slots import (
    Slots,
    UploadSlots,
    longest_stalled,
    newest_of_the_largest,
    oldest,
)

Figures = Mapping[str, Mapping[str, int | None]]
"""What is taken, and of how much."""

CONNECTIONS = 512
"""Most at a time; fewer where the process may open few files."""

STREAMS = 64
"""Live pages that are kept up to date at the same time."""

FORMS = 16
"""Forms that are read at the same time; of more the oldest is ended, for a form comes at once."""

_FOR_HEADS = 8  # one in so many connections is kept for those that have not asked yet


@dataclass(frozen=True, slots=True)
class SharedLimits:
    """The limits that all clients share."""

    connections: Connections
    requests: Slots
    uploads: UploadSlots
    streams: Slots
    forms: Slots
    batches: UploadRequests = field(default_factory=UploadRequests)

    @classmethod
    def of(cls, uploads_at_once: int, clock: Clock) -> SharedLimits:
        """Build all limits; the number of connections follows from the limit of open files."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        connections = min(CONNECTIONS, soft // 2)
        requests = connections - connections // _FOR_HEADS
        return cls(
            connections=Connections(connections),
            requests=Slots(requests, requests // 2, clock, longest_stalled),
            uploads=UploadSlots(uploads_at_once, clock),
            streams=Slots(STREAMS, STREAMS // 2, clock, newest_of_the_largest),
            forms=Slots(FORMS, FORMS, clock, oldest),
        )

    def with_uploads(self, uploads_at_once: int, clock: Clock) -> SharedLimits:
        """The same limits with another number of slots for uploads."""
        if uploads_at_once == self.uploads.total:
            return self
        return replace(self, uploads=UploadSlots(uploads_at_once, clock))

    def figures(self, sessions: int) -> Figures:
        """What is taken of each limit; `of` is None where only each holder has one."""
        return {
            "connections": {"taken": self.connections.taken, "of": self.connections.total},
            "requests": {"taken": self.requests.taken, "of": self.requests.total},
            "uploads": {"taken": self.uploads.taken, "of": self.uploads.total},
            "uploads_waiting": {"taken": self.uploads.waiting, "of": None},
            "live_pages": {"taken": self.streams.taken, "of": self.streams.total},
            "sessions": {"taken": sessions, "of": None},
        }


def exposition(figures: Figures) -> bytes:
    """The same in Prometheus' text format."""
    taken = GaugeMetricFamily(
        "xray_watcher_web_taken", "What is taken of what everybody shares.", labels=["what"]
    )
    limit = GaugeMetricFamily("xray_watcher_web_limit", "How much of it there is.", labels=["what"])
    for what, figure in figures.items():
        for family, value in ((taken, figure["taken"]), (limit, figure["of"])):
            if value is not None:
                family.add_metric([what], value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families([taken, limit]))
    return generate_latest(registry)
