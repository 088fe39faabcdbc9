"""The command `xray-watcher`: gathers the commands, and turns errors into exit codes.

Every command imports what it needs when it runs, so that `--help` and `status` are quick.
Data goes to stdout, logs and complaints to stderr.
"""

from __future__ import annotations

import os
import sys
import threading

import click

from xray_watcher import __version__
from xray_watcher.cli.images import phantoms, predict, retry
from xray_watcher.cli.locales import begin_in_utf8, escape_what_cannot_be_printed
from xray_watcher.cli.options import EXIT_INTERRUPTED, say
from xray_watcher.cli.service import demo, run, serve, token, up
from xray_watcher.cli.state import backup, check_config, fsck, status, summary, waiting
from xray_watcher.cli.upkeep import metrics, notify, retention
from xray_watcher.cli.weights import weights
from xray_watcher.core.naming import one_line
from xray_watcher.errors import ConfigError, XrayWatcherError

COMMANDS: tuple[click.Command, ...] = (
    *(run, serve, up, token, demo),
    *(predict, retry, phantoms, weights),
    *(status, waiting, summary, backup, fsck, check_config),
    *(metrics, notify, retention),
)

_EXIT_CODES = """\b
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but some files were rejected or left;
4 not healthy (status); 10 weights missing or wrong; 11 already running;
74 a disk failed; 78 wrong configuration; 130 interrupted.
"""


def main() -> None:
    """Run a command and end the process with its exit code."""
    begin_in_utf8()
    escape_what_cannot_be_printed()
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
        say(f"The configuration has {mistakes}:", err=True)
        for problem in error.problems:
            say(f"  {one_line(problem)}", err=True)
    else:
        say(f"xray-watcher: {one_line(str(error))}", err=True)


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


for command in COMMANDS:
    cli.add_command(command)

if __name__ == "__main__":
    main()
