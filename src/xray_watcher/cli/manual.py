"""Writes the manual pages xray-watcher(1) and xray-watcher.toml(5) from the program itself.

    python -m xray_watcher.cli.manual deploy/man

Commands and options are those of `cli/`, settings those of `config/`: what the pages say is what
the program does, and a test holds that the pages in the repository are these.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator

import click

from xray_watcher import __version__
from xray_watcher.cli.main import cli
from xray_watcher.config.keys import FIELDS, TABLES, THRESHOLDS, allowed
from xray_watcher.config.sources import ENV_PREFIX
from xray_watcher.errors import (
    AlreadyRunning,
    ConfigError,
    StorageFailure,
    UsageError,
    WeightsError,
    XrayWatcherError,
)

DATE = "2026-11-25"
"""Of the pages, in their foot; changed with a release."""

_NOTICE = "A research and triage aid, never a diagnosis. All results need review by an expert."

_EXIT_CODES = (
    (0, "Done; also after SIGTERM or SIGINT."),
    (XrayWatcherError.exit_code, "Failed."),
    (UsageError.exit_code, "Wrong usage."),
    (3, "Done, but some files were rejected or left."),
    (4, "Not healthy (status)."),
    (WeightsError.exit_code, "Weights are missing or wrong, or the network failed its self-test."),
    (AlreadyRunning.exit_code, "Another one runs on this ledger or inbox."),
    (StorageFailure.exit_code, "A disk did not confirm a write."),
    (ConfigError.exit_code, "The configuration is wrong."),
    (130, "Interrupted."),
)
_RELOAD = (
    "Read the configuration anew: whole, or not at all. Another process goes on with it when the "
    "current batches are finished; serve goes on as it is. With a terminal it is SIGTERM: the "
    "terminal has gone."
)
_SIGNALS = (
    ("SIGTERM, SIGINT", "Finish the current batch, then end; a second one ends at once."),
    ("SIGHUP", _RELOAD),
)
_FILES = (
    ("/etc/xray-watcher/config.toml", "The settings; see xray-watcher.toml(5)."),
    ("ROOT/inbox", "Images are dropped here."),
    ("ROOT/classified_images/High, Medium, Low", "Images as they came, by risk level."),
    ("ROOT/rejected", "What could not be scored, with the reason beside it."),
    ("ROOT/logs", "results-DATE.jsonl, results-DATE.csv and the daily figures."),
    ("/var/lib/xray-watcher", "Ledger, weights, lock."),
)
_ENVIRONMENT = (
    ("XRAY_WATCHER_CONFIG", "The configuration file, where --config is not given."),
    (
        "XRAY_WATCHER_KEY, XRAY_WATCHER_TABLE__KEY",
        "A setting, such as XRAY_WATCHER_BATCH__MAX_SIZE=8; lists and tables as JSON.",
    ),
)


def command_page() -> str:
    """xray-watcher(1): every command with its options, exit codes, signals, files."""
    return "".join(
        [
            _head("XRAY-WATCHER", 1, "User Commands"),
            _section("NAME"),
            "xray\\-watcher \\- file chest X\\-rays by risk\n",
            _section("SYNOPSIS"),
            ".B xray\\-watcher\n.I COMMAND\n[\\fIOPTIONS\\fR]\n",
            _section("DESCRIPTION"),
            _paragraphs(cli.help or ""),
            _section("COMMANDS"),
            *_commands(cli, "xray-watcher"),
            _section("EXIT STATUS"),
            *(_entry(str(code), text) for code, text in _EXIT_CODES),
            _section("SIGNALS"),
            *(_entry(name, text) for name, text in _SIGNALS),
            _section("ENVIRONMENT"),
            *(_entry(name, text) for name, text in _ENVIRONMENT),
            _section("FILES"),
            *(_entry(name, text) for name, text in _FILES),
            _section("SEE ALSO"),
            ".BR xray\\-watcher.toml (5),\n.BR systemctl (1)\n",
        ]
    )


def settings_page() -> str:
    """xray-watcher.toml(5): every setting with its sentence, what is allowed, and its default."""
    return "".join(
        [
            _head("XRAY-WATCHER.TOML", 5, "File Formats"),
            _section("NAME"),
            "xray\\-watcher.toml \\- settings of xray\\-watcher\n",
            _section("DESCRIPTION"),
            _paragraphs(
                "A TOML file: the one that --config names, else that of $XRAY_WATCHER_CONFIG, else "
                "~/.config/xray-watcher/config.toml, else /etc/xray-watcher/config.toml. What "
                "counts is a flag of the command line, else the environment, else the file, else "
                "the default.\n\n`xray-watcher check-config` says what is in force and where it is "
                "from, and names every mistake at once.\n\n" + _NOTICE
            ),
            _section("SETTINGS"),
            *_settings(),
            _section("SEE ALSO"),
            ".BR xray\\-watcher (1)\n",
        ]
    )


def _commands(group: click.Group, path: str) -> Iterator[str]:
    for name, command in sorted(group.commands.items()):
        full_name = f"{path} {name}"
        if isinstance(command, click.Group):
            yield from _commands(command, full_name)
        else:
            yield _command(command, full_name)


def _command(command: click.Command, full_name: str) -> str:
    context = click.Context(command, info_name=full_name)
    usage = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    title = " ".join([full_name.partition(" ")[2], *usage])
    records = (param.get_help_record(context) for param in command.params)
    options = (_entry(*record) for record in records if record is not None and record[1])
    return f'.SS "{_quoted(title)}"\n' + _paragraphs(command.help or "") + "".join(options)


def _settings() -> Iterator[str]:
    for key, field in FIELDS.items():
        sentence = field.description or ""
        if key in TABLES:
            terms = _terms(key) if key == THRESHOLDS else ""
            yield f'.SS "[{_quoted(key)}]"\n' + _paragraphs(f"{sentence} {terms}".rstrip())
        else:
            name = key.rpartition(".")[2]
            default = "" if key == "root" else f" Default: {json.dumps(field.default)}."
            variable = f" Variable: {ENV_PREFIX}{key.upper().replace('.', '__')}."
            yield _entry(name, f"{sentence} {_terms(key)}{default}{variable}")


def _terms(key: str) -> str:
    return f"Allowed: {allowed(key)}."


# -- roff -----------------------------------------------------------------------------------


def _head(name: str, section: int, manual: str) -> str:
    title = f'"{_quoted(name)}" {section} {DATE} "xray\\-watcher {__version__}" "{manual}"'
    made_by = "Made by `python -m xray_watcher.cli.manual`; edit that."
    return f'.\\" {made_by}\n.TH {title}\n.nh\n.ad l\n'


def _section(name: str) -> str:
    return f".SH {name}\n"


def _entry(name: str, text: str) -> str:
    return f".TP\n\\fB{_escaped(name)}\\fR\n{_flowing(text)}\n"


def _paragraphs(text: str) -> str:
    """Paragraphs of flowing text; click's mark of text that is not to be flowed is left out."""
    whole = [" ".join(part.split()) for part in text.replace("\b", "").split("\n\n")]
    return ".PP\n".join(f"{_flowing(part)}\n" for part in whole if part)


def _flowing(text: str) -> str:
    """Text with `code` in bold, one sentence a line as roff likes it."""
    marked = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", _escaped(text))
    lines = re.sub(r"(?<=[a-z\")]\.) +(?=[A-Z])", "\n", marked).split("\n")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', "\\(dq")


def main() -> None:
    """Write both pages into the folder that is named."""
    (folder,) = sys.argv[1:]
    for name, page in (("xray-watcher.1", command_page), ("xray-watcher.toml.5", settings_page)):
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            file.write(page())


if __name__ == "__main__":
    main()
