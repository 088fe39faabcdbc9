"""The outbox: messages that people have still to get, and what became of them. Part of the ledger.

A notice is written in the same commit as what it is about. Making a message takes the notices of
one channel and event out and puts the message, with its final text and id, in: one commit. The
outcome of each attempt is one commit more. So a kill at any moment loses none, and only what was
taken by the other side and not yet noted here is sent again, with the same id.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from xray_watcher.core.notices import Notice
from xray_watcher.core.tally import GIVEN_UP, NOT_TAKEN, SENT, Tally
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.states import Delivery

_KEPT_US = 86_400_000_000
"""Messages are kept for a day after their end: the limit of so many a minute needs the last."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message that waits to be delivered.

    Attributes:
        id: goes with it, the same in every attempt.
        channel: whom it is for.
        event: what it is about.
        made_us: when it was made; microseconds since 1970, UTC.
        body: the JSON that is sent.
        attempts: how many attempts failed.
        next_us: not tried again before.
        error: what the last attempt said, or None.
    """

    id: str
    channel: str
    event: str
    made_us: int
    body: bytes
    attempts: int
    next_us: int
    error: str | None


_COLUMNS = ", ".join(Message.__slots__)
_IS_WAITING = f"state = '{Delivery.WAITING}'"  # as a partial index has it


def new_id() -> str:
    """An id that no message has had, not even one of a ledger that was restored since."""
    return os.urandom(16).hex()


class Outbox:
    """What is to be sent.

    Args:
        ledger: where it is kept.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._db = ledger.db

    def forget_others(self, channels: Collection[str]) -> int:
        """Drop what is for channels that are not set up any more; returns how much that was."""
        found = self._db.rows(
            "SELECT DISTINCT channel FROM notice"
            f" UNION SELECT DISTINCT channel FROM message WHERE {_IS_WAITING}"
        )
        others = [row for row in found if row[0] not in channels]
        if not others:
            return 0
        notices = "DELETE FROM notice WHERE channel = ?"
        messages = f"DELETE FROM message WHERE channel = ? AND {_IS_WAITING}"
        with self._ledger.transaction():
            return sum(self._db.execute_many(sql, others) for sql in (notices, messages))

    # -- notices --------------------------------------------------------------------------

    def gathered(self) -> list[tuple[str, str]]:
        """The channels and events that notices wait for, those first that have waited longest."""
        rows = self._db.rows(
            "SELECT channel, event FROM notice GROUP BY channel, event ORDER BY min(id)"
        )
        return [(str(channel), str(event)) for channel, event in rows]

    def notices(self, channel: str, event: str, limit: int) -> tuple[list[Notice], int, int]:
        """The first notices, how many there are, and the id of the last."""
        where = "FROM notice WHERE channel = ? AND event = ?"
        first = self._db.rows(
            f"SELECT channel, event, at_us, subject {where} ORDER BY id LIMIT ?",
            (channel, event, limit),
        )
        count, last = self._db.row(f"SELECT count(*), ifnull(max(id), 0) {where}", (channel, event))
        return [Notice(*row) for row in first], count, last

    def made_us(self, channel: str, event: str, since_us: int) -> list[int]:
        """When messages were made since then."""
        rows = self._db.rows(
            "SELECT made_us FROM message WHERE channel = ? AND event = ? AND made_us > ?",
            (channel, event, since_us),
        )
        return [int(row[0]) for row in rows]

    # -- messages -------------------------------------------------------------------------

    def make(self, message: Message, last_notice: int) -> None:
        """Commit that a message takes the place of the notices up to an id."""
        with self._ledger.transaction():
            self._db.execute(
                "DELETE FROM notice WHERE channel = ? AND event = ? AND id <= ?",
                (message.channel, message.event, last_notice),
            )
            self._db.execute(
                "INSERT INTO message (id, channel, event, made_us, body, next_us)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (message.id, message.channel, message.event, message.made_us, message.body,
                 message.next_us),
            )  # fmt: skip
            self._db.execute(
                f"DELETE FROM message WHERE NOT {_IS_WAITING} AND ended_us < ?",
                (message.made_us - _KEPT_US,),
            )

    def waiting(self) -> list[Message]:
        """The messages that are not delivered yet, oldest first."""
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM message WHERE {_IS_WAITING} ORDER BY made_us, id"
        )
        return [Message(*row) for row in rows]

    def note(self, outcomes: Iterable[DeliveryOutcome], now_us: int) -> None:
        """Commit what became of attempts."""
        tally = Tally()
        with self._ledger.transaction():
            for outcome in outcomes:
                for key in self._note(outcome, now_us):
                    tally[key, outcome.kind, ""] += 1
            self._ledger.add_to_tally(tally)

    def _note(self, outcome: DeliveryOutcome, now_us: int) -> Iterator[str]:
        """Write one outcome; yields the totals that it counts in."""
        if outcome.error is None:
            self._end(outcome.id, Delivery.SENT, now_us)
            yield SENT
            return
        self._db.execute(
            "UPDATE message SET attempts = attempts + 1, error = ?, next_us = ifnull(?, next_us)"
            " WHERE id = ?",
            (outcome.error, outcome.next_us, outcome.id),
        )
        yield NOT_TAKEN
        if outcome.next_us is None:
            self._end(outcome.id, Delivery.GIVEN_UP, now_us)
            yield GIVEN_UP

    def _end(self, message_id: str, state: Delivery, now_us: int) -> None:
        self._db.execute(
            "UPDATE message SET state = ?, ended_us = ?, body = x'' WHERE id = ?",
            (state, now_us, message_id),
        )


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What became of one attempt.

    Attributes:
        id: of the message.
        kind: of the channel: webhook, smtp or command.
        error: why it was not taken; None when it was.
        next_us: when it is tried again; None when it is given up.
    """

    id: str
    kind: str
    error: str | None
    next_us: int | None


def in_vain(messages: Sequence[Message]) -> dict[str, Message]:
    """By channel, the message that has been tried most often without success."""
    worst: dict[str, Message] = {}
    for message in messages:
        if message.attempts > (worst[message.channel].attempts if message.channel in worst else 0):
            worst[message.channel] = message
    return worst
