"""The demonstration: the real daemon on a fresh folder, and images dropped into its inbox.

It ends by itself, and checks that every dropped file is found exactly once.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import click
import numpy as np

from xray_watcher.commands.up import start_command
from xray_watcher.config.settings import Settings
from xray_watcher.core.catalogue import PHANTOM
from xray_watcher.core.image_record import ImageRecord
from xray_watcher.core.naming import safe_name
from xray_watcher.core.values import LEVELS
from xray_watcher.errors import UsageError, XrayWatcherError
from xray_watcher.intake.handover import WEB
from xray_watcher.phantom.files import NORMAL, draw_images
from xray_watcher.records import NOTICE, SIMULATIONS, from_jsonl
from xray_watcher.system.progress import progress_bar

SEED = 20261123
IMAGES = 24

_RULES = Settings().risk_rules()
_WEIGHTS = PHANTOM.name
_AGREEMENT = 0.9
_TIMEOUT_S = 180.0
_POLL_S = 0.2
_PIECES = 6
_PIECE_PAUSE_S = 0.7
_CSV_LINES = 4
_CSV_WIDTH = 118

_CONFIG = """\
# Written by `xray-watcher demo`.
root = {root}
state_dir = {state}

[intake]
settle_seconds = 1.0
incomplete_after_minutes = 0.15
min_free_bytes = 50_000_000

[model]
weights = "{weights}"
"""


class DemoFailed(XrayWatcherError):
    """What the demonstration shows is not what was promised."""


@dataclass(frozen=True, slots=True)
class Drop:
    """One file to be dropped.

    Attributes:
        path: below the inbox.
        drawn: what a made image shows; None for other files.
        is_slow: whether it is copied in pieces, with pauses.
    """

    path: str
    content: bytes
    drawn: str | None = None
    is_slow: bool = False


def run_demo(parent: str, images: str | None, url: str | None = None) -> None:
    """Run the demonstration and print it.

    Args:
        url: where the pages are served meanwhile, and until Ctrl-C; None for no pages.

    Raises:
        DemoFailed: an image was lost or doubled, fewer than 90 % of the drawings were found to
            show what was drawn, or the service did not do its work in time.
    """
    root, config = _prepare(parent)
    drops = [*_make_drops(), *(_read_drops(images) if images else ())]
    click.echo(f"Starting the service on {root}/inbox")
    with open(os.path.join(root, "service.log"), "wb") as log:
        names = ["run"] if url is None else ["run", "serve"]
        processes = [start_command([name, "--config", config], log) for name in names]
        try:
            if url is not None:
                click.echo(f"The pages are at {url}")
            records = _watch_drops(root, drops, processes)
            if url is not None:
                _stay(url, processes)
            _stop(processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    _check(root, drops, records)
    _show(root, records)
    _compare(drops, records)


# -- what is dropped ----------------------------------------------------------------------


def _prepare(parent: str) -> tuple[str, str]:
    """Make a fresh folder and its configuration; returns the paths of both."""
    root = os.path.abspath(os.path.join(parent, f"{datetime.now().astimezone():%Y%m%d-%H%M%S}"))
    os.makedirs(os.path.join(root, "inbox"))
    config, state = os.path.join(root, "xray-watcher.toml"), os.path.join(root, "state")
    with open(config, "w", encoding="utf-8") as file:
        file.write(_CONFIG.format(root=json.dumps(root), state=json.dumps(state), weights=_WEIGHTS))
    return root, config


def _make_drops() -> list[Drop]:
    """Drawn images, one copied slowly and some in a subfolder, and four files that are wrong."""
    made = list(draw_images(IMAGES, SEED))
    cut, twin = made[2], made[4]
    paths = [f"emergency/night/{m.name}" if n % 6 == 5 else m.name for n, m in enumerate(made)]
    return [
        *(
            Drop(path, image.content, image.drawn, is_slow=image is made[0])
            for path, image in zip(paths, made, strict=True)
        ),
        Drop(f"cut-off-{cut.name}", cut.content[: len(cut.content) // 2]),
        Drop("notes.png", b"These are notes, not a picture.\n"),
        Drop(f"again-{twin.name}", twin.content),
        Drop("empty.jpg", b""),
    ]


def _read_drops(folder: str) -> Iterator[Drop]:
    suffixes = Settings().intake.suffixes
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(suffixes))
    if not names:
        raise UsageError(f"{folder} holds no images ({', '.join(suffixes)}).")
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            yield Drop(f"own/{name}", file.read())


def _drop_all(inbox: str, drops: Sequence[Drop]) -> None:
    """Copy the files as people do: one after the other, straight to their names."""
    slow = [
        threading.Thread(target=_copy, args=(inbox, d), daemon=True) for d in drops if d.is_slow
    ]
    for thread in slow:
        thread.start()
    pauses = np.random.default_rng(SEED).uniform(0.05, 0.5, len(drops))
    for drop, pause_s in zip(drops, pauses, strict=True):
        if not drop.is_slow:
            _copy(inbox, drop)
            time.sleep(pause_s)
    for thread in slow:
        thread.join()


def _copy(inbox: str, drop: Drop) -> None:
    path = os.path.join(inbox, drop.path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    piece = max(1, -(-len(drop.content) // (_PIECES if drop.is_slow else 1)))
    with open(path, "wb") as file:
        for start in range(0, len(drop.content), piece):
            file.write(drop.content[start : start + piece])
            file.flush()
            if drop.is_slow:
                time.sleep(_PIECE_PAUSE_S)


# -- what becomes of it -------------------------------------------------------------------


def _watch_drops(
    root: str, drops: Sequence[Drop], processes: Sequence[subprocess.Popen[bytes]]
) -> list[ImageRecord]:
    """Drop everything and print each record as the service writes it."""
    dropping = threading.Thread(
        target=_drop_all, args=(os.path.join(root, "inbox"), drops), daemon=True
    )
    dropping.start()
    click.echo(f"Dropping {len(drops)} files into it; each line below is one that is done.\n")
    click.echo(_TABLE_HEAD)
    records: list[ImageRecord] = []
    until_s = time.monotonic() + _TIMEOUT_S
    with progress_bar(total=len(drops), unit=" files") as bar:
        while len(records) < len(drops):
            if any(process.poll() is not None for process in processes):
                raise DemoFailed(f"The service ended early; {root}/service.log says why.")
            if time.monotonic() > until_s:
                raise DemoFailed(f"Only {len(records)} of {len(drops)} files were done in time.")
            for record in _records(root)[len(records) :]:
                bar.write(_table_row(record), file=sys.stdout)
                bar.update()
                records.append(record)
            time.sleep(_POLL_S)
    dropping.join()
    return records


def _records(root: str) -> list[ImageRecord]:
    """Every whole line of the JSONL logs, but for what somebody uploads on the pages."""
    records: list[ImageRecord] = []
    for path in _logs(root, ".jsonl"):
        with open(path, "rb") as log:
            records += [from_jsonl(line) for line in log if line.endswith(b"\n")]
    return [record for record in records if record.source != WEB]


def _logs(root: str, suffix: str) -> list[str]:
    return sorted(glob.glob(os.path.join(glob.escape(root), "logs", f"*{suffix}")))


_TABLE_HEAD = (
    f"{'arrived':<12} {'settled':>8} {'batch':<8} {'level':<8} {'top condition / reason':<31} file"
)


def _table_row(record: ImageRecord) -> str:
    arrived = f"{datetime.fromisoformat(record.received_at).astimezone():%H:%M:%S.%f}"[:10]
    settled = f"{record.timings_ms.settle / 1000:+.1f}s"
    top = f"{record.top_label} {record.top_probability or 0:.2f}"
    found = record.rejected.code if record.rejected else top
    flags = f"  [{', '.join(record.flags)}]" if record.flags else ""
    return (
        f"{arrived:<12} {settled:>8} {record.batch_id:<8} {record.risk_level:<8} {found:<31} "
        f"{safe_name(record.filename)}{flags}"
    )


def _stay(url: str, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let people look at the pages, and upload, until Ctrl-C."""
    click.echo(f"\nAll files are done; the pages stay at {url} until you press Ctrl-C.")
    with contextlib.suppress(KeyboardInterrupt):
        while all(process.poll() is None for process in processes):
            time.sleep(_POLL_S)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
    for process in processes:
        code = process.wait(timeout=15)
        if code != 0:
            raise DemoFailed(f"The service ended with exit code {code} on SIGTERM, not 0.")
    click.echo("\nThe service was stopped with SIGTERM and ended with exit code 0.")


def _check(root: str, drops: Sequence[Drop], records: Sequence[ImageRecord]) -> None:
    """Every dropped file stands in one record and lies, unchanged, where that record says."""
    dropped = Counter((drop.path, _sha256(drop.content)) for drop in drops)
    recorded = Counter((record.inbox_path, str(record.sha256)) for record in records)
    if dropped != recorded:
        raise DemoFailed(f"Dropped and recorded files differ: {dropped - recorded}")
    for record in records:
        with open(os.path.join(root, str(record.saved_path)), "rb") as file:
            if _sha256(file.read()) != record.sha256:
                raise DemoFailed(f"{record.saved_path} is not what its record says.")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# -- what there is at the end -------------------------------------------------------------


def _show(root: str, records: Sequence[ImageRecord]) -> None:
    csv_path, summary = _logs(root, ".csv")[0], _logs(root, "/*.md")[0]
    _section("The folder", _tree(root))
    _section(f"The CSV, its first lines: {os.path.relpath(csv_path, root)}", _csv_head(csv_path))
    with open(summary, encoding="utf-8") as file:
        _section("The day's summary", file.read().splitlines())
    counts = Counter[str](record.risk_level for record in records)
    shares = ", ".join(f"{level} {counts[level]}" for level in (*LEVELS, "Rejected"))
    click.echo(f"{len(records)} files dropped, {len(records)} accounted for: {shares}.")
    click.echo(f"All of it lies in {root}\n{SIMULATIONS[_WEIGHTS]}\n{NOTICE}")


def _compare(drops: Sequence[Drop], records: Sequence[ImageRecord]) -> None:
    """What was drawn beside what was found, and whether that agrees."""
    by_path = {record.inbox_path: record for record in records}
    pairs = [(drop.drawn, by_path[drop.path]) for drop in drops if drop.drawn is not None]
    agreed = [_is_found(drawn, record) for drawn, record in pairs]
    lines = [f"{'drawn':<28} {'found':<28} {'level':<8} agrees"]
    for (drawn, record), is_found in zip(pairs, agreed, strict=True):
        yes = "yes" if is_found else "NO"
        lines.append(f"{drawn:<28} {_found(record):<28} {record.risk_level:<8} {yes}")
    _section("Drawn and found", lines)
    click.echo(f"\n{sum(agreed)} of {len(agreed)} drawings were found to show what was drawn.")
    click.echo(
        "A normal chest has no condition at its operating point (flag no_finding); under the "
        "policy\ntop-condition its level is still that of the highest score, however low."
    )
    if sum(agreed) < _AGREEMENT * len(agreed):
        raise DemoFailed(f"Fewer than {_AGREEMENT:.0%} of the drawings were recognised.")


def _found(record: ImageRecord) -> str:
    return NORMAL if "no_finding" in record.flags else record.top_label or "rejected"


def _is_found(drawn: str, record: ImageRecord) -> bool:
    expected_level = _RULES.level_of.get(drawn, record.risk_level)
    return _found(record) == drawn and record.risk_level == expected_level


def _section(title: str, lines: Sequence[str]) -> None:
    click.echo(f"\n-- {title} --")
    click.echo("\n".join(lines))


def _tree(root: str) -> list[str]:
    """The folders and files below the root, without the state's own."""
    lines: list[str] = []

    def walk(folder: str, indent: str) -> None:
        entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_file(), entry.name))
        for entry in entries:
            lines.append(f"{indent}{safe_name(entry.name)}{'/' if entry.is_dir() else ''}")
            if entry.is_dir() and entry.name not in ("state", ".xray-watcher"):
                walk(entry.path, indent + "    ")

    walk(root, "  ")
    return lines


def _csv_head(path: str) -> list[str]:
    with open(path, encoding="utf-8-sig") as file:
        lines = [next(file, "").rstrip("\r\n") for _ in range(_CSV_LINES)]
    return [line[:_CSV_WIDTH] + ("..." if len(line) > _CSV_WIDTH else "") for line in lines]
