"""The command line: parse, load the settings, call; no logic.

Every command imports what it needs when it runs, so that `--help` and `status` are quick.
Data goes to stdout, logs and complaints to stderr.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import click

from xray_watcher import __version__
from xray_watcher.cli_care import metrics, notify, retention
from xray_watcher.cli_options import (
    loaded,
    print_json,
    settings_of,
    settings_options,
    weights_options,
)
from xray_watcher.core.catalogue import DEFAULT_WEIGHTS, PHANTOM
from xray_watcher.errors import ConfigError, UsageError, XrayWatcherError

if TYPE_CHECKING:
    from xray_watcher.config import Settings
    from xray_watcher.daemon import Daemon
    from xray_watcher.model.weights import WeightStore
    from xray_watcher.supervisor import Reports

EXIT_SOME_REJECTED = 3
EXIT_NOT_HEALTHY = 4
EXIT_INTERRUPTED = 130

_EXIT_CODES = """\b
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but some files were rejected;
4 not healthy (status); 10 weights missing or wrong; 11 already running;
74 a disk failed; 78 wrong configuration; 130 interrupted.
"""


def main() -> None:
    """Run a command and end the process with its exit code."""
    try:
        code = cli.main(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except XrayWatcherError as error:
        _complain(error)
        code = error.exit_code
    _end(code)


def _complain(error: XrayWatcherError) -> None:
    if isinstance(error, ConfigError):
        count = len(error.problems)
        mistakes = "a mistake" if count == 1 else f"{count} mistakes"
        click.echo(f"The configuration has {mistakes}:", err=True)
        for problem in error.problems:
            click.echo(f"  {problem}", err=True)
    else:
        click.echo(f"xray-watcher: {error}", err=True)


def _end(code: int) -> None:
    """End; without waiting for a network that is still being loaded (importing it takes long)."""
    if any(thread.name == "load-network" for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXIT_CODES,
)
@click.version_option(__version__, prog_name="xray-watcher")
def cli() -> None:
    """Watch a shared folder for chest X-rays, score them, file them by risk, keep the record.

    A research and triage aid, never a diagnosis.
    """


# -- the service --------------------------------------------------------------------------


@cli.command()
@settings_options
@weights_options
@click.option("--inbox", metavar="FOLDER", help="The shared folder that is watched.")
@click.option("--once", is_flag=True, help="File what lies in the inbox, then end.")
def run(once: bool, inbox: str | None, **options: str | None) -> int:
    """Watch the inbox in the foreground, until SIGTERM or SIGINT.

    SIGHUP reads the configuration anew: whole, or not at all.
    """
    from xray_watcher.signals import end_in_order_while_starting

    end_in_order_while_starting()
    from xray_watcher import log
    from xray_watcher.supervisor import supervised

    def load() -> Settings:
        return settings_of(options, {"intake.inbox": inbox})

    settings = load()
    shows_bar = once and sys.stderr.isatty() and settings.log.level == "info"
    log.set_up("warning" if shows_bar else settings.log.level)
    if once:
        return supervised(lambda reports: _telling(lambda: _run_to_the_end(settings, reports)))
    return supervised(lambda reports: _telling(lambda: _watch(settings, reports, load)))


def _telling(work: Callable[[], int]) -> int:
    """Work; of an error that nobody expected, tell what can be told without naming a file."""
    from xray_watcher import log

    try:
        return work()
    except (XrayWatcherError, click.ClickException, click.Abort, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - the last place where it can be told
        log.crashed(error)
        return 1


def _watch(settings: Settings, reports: Reports, reload: Callable[[], Settings]) -> int:
    from xray_watcher.bootstrap import assembled_daemon

    with assembled_daemon(settings, report=reports.beat, reload=reload) as daemon:
        daemon.run()
    return 0


def _run_to_the_end(settings: Settings, reports: Reports) -> int:
    from xray_watcher.bootstrap import assembled_daemon

    with assembled_daemon(settings, once=True, report=reports.beat) as daemon:
        _run_once(daemon)
        click.echo(f"{daemon.done} images filed, {daemon.rejected} of them rejected.")
        return EXIT_SOME_REJECTED if daemon.rejected else 0


def _run_once(daemon: Daemon) -> None:
    from xray_watcher.progress import progress_bar

    with progress_bar(total=None, unit=" images") as bar:

        def watching(done: int, left: int) -> None:
            bar.total = done + left
            bar.update(done - bar.n)

        daemon.run(once=True, watching=watching)


@cli.command()
@settings_options
@weights_options
@click.option("--host", metavar="ADDRESS", help="The address that is listened on.")
@click.option("--port", type=int, metavar="PORT", help="The TCP port that is listened on.")
def serve(host: str | None, port: int | None, **options: str | None) -> int:
    """Answer the HTTP API and the pages in the foreground, until SIGTERM or SIGINT."""
    from xray_watcher import log

    settings = settings_of(options, {"web.host": host, "web.port": port})
    log.set_up(settings.log.level)
    _server().serve(settings)
    return 0


@cli.command()
@settings_options
@weights_options
def up(**options: str | None) -> int:
    """Start `run` and `serve` together, for a workstation; end both with Ctrl-C."""
    from xray_watcher import log
    from xray_watcher.up import run_both

    settings = settings_of(options)
    log.set_up(settings.log.level)
    click.echo(f"Images: {settings.folders.inbox}\nPages: {_server().url_of(settings)}", err=True)
    given = [(f"--{name.replace('_', '-')}", value) for name, value in options.items() if value]
    flags = [part for flag in given for part in flag]
    return run_both([["run", *flags], ["serve", *flags]])


@cli.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["view", "upload"]), required=True)
@settings_options
def token(name: str, role: Literal["view", "upload"], **options: str | None) -> int:
    """Make a token for NAME, a person or a program, and print it; it is shown this once only.

    Its hash goes to the file web.token_file, which is made where it is missing.
    """
    from xray_watcher.web.tokens import add_token

    path = settings_of(options, needs_root=False).web.token_file
    if not path:
        raise UsageError("Set web.token_file to the path that the tokens' hashes go to.")
    click.echo(add_token(path, name, role))
    return 0


def _server() -> ModuleType:
    """The web server's module, which needs packages that are an extra."""
    from importlib import import_module

    try:
        return import_module("xray_watcher.web.server")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("xray_watcher"):
            raise
        raise UsageError(
            f"This command needs the package {error.name}, which is not installed. "
            "Install it: pip install 'xray-watcher[web]'"
        ) from error


@cli.command()
@click.option("--images", metavar="FOLDER", help="Drop the images of this folder too.")
@click.option("--folder", metavar="FOLDER", default="demo-run", show_default=True)
@click.option("--serve", "with_pages", is_flag=True, help="Serve the pages, until Ctrl-C.")
def demo(images: str | None, folder: str, with_pages: bool) -> int:
    """Start the service on a fresh folder, drop made images, show what happens, end."""
    from xray_watcher.config import Settings
    from xray_watcher.demo import run_demo

    run_demo(folder, images, _server().url_of(Settings()) if with_pages else None)
    return 0


# -- one-off work -------------------------------------------------------------------------


@cli.command()
@click.argument("files", nargs=-1, required=True)
@settings_options
@weights_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(files: tuple[str, ...], as_json: bool, **options: str | None) -> int:
    """Score FILES where they lie; no folder is touched and nothing is recorded."""
    from xray_watcher.predict import predictions, to_text
    from xray_watcher.progress import progress_bar
    from xray_watcher.records import NOTICE, SIMULATIONS

    settings = settings_of(options, needs_root=False)
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
        click.echo("\n".join([banner, NOTICE] if banner else [NOTICE]))
    return EXIT_SOME_REJECTED if any("rejected" in result for result in results) else 0


@cli.command()
@click.argument("names", metavar="NAME...", nargs=-1)
@settings_options
@click.option("--all", "every", is_flag=True, help="All files in the rejected folder.")
def retry(names: tuple[str, ...], every: bool, **options: str | None) -> int:
    """Put rejected files back where they came from, for another try.

    NAME is a file's name in the rejected folder, such as 0007_name.jpg, or its index.
    """
    from xray_watcher.clock import SystemClock
    from xray_watcher.core.naming import safe_name
    from xray_watcher.retry import put_back

    if bool(names) == every:
        raise UsageError("Give the names of rejected files, or --all.")
    moved = put_back(settings_of(options), names, SystemClock().now(), every=every)
    for name, target in moved:
        click.echo(f"{name} -> {safe_name(target)}")
    click.echo(f"{len(moved)} files are back to be tried again.")
    return 0


@cli.group()
def weights() -> None:
    """Fetch, import and check the network's weights."""


def _store(options: Mapping[str, str | None]) -> WeightStore:
    from xray_watcher.model.weights import WeightStore

    return WeightStore(settings_of(options, needs_root=False).folders.weights)


@weights.command("list")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_weights(as_json: bool, **options: str | None) -> int:
    """List the sets that can be named: state, labels, source."""
    found = _store(options).list()
    if as_json:
        print_json([asdict(one) for one in found])
        return 0
    for one in found:
        click.echo(f"{one.name}: {one.state}, {len(one.labels)} labels")
        click.echo(f"    labels   {', '.join(one.labels)}")
        click.echo(f"    source   {one.source or 'this package'}")
        click.echo(f"    SHA-256  {one.sha256 or 'not known: give it with --sha256'}")
    return 0


@weights.command()
@click.argument("name", default=DEFAULT_WEIGHTS)
@settings_options
@click.option("--url", help="Another place that has the same file, such as a mirror.")
@click.option("--sha256", help="Of the file, for sets whose hash is not known here.")
@click.option("--trust", is_flag=True, help="Take a file whose hash is not known.")
def fetch(
    name: str, url: str | None, sha256: str | None, trust: bool, **options: str | None
) -> int:
    """Download the published weights NAME, check them and store them."""
    from xray_watcher.progress import progress_bar

    store = _store(options)
    with progress_bar(total=None, unit="B", scale=True) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        path = store.fetch(name, url=url, sha256=sha256, trust=trust, progress=progress)
    click.echo(f"{name} is installed: {path}")
    return 0


@weights.command("import")
@click.argument("file")
@settings_options
@click.option("--name", default=DEFAULT_WEIGHTS, show_default=True, help="What the file is.")
@click.option("--sha256", help="Of the file, for sets whose hash is not known here.")
@click.option("--trust", is_flag=True, help="Take a file of this set with another hash.")
def import_weights(
    file: str, name: str, sha256: str | None, trust: bool, **options: str | None
) -> int:
    """Check a checkpoint FILE and store its weights; none of its code is run."""
    path = _store(options).import_file(name, file, sha256=sha256, trust=trust)
    click.echo(f"{name} is installed: {path}")
    return 0


@weights.command()
@click.argument("name", required=False)
@settings_options
def verify(name: str | None, **options: str | None) -> int:
    """Check the weights NAME, or all that are installed, against their hashes."""
    store = _store(options)
    here = [one.name for one in store.list() if one.path is not None]
    for one in [name] if name else [*here, PHANTOM.name]:
        store.verify(one)
        click.echo(f"{one}: sound")
    return 0


@cli.command()
@click.argument("folder")
@click.option("--count", type=click.IntRange(1), default=24, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
def phantoms(folder: str, count: int, seed: int) -> int:
    """Write drawn chest images into FOLDER, with drawn.csv that says what each shows."""
    from xray_watcher.phantoms import write_phantoms
    from xray_watcher.progress import progress_bar

    with progress_bar(total=count, unit=" images") as bar:
        write_phantoms(folder, count, seed, bar.update)
    click.echo(f"{count} drawn images lie in {folder}; drawn.csv says what was drawn.")
    return 0


# -- how things are -----------------------------------------------------------------------


@cli.command()
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool, **options: str | None) -> int:
    """Say how the service is, whether it runs or not. Exit code 4: not healthy."""
    from xray_watcher.clock import SystemClock
    from xray_watcher.status import status_of, to_text

    found = status_of(settings_of(options), SystemClock().now())
    if as_json:
        print_json(found)
    else:
        click.echo(to_text(found))
    return 0 if found["healthy"] else EXIT_NOT_HEALTHY


@cli.command()
@click.argument("date", required=False)
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def summary(date: str | None, as_json: bool, **options: str | None) -> int:
    """Print the figures of a day, such as 2026-11-23; without DATE of today."""
    from xray_watcher.clock import SystemClock
    from xray_watcher.reports.daily import to_json, to_markdown
    from xray_watcher.status import summary_of

    figures = summary_of(settings_of(options), date, SystemClock().now())
    click.echo((to_json(figures) if as_json else to_markdown(figures)).decode(), nl=False)
    return 0


@cli.command()
@click.argument("file")
@settings_options
def backup(file: str, **options: str | None) -> int:
    """Copy the ledger to FILE, consistently, while the service runs or not."""
    from xray_watcher.backup import backup as copy_ledger

    images = copy_ledger(settings_of(options).folders.ledger, file)
    click.echo(f"{file} holds the ledger up to index {images - 1}.")
    return 0


@cli.command()
@settings_options
@click.option("--deep", is_flag=True, help="Read every filed image and compare its hash.")
@click.option("--repair", is_flag=True, help="Mend reasons and logs from the ledger.")
def fsck(deep: bool, repair: bool, **options: str | None) -> int:
    """Compare ledger, folders and logs and name every difference; nothing is ever deleted.

    Exit code 1: there are differences left.
    """
    from xray_watcher import fsck as comparison
    from xray_watcher.clock import SystemClock

    settings = settings_of(options)
    if repair:
        for done in comparison.repair(settings, SystemClock().now()):
            click.echo(done)
    differences = comparison.check(settings, deep=deep)
    for difference in differences:
        click.echo(str(difference))
    click.echo(f"{len(differences)} differences.")
    return 1 if differences else 0


@cli.command("check-config")
@settings_options
@weights_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check_config(as_json: bool, **options: str | None) -> int:
    """Say which settings are in force and where each is from; exit code 78 if one is wrong."""
    from xray_watcher.config_loading import describe_json, describe_text

    flags = {
        "model.weights": options["weights"],
        "model.weights_file": options["weights_file"],
    }
    found = loaded(options["config"], options["root"], options["state_dir"], flags)
    if as_json:
        print_json(describe_json(found))
    else:
        click.echo(f"file: {found.file or 'none'}")
        click.echo(describe_text(found))
    return 0


for command in (metrics, notify, retention):
    cli.add_command(command)

if __name__ == "__main__":
    main()
