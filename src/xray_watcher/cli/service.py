"""The commands that are the service, or show it: `run`, `serve`, `up`, `token`, `demo`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import click

from xray_watcher.cli.options import (
    EXIT_SOME_REJECTED,
    load_from_options,
    say,
    settings_options,
    weights_options,
    work_as_owner,
)
from xray_watcher.errors import UsageError, XrayWatcherError

if TYPE_CHECKING:
    from xray_watcher.config.settings import Settings
    from xray_watcher.service.reports import Reports
    from xray_watcher.service.supervisor import Work


@click.command()
@settings_options
@weights_options
@click.option("--inbox", metavar="FOLDER", help="The shared folder that is watched.")
@click.option("--once", is_flag=True, help="File what lies in the inbox, then end.")
def run(once: bool, inbox: str | None, **options: str | None) -> int:
    """Watch the inbox in the foreground, until SIGTERM or SIGINT.

    SIGHUP reads the configuration anew: whole, or not at all. Every key takes effect.
    """
    from xray_watcher.system.signals import exit_cleanly_while_starting

    exit_cleanly_while_starting()
    from xray_watcher import log
    from xray_watcher.service.supervisor import Renewal, run_supervised

    def load() -> Settings:
        return load_from_options(options, {"intake.inbox": inbox})

    settings = load()
    shows_bar = once and sys.stderr.isatty() and settings.log.level == "info"
    log.set_up("warning" if shows_bar else settings.log.level)
    if once:
        return run_supervised(partial(_report_failure, partial(_run_to_the_end, settings)))

    def load_and_check() -> Settings:
        from xray_watcher.notify.setup import build_channels
        from xray_watcher.service.network import check_weights

        new = load()
        check_weights(new)
        build_channels(new.notify)
        return new

    def renew(former: Work) -> Renewal:
        from xray_watcher.config.loading import differences
        from xray_watcher.service.renewing import load_in_child

        assert isinstance(former, _Watch)
        new = load_in_child(load_and_check)
        log.set_up(new.log.level)
        return Renewal(_Watch(new), list(differences(former.settings, new)))

    return run_supervised(_Watch(settings), renew)


@dataclass(frozen=True, slots=True)
class _Watch:
    """The inner process's work, with the settings that it was begun with."""

    settings: Settings

    def __call__(self, reports: Reports) -> int:
        return _report_failure(self._watch, reports)

    def _watch(self, reports: Reports) -> int:
        from xray_watcher import log
        from xray_watcher.service.assembly import assemble

        log.set_up(self.settings.log.level)
        with assemble(self.settings, reports=reports) as daemon:
            daemon.run()
        return 0


def _report_failure(work: Work, reports: Reports) -> int:
    """Work; report an unexpected error without the name of a file."""
    from xray_watcher import log

    try:
        return work(reports)
    except (click.ClickException, click.Abort, BrokenPipeError):
        raise
    except XrayWatcherError as error:
        if reports.fail(str(error)):
            return error.exit_code
        raise
    except Exception as error:  # noqa: BLE001 - the last place that can report it
        reports.fail(f"{type(error).__name__} in xray-watcher itself.")
        log.log_crash(error)
        return 1


def _run_to_the_end(settings: Settings, reports: Reports) -> int:
    from xray_watcher.service.assembly import assemble
    from xray_watcher.system.progress import progress_bar

    with assemble(settings, once=True, reports=reports) as daemon:
        with progress_bar(total=None, unit=" images") as bar:

            def show(done: int, left: int) -> None:
                bar.total = done + left
                bar.update(done - bar.n)

            daemon.run(once=True, watching=show)
        say(f"{daemon.done} images filed, {daemon.rejected} of them rejected.")
        for line in _left_lines(daemon.left, daemon.ignored):
            say(line)
        return EXIT_SOME_REJECTED if daemon.rejected or daemon.left else 0


def _left_lines(left: dict[str, int], ignored: int) -> Iterator[str]:
    """What a run that has ended by itself leaves, and why."""
    from xray_watcher.core.retries import REASONS

    reasons = {
        **REASONS,
        "unfinished": "it does not look whole; a later run or the service rejects it",
        "barred": "this user may not enter the folder, or not look at the file",
    }
    if left:
        yield f"{sum(left.values())} are left:"
        yield from (f"  {count}: {reasons[code]}" for code, count in left.items())
    if ignored:
        yield (
            f"{ignored} other entries of the inbox are left alone: names with other endings, "
            "hidden or temporary ones (intake.suffixes, intake.ignore)."
        )


@click.command()
@settings_options
@weights_options
@click.option("--host", metavar="ADDRESS", help="The address that is listened on.")
@click.option("--port", type=int, metavar="PORT", help="The TCP port that is listened on.")
def serve(host: str | None, port: int | None, **options: str | None) -> int:
    """Answer the HTTP API and the pages in the foreground, until SIGTERM or SIGINT.

    SIGHUP reads the configuration anew: whole, or not at all. No request is cut off.
    """
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # until the server listens to it
    from xray_watcher import log
    from xray_watcher.system.sandbox import be_opaque

    be_opaque()

    def load() -> Settings:
        return load_from_options(options, {"web.host": host, "web.port": port})

    settings = load()
    log.set_up(settings.log.level)
    _server().serve(settings, load)
    return 0


@click.command()
@settings_options
@weights_options
def up(**options: str | None) -> int:
    """Start `run` and `serve` together, for a workstation; end both with Ctrl-C."""
    from xray_watcher import log
    from xray_watcher.commands.up import run_both

    settings = load_from_options(options)
    log.set_up(settings.log.level)
    say(f"Images: {settings.folders.inbox}\nPages: {_server().pages_url(settings)}", err=True)
    given = [(f"--{name.replace('_', '-')}", value) for name, value in options.items() if value]
    flags = [part for flag in given for part in flag]
    return run_both([["run", *flags], ["serve", *flags]])


@click.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["view", "upload"]), required=True)
@settings_options
def token(name: str, role: Literal["view", "upload"], **options: str | None) -> int:
    """Make a token for NAME, a person or a program, and print it; it is shown this once only.

    Its hash is added to the file web.token_file, which is made where it is missing.
    """
    from xray_watcher.web.tokens import add_token

    path = load_from_options(options, needs_root=False).web.token_file
    if not path:
        raise UsageError("Set web.token_file to the path of the file for the tokens' hashes.")
    say(add_token(path, name, role))
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


@click.command()
@click.option("--images", metavar="FOLDER", help="Drop the images of this folder too.")
@click.option("--folder", metavar="FOLDER", default="demo-run", show_default=True)
@click.option("--serve", "with_pages", is_flag=True, help="Serve the pages, until Ctrl-C.")
def demo(images: str | None, folder: str, with_pages: bool) -> int:
    """Start the service on a fresh folder, drop made images, show what happens, end."""
    from xray_watcher.commands.demo import run_demo
    from xray_watcher.config.settings import Settings

    work_as_owner(folder)
    run_demo(folder, images, _server().pages_url(Settings()) if with_pages else None)
    return 0
