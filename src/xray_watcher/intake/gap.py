"""How often to look: the more a look takes, the less often."""

from __future__ import annotations

_LOOK_GAP_S = 0.2  # events may come in thousands; looks do not
_LOOK_GAP_MOST_S = 30.0  # also after a look that hung for an hour
_LOOK_SHARE = 4  # of the time that a look took, at least this much passes until the next


class Gap:
    """How long to wait from one look to the next: in the mean a share of the time at most."""

    def __init__(self) -> None:
        self.last_s = float("-inf")
        self._gap_s = 0.0

    @property
    def next_s(self) -> float:
        """Before this no look is begun."""
        return self.last_s + self._gap_s

    def note(self, began_s: float, took_s: float, least_s: float = _LOOK_GAP_S) -> None:
        """Note a look that is over."""
        self.last_s = began_s
        self._gap_s = min(max(least_s, _LOOK_SHARE * took_s), _LOOK_GAP_MOST_S)
