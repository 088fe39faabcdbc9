"""Notices of the images that are filed."""

from __future__ import annotations

from xray_watcher.core.notices import Subscriptions
from xray_watcher.core.times import to_us
from xray_watcher.ledger.effect import Commit, Filing
from xray_watcher.records import REJECTED

_EVENTS = {"High": "high", REJECTED: "rejected"}


class ImageNotices:
    """Adds a notice for each image that a channel has subscribed to."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions

    def __call__(self, filing: Filing, commit: Commit) -> None:
        """Add the notices of a filing to its commit."""
        filed_us = to_us(filing.filed_at)
        commit.add_notices([
            notice
            for record in filing.records
            if (event := _EVENTS.get(record.risk_level))
            for notice in self._subscriptions.notices(event, filed_us, str(record.index))
        ])  # fmt: skip
