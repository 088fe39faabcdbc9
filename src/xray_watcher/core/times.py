"""Times as they are kept and shown: microseconds in the ledger, ISO 8601 in records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(moment: datetime) -> int:
    """Microseconds since 1970, UTC, of an aware datetime."""
    return (moment - _EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """The aware datetime in UTC of microseconds since 1970."""
    return _EPOCH + microseconds * _MICROSECOND


def utc_text(moment: datetime) -> str:
    """ISO 8601 in UTC to the millisecond, as `2026-11-23T23:59:59.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local_text(moment: datetime, zone: tzinfo | None) -> str:
    """ISO 8601 in local time with offset; None is the system's zone."""
    return moment.astimezone(zone).isoformat(timespec="milliseconds")


def local_day(moment: datetime, zone: tzinfo | None) -> str:
    """The local day, as `2026-11-23`; None is the system's zone."""
    return moment.astimezone(zone).date().isoformat()
