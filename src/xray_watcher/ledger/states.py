"""The states of the ledger by their names, and the conditions in SQL that are made of them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where an image is on its way; `ledger/ledger.py` says where its file lies then."""

    CLAIMING = "CLAIMING"
    CLAIMED = "CLAIMED"
    FILING = "FILING"
    DONE = "DONE"
    RETRIED = "RETRIED"


class RemovalState(StrEnum):
    """How far retention is with removing a file."""

    BEGUN = "begun"
    DONE = "done"


class Delivery(StrEnum):
    """What has become of a message."""

    WAITING = "waiting"
    SENT = "sent"
    GIVEN_UP = "given up"


def _among(*states: State) -> str:
    return f"state IN ({', '.join(map(repr, map(str, states)))})"


IS_OPEN = _among(State.CLAIMING, State.CLAIMED, State.FILING)
"""The image is claimed and not done; as a partial index has it."""

IS_FILED = _among(State.DONE, State.RETRIED)
"""The image is filed and logged; a rejected one may have been tried again since."""

IS_DONE = f"state = '{State.DONE}'"
"""The image is filed and logged, and was not tried again."""

IS_KEPT = f"{IS_DONE} AND filed_name IS NOT NULL AND removal IS NULL"
"""The file of the image lies in a folder of results; as a partial index has it."""
