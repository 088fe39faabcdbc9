"""Running totals: what the images that are filed add to them."""

from __future__ import annotations

from datetime import datetime

from xray_watcher.core.tally import Tally, tally_image
from xray_watcher.ledger.effect import Commit, Filing


def add_to_totals(filing: Filing, commit: Commit) -> None:
    """Add the images of a filing to the running totals, in its commit."""
    tally = Tally()
    for record in filing.records:
        received_at = datetime.fromisoformat(record.received_at)
        tally_image(tally, record, (filing.filed_at - received_at).total_seconds())
    commit.add_to_tally(tally)
