"""The channels as the settings have them, and a message to try each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from xray_watcher.config.care import NotifySettings
from xray_watcher.core.telling import Audience
from xray_watcher.errors import ConfigError
from xray_watcher.ledger.outbox import new_id
from xray_watcher.notify.channels import (
    Channel,
    Command,
    DeliveryFailed,
    Mail,
    SecretFileError,
    Webhook,
)
from xray_watcher.notify.texts import body_of


def channels_of(settings: NotifySettings) -> dict[str, Channel]:
    """Every channel that is set up, by its name; each address of a mail is one.

    Raises:
        ConfigError: a secret or a certificate cannot be used.
    """
    channels: dict[str, Channel] = {}
    try:
        if settings.webhook.url:
            channels["webhook"] = Webhook(settings.webhook)
        if settings.smtp.host:
            channels |= {f"smtp:{to}": Mail(settings.smtp, to) for to in settings.smtp.to}
        if settings.command.argv:
            channels["command"] = Command(settings.command)
    except SecretFileError as error:
        raise ConfigError([f"notify: {error}"]) from error
    return channels


def audience_of(settings: NotifySettings) -> Audience:
    """Who wants to hear what."""
    wants: dict[str, tuple[str, ...]] = {}
    if settings.webhook.url:
        wants["webhook"] = settings.webhook.events
    if settings.smtp.host:
        wants |= {f"smtp:{to}": settings.smtp.events for to in settings.smtp.to}
    if settings.command.argv:
        wants["command"] = settings.command.events
    return Audience(wants)


def try_each(channels: Mapping[str, Channel], now: datetime) -> Iterator[tuple[str, str | None]]:
    """Send a test message through each channel.

    Args:
        channels: by name.
        now: the time, aware.

    Yields:
        The name of a channel, and why the message was not taken; None when it was.
    """
    for name, channel in channels.items():
        message_id = new_id()
        body = body_of(message_id, "test", [], count=0, now=now)
        try:
            channel.send(message_id, "test", body)
        except DeliveryFailed as error:
            yield name, str(error)
        else:
            yield name, None
