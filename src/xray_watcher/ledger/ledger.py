"""The ledger: SQLite, the truth about every image, its index and the log cursors.

Folders and logs follow from it. The daemon holds the only read-write connection; every
other process opens it with `LedgerReader.open`. The states of an image and where its file then
lies (a kill at any moment leaves one of these; RELIABILITY.md, 3.1; an upload
lies among the uploads where another image lies in the inbox):

    state      inbox        work         target       log line
    CLAIMING   yes or no    no or yes    no           no
    CLAIMED    no           yes          no           no
    FILING     no           yes or no    no or yes    no, torn or yes
    DONE       no           no           yes          yes
    RETRIED    (a rejected image that was put back; its file has a newer row)

A decision (`decide`) fixes index, level, file name and the exact log bytes in one commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

import structlog

from xray_watcher.core.notices import Notice
from xray_watcher.core.result_keys import ResultKeys
from xray_watcher.core.tally import Tally, tally_batch
from xray_watcher.core.times import to_us
from xray_watcher.errors import XrayWatcherError
from xray_watcher.ledger.connection import Connection
from xray_watcher.ledger.effect import Effect, Filing
from xray_watcher.ledger.reader import LAST_FILED, LedgerReader
from xray_watcher.ledger.refusals import check_writable
from xray_watcher.ledger.rows import LogState, Outcome
from xray_watcher.ledger.schema import MIGRATIONS, check_not_newer, keep_copy, statements_after
from xray_watcher.ledger.states import State

_WAL_BYTES = 16_000_000
"""To what the write-ahead log is cut when a reader has kept it from starting anew; mostly 4 MB."""

_FORGET_RECORD = "DELETE FROM record WHERE idx = (SELECT idx FROM image WHERE id = ?)"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NewClaim:
    """A file about to be claimed.

    Attributes:
        path: below the inbox, as the file system has it.
        size: bytes.
        received_us: when it was first seen; microseconds since 1970, UTC.
        settled_us: when it was complete.
        day: local day of `received_us`, as 2026-11-23.
        upload: its name in the hand-over folder, if it came by that.
        retry_of: index of its rejection, if `retry` has put it back.
    """

    path: bytes
    size: int
    received_us: int
    settled_us: int
    day: str
    upload: str | None = None
    retry_of: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Everything about one image that is fixed in the one commit before it is filed.

    Attributes:
        image_id: its row.
        idx: its index.
        size: bytes; its writer may have gone on since the claim.
        sha256: of its bytes; None when they could not be read any more.
        outcome: classified or rejected.
        level: risk level, for classified ones.
        top_label: condition with the highest score, for classified ones.
        reject_code: for rejected ones.
        folder: key of the folder that it goes to; None when there is no file any more.
        filed_name: its name there, or None.
        log: name of the log that its lines go to.
        jsonl: the exact bytes of its line in the JSONL log.
        csv: the exact bytes of its row in the CSV log.
    """

    image_id: int
    idx: int
    size: int
    sha256: bytes | None
    outcome: Outcome
    level: str | None
    top_label: str | None
    reject_code: str | None
    folder: str | None
    filed_name: str | None
    log: str
    jsonl: bytes
    csv: bytes


class Ledger(LedgerReader):
    """The one read-write connection; lives as long as the daemon.

    Args:
        path: the database file; made when it is missing, its folder must exist. One of an older
            version is brought up to date, and a copy of it kept beside (`ledger/schema.py`).

    Attributes:
        notices_added: how many, since it was opened.

    Raises:
        LedgerError: the file is damaged, another user's, or was written by a newer version.
        Unavailable: its disk is full or read-only, or another program holds it.
        StorageFailure: its disk fails.
    """

    def __init__(self, path: str) -> None:
        self.notices_added = 0
        check_writable(path)
        super().__init__(Connection.to_write(path))
        try:
            self._prepare(path)
        except XrayWatcherError:
            self.close()
            raise

    def _prepare(self, path: str) -> None:
        # FULL: with NORMAL 41 of 50 power cuts lost a decision (RELIABILITY.md, 0.3).
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"journal_size_limit = {_WAL_BYTES}",
        ):
            self.db.execute(f"PRAGMA {pragma}")
        version = int(self.db.value("PRAGMA user_version"))
        check_not_newer(path, version)
        if version < len(MIGRATIONS):
            self._bring_up_to_date(path, version)

    def _bring_up_to_date(self, path: str, version: int) -> None:
        """Apply the steps that the ledger lacks, all or none; to a new one that is all of them."""
        kept = None if version == 0 else keep_copy(self.db, path, version)
        with self.transaction():
            for statement in statements_after(version):
                self.db.execute(statement)
            if version == 0:
                self.set_meta("id", uuid4().hex)
        if kept is not None:
            _log.warning(
                "the ledger is brought up to date",
                code="ledger_migrated",
                version=len(MIGRATIONS),
                kept=kept,
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: committed, with fsync, at the end of the block.

        Raises:
            Unavailable: the disk is full, or another program holds the ledger; nothing was changed.
            StorageFailure: the disk failed; what was changed is known after a restart.
        """
        try:
            self.db.execute("BEGIN IMMEDIATE")
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.sqlite.in_transaction:
                with suppress(XrayWatcherError):  # a full disk has rolled it back already
                    self.db.execute("ROLLBACK")
            raise

    def set_meta(self, key: str, value: str) -> None:
        """Remember a fact; inside a transaction it is committed with it."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def go_on_at(self, index: int) -> None:
        """Give no index below this one from now on."""
        with self.transaction():
            self.set_meta("next_index", str(max(self.next_index, index)))

    # -- claims ---------------------------------------------------------------------------

    def begin_claims(self, claims: Sequence[NewClaim]) -> list[int]:
        """Commit that these files are about to be renamed into the work folder.

        The first attempt to decode is counted in the same commit.

        Returns:
            Their ids, in order.
        """
        with self.transaction():
            # A file may be seen before midnight and claimed after the day was closed.
            days = {(claim.day,) for claim in claims}
            self.db.execute_many("UPDATE summary_day SET closed = 0 WHERE day = ?", days)
            return [self._insert(claim) for claim in claims]

    def _insert(self, claim: NewClaim) -> int:
        image_id = self.db.value(
            "INSERT INTO image (state, attempts, path, size, received_us, settled_us, day, upload,"
            " retry_of) VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            State.CLAIMING, claim.path, claim.size, claim.received_us, claim.settled_us,
            claim.day, claim.upload, claim.retry_of,
        )  # fmt: skip
        return int(image_id)

    def reserve_ids(self, up_to: int) -> None:
        """Never give an id up to this one to a new image: a file in the work folder has it."""
        with self.transaction():
            is_known = self.db.execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'image'", (up_to,)
            )
            if not is_known:
                self.db.execute("INSERT INTO sqlite_sequence VALUES ('image', ?)", (up_to,))

    def drop_claims(self, image_ids: Sequence[int]) -> None:
        """Forget claims whose file never left the inbox."""
        with self.transaction():
            claiming = f"state = '{State.CLAIMING}'"
            self._update(f"DELETE FROM image WHERE id = ? AND {claiming}", image_ids)

    def count_attempts(self, image_ids: Sequence[int]) -> None:
        """Commit one more attempt each, before it is made."""
        with self.transaction():
            self._update("UPDATE image SET attempts = attempts + 1 WHERE id = ?", image_ids)

    # -- decisions ------------------------------------------------------------------------

    def decide(
        self, decisions: Sequence[Decision], csv_header: bytes, retried: Sequence[int] = ()
    ) -> None:
        """Commit the decisions: from here nothing about them is computed again.

        Args:
            decisions: with indexes at or above `next_index`, or their image's own.
            csv_header: first line of the CSV, should it have to be begun.
            retried: ids of rejected rows whose files came back and are decided here.
        """
        with self.transaction():
            self._put(decisions, csv_header)
            beyond = max(decision.idx for decision in decisions) + 1
            self.set_meta("next_index", str(max(self.next_index, beyond)))
            self._update(f"UPDATE image SET state = '{State.RETRIED}' WHERE id = ?", retried)
            self.add_to_tally(tally_batch(len(decisions)))

    def _put(self, decisions: Sequence[Decision], csv_header: bytes) -> None:
        self._update(_FORGET_RECORD, [d.image_id for d in decisions])
        self.db.execute_many(
            f"UPDATE image SET state = '{State.FILING}', idx = ?, size = ?, sha256 = ?,"
            " outcome = ?, level = ?, top_label = ?, reject_code = ?, folder = ?, filed_name = ?"
            " WHERE id = ?",
            [(d.idx, d.size, d.sha256, d.outcome, d.level, d.top_label, d.reject_code, d.folder,
              d.filed_name, d.image_id) for d in decisions],
        )  # fmt: skip
        self.db.execute_many(
            "INSERT OR IGNORE INTO log_file (name, csv_header) VALUES (?, ?)",
            {(d.log, csv_header) for d in decisions},
        )
        self.db.execute_many(
            "INSERT INTO record VALUES (?, ?, ?, ?)",
            [(d.idx, d.log, d.jsonl, d.csv) for d in decisions],
        )

    def withdraw(self, image_id: int) -> None:
        """Undo a decision that is not logged yet; its index is not used again.

        A rejection of which it was the retry waits for one again.
        """
        with self.transaction():
            self.db.execute(
                f"UPDATE image SET state = '{State.DONE}' WHERE state = '{State.RETRIED}'"
                " AND idx = (SELECT json_extract(CAST(jsonl AS TEXT), '$.retry_of') FROM record"
                " JOIN image AS retry USING (idx) WHERE retry.id = ?)",
                (image_id,),
            )
            self._update(_FORGET_RECORD, [image_id])
            self.db.execute(
                "UPDATE image SET state = ?, idx = NULL, outcome = NULL, level = NULL,"
                " top_label = NULL, reject_code = NULL WHERE id = ?",
                (State.CLAIMED, image_id),
            )

    def finish(self, filing: Filing, logs: Sequence[LogState], effects: Sequence[Effect]) -> None:
        """Commit that images are filed and logged, with the new watermarks and all effects.

        Args:
            filing: the images.
            logs: how far the logs are known to be on disk.
            effects: each adds what follows from the filing; an error of one undoes all.
        """
        filed_us = to_us(filing.filed_at)
        with self.transaction():
            self.db.execute_many(
                f"UPDATE image SET state = '{State.DONE}', filed_us = ? WHERE id = ?",
                [(filed_us, image_id) for image_id in filing.image_ids],
            )
            self.set_log_states(logs)
            for effect in effects:
                effect(filing, self)
            self.set_meta(LAST_FILED, str(filed_us))

    def add_to_tally(self, tally: Tally) -> None:
        """Add to the running totals; inside a transaction it is committed with it."""
        self.db.execute_many(
            "INSERT INTO tally VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET value = value + excluded.value",
            [(*key, value) for key, value in tally.items()],
        )

    def add_results(self, keys: Sequence[ResultKeys]) -> None:
        """Put filed images into the list of results; inside a transaction committed with it."""
        self.db.execute_many(
            "INSERT OR REPLACE INTO result"
            " SELECT idx, day, ?, ?, ?, ?, ?, ? FROM image WHERE idx = ?",
            keys,
        )
        self.db.execute_many(
            "INSERT INTO result_day SELECT day, idx, idx FROM image WHERE idx = ?"
            " ON CONFLICT DO UPDATE SET first_idx = min(first_idx, excluded.first_idx),"
            " last_idx = max(last_idx, excluded.last_idx)",
            [(each.idx,) for each in keys],
        )

    def add_notices(self, notices: Sequence[Notice]) -> None:
        """Add notices to the outbox; inside a transaction they are committed with it."""
        self.db.execute_many(
            "INSERT INTO notice (channel, event, at_us, subject) VALUES (?, ?, ?, ?)",
            [(n.channel, n.event, n.at_us, n.subject) for n in notices],
        )
        self.notices_added += len(notices)

    def set_log_states(self, logs: Sequence[LogState]) -> None:
        """Note how far logs are known to be on disk; inside a transaction committed with it."""
        self.db.execute_many(
            "UPDATE log_file SET jsonl_bytes = ?, csv_bytes = ? WHERE name = ?",
            [(log.jsonl_bytes, log.csv_bytes, log.name) for log in logs],
        )

    def set_summarised(self, day: str, *, closed: bool, notices: Sequence[Notice] = ()) -> None:
        """Note that a day's summary is written, whether it is final, and its notices."""
        with self.transaction():
            self.db.execute("INSERT OR REPLACE INTO summary_day VALUES (?, ?)", (day, closed))
            self.add_notices(notices)

    def _update(self, sql: str, image_ids: Sequence[int]) -> None:
        self.db.execute_many(sql, [(image_id,) for image_id in image_ids])
