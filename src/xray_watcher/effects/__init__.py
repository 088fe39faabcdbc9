"""What is committed together with a filing: one module and one entry below for each effect."""

from __future__ import annotations

from collections.abc import Mapping

from xray_watcher.core.notices import Subscriptions
from xray_watcher.effects.notices import ImageNotices
from xray_watcher.effects.results import AddToResults
from xray_watcher.effects.totals import add_to_totals
from xray_watcher.ledger.effect import Effect


def build_effects(
    subscriptions: Subscriptions, thresholds: Mapping[str, float]
) -> tuple[Effect, ...]:
    """Every effect of a filing, in the order in which they are called."""
    return (add_to_totals, ImageNotices(subscriptions), AddToResults(thresholds))
