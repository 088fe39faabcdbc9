"""Notices: who has to be told of the images that are filed."""

from __future__ import annotations

from xray_watcher.core.notices import Notice, Subscriptions
from xray_watcher.core.times import to_us
from xray_watcher.ledger.effect import Commit, Filing
from xray_watcher.records import REJECTED

_EVENTS = {"High": "high", REJECTED: "rejected"}


class ImageNotices:
    """Adds a notice for each image that a channel wants to hear of.

    Args:
        audience: who wants to hear of images.
    """

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions

    def __call__(self, filing: Filing, commit: Commit) -> None:
        """Add the notices of a filing to its commit."""
        notices, filed_us = list[Notice](), to_us(filing.filed_at)
        for record in filing.records:
            event = _EVENTS.get(record.risk_level)
            if event is not None:
                notices += self._subscriptions.notices(event, filed_us, str(record.index))
        commit.add_notices(notices)
