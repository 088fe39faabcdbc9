"""The commands that say how things are: `status`, `waiting`, `summary` and others."""

from __future__ import annotations

import click

from xray_watcher.cli.options import (
    EXIT_NOT_HEALTHY,
    load_from_options,
    load_with_origins,
    print_json,
    say,
    settings_options,
    weights_options,
)


@click.command()
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool, **options: str | None) -> int:
    """Say how the service is, whether it runs or not. Exit code 4: not healthy."""
    from xray_watcher.commands.status import collect_status, to_text
    from xray_watcher.system.clock import SystemClock

    found = collect_status(load_from_options(options), SystemClock().now())
    if as_json:
        print_json(found)
    else:
        say(to_text(found))
    return 0 if found["healthy"] else EXIT_NOT_HEALTHY


@click.command()
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def waiting(as_json: bool, **options: str | None) -> int:
    """Name the images that wait for another try, why, and what happens when."""
    from xray_watcher.commands.waiting import read_waiting, to_text

    settings = load_from_options(options)
    rows = read_waiting(settings)
    if as_json:
        print_json({"waiting": rows})
    else:
        say(to_text(rows, settings.zone))
    return 0


@click.command()
@click.argument("date", required=False)
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def summary(date: str | None, as_json: bool, **options: str | None) -> int:
    """Print the figures of a day, such as 2026-11-23; without DATE of today."""
    from xray_watcher.commands.status import collect_summary
    from xray_watcher.reports.daily import to_json, to_markdown
    from xray_watcher.system.clock import SystemClock

    figures = collect_summary(load_from_options(options), date, SystemClock().now())
    say((to_json(figures) if as_json else to_markdown(figures)).decode().removesuffix("\n"))
    return 0


@click.command()
@click.argument("file")
@settings_options
def backup(file: str, **options: str | None) -> int:
    """Copy the ledger to FILE, consistently, while the service runs or not."""
    from xray_watcher.commands.backup import backup as copy_ledger

    images = copy_ledger(load_from_options(options).folders.ledger, file)
    say(f"{file} holds the ledger up to index {images - 1}.")
    return 0


@click.command()
@settings_options
@click.option("--deep", is_flag=True, help="Read every filed image and compare its hash.")
@click.option("--repair", is_flag=True, help="Write reasons and logs again from the ledger.")
def fsck(deep: bool, repair: bool, **options: str | None) -> int:
    """Compare ledger, folders and logs and name every difference; nothing is ever deleted.

    Exit code 1: there are differences left.
    """
    from xray_watcher.commands import fsck as comparison
    from xray_watcher.system.clock import SystemClock

    settings = load_from_options(options)
    if repair:
        for done in comparison.repair(settings, SystemClock().now()):
            say(done)
    differences = comparison.check(settings, deep=deep)
    for difference in differences:
        say(str(difference))
    say(f"{len(differences)} differences.")
    if copies := comparison.describe_log_copies(settings):
        say(copies)
    return 1 if differences else 0


@click.command("check-config")
@settings_options
@weights_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check_config(as_json: bool, **options: str | None) -> int:
    """Say which settings are in force and where each is from; exit code 78 if one is wrong.

    The files that [notify] names are read as well: call it as the service's user.
    """
    from xray_watcher.config.loading import describe_json, describe_text
    from xray_watcher.notify.setup import build_channels
    from xray_watcher.system.sandbox import lack_in_words, missing_parts

    found = load_with_origins(options)
    build_channels(found.settings.notify)
    if as_json:
        print_json(describe_json(found))
    else:
        say(f"file: {found.file or 'none'}")
        say(describe_text(found))
        if lack := lack_in_words(missing_parts()):
            say(lack)
    return 0
