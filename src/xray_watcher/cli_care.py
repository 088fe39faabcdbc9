"""The commands for those who look after the service: `metrics`."""

from __future__ import annotations

import click

from xray_watcher.cli_options import settings_of, settings_options


@click.command()
@settings_options
def metrics(**options: str | None) -> int:
    """Print what Prometheus is told, as /metrics and the textfile have it."""
    from xray_watcher.clock import SystemClock
    from xray_watcher.reports.metrics import metrics_of

    click.echo(metrics_of(settings_of(options), SystemClock().now()), nl=False)
    return 0
