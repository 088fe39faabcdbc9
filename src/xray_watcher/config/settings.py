"""The settings: one frozen tree in which every key has its type, bounds, unit and sentence.

`sources` reads the values, `checks` finds what only the whole can show.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, Field

from xray_watcher.config.base import (
    Bytes,
    FolderText,
    Minutes,
    OptionalFile,
    PathText,
    Seconds,
    Section,
    allowed,
    did_you_mean,
    unit,
)
from xray_watcher.config.folders import Folders
from xray_watcher.config.scoring import ModelSettings, RiskSettings
from xray_watcher.config.upkeep import MetricsSettings, NotifySettings, RetentionSettings
from xray_watcher.core.catalogue import WEIGHT_SETS, WeightSet
from xray_watcher.core.values import LARGEST_FILE_BYTES, LEVELS, RiskRules
from xray_watcher.imaging.formats import SUFFIXES
from xray_watcher.imaging.limits import DecodeLimits, DeepRange

NETWORK_SETTLE_SECONDS = 30.0
"""Attributes of network file systems may be this old (RELIABILITY.md, row 9)."""

SYSTEM_STATE_DIR = "/var/lib/xray-watcher"


def _known_zone(name: str) -> str:
    try:
        if name:
            ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(did_you_mean(name, available_timezones())) from error
    return name


def _suffix(text: str) -> str:
    if not text.startswith(".") or text == "." or "/" in text:
        raise ValueError("a suffix begins with its dot")
    return text.lower()


Suffix = Annotated[str, AfterValidator(_suffix)]


class IntakeSettings(Section):
    """`[intake]`: where images come from and go to, and when a file counts as complete."""

    inbox: FolderText = ""
    """The shared folder that is watched; "" is inbox."""
    classified: FolderText = ""
    """Receives scored images in High, Medium and Low; "" is classified_images."""
    rejected: FolderText = ""
    """Receives what cannot be scored, with the reason beside it; "" is rejected."""
    duplicates_folder: FolderText = ""
    """Receives repeated images when duplicates = "set-aside"; "" is duplicates."""
    logs: FolderText = ""
    """Holds the JSONL and CSV logs and the daily figures; "" is logs."""
    settle_seconds: Seconds = Field(2.0, gt=0, le=3600)
    """A file is complete when it has not changed for this long; on network file systems 30 unless
    set here."""
    scan_seconds: Seconds = Field(5.0, gt=0, le=3600)
    """Time between two looks at the inbox when nothing happens."""
    watch: Literal["auto", "events", "poll"] = "auto"
    """Whether file-system events make a look come sooner; "auto" uses them on local file systems
    only."""
    ignore: tuple[str, ...] = (
        *(".*", "*~", "~$*"),  # hidden files, and what editors leave
        *("*.part", "*.partial", "*.tmp", "*.temp", "*.filepart"),  # copies that are under way
        *("*.crdownload", "*.download", "*.lock"),
        *("Thumbs.db", "desktop.ini"),
        *("@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "RECYCLER"),  # of NAS systems
        *("#snapshot", "~snapshot", "@Recently-Snapshot"),
        *("__MACOSX", "lost+found", "System Volume Information", "Network Trash Folder"),
    )
    """Names of files and folders that are left alone in the inbox, as shell patterns without regard
    to case; the default also has what NAS systems add."""
    suffixes: tuple[Suffix, ...] = Field(SUFFIXES, min_length=1)
    """Endings of the files that are taken, without regard to case; others are left alone."""
    duplicates: Literal["flag", "set-aside"] = "flag"
    """Bytes that were received before are scored again with a flag, or with "set-aside" moved to
    duplicates_folder unscored."""
    incomplete_after_minutes: Minutes = Field(15.0, gt=0, le=10080)
    """A picture that is not whole is rejected when it has not changed for this long."""
    give_up_after_minutes: Minutes = Field(60.0, gt=0, le=10080)
    """A file that cannot be read for this long is rejected unread; others continue all along."""
    urgent: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], allowed("a list of folder names")
    ] = ()
    """First folders of the inbox whose images go before all others, as "ER"; uploads do so too.
    Every fourth place in a batch is left to the others."""
    remove_empty_folders_after_days: Annotated[int, unit("days")] = Field(0, ge=0, le=36_500)
    """Empty folders below the first level of the inbox are removed when they have not changed for
    this long; 0 keeps them, because a device may expect its folder to stay."""
    max_bytes: Bytes = Field(67_108_864, ge=1024, le=LARGEST_FILE_BYTES)
    """Larger files are rejected."""
    max_megapixels: Annotated[float, unit("million pixels")] = Field(50.0, gt=0, le=89)
    """Larger pictures are rejected."""
    min_side: Annotated[int, unit("pixels")] = Field(64, ge=1, le=12_000)
    """Pictures with a shorter side are rejected."""
    min_free_bytes: Bytes = Field(1_073_741_824, ge=0)
    """With less free space on any disk in use nothing more is taken from the inbox until there is
    room again."""

    def settle_seconds_on(self, *, network: bool) -> float:
        """The settle time in seconds: as set, else longer on a network file system."""
        is_set = "settle_seconds" in self.model_fields_set
        return NETWORK_SETTLE_SECONDS if network and not is_set else self.settle_seconds


class ImagesSettings(Section):
    """`[images]`: how the values of a picture are read."""

    deep_range: DeepRange = "full"
    """White in a grey picture of 16 bits: with "full" 65535, with "observed" its lightest value,
    and black is its darkest."""


class BatchSettings(Section):
    """`[batch]`: when the arrivals that have gathered are scored."""

    max_size: Annotated[int, unit("images")] = Field(16, ge=1, le=1024)
    """A batch is scored when it has this many."""
    quiet_seconds: Seconds = Field(1.0, ge=0, le=3600)
    """A batch is scored when nothing was added for this long."""
    max_wait_seconds: Seconds = Field(10.0, ge=0, le=3600)
    """A batch is scored this long after its first image."""


class SummarySettings(Section):
    """`[summary]`: the daily figures."""

    summary_seconds: Seconds = Field(60.0, gt=0, le=86_400)
    """The running day's figures are written at most this often."""


class WebSettings(Section):
    """`[web]`: what `xray-watcher serve` listens on, whom it answers, and how much it takes."""

    host: Annotated[str, Field(min_length=1), allowed("an IP address or host name")] = "127.0.0.1"
    """The address that is listened on; any but a loopback address needs token_file."""
    port: Annotated[int, unit("port")] = Field(8080, ge=1, le=65_535)
    """The TCP port that is listened on."""
    token_file: OptionalFile = ""
    """Tokens and their roles, as `xray-watcher token` writes them (mode 0600); with one, every page
    and call needs a token."""
    allowed_hosts: Annotated[tuple[str, ...], allowed("a list of host names")] = ()
    """Names under which the service is reached, beside localhost, as browsers send them:
    "xray.example.org"; the port is added where it lacks."""
    max_request_bytes: Bytes = Field(8_589_934_592, ge=1_048_576)
    """Larger uploads are refused as a whole."""
    max_files: Annotated[int, unit("files")] = Field(100_000, ge=1, le=1_000_000)
    """Uploads of more files than this are refused."""
    uploads_per_minute: Annotated[int, unit("requests")] = Field(600, ge=1, le=100_000)
    """Uploads that are taken from each client in a minute."""
    uploads_at_once: Annotated[int, unit("requests")] = Field(8, ge=1, le=256)
    """Uploads that are taken at the same time."""


class LogSettings(Section):
    """`[log]`: the service's own log."""

    level: Literal["debug", "info", "warning"] = "info"
    """The least severe messages that the service writes to stderr."""


class Settings(Section):
    """All settings. `loading.load_settings` makes them from file, environment and flags."""

    root: PathText = ""
    """The folder of the inbox and of all results; required."""
    state_dir: PathText = Field(SYSTEM_STATE_DIR, min_length=1)
    """Ledger, lock and weights, on a local disk. Who may not write to the default has
    ~/.local/state/xray-watcher ($XDG_STATE_HOME), unless the settings are those in
    /etc/xray-watcher."""
    timezone: Annotated[
        str,
        AfterValidator(_known_zone),
        allowed('"" for the system\'s, or an IANA name as "Europe/Athens"'),
    ] = ""
    """The zone whose midnight ends the day of logs and summaries."""
    intake: IntakeSettings = IntakeSettings()
    """Where images come from and go to, and which are taken."""
    images: ImagesSettings = ImagesSettings()
    """How the values of a picture are read."""
    batch: BatchSettings = BatchSettings()
    """When gathered images are scored."""
    model: ModelSettings = ModelSettings()
    """The network and what it runs on."""
    risk: RiskSettings = RiskSettings()
    """How scores become a level."""
    summary: SummarySettings = SummarySettings()
    """The daily figures."""
    metrics: MetricsSettings = MetricsSettings()
    """Figures for Prometheus, where /metrics is not used."""
    web: WebSettings = WebSettings()
    """The HTTP API and the pages of `xray-watcher serve`."""
    notify: NotifySettings = NotifySettings()
    """Who gets messages, about what, and how often."""
    retention: RetentionSettings = RetentionSettings()
    """What is removed when it is old enough: nothing unless it is set."""
    log: LogSettings = LogSettings()
    """The service's own log."""

    @property
    def folders(self) -> Folders:
        """Where everything lies; relative folders of `[intake]` lie below root."""
        return Folders(
            root=os.path.abspath(self.root),
            inbox=self._below_root(self.intake.inbox, "inbox"),
            classified=self._below_root(self.intake.classified, "classified_images"),
            rejected=self._below_root(self.intake.rejected, "rejected"),
            duplicates=self._below_root(self.intake.duplicates_folder, "duplicates"),
            logs=self._below_root(self.intake.logs, "logs"),
            state=os.path.abspath(self.state_dir),
        )

    def _below_root(self, folder: str, default: str) -> str:
        return os.path.abspath(os.path.join(self.root, folder or default))

    @property
    def zone(self) -> ZoneInfo | None:
        """The zone of local days; None is the system's."""
        return ZoneInfo(self.timezone) if self.timezone else None

    @property
    def weight_set(self) -> WeightSet:
        """The labels and operating points of the chosen weights."""
        return WEIGHT_SETS[self.model.weights]

    def decode_limits(self) -> DecodeLimits:
        """What a picture may be, as `[intake]` and `[images]` have it."""
        return DecodeLimits(
            max_bytes=self.intake.max_bytes,
            max_megapixels=self.intake.max_megapixels,
            min_side=self.intake.min_side,
            deep_range=self.images.deep_range,
        )

    def risk_rules(self) -> RiskRules:
        """The `[risk]` table as the core takes it."""
        return RiskRules(
            policy=self.risk.policy,
            level_of={label: level for level in LEVELS for label in self.risk.levels.of(level)},
            thresholds=self.risk.thresholds,
            no_finding_level=self.risk.no_finding_level,
            low_margin=self.risk.low_margin,
        )
