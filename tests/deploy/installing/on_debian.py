"""deploy/install.sh on fresh Debians with a systemd of their own: `make install-test`.

Each Debian is made by debootstrap from the mirror and installed into over the network; pip finds
its packages as this machine's pip does. It is no machine of its own: kernel, clock and network are
this one's, and no boot loader is passed. Debian 13 runs with this machine's Python, unless
OWN_PYTHON=1: PyTorch for its own Python 3.13 is gigabytes that this machine does not have on disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import FORMS, library_network
from guest import Guest, debian, pip_sources, why_not

CHECKOUT = Path(__file__).parents[3]
CHECKOUT_THERE = "/the checkout"
INSTALL = ("sh", f"{CHECKOUT_THERE}/deploy/install.sh")
BEFORE = "86a8508"  # before packages had hashes, and before the ledger's present form
BEFORE_THERE = "/root/the checkout of before"
PROGRAM = "/usr/local/bin/xray-watcher"
CONFIG = "/etc/xray-watcher/config.toml"
TOKENS = "/var/lib/xray-watcher/tokens"
BROUGHT = "/root/what was brought/weights.pt"
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
        self.binds = [*binds, (str(CHECKOUT), CHECKOUT_THERE)]
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

    def install(self, *arguments: str, check: bool = True, checkout: str = CHECKOUT_THERE) -> str:
        """Run the installer of a checkout; returns what it printed."""
        command = ("sh", f"{checkout}/deploy/install.sh", *self.options, *arguments)
        done = self.guest.run(*command, check=check, timeout=3000, **self.pip)
        print(done.stdout)
        return done.stdout


def bring(server: Server, corner: Path) -> str:
    """Put a checkpoint into a folder of root's there; returns its hash."""
    content = FORMS["legacy"](library_network(), corner / "weights").read_bytes()
    server.guest.run("mkdir", "-p", os.path.dirname(BROUGHT))
    Path(f"/proc/{server.guest.init}/root{BROUGHT}").write_bytes(content)
    return hashlib.sha256(content).hexdigest()


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


def test_without_a_terminal_no_token_is_made_and_nobody_sees_the_pages(server: Server) -> None:
    found = server.guest.run("stat", "-c", "%a %U %s", TOKENS).stdout
    assert found.strip() == "600 xray-watcher 0"


def test_a_first_token_is_shown_on_the_terminal_and_written_down_nowhere(server: Server) -> None:
    server.guest.run("rm", TOKENS)
    command = f"sh '{INSTALL[1]}' {' '.join(server.options)} --no-start >/root/told 2>&1"
    server.guest.run("script", "-qec", command, "/root/typescript", timeout=3000, **server.pip)
    shown = server.guest.run("cat", "/root/typescript").stdout
    token = re.findall(r"^([\w-]{43})\s*$", shown, re.MULTILINE)
    assert len(token) == 1, shown
    assert token[0] not in server.guest.run("cat", "/root/told").stdout
    hashed = hashlib.sha256(token[0].encode()).hexdigest()
    assert server.guest.run("cat", TOKENS).stdout == f"view {hashed} first\n"


def test_links_of_the_service_lead_the_installer_nowhere(server: Server, tmp_path: Path) -> None:
    """Its user has put a link to a folder of root's in each place of theirs."""
    plant = (
        "set -e; mkdir -p /tmp/kept; cd /var/lib/xray-watcher;"
        " for n in $(seq 1 40000); do ln -s /etc/outside import.$n; done;"
        " ln -s /etc/outside weights; cd /srv/xray; mv inbox before; ln -s /etc/outside inbox"
    )
    server.guest.run("mkdir", "/etc/outside")
    server.guest.run("runuser", "-u", "xray-watcher", "--", "sh", "-c", plant)
    bring(server, tmp_path)
    before = server.guest.run("stat", "-c", "%a %U %G %Y", "/etc/outside").stdout
    server.install("--weights", BROUGHT, "--sha256", "0" * 64, "--no-start", check=False)
    server.install("--no-start", check=False)
    assert server.guest.run("ls", "-A", "/etc/outside").stdout == ""
    assert server.guest.run("stat", "-c", "%a %U %G %Y", "/etc/outside").stdout == before
    undo = (
        "cd /var/lib/xray-watcher; find . -name 'import.*' -delete; rm weights;"
        " cd /srv/xray; rm inbox; mv before inbox"
    )
    server.guest.run("runuser", "-u", "xray-watcher", "--", "sh", "-c", undo)


def test_with_weights_that_are_brought_it_starts(server: Server, tmp_path: Path) -> None:
    sha256 = bring(server, tmp_path)
    refused = server.install("--weights", BROUGHT, check=False)
    assert "The weights were not imported" in refused
    told = server.install("--weights", BROUGHT, "--sha256", sha256)
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


def test_two_runs_at_once_end_well_and_one_after_the_other(server: Server) -> None:
    once = f"sh '{INSTALL[1]}' {' '.join(server.options)}"
    both = f"{once} >/root/one 2>&1 & {once} >/root/two 2>&1; two=$?; wait $! && exit $two"
    server.guest.run("sh", "-c", both, timeout=3000, **server.pip)
    told = [server.guest.run("cat", f"/root/{name}").stdout for name in ("one", "two")]
    assert sum("another run of install.sh is at work" in one for one in told) == 1
    assert server.guest.run(*STATUS, "xray-watcher").stdout.strip() == "active"


def test_a_command_as_root_is_the_service_s(server: Server) -> None:
    done = server.guest.run(PROGRAM, "status")
    assert "As the user xray-watcher, to whom /var/lib/xray-watcher belongs." in done.stdout
    assert "is running, healthy" in done.stdout
    assert server.guest.run("find", "/var/lib/xray-watcher", "/srv/xray", "-user", "0").stdout == ""


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


def test_an_earlier_version_elsewhere_is_brought_up_to_date(server: Server, tmp_path: Path) -> None:
    """Nobody has to say again where it is; what it filed is known, and it goes on counting."""
    server.guest.__exit__()
    server.guest = server.booted(network=True)
    root, prefix = "/data/x-ray_films.1", "/usr/local/lib/x.ray_1"
    tree = subprocess.run(["git", "archive", BEFORE], cwd=CHECKOUT, capture_output=True, check=True)
    there = f"/proc/{server.guest.init}/root{BEFORE_THERE}"
    server.guest.run("mkdir", BEFORE_THERE)
    subprocess.run(["tar", "-x", "-C", there], input=tree.stdout, check=True)
    given = ("--weights", BROUGHT, "--sha256", bring(server, tmp_path))
    elsewhere = ("--prefix", prefix, "--root", root)
    server.install(*elsewhere, *given, checkout=BEFORE_THERE)
    server.guest.run("sh", "-c", "id nurse || useradd --groups xray nurse")
    server.guest.run("sh", "-c", f"test -e /drawn || {PROGRAM} phantoms /drawn --count 4")
    drop(server, f"{root}/inbox", "003-pneumothorax")
    server.guest.wait_until("sh", "-c", f"ls {root}/classified_images/*/0000_*", seconds=120)
    pid = server.guest.run("systemctl", "show", "-P", "MainPID", "xray-watcher").stdout
    before = server.guest.run("cat", CONFIG).stdout
    told = server.install()
    assert "STILL TO DO" not in told
    assert server.guest.run("cat", CONFIG).stdout == before
    assert server.guest.run("systemctl", "show", "-P", "MainPID", "xray-watcher").stdout != pid
    assert server.guest.run("readlink", PROGRAM).stdout.strip() == f"{prefix}/venv/bin/xray-watcher"
    server.guest.wait_until("sh", "-c", f"{PROGRAM} status | grep 'is running, healthy'")
    drop(server, f"{root}/inbox", "001-atelectasis")
    server.guest.wait_until("sh", "-c", f"ls {root}/classified_images/*/0001_*", seconds=120)
    assert "0 differences" in server.guest.run(PROGRAM, "fsck", "--deep").stdout
    server.install("--uninstall", "--purge")
    assert server.guest.run("test", "-e", prefix, check=False).returncode != 0
    listed = server.guest.run("sh", "-c", f"ls {root}/classified_images/*/*").stdout
    assert len(listed.splitlines()) == 2


def drop(server: Server, inbox: str, drawn: str) -> None:
    """Have somebody of the group copy a drawn image into the inbox."""
    copy = f"umask 077; cp /drawn/phantom-{drawn}.png {inbox}/"
    server.guest.run("runuser", "-u", "nurse", "--", "sh", "-c", copy)
