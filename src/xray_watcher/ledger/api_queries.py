"""What the API asks the ledger."""

from __future__ import annotations

from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.ledger.states import IS_FILED
from xray_watcher.records import REJECTED


class WebLedger(LedgerReader):
    """The ledger as the API reads it."""

    def filed_uploads(self, batch: str) -> list[tuple[str, int, str]]:
        """The uploads of a request that are filed: upload, index and level of each."""
        return self.db.rows(
            f"SELECT upload, idx, ifnull(level, '{REJECTED}') FROM image"
            f" WHERE upload >= ? AND upload < ? AND {IS_FILED}",
            _range(batch),
        )

    def claimed_uploads(self, batch: str) -> dict[str, str]:
        """The uploads of a request that were claimed: their file names, by upload."""
        rows = self.db.rows(
            "SELECT upload, path FROM image WHERE upload >= ? AND upload < ?", _range(batch)
        )
        return {upload: path.decode("utf-8", "replace").partition("/")[2] for upload, path in rows}

    def line(self, index: int) -> bytes | None:
        """The JSONL line of one filed image."""
        value = self.db.value(
            f"SELECT jsonl FROM record JOIN image USING (idx) WHERE idx = ? AND {IS_FILED}", index
        )
        return None if value is None else bytes(value)


def _range(batch: str) -> tuple[str, str]:
    """All names that begin with the batch's id and its dash."""
    return f"{batch}-", f"{batch}."
