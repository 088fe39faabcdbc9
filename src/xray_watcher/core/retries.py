"""Which images are tried again later: one table for all causes.

A file that fails waits here for its next try, and the others go on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from xray_watcher.core.values import Rejection

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0

CLAIMED = "claimed"
"""Where an image lies that was claimed; before that it lies at its source."""

Key = tuple[str, str | int]
"""Where an image lies and what it is known by there: its `Origin`, or a claimed one's row."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an image waits for its next try.

    Attributes:
        code: one of `REASONS`.
        detail: what was seen, for a person; it names no file.
    """

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Retry:
    """One image that waits for its next try.

    Attributes:
        reason: why; None for an image that only waits for its turn.
        name: its path below the inbox, for whoever may see names.
        since_s: when it failed first.
        due_s: when it is tried again; infinity while it is being tried.
        delay_s: the wait before that; it doubles up to a minute.
        tries: how often it failed.
    """

    reason: Reason | None
    name: str
    since_s: float
    due_s: float
    delay_s: float
    tries: int


REASONS: Mapping[str, str] = {
    "unreadable": "it cannot be read",
    "forbidden": "this user may not read or move it",
    "busy": "another program keeps it for itself",
    "slow": "it does not answer",
    "changing": "it is still being written",
    "other_disk": "it lies on another file system that is mounted within the inbox",
    "unmovable": "it cannot be moved",
    "decoder": "it could not be decoded for a reason that is not its own",
    "model": "the network failed over it",
    "claim": "it is not known whether it was claimed",
}
"""Every reason to try an image again, by its code."""

GIVEN_UP = frozenset({"unreadable", "forbidden", "busy", "slow", "changing"})
"""Reasons for which a claimed image is rejected unread when they have lasted too long."""

COMPONENTS: Mapping[str, str] = {"decoder": "decoder", "model": "model"}
"""Reasons that are no fault of a file, and the component that is degraded; else `FILES`."""

FILES = "files"
"""The component of problems with single files, in `status`."""


class Retries:
    """The table, with times on the monotonic clock."""

    def __init__(self) -> None:
        self._tables: defaultdict[str, dict[Key, Retry]] = defaultdict(dict)

    def failed(self, key: Key, name: str, reason: Reason, now_s: float) -> Retry:
        """Note one more failure; the wait grows with each."""
        before = self.get(key)
        if before is None or before.reason is None:
            retry = Retry(reason, name, now_s, now_s + FIRST_DELAY_S, FIRST_DELAY_S, 1)
        else:
            delay_s = min(before.delay_s * 2, LONGEST_DELAY_S)
            due_s = now_s + delay_s
            retry = Retry(reason, name, before.since_s, due_s, delay_s, before.tries + 1)
        self._tables[key[0]][key] = retry
        return retry

    def queue(self, key: Key, name: str, now_s: float) -> None:
        """Let an image wait for its turn, which is now; an earlier reason stays known."""
        before = self.get(key) or Retry(None, name, now_s, now_s, 0.0, 0)
        self._tables[key[0]][key] = replace(before, due_s=now_s)

    def begin(self, key: Key) -> None:
        """Note that an image is being tried; until that fails or succeeds it is not due."""
        before = self.get(key)
        if before is not None:
            self._tables[key[0]][key] = replace(before, due_s=math.inf)

    def forget(self, key: Key) -> None:
        """Remove an image from the table."""
        self._tables[key[0]].pop(key, None)

    def get(self, key: Key) -> Retry | None:
        """What is known of one image; None when it does not wait."""
        return self._tables[key[0]].get(key)

    def waiting(self, where: str) -> Mapping[Key, Retry]:
        """The images that wait at one place, in the order in which they came."""
        return self._tables[where]

    def due(self, where: str, now_s: float) -> list[Key]:
        """Those of one place whose time has come, the longest due first."""
        due = [key for key, retry in self.waiting(where).items() if retry.due_s <= now_s]
        return sorted(due, key=lambda key: self.waiting(where)[key].due_s)

    def next_due_s(self, where: str) -> float | None:
        """When the next image of a place is due; None when none waits there."""
        return min((retry.due_s for retry in self.waiting(where).values()), default=None)

    def failures(self) -> Iterator[tuple[Key, Retry]]:
        """Every image that failed; there may be a hundred thousand."""
        for table in self._tables.values():
            for key, retry in table.items():
                if retry.reason is not None:
                    yield key, retry


def given_up(retry: Retry, now_s: float) -> Rejection:
    """The rejection of a file that could not be read for too long."""
    minutes = (now_s - retry.since_s) / 60
    reason = retry.reason
    why = "" if reason is None else f": {REASONS[reason.code]} ({reason.detail})"
    return Rejection(
        "unreadable",
        f"For {minutes:.0f} minutes the file was tried {retry.tries} times{why}. Send it again, "
        "or put it back with `xray-watcher retry` when the cause is gone.",
    )
