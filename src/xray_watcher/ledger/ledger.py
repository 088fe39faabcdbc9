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

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from xray_watcher.core.tally import Tally, tally_of_batch
from xray_watcher.core.telling import Notice
from xray_watcher.errors import LedgerError, XrayWatcherError
from xray_watcher.ledger.reader import LAST_FILED, LedgerReader, LogState, Outcome
from xray_watcher.ledger.refusals import check_writable, refused
from xray_watcher.records import from_jsonl

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE image (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  state       TEXT NOT NULL
              CHECK (state IN ('CLAIMING', 'CLAIMED', 'FILING', 'DONE', 'RETRIED')),
  path        BLOB NOT NULL,               -- below the inbox, as the file system has it
  size        INTEGER NOT NULL,            -- bytes
  received_us INTEGER NOT NULL,            -- first seen; microseconds since 1970, UTC
  settled_us  INTEGER NOT NULL,
  day         TEXT NOT NULL,               -- local day of received_us
  attempts    INTEGER NOT NULL DEFAULT 0,  -- counted before each try to decode
  sha256      BLOB,
  idx         INTEGER UNIQUE,              -- the index in the file name; never used again
  outcome     TEXT CHECK (outcome IN ('classified', 'rejected')),
  level       TEXT,
  top_label   TEXT,
  reject_code TEXT,
  folder      TEXT,                        -- key of the folder that it is filed in
  filed_name  TEXT,
  filed_us    INTEGER,
  upload      TEXT,                        -- its name at the second door, if it came by that
  removal     TEXT CHECK (removal IN ('begun', 'done')),  -- of its file, by retention
  removed_us  INTEGER
) STRICT;
CREATE INDEX image_kept ON image (folder, filed_us)
  WHERE state = 'DONE' AND filed_name IS NOT NULL AND removal IS NULL;
CREATE INDEX image_removing ON image (id) WHERE removal = 'begun';
CREATE INDEX image_open ON image (id) WHERE state IN ('CLAIMING', 'CLAIMED', 'FILING');
CREATE INDEX image_day ON image (day, outcome, level, state);
CREATE INDEX image_upload ON image (upload) WHERE upload IS NOT NULL;
CREATE INDEX image_sha256 ON image (sha256, idx) WHERE idx IS NOT NULL;

CREATE TABLE record (
  idx   INTEGER PRIMARY KEY,
  log   TEXT NOT NULL,
  jsonl BLOB NOT NULL,                     -- the exact bytes of the line
  csv   BLOB NOT NULL
) STRICT;
CREATE INDEX record_log ON record (log, idx);

CREATE TABLE log_file (
  name        TEXT PRIMARY KEY,            -- without its ending: results-2026-11-23
  csv_header  BLOB NOT NULL,
  jsonl_bytes INTEGER NOT NULL DEFAULT 0,  -- watermarks: known to be on disk up to here
  csv_bytes   INTEGER NOT NULL DEFAULT 0,
  removal     TEXT CHECK (removal IN ('begun', 'done')),
  removed_us  INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE summary_day (
  day    TEXT PRIMARY KEY,
  closed INTEGER NOT NULL                  -- 1 when the day is over and nothing is pending
) STRICT, WITHOUT ROWID;

CREATE TABLE tally (                       -- running totals; core/tally.py says which
  series TEXT NOT NULL,
  label  TEXT NOT NULL,
  bucket TEXT NOT NULL,
  value  REAL NOT NULL,
  PRIMARY KEY (series, label, bucket)
) STRICT, WITHOUT ROWID;

CREATE TABLE notice (                      -- what a channel has still to be told; outbox.py
  id      INTEGER PRIMARY KEY,
  channel TEXT NOT NULL,
  event   TEXT NOT NULL,
  at_us   INTEGER NOT NULL,
  subject TEXT NOT NULL
) STRICT;
CREATE INDEX notice_channel ON notice (channel, event, id);

CREATE TABLE message (                     -- what is being told; kept for a day after its end
  id       TEXT PRIMARY KEY,               -- goes with it, the same in every attempt
  channel  TEXT NOT NULL,
  event    TEXT NOT NULL,
  made_us  INTEGER NOT NULL,
  body     BLOB NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_us  INTEGER NOT NULL,               -- not tried again before
  error    TEXT,                           -- of the last attempt
  ended_us INTEGER,
  state    TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'given up'))
) STRICT, WITHOUT ROWID;
CREATE INDEX message_made ON message (channel, event, made_us);
CREATE INDEX message_waiting ON message (channel, event, made_us) WHERE state = 'waiting';
"""


@dataclass(frozen=True, slots=True)
class NewClaim:
    """A file about to be claimed.

    Attributes:
        path: below the inbox, as the file system has it.
        size: bytes.
        received_us: when it was first seen; microseconds since 1970, UTC.
        settled_us: when it was complete.
        day: local day of `received_us`, as 2026-11-23.
        upload: its name at the second door, if it came by that.
    """

    path: bytes
    size: int
    received_us: int
    settled_us: int
    day: str
    upload: str | None = None


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
        path: the database file; made when it is missing, its folder must exist.

    Attributes:
        notices_added: how many, since it was opened.

    Raises:
        LedgerError: the file is damaged, another user's, or was written by a newer version.
        Unavailable: its disk is full or read-only, or another program holds it.
        StorageFailure: its disk fails.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.notices_added = 0
        check_writable(path)
        try:
            super().__init__(sqlite3.connect(path, isolation_level=None))
        except sqlite3.DatabaseError as error:
            raise refused(path, error) from error
        try:
            self._prepare(path)
        except sqlite3.DatabaseError as error:
            self.close()
            raise refused(path, error) from error
        except XrayWatcherError:
            self.close()
            raise

    def _prepare(self, path: str) -> None:
        # FULL: with NORMAL 41 of 50 power cuts lost a decision (RELIABILITY.md, 0.3).
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        version = self._value("PRAGMA user_version")
        if version == 0:
            self._create()
        elif version != SCHEMA_VERSION:
            raise LedgerError(
                f"The ledger {path} has version {version}; this program knows version "
                f"{SCHEMA_VERSION}. Install the program that wrote it, or a newer one."
            )

    def _create(self) -> None:
        with self.transaction():
            for statement in _SCHEMA.split(";\n"):
                self._db.execute(statement)
            self.set_meta("id", uuid4().hex)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: committed, with fsync, at the end of the block.

        Raises:
            Unavailable: the disk is full, or another program holds the ledger; nothing was changed.
            StorageFailure: the disk failed; what was changed is known after a restart.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                with suppress(sqlite3.OperationalError):  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise refused(self._path, error) from error
            raise

    def set_meta(self, key: str, value: str) -> None:
        """Remember a fact; inside a transaction it is committed with it."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

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
            self._db.executemany("UPDATE summary_day SET closed = 0 WHERE day = ?", days)
            return [self._insert(claim) for claim in claims]

    def _insert(self, claim: NewClaim) -> int:
        cursor = self._db.execute(
            "INSERT INTO image (state, path, size, received_us, settled_us, day, upload, attempts)"
            " VALUES ('CLAIMING', ?, ?, ?, ?, ?, ?, 1)",
            (claim.path, claim.size, claim.received_us, claim.settled_us, claim.day, claim.upload),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def reserve_ids(self, up_to: int) -> None:
        """Never give an id up to this one to a new image: a file in the work folder has it."""
        with self.transaction():
            cursor = self._db.execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'image'", (up_to,)
            )
            if cursor.rowcount == 0:
                self._db.execute("INSERT INTO sqlite_sequence VALUES ('image', ?)", (up_to,))

    def drop_claims(self, image_ids: Sequence[int]) -> None:
        """Forget claims whose file never left the inbox."""
        with self.transaction():
            self._update("DELETE FROM image WHERE id = ? AND state = 'CLAIMING'", image_ids)

    def mark_claimed(self, image_ids: Sequence[int]) -> None:
        """Commit that these files lie in the work folder."""
        with self.transaction():
            self._update("UPDATE image SET state = 'CLAIMED' WHERE id = ?", image_ids)

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
            for decision in decisions:
                self._put(decision, csv_header)
            beyond = max(decision.idx for decision in decisions) + 1
            self.set_meta("next_index", str(max(self.next_index, beyond)))
            self._update("UPDATE image SET state = 'RETRIED' WHERE id = ?", retried)
            self.add_to_tally(tally_of_batch(len(decisions)))

    def _put(self, decision: Decision, csv_header: bytes) -> None:
        d = decision
        self._forget_record(d.image_id)
        self._db.execute(
            "UPDATE image SET state = 'FILING', idx = ?, size = ?, sha256 = ?, outcome = ?,"
            " level = ?, top_label = ?, reject_code = ?, folder = ?, filed_name = ? WHERE id = ?",
            (d.idx, d.size, d.sha256, d.outcome, d.level, d.top_label, d.reject_code, d.folder,
             d.filed_name, d.image_id),
        )  # fmt: skip
        self._db.execute(
            "INSERT OR IGNORE INTO log_file (name, csv_header) VALUES (?, ?)", (d.log, csv_header)
        )
        self._db.execute("INSERT INTO record VALUES (?, ?, ?, ?)", (d.idx, d.log, d.jsonl, d.csv))

    def withdraw(self, image_id: int) -> None:
        """Undo a decision that is not logged yet; its index is not used again.

        A rejection of which it was the retry waits for one again.
        """
        with self.transaction():
            for line in self._lines("JOIN image USING (idx) WHERE image.id = ?", image_id):
                self._db.execute(
                    "UPDATE image SET state = 'DONE' WHERE idx = ? AND state = 'RETRIED'",
                    (from_jsonl(line.jsonl).get("retry_of"),),
                )
            self._forget_record(image_id)
            self._db.execute(
                "UPDATE image SET state = 'CLAIMED', idx = NULL, outcome = NULL, level = NULL,"
                " top_label = NULL, reject_code = NULL WHERE id = ?",
                (image_id,),
            )

    def _forget_record(self, image_id: int) -> None:
        self._db.execute(
            "DELETE FROM record WHERE idx = (SELECT idx FROM image WHERE id = ?)", (image_id,)
        )

    def finish(
        self,
        image_ids: Sequence[int],
        filed_us: int,
        logs: Sequence[LogState],
        tally: Tally,
        notices: Sequence[Notice] = (),
    ) -> None:
        """Commit that images are filed and logged, with the new watermarks and totals.

        Args:
            image_ids: their rows.
            filed_us: now.
            logs: how far the logs are known to be on disk.
            tally: what the images add to the running totals.
            notices: who has to be told of them.
        """
        with self.transaction():
            self._db.executemany(
                "UPDATE image SET state = 'DONE', filed_us = ? WHERE id = ?",
                [(filed_us, image_id) for image_id in image_ids],
            )
            self.set_log_states(logs)
            self.add_to_tally(tally)
            self.add_notices(notices)
            self.set_meta(LAST_FILED, str(filed_us))

    def add_to_tally(self, tally: Tally) -> None:
        """Add to the running totals; inside a transaction it is committed with it."""
        self._db.executemany(
            "INSERT INTO tally VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET value = value + excluded.value",
            [(*key, value) for key, value in tally.items()],
        )

    def add_notices(self, notices: Sequence[Notice]) -> None:
        """Note what has to be told; inside a transaction it is committed with it."""
        self._db.executemany(
            "INSERT INTO notice (channel, event, at_us, subject) VALUES (?, ?, ?, ?)",
            [(n.channel, n.event, n.at_us, n.subject) for n in notices],
        )
        self.notices_added += len(notices)

    def set_log_states(self, logs: Sequence[LogState]) -> None:
        """Note how far logs are known to be on disk; inside a transaction committed with it."""
        self._db.executemany(
            "UPDATE log_file SET jsonl_bytes = ?, csv_bytes = ? WHERE name = ?",
            [(log.jsonl_bytes, log.csv_bytes, log.name) for log in logs],
        )

    def set_summarised(self, day: str, *, closed: bool, notices: Sequence[Notice] = ()) -> None:
        """Note that a day's summary is written, whether it is final, and who is told so."""
        with self.transaction():
            self._db.execute("INSERT OR REPLACE INTO summary_day VALUES (?, ?)", (day, closed))
            self.add_notices(notices)

    def _update(self, sql: str, image_ids: Sequence[int]) -> None:
        self._db.executemany(sql, [(image_id,) for image_id in image_ids])
