"""The commands for those who look after the service: `metrics`, `notify`."""

from __future__ import annotations

import click

from xray_watcher.cli_options import settings_of, settings_options
from xray_watcher.errors import UsageError


@click.command()
@settings_options
def metrics(**options: str | None) -> int:
    """Print what Prometheus is told, as /metrics and the textfile have it."""
    from xray_watcher.clock import SystemClock
    from xray_watcher.reports.metrics import metrics_of

    click.echo(metrics_of(settings_of(options), SystemClock().now()), nl=False)
    return 0


@click.group()
def notify() -> None:
    """Telling people of results and troubles: see [notify] in the configuration."""


@notify.command("test")
@settings_options
def test_channels(**options: str | None) -> int:
    """Send a test message through each channel and say how it went. Exit code 1: one failed."""
    from xray_watcher.clock import SystemClock
    from xray_watcher.notify.setup import channels_of, try_each

    channels = channels_of(settings_of(options).notify)
    if not channels:
        raise UsageError("Nobody is told anything: set notify.webhook, .smtp or .command.")
    failed = 0
    for name, problem in try_each(channels, SystemClock().now()):
        click.echo(f"{name}: {'taken' if problem is None else f'FAILED, {problem}'}")
        failed += problem is not None
    return 1 if failed else 0
