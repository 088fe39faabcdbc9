"""deploy/install.sh on fresh Debians with a systemd of their own: `make install-test`.

Each Debian is made by debootstrap from the mirror and installed into over the network; pip finds
its packages as this machine's pip does. It is no machine of its own: kernel, clock and network are
this one's, and no boot loader is passed. Debian 13 runs with this machine's Python, unless
OWN_PYTHON=1: PyTorch for its own Python 3.13 is gigabytes that this machine does not have on disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import FORMS, library_network
from guest import Guest, debian, pip_sources, why_not

CHECKOUT = Path(__file__).parents[3]
INSTALL = ("sh", "/checkout/deploy/install.sh")
PROGRAM = "/usr/local/bin/xray-watcher"
CONFIG = "/etc/xray-watcher/config.toml"
STATUS = ("systemctl", "show", "-P", "ActiveState")

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
    pytest.mark.timeout(3600),
]


class Server:
    """One fresh Debian; what it holds outlives its power cuts."""

    def __init__(self, release: str, corner: Path) -> None:
        self.release, self.corner = release, corner
        self.pip, binds = pip_sources()
        self.binds = [*binds, (str(CHECKOUT), "/checkout")]
        self.options: tuple[str, ...] = ()
        if release != "bookworm" and not os.environ.get("OWN_PYTHON"):
            self.binds.append((sys.base_prefix, "/opt/python"))
            self.options = ("--python", f"/opt/python/bin/{Path(sys.executable).resolve().name}")
        self.guest = self.booted(network=True)

    def booted(self, *, network: bool) -> Guest:
        """Switch it on."""
        guest = Guest(debian(self.release), self.corner, network=network, binds=self.binds)
        guest.__enter__()
        if network:
            guest.write("/etc/resolv.conf", Path("/etc/resolv.conf").read_text())
        return guest

    def install(self, *arguments: str, check: bool = True) -> str:
        """Run the installer; returns what it printed."""
        command = (*INSTALL, *self.options, *arguments)
        done = self.guest.run(*command, check=check, timeout=3000, **self.pip)
        print(done.stdout)
        return done.stdout


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    corner = tmp_path_factory.mktemp(request.param)
    made = Server(request.param, corner)
    try:
        if made.options:  # what the strange Python needs of Debian's libraries
            packages = ("libsqlite3-0", "libffi8", "libreadline8t64")
            made.guest.run("apt-get", "update", "-qq")
            made.guest.run("apt-get", "install", "-y", "-qq", *packages, timeout=600)
            made.guest.write("/etc/ld.so.conf.d/00-python.conf", "/opt/python/lib\n")
            made.guest.run("ldconfig")
        yield made
    finally:
        made.guest.__exit__()
        shutil.rmtree(corner)  # gigabytes


def test_a_dry_run_changes_nothing(server: Server) -> None:
    server.install("--dry-run")
    for path in ("/opt/xray-watcher", PROGRAM, CONFIG, "/srv/xray"):
        assert server.guest.run("test", "-e", path, check=False).returncode != 0, path
    assert server.guest.run("getent", "passwd", "xray-watcher", check=False).returncode != 0


def test_without_weights_all_is_installed_and_it_says_what_is_missing(server: Server) -> None:
    told = server.install()
    assert "what was drawn was found" in told
    assert "NOT started: the weights are not installed" in told
    assert "STILL TO DO: bring the weights, densenet121-res224-chex" in told
    assert server.guest.run(*STATUS, "xray-watcher").stdout.strip() == "inactive"
    for path in (
        "/usr/local/share/man/man1/xray-watcher.1",
        "/usr/local/share/bash-completion/completions/xray-watcher",
        "/usr/local/share/zsh/site-functions/_xray-watcher",
        "/usr/local/share/fish/vendor_completions.d/xray-watcher.fish",
    ):
        server.guest.run("test", "-s", path)
    modes = server.guest.run("stat", "-c", "%a %U %G", "/srv/xray/inbox", CONFIG).stdout
    assert modes.splitlines() == ["2770 xray-watcher xray", "640 root xray"]


def test_with_weights_that_are_brought_it_starts(server: Server, tmp_path: Path) -> None:
    content = FORMS["legacy"](library_network(), tmp_path / "weights").read_bytes()
    server.guest.run("mkdir", "-p", "/root/brought")
    target = f"/proc/{server.guest.init}/root/root/brought/weights.pt"
    Path(target).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    refused = server.install("--weights", "/root/brought/weights.pt", check=False)
    assert "The weights were not imported" in refused
    told = server.install("--weights", "/root/brought/weights.pt", "--sha256", sha256)
    assert "STILL TO DO" not in told
    assert server.guest.run(*STATUS, "xray-watcher").stdout.strip() == "active"


def test_a_second_time_settings_are_kept_and_the_service_goes_on(server: Server) -> None:
    server.guest.run("sed", "-i", 's/^#weights = .*/weights = "phantom"/', CONFIG)
    before = server.guest.run("cat", CONFIG).stdout
    told = server.install()
    assert "kept as it is" in told
    assert server.guest.run("cat", CONFIG).stdout == before
    assert server.guest.run(*STATUS, "xray-watcher").stdout.strip() == "active"
    done = server.guest.run("runuser", "-u", "xray-watcher", "--", PROGRAM, "status")
    assert "is running, healthy" in done.stdout
    assert "phantom" in done.stdout


def test_an_image_that_somebody_of_the_group_drops_is_filed(server: Server) -> None:
    server.guest.run("useradd", "--groups", "xray", "nurse")
    server.guest.run(PROGRAM, "phantoms", "/drawn", "--count", "4")
    copy = "umask 077; mkdir /srv/xray/inbox/er; cp /drawn/phantom-003-* /srv/xray/inbox/er/"
    server.guest.run("runuser", "-u", "nurse", "--", "sh", "-c", copy)
    found = "ls /srv/xray/classified_images/High/0000_phantom-003-pneumothorax.png"
    server.guest.wait_until("sh", "-c", found, seconds=120)


def test_the_pages_are_up(server: Server) -> None:
    ask = "import requests; print(requests.get('http://127.0.0.1:8080/healthz', timeout=20).text)"
    server.guest.wait_until("/opt/xray-watcher/venv/bin/python", "-c", ask)


def test_after_a_power_cut_it_comes_up_by_itself_and_without_a_network(server: Server) -> None:
    server.guest.__exit__()
    server.guest = server.booted(network=False)
    server.guest.wait_until(
        "sh", "-c", "systemctl show -P ActiveState xray-watcher | grep -x active"
    )
    listed = server.guest.run("sh", "-c", "cat /srv/xray/logs/results-*.jsonl").stdout
    assert len(listed.splitlines()) == 1
    copy = "cp /drawn/phantom-001-* /srv/xray/inbox/"
    server.guest.run("runuser", "-u", "nurse", "--", "sh", "-c", copy)
    found = "ls /srv/xray/classified_images/Medium/0001_phantom-001-atelectasis.png"
    server.guest.wait_until("sh", "-c", found, seconds=120)


def test_what_it_installed_is_removed_and_what_is_theirs_is_kept(server: Server) -> None:
    told = server.install("--uninstall")
    assert "Kept: images and records in /srv/xray" in told
    for path in ("/opt/xray-watcher", PROGRAM):
        assert server.guest.run("test", "-e", path, check=False).returncode != 0, path
    loaded = server.guest.run("systemctl", "show", "-P", "LoadState", "xray-watcher").stdout
    assert loaded.strip() == "not-found"
    server.guest.run("test", "-s", CONFIG)
    server.guest.run("test", "-s", "/var/lib/xray-watcher/ledger.sqlite3")
    server.install("--uninstall", "--purge")
    assert server.guest.run("test", "-e", CONFIG, check=False).returncode != 0
    server.guest.run("sh", "-c", "ls /srv/xray/classified_images/High/0000_phantom-003-*")
