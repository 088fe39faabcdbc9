"""The tables of the ledger, and the steps that bring an older ledger up to date.

`user_version` of the file says how many of the steps are applied. A step is never changed once a
ledger has it: what is new is a new step at the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from xray_watcher.errors import LedgerError, Unavailable
from xray_watcher.ledger.connection import Connection, CopyFailed
from xray_watcher.system.files import NEW_FILE, replace, sync, sync_folder

_TABLES = """
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

_RETRY_OF = """
-- retry_of: the index under which it was rejected before `retry` put it back; known at its claim
ALTER TABLE image ADD COLUMN retry_of INTEGER;
DROP INDEX image_sha256;
CREATE INDEX image_classified ON image (sha256, idx) WHERE outcome = 'classified';
"""

_RESULT = """
-- what the list of results is filtered and sorted by; core/result_keys.py says how.
-- It has no index: a filing appends a few bytes, and a million rows are read in about 0.1 s
CREATE TABLE result (
  idx     INTEGER PRIMARY KEY,
  day     TEXT NOT NULL,                   -- local day on which the image was received
  rank    INTEGER NOT NULL,
  top     INTEGER NOT NULL,
  present INTEGER NOT NULL,
  flags   INTEGER NOT NULL,
  source  TEXT NOT NULL,
  name    TEXT NOT NULL
) STRICT;
CREATE TABLE result_day (                  -- between which indexes the images of a day are
  day       TEXT PRIMARY KEY,
  first_idx INTEGER NOT NULL,
  last_idx  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta SELECT 'results_missing_below', value FROM meta WHERE key = 'next_index';
"""

MIGRATIONS: tuple[str, ...] = (_TABLES, _RETRY_OF, _RESULT)
"""Each step's statements; a new ledger takes all of them."""

_MODE = 0o600


def statements_after(version: int) -> Iterator[str]:
    """The statements that a ledger of a version lacks; at the end of each step its own version."""
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        yield from step.split(";\n")
        yield f"PRAGMA user_version = {number}"


def check_not_newer(path: str, version: int) -> None:
    """Refuse a ledger with tables that this program does not know.

    Raises:
        LedgerError: a newer program wrote it.
    """
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"The ledger {path} has version {version}; this program knows version "
            f"{len(MIGRATIONS)}. Install the program that wrote it, or a newer one."
        )


def check_version(path: str, version: int) -> None:
    """Refuse a ledger that this program can only bring up to date, or does not know.

    Raises:
        LedgerError: it is older or newer; the message says what to do.
    """
    check_not_newer(path, version)
    if version < len(MIGRATIONS):
        raise LedgerError(
            f"The ledger {path} has version {version}; this program needs version "
            f"{len(MIGRATIONS)}. Start the service of this program once: it brings the ledger up "
            "to date and keeps a copy of the old one."
        )


def keep_copy(db: Connection, path: str, version: int) -> str:
    """Copy a ledger beside itself before it is brought up to date.

    A copy of the same version is replaced: the ledger may have gone on since.

    Args:
        db: the ledger.
        path: its file.
        version: of its tables; names the copy.

    Returns:
        Where the copy lies, on disk.

    Raises:
        Unavailable: it cannot be written; the ledger is as it was.
        LedgerError: the ledger is damaged.
    """
    kept = f"{path}.version-{version}"
    part = f"{kept}.part"
    try:
        _copy(db, part)
        replace(part, kept)
        sync_folder(os.path.dirname(os.path.abspath(kept)))
    except (OSError, CopyFailed) as error:
        raise Unavailable(
            "disk",
            f"The ledger has to be brought up to date, and no copy of it can be kept as {kept} "
            f"({error}). Nothing was changed: make room there, and start again.",
        ) from error
    finally:
        _discard(part)
    return kept


def _copy(db: Connection, part: str) -> None:
    _discard(part)  # what a kill left there
    fd = os.open(part, NEW_FILE, _MODE)
    try:
        with db.copied_to(part):
            pass
        sync(fd)
    finally:
        os.close(fd)


def _discard(part: str) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        with suppress(OSError):
            os.unlink(part + ending)
