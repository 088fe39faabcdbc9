"""The commands about single images: `predict`, `retry`, `phantoms`."""

from __future__ import annotations

import sys

import click

from xray_watcher.cli.options import (
    EXIT_FAILED,
    EXIT_SOME_REJECTED,
    load_from_options,
    print_json,
    say,
    settings_options,
    weights_options,
    work_as_owner,
)
from xray_watcher.errors import UsageError


@click.command()
@click.argument("files", nargs=-1, required=True)
@settings_options
@weights_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(files: tuple[str, ...], as_json: bool, **options: str | None) -> int:
    """Score FILES where they lie; no folder is touched and nothing is recorded."""
    from xray_watcher.commands.predict import predictions, to_text
    from xray_watcher.records import NOTICE, SIMULATIONS
    from xray_watcher.system.progress import progress_bar

    settings = load_from_options(options, needs_root=False)
    results = []
    with progress_bar(total=len(files), unit=" images") as bar:
        for prediction in predictions(settings, files):
            results.append(prediction)
            bar.update()
            if not as_json:
                bar.write(to_text(prediction), file=sys.stdout)
    if as_json:
        print_json({"results": results, "notice": NOTICE})
    else:
        banner = SIMULATIONS.get(settings.model.weights)
        say("\n".join([banner, NOTICE] if banner else [NOTICE]))
    return EXIT_SOME_REJECTED if any("rejected" in result for result in results) else 0


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1)
@settings_options
@click.option("--all", "every", is_flag=True, help="All files in the rejected folder.")
def retry(names: tuple[str, ...], every: bool, **options: str | None) -> int:
    """Hand rejected files to the service for another try.

    NAME is a file's name in the rejected folder, such as 0007_name.jpg, or its index. A file that
    cannot be put back is named and stays where it is; the exit code is 1 then.
    """
    from xray_watcher.commands.retry import put_back
    from xray_watcher.core.naming import safe_name
    from xray_watcher.system.clock import SystemClock

    if bool(names) == every:
        raise UsageError("Give the names of rejected files, or --all.")
    outcomes = put_back(load_from_options(options), names, SystemClock().now(), every=every)
    back = 0
    for outcome in outcomes:
        if outcome.inbox_path is None:
            say(f"{outcome.name}: {outcome.problem}", err=True)
            continue
        shown = "/".join(safe_name(part) for part in outcome.inbox_path.split("/"))
        say(f"{outcome.name}: waits to be tried again as {shown}")
        back += 1
    say(f"{back} files wait to be tried again.")
    return 0 if back == len(outcomes) else EXIT_FAILED


@click.command()
@click.argument("folder")
@click.option("--count", type=click.IntRange(1), default=24, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
def phantoms(folder: str, count: int, seed: int) -> int:
    """Write drawn chest images into FOLDER, with drawn.csv that says what each shows."""
    from xray_watcher.phantom.files import write_phantoms
    from xray_watcher.system.progress import progress_bar

    work_as_owner(folder)
    with progress_bar(total=count, unit=" images") as bar:
        write_phantoms(folder, count, seed, bar.update)
    say(f"{count} drawn images lie in {folder}; drawn.csv says what was drawn.")
    return 0
