"""The channels as the settings have them, and a message to try each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial

from xray_watcher.config.upkeep import NotifySettings
from xray_watcher.core.notices import Subscriptions
from xray_watcher.errors import ConfigError
from xray_watcher.ledger.outbox import new_id
from xray_watcher.notify.channels import Channel, Command, DeliveryFailed, Mail, Webhook
from xray_watcher.notify.secrets import SecretFileError
from xray_watcher.notify.texts import render_body


def build_channels(settings: NotifySettings) -> dict[str, Channel]:
    """Every channel that is set up, by its name; each address of a mail is one.

    Raises:
        ConfigError: secrets or certificates cannot be used; it carries every problem.
    """
    channels: dict[str, Channel] = {}
    problems: dict[str, None] = {}  # that of a file once, however many addresses use it
    for name, _, make in _entries(settings):
        try:
            channels[name] = make()
        except SecretFileError as error:
            problems[f"notify: {error}"] = None
    if problems:
        raise ConfigError(list(problems))
    return channels


def build_subscriptions(settings: NotifySettings) -> Subscriptions:
    """The events that each channel sends."""
    return Subscriptions({name: events for name, events, _ in _entries(settings)})


def _entries(
    settings: NotifySettings,
) -> Iterator[tuple[str, Sequence[str], Callable[[], Channel]]]:
    """Of each channel its name, its events, and what makes it."""
    webhook, smtp, command = settings.webhook, settings.smtp, settings.command
    if webhook.is_set_up:
        yield "webhook", webhook.events, partial(Webhook, webhook)
    if smtp.host:
        for to in smtp.to:
            yield f"smtp:{to}", smtp.events, partial(Mail, smtp, to)
    if command.argv:
        yield "command", command.events, partial(Command, command)


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
