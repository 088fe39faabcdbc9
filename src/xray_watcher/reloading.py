"""Reading the configuration anew while the service runs: whole and sound, or not at all.

The new file is validated as at the start. What can change between two batches is then handed to
the parts that it belongs to; the log names the keys that took effect, and those that wait for a
restart. A file with a mistake changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

import structlog

from xray_watcher.config.keys import KEYS
from xray_watcher.config.loading import value_of
from xray_watcher.config.settings import Settings
from xray_watcher.errors import ConfigError
from xray_watcher.imaging.decode_pool import DecodeOutcome, DecodePool
from xray_watcher.system.signals import ReloadRequest

DECODE_LIMITS = (
    "intake.max_bytes",
    "intake.max_megapixels",
    "intake.min_side",
    "images.deep_range",
)
"""The keys that say how a picture is read; decoding children get them when they are started."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LivePart:
    """A part that takes new settings while it runs.

    Attributes:
        keys: what it reads, as keys or as tables of keys: "risk" stands for all of that table.
        use: hands it the new settings; it cannot fail.
    """

    keys: tuple[str, ...]
    use: Callable[[Settings], object]

    def reads(self, key: str) -> bool:
        """Whether this part takes a change of that key."""
        return any(key == own or key.startswith(f"{own}.") for own in self.keys)


class NoReloading:
    """For runs that end by themselves: the configuration stays."""

    count = 0

    @property
    def is_wanted(self) -> bool:
        """Never."""
        return False

    def carry_out(self) -> str | None:
        """Nothing to do."""


class Reloading:
    """Reads the configuration anew when SIGHUP asks for it.

    Args:
        request: whether it was asked for.
        settings: those the service was started with.
        load: reads and validates all settings anew.
        parts: who takes new settings.
    """

    def __init__(
        self,
        request: ReloadRequest,
        settings: Settings,
        load: Callable[[], Settings],
        parts: Sequence[LivePart],
    ) -> None:
        self._request = request
        self._started = self._in_force = settings
        self._load = load
        self._parts = tuple(parts)
        self.count = 0

    @property
    def is_wanted(self) -> bool:
        """Whether to read it anew at the next moment without a batch in hand."""
        return bool(self._request)

    def carry_out(self) -> str | None:
        """Read the configuration anew and use it, or say why nothing was changed.

        Returns:
            None, or what is wrong with the configuration.
        """
        self._request.take()
        self.count += 1
        try:
            new = self._load()
            _check_running_labels(self._started, new)
        except ConfigError as error:
            _log.error("configuration not reloaded", problems=list(error.problems))
            return f"The configuration was not reloaded, nothing has changed. {error}"
        for part in self._parts:
            part.use(new)
        _log.info(
            "configuration reloaded",
            changed=[key for key in _differences(self._in_force, new) if self._is_live(key)],
            needs_restart=[
                key for key in _differences(self._started, new) if not self._is_live(key)
            ],
        )
        self._in_force = new
        return None

    def _is_live(self, key: str) -> bool:
        return any(part.reads(key) for part in self._parts)


class RenewableDecoder:
    """Decoding children that can be replaced by others with new limits, between two batches.

    Args:
        make: starts the children that new settings call for.
        settings: the first.
    """

    def __init__(self, make: Callable[[Settings], DecodePool], settings: Settings) -> None:
        self._make = make
        self._settings = settings
        self._pool = make(settings)

    def __enter__(self) -> Self:
        """Return the decoder itself."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """End all children."""
        self._pool.close()

    def submit(self, path: str) -> Future[DecodeOutcome]:
        """Begin to decode a file; whoever was read in another thread may meet a change of pools."""
        pool = self._pool
        try:
            return pool.submit(path)
        except RuntimeError:
            if pool is self._pool:
                raise
            return self._pool.submit(path)

    def use(self, settings: Settings) -> None:
        """Replace the children if their limits have changed; no picture may be with them."""
        if any(value_of(settings, key) != value_of(self._settings, key) for key in DECODE_LIMITS):
            self._pool.close()
            self._pool = self._make(settings)
        self._settings = settings


def _differences(old: Settings, new: Settings) -> Iterator[str]:
    return (key for key in KEYS if value_of(old, key) != value_of(new, key))


def _check_running_labels(started: Settings, new: Settings) -> None:
    """The network stays until a restart: new levels must still have a place for its labels."""
    levels = new.risk_rules().level_of
    weights = started.weight_set
    missing = [label for label in weights.labels if label not in levels]
    if missing:
        problem = (
            f"risk.levels: no level names {', '.join(missing)}, which {weights.name}, the weights "
            "in use, scores; restart the service to change weights and levels together"
        )
        raise ConfigError([problem])
