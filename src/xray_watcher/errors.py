"""Every error that xray-watcher raises on purpose: one base and its few children.

A message says what happened, to which file or key, and what to do. Data that a
caller may want to act on is kept as attributes.
"""

from __future__ import annotations

from collections.abc import Sequence


class XrayWatcherError(Exception):
    """The base of all errors raised on purpose; the command line ends with `exit_code`."""

    exit_code = 1


class ConfigError(XrayWatcherError):
    """The configuration cannot be used; carries every problem found, not only the first."""

    exit_code = 78

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class UsageError(XrayWatcherError):
    """A command was called in a way that cannot work, for instance without a needed extra."""

    exit_code = 2


class WeightsError(XrayWatcherError):
    """Weights are missing, damaged, of another network, or not to be trusted."""

    exit_code = 10


class AlreadyRunning(XrayWatcherError):
    """Another process holds the ledger or the inbox; the message says which and who."""

    exit_code = 11


class LedgerError(XrayWatcherError):
    """The ledger cannot be used: it is damaged, missing, or of a newer version of the program."""


class LedgerOutOfReach(LedgerError):
    """The ledger cannot be read now: its disk is full or fails, or another program holds it."""


class StorageFailure(XrayWatcherError):
    """The disk did not confirm a write (fsync failed): stop, restart, recover; never retry."""

    exit_code = 74


class ImageError(XrayWatcherError):
    """A fault of one image: it is rejected with this code and sentence, the service goes on."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


class UnreadableImage(ImageError):
    """The bytes are not a whole picture of a handled format and size."""


class Unavailable(XrayWatcherError):
    """Something of ours is out of reach for now (share, disk, model): back off and try again.

    `component` is a short name for `status`, such as "inbox" or "disk"; `reason` is a sentence.
    """

    def __init__(self, component: str, reason: str) -> None:
        self.component = component
        self.reason = reason
        super().__init__(reason)
