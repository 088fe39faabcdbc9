"""The channels as the settings have them, and a message to try each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from xray_watcher.config.upkeep import NotifySettings
from xray_watcher.core.notices import Subscriptions
from xray_watcher.errors import ConfigError
from xray_watcher.ledger.outbox import new_id
from xray_watcher.notify.channels import Channel, Command, DeliveryFailed, Mail, Webhook
from xray_watcher.notify.secrets import SecretFileError
from xray_watcher.notify.texts import render_body

CHANNELS: dict[str, Callable[[Any, str], Channel]] = {
    "webhook": lambda settings, _recipient: Webhook(settings),
    "smtp": Mail,
    "command": lambda settings, _recipient: Command(settings),
}
"""What makes a channel from its table in `[notify]` and a recipient, by the table's name."""


def build_channels(settings: NotifySettings) -> dict[str, Channel]:
    """Every channel that is set up, by its name; each recipient has one.

    Raises:
        ConfigError: secrets or certificates cannot be used; it carries every problem.
    """
    channels: dict[str, Channel] = {}
    problems: dict[str, None] = {}  # that of a file once, however many recipients use it
    for kind, section in settings.sections.items():
        for recipient in section.recipients:
            try:
                channels[_name(kind, recipient)] = CHANNELS[kind](section, recipient)
            except SecretFileError as error:
                problems[f"notify: {error}"] = None
    if problems:
        raise ConfigError(list(problems))
    return channels


def build_subscriptions(settings: NotifySettings) -> Subscriptions:
    """Which events each channel gets."""
    return Subscriptions(
        {
            _name(kind, recipient): section.events
            for kind, section in settings.sections.items()
            for recipient in section.recipients
        }
    )


def _name(kind: str, recipient: str) -> str:
    return f"{kind}:{recipient}" if recipient else kind


def try_each(channels: Mapping[str, Channel], now: datetime) -> Iterator[tuple[str, str | None]]:
    """Send a test message through each channel; yields its name, and the error if it failed."""
    for name, channel in channels.items():
        message_id = new_id()
        body = render_body(message_id, "test", [], count=0, now=now)
        try:
            channel.send(message_id, "test", body)
        except DeliveryFailed as error:
            yield name, str(error)
        else:
            yield name, None
