"""What is degraded now, and when to try it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps the service from working in full.

    Attributes:
        component: what is degraded, as `status` shows it: "inbox", "folders", "disk", ...
        reason: what is wrong, for a person.
        since_s: when it began.
        retry_s: when to try again.
        delay_s: the wait before that; it doubles up to a minute.
    """

    component: str
    reason: str
    since_s: float
    retry_s: float
    delay_s: float


class HealthTracker:
    """The components that are degraded; each task has a back-off of its own.

    A task is what the daemon does in a turn, such as "uploads" or "work". A task that fails names
    the component that is out of reach: scoring fails when the disk does.
    """

    def __init__(self) -> None:
        self._problems: dict[str, Problem] = {}
        self.last_error: str | None = None

    @property
    def problems(self) -> Mapping[str, Problem]:
        """What is wrong, by the task that failed."""
        return self._problems

    @property
    def reasons(self) -> Mapping[str, str]:
        """What is wrong, by the component that is degraded."""
        return {problem.component: problem.reason for problem in self._problems.values()}

    def failed(self, task: str, reason: str, now_s: float, component: str | None = None) -> bool:
        """Note a failure; returns whether it is news.

        Args:
            task: what failed.
            reason: why, for a person.
            now_s: now, on the monotonic clock.
            component: what is degraded; the task's own name by default.
        """
        component = component or task
        before = self._problems.get(task)
        is_new = before is None or before.component != component
        delay_s = FIRST_DELAY_S if before is None else min(before.delay_s * 2, LONGEST_DELAY_S)
        since_s = now_s if before is None or is_new else before.since_s
        self._problems[task] = Problem(component, reason, since_s, now_s + delay_s, delay_s)
        self.last_error = reason
        return is_new

    def note(self, component: str, reason: str, now_s: float) -> bool:
        """Note a state that each turn checks again; returns whether it is news."""
        before = self._problems.get(component)
        since_s = now_s if before is None else before.since_s
        self._problems[component] = Problem(component, reason, since_s, math.inf, 0.0)
        self.last_error = reason
        return before is None

    def recovered(self, task: str) -> str | None:
        """Note that a task works again; returns the component that was degraded, if one was."""
        problem = self._problems.pop(task, None)
        return None if problem is None else problem.component

    def may_try(self, task: str, now_s: float) -> bool:
        """Whether it is time to try what failed."""
        problem = self._problems.get(task)
        return problem is None or now_s >= problem.retry_s

    def next_retry_s(self) -> float | None:
        """When the next try is due; None when all is well."""
        return min((problem.retry_s for problem in self._problems.values()), default=None)
