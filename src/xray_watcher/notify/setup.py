"""The channels as the settings have them, and a message to try each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial

from xray_watcher.config.upkeep import NotifySettings
from xray_watcher.core.notices import Subscriptions
from xray_watcher.errors import ConfigError
from xray_watcher.ledger.outbox import new_id
from xray_watcher.notify.channels import (
    Channel,
    Command,
    DeliveryFailed,
    Mail,
    Webhook,
)
from xray_watcher.notify.secrets import SecretFileError
from xray_watcher.notify.texts import render_body


def build_channels(settings: NotifySettings) -> dict[str, Channel]:
    """Every channel that is set up, by its name; each address of a mail is one.

    Raises:
        ConfigError: secrets or certificates cannot be used; it carries every problem.
    """
    channels: dict[str, Channel] = {}
    problems: dict[str, None] = {}  # that of a file once, however many addresses use it
    for name, make in _makers(settings):
        try:
            channels[name] = make()
        except SecretFileError as error:
            problems[f"notify: {error}"] = None
    if problems:
        raise ConfigError(list(problems))
    return channels


def _makers(settings: NotifySettings) -> Iterator[tuple[str, Callable[[], Channel]]]:
    if settings.webhook.is_set_up:
        yield "webhook", partial(Webhook, settings.webhook)
    if settings.smtp.host:
        for to in settings.smtp.to:
            yield f"smtp:{to}", partial(Mail, settings.smtp, to)
    if settings.command.argv:
        yield "command", partial(Command, settings.command)


def build_subscriptions(settings: NotifySettings) -> Subscriptions:
    """Who wants to hear what."""
    wants: dict[str, tuple[str, ...]] = {}
    if settings.webhook.is_set_up:
        wants["webhook"] = settings.webhook.events
    if settings.smtp.host:
        wants |= {f"smtp:{to}": settings.smtp.events for to in settings.smtp.to}
    if settings.command.argv:
        wants["command"] = settings.command.events
    return Subscriptions(wants)


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
        body = render_body(message_id, "test", [], count=0, now=now)
        try:
            channel.send(message_id, "test", body)
        except DeliveryFailed as error:
            yield name, str(error)
        else:
            yield name, None
