"""The list of results: images enter it as they are filed, those of older ledgers in slices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress

from xray_watcher.core.result_keys import ResultKeys, result_keys
from xray_watcher.ledger.effect import Commit, Filing
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.results_queries import MISSING_BELOW, filed_below, missing_below
from xray_watcher.records import from_jsonl

_A_SLICE = 500  # records; images wait for one slice at the most


class AddToResults:
    """Adds the images of a filing to the list.

    Args:
        thresholds: score from which a condition counts as present; others use 0.5.
    """

    def __init__(self, thresholds: Mapping[str, float]) -> None:
        self._thresholds = thresholds

    def __call__(self, filing: Filing, commit: Commit) -> None:
        """Add the images of a filing to the list, in its commit."""
        commit.add_results([result_keys(record, self._thresholds) for record in filing.records])


class FillResults:
    """The chore that adds the images that an older program, or a log, has brought; newest first.

    Args:
        ledger: is read and written.
        thresholds: score from which a condition counts as present; others use 0.5.
    """

    component = "results"

    def __init__(self, ledger: Ledger, thresholds: Mapping[str, float]) -> None:
        self._ledger = ledger
        self._thresholds = thresholds
        self._below = missing_below(ledger)

    @property
    def next_due_s(self) -> float:
        """At once until the list is whole."""
        return -math.inf if self._below else math.inf

    def refresh(self, _now_s: float) -> None:
        """Add one slice.

        Raises:
            Unavailable: the ledger cannot be written now.
        """
        if not self._below:
            return
        lines = filed_below(self._ledger, self._below, _A_SLICE)
        keys = list[ResultKeys]()
        for _, line in lines:
            with suppress(ValueError):  # a record that nobody can read stays out of the list
                keys.append(result_keys(from_jsonl(line), self._thresholds))
        below = lines[-1][0] if len(lines) == _A_SLICE else 0
        with self._ledger.transaction():
            self._ledger.add_results(keys)
            self._ledger.set_meta(MISSING_BELOW, str(below))
        self._below = below

    def stop(self) -> None:
        """The next start goes on where this one ended."""
