"""The commands about the network's weights: `weights list`, `fetch`, `import`, `verify`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from xray_watcher.cli.options import load_from_options, print_json, say, settings_options
from xray_watcher.core.catalogue import DEFAULT_WEIGHTS, PHANTOM

if TYPE_CHECKING:
    from xray_watcher.model.weights import WeightStore


@click.group()
def weights() -> None:
    """Fetch, import and check the network's weights."""


def _store(options: Mapping[str, str | None]) -> WeightStore:
    from xray_watcher.model.weights import WeightStore

    return WeightStore(load_from_options(options, needs_root=False).folders.weights)


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
        say(f"{one.name}: {one.state}, {len(one.labels)} labels")
        say(f"    labels   {', '.join(one.labels)}")
        say(f"    source   {one.source or 'this package'}")
        say(f"    SHA-256  {one.sha256 or 'not known: give it with --sha256'}")
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
    from xray_watcher.system.progress import progress_bar

    store = _store(options)
    with progress_bar(total=None, unit="B", scale=True) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        path = store.fetch(name, url=url, sha256=sha256, trust=trust, progress=progress)
    say(f"{name} is installed: {path}")
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
    say(f"{name} is installed: {path}")
    return 0


@weights.command()
@click.argument("name", required=False)
@settings_options
def verify(name: str | None, **options: str | None) -> int:
    """Check the weights NAME, or all that are installed, against their hashes."""
    store = _store(options)
    here = [one.name for one in store.list() if one.path is not None]
    for one in [name] if name else [*here, PHANTOM.name]:
        store.load(one)
        say(f"{one}: sound")
    return 0
