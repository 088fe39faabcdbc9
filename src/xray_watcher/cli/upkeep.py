"""The commands for those who look after the service: `metrics`, `notify`, `retention`."""

from __future__ import annotations

import click

from xray_watcher.cli.options import load_from_options, say, settings_options
from xray_watcher.errors import UsageError


@click.command()
@settings_options
def metrics(**options: str | None) -> int:
    """Print the metrics for Prometheus, as /metrics and the textfile have them."""
    from xray_watcher.reports.metrics import collect_metrics
    from xray_watcher.system.clock import SystemClock

    click.echo(collect_metrics(load_from_options(options), SystemClock().now()), nl=False)
    return 0


@click.group()
def notify() -> None:
    """Notifications of results and problems: see [notify] in the configuration."""


@notify.command("test")
@settings_options
def test_channels(**options: str | None) -> int:
    """Send a test message through each channel and say how it went. Exit code 1: one failed."""
    from xray_watcher.notify.setup import build_channels, try_each
    from xray_watcher.system.clock import SystemClock

    channels = build_channels(load_from_options(options).notify)
    if not channels:
        raise UsageError("No channel is set up: set notify.webhook, .smtp or .command.")
    failed = 0
    for name, problem in try_each(channels, SystemClock().now()):
        say(f"{name}: {'taken' if problem is None else f'FAILED, {problem}'}")
        failed += problem is not None
    return 1 if failed else 0


@click.command()
@settings_options
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
def retention(dry_run: bool, **options: str | None) -> int:
    """Remove what is older than [retention] allows; the running service does it once a day."""
    from xray_watcher.commands.retention import clean_up, plan
    from xray_watcher.system.clock import SystemClock

    settings, clock = load_from_options(options), SystemClock()
    for line in plan(settings, clock.now()):
        say(line)
    if dry_run:
        return 0
    done = clean_up(settings, clock)
    for name, why in done.stuck.items():
        say(f"{name} cannot be removed ({why}).", err=True)
    say(
        f"{done.images} images ({done.size / 1e6:.1f} MB) and {done.logs} logs are removed; "
        f"{done.kept} were left: missing, or not what was filed."
    )
    return 1 if done.stuck else 0
