"""The tables for those who look after the service: `[metrics]`, `[notify]`, `[retention]`."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, get_args, runtime_checkable

from pydantic import Field

from xray_watcher.config.base import (
    AnyPath,
    OptionalFile,
    Seconds,
    Section,
    allowed,
    readable,
    unit,
)
from xray_watcher.core.addresses import host_name, mail_address, web_address

Event = Literal["high", "rejected", "degraded", "recovered", "summary"]
EVENTS: tuple[Event, ...] = get_args(Event)
"""What messages may be about, in the order in which they are sent."""

Events = Annotated[
    tuple[Event, ...], allowed("a list of " + ", ".join(f'"{event}"' for event in EVENTS))
]
Address = Annotated[str, Field(min_length=1), readable(mail_address)]


class MetricsSettings(Section):
    """`[metrics]`: figures for Prometheus, where it does not ask the web process."""

    textfile: Annotated[AnyPath, allowed('a path that ends in .prom, or "" for none')] = Field(
        "", pattern=r"^$|\.prom$"
    )
    """A file for the textfile collector of Prometheus' node_exporter, in its folder, kept up to
    date by the daemon."""
    textfile_seconds: Seconds = Field(15.0, ge=1, le=3600)
    """The file is written at most this often."""


@runtime_checkable
class ChannelSettings(Protocol):
    """What the table of every kind of channel has."""

    @property
    def events(self) -> tuple[str, ...]:
        """The events that are sent this way."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """Who gets them, each over a channel of its own; () where the kind is not set up."""


class WebhookSettings(Section):
    """`[notify.webhook]`: messages by HTTP POST."""

    url: Annotated[
        str,
        readable(web_address),
        allowed('an http:// or https:// address, or "" for none', is_secret=True),
    ] = ""
    """Where messages are posted as JSON; redirections are not followed."""
    url_file: OptionalFile = ""
    """Holds that address, where it is a secret itself (Slack, Teams), in place of url; not readable
    by everybody."""
    secret_file: OptionalFile = ""
    """Holds the secret by which messages are signed (HMAC-SHA256, as Standard Webhooks have it);
    not readable by everybody."""
    ca_file: OptionalFile = ""
    """Certificates to trust in place of the system's, in PEM form."""
    timeout_seconds: Seconds = Field(10.0, ge=1, le=300)
    """A message that is not taken in this time is tried again."""
    events: Events = EVENTS
    """What the messages of this channel are about."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """One, without a name."""
        return ("",) if self.url or self.url_file else ()


class SmtpSettings(Section):
    """`[notify.smtp]`: messages by mail."""

    host: Annotated[
        str,
        readable(host_name),
        allowed('the name of a mail server, or "" for none', is_secret=True),
    ] = ""
    """The mail server that takes the messages."""
    port: Annotated[int, unit("port")] = Field(25, ge=1, le=65535)
    """Its port."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is made safe: after a greeting in clear text (ports 25 and 587), from the
    start (465), or not at all."""
    ca_file: OptionalFile = ""
    """Certificates to trust in place of the system's, in PEM form."""
    user: Annotated[str, allowed('a name, or "" for no login')] = ""
    """Who logs in there."""
    password_file: OptionalFile = ""
    """Holds that user's password; not readable by everybody."""
    sender: Annotated[str, readable(mail_address), allowed("a mail address")] = ""
    """Whom the messages are from."""
    to: Annotated[tuple[Address, ...], allowed("a list of mail addresses")] = Field(
        (), max_length=20
    )
    """Who gets them; each gets mails of their own."""
    timeout_seconds: Seconds = Field(30.0, ge=1, le=300)
    """A message that is not taken in this time is tried again."""
    events: Events = EVENTS
    """What the messages of this channel are about."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """The addresses."""
        return self.to if self.host else ()


class CommandSettings(Section):
    """`[notify.command]`: messages to a program of yours."""

    argv: Annotated[
        tuple[str, ...],
        allowed("a list: the program's full path and its arguments; [] for none", is_secret=True),
    ] = ()
    """A program that is started for each message and reads it as JSON from its standard input; no
    shell is used. Exit code 0 says that it is taken."""
    timeout_seconds: Seconds = Field(30.0, ge=1, le=300)
    """A program that takes longer is ended and tried again."""
    events: Events = EVENTS
    """What the messages of this channel are about."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """One, without a name."""
        return ("",) if self.argv else ()


class NotifySettings(Section):
    """`[notify]`: who gets messages, about what, and how often."""

    include_names: Annotated[bool, allowed("true or false")] = False
    """Whether messages carry names of files and folders, which may say who a patient is; else a
    message names an image by its index."""
    per_minute: Annotated[int, unit("messages a minute")] = Field(4, ge=1, le=60)
    """At most so many messages for each channel and kind of event; the next one has all that comes
    meanwhile."""
    degraded_after_seconds: Seconds = Field(60.0, ge=0, le=86_400)
    """A degraded component is reported after this long, and its recovery when it has been well for
    as long."""
    give_up_after_hours: Annotated[float, unit("hours")] = Field(72.0, gt=0, le=8760)
    """A message that could not be delivered for this long is given up, loudly."""
    webhook: WebhookSettings = WebhookSettings()
    """Messages by HTTP POST."""
    smtp: SmtpSettings = SmtpSettings()
    """Messages by mail."""
    command: CommandSettings = CommandSettings()
    """Messages to a program of yours."""

    @property
    def sections(self) -> dict[str, ChannelSettings]:
        """The kinds of channels that are set up, by name."""
        return {
            name: section
            for name, section in self
            if isinstance(section, ChannelSettings) and section.recipients
        }

    @property
    def kinds(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.sections)


Days = Annotated[int, unit("days"), Field(ge=0, le=36_500)]


class RetentionSettings(Section):
    """`[retention]`: what is removed when it is old enough."""

    high_days: Days = 0
    """How long images in High are kept; 0 is for ever."""
    medium_days: Days = 0
    """How long images in Medium are kept; 0 is for ever."""
    low_days: Days = 0
    """How long images in Low are kept; 0 is for ever."""
    rejected_days: Days = 0
    """How long rejected images are kept; 0 is for ever."""
    duplicates_days: Days = 0
    """How long repeated images in duplicates are kept; 0 is for ever."""
    logs_days: Days = 0
    """How long JSONL and CSV logs are kept after their day; 0 is for ever. The ledger keeps every
    record."""
    keep_at_least_days: Annotated[int, unit("days")] = Field(30, ge=1, le=36_500)
    """Nothing younger is ever removed."""
    keep_at_least_images: Annotated[int, unit("images")] = Field(1000, ge=0)
    """So many of the newest images of each folder stay, however old."""
