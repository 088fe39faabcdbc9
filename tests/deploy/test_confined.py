"""The units in force: systemd itself starts the services with every restriction, here and now.

This machine's own files under an overlay, its systemd in namespaces of its own, no network but a
loopback. What is not as on a server: no memory limit is enforced where the memory controller is
bound to cgroup 1, and the program is this checkout's, not an installation (`make install-test`).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import guest as guests
import pytest
from guest import Guest

CHECKOUT = Path(__file__).parents[2]
PLACE = "/opt/xray-watcher"
PROGRAM = f"{PLACE}/venv/bin/xray-watcher"
CONFIG = """
root = "/srv/xray"
[intake]
settle_seconds = 0.5
min_free_bytes = 0
[batch]
quiet_seconds = 0.3
[model]
weights = "phantom"
"""
SINK = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Sink(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("/tmp/posted.json", "ab") as file:
            file.write(body + b"\\n")
        self.send_response(204)
        self.end_headers()

HTTPServer(("127.0.0.1", 9099), Sink).serve_forever()
"""
LOG = ["journalctl", "--no-pager", "-o", "cat", "-u", "xray-watcher"]

pytestmark = pytest.mark.skipif(bool(guests.why_not()), reason=guests.why_not() or "-")


def python_of_guest() -> tuple[str, list[tuple[str, str]]]:
    """A Python that the service's user may use: homes are hidden from it."""
    real = os.path.realpath(sys.executable)
    if real.startswith(("/usr/", "/opt/")):
        return real, []
    return f"/opt/python/bin/{os.path.basename(real)}", [(sys.base_prefix, "/opt/python")]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    python, binds = python_of_guest()
    packages = sysconfig.get_path("purelib")
    binds += [(packages, f"{PLACE}/packages"), (str(CHECKOUT), f"{PLACE}/checkout")]
    corner = tmp_path_factory.mktemp("guest")
    with Guest(Path("/"), corner, binds=binds, target="sysinit.target") as started:
        install(started, python)
        yield started
    shutil.rmtree(corner)


def install(guest: Guest, python: str) -> None:
    """As install.sh does, but with the packages that are there."""
    # A Python that was moved looks for its library where it was built.
    guest.write("/etc/ld.so.conf.d/00-python.conf", "/opt/python/lib\n")
    guest.run("ldconfig")
    guest.run(python, "-m", "venv", "--without-pip", f"{PLACE}/venv")
    found = guest.run(
        f"{PLACE}/venv/bin/python",
        "-c",
        "import sysconfig; print(sysconfig.get_path('purelib'))",
    )
    guest.write(f"{found.stdout.strip()}/here.pth", f"{PLACE}/checkout/src\n{PLACE}/packages\n")
    guest.write(
        PROGRAM,
        f"#!{PLACE}/venv/bin/python\nfrom xray_watcher.cli.main import main\nmain()\n",
    )
    guest.run("chmod", "755", PROGRAM)
    guest.run("rm", "-rf", "/etc/xray-watcher", "/var/lib/xray-watcher", "/srv/xray")
    guest.run("sh", f"{PLACE}/checkout/deploy/install.sh", DESTDIR="/")
    guest.write("/etc/xray-watcher/config.toml", CONFIG)
    guest.run("systemd-sysusers", "/usr/local/lib/sysusers.d/xray-watcher.conf")
    guest.run("systemd-tmpfiles", "--create", "/usr/local/lib/tmpfiles.d/xray-watcher.conf")
    guest.run("chown", "root:xray", "/etc/xray-watcher/config.toml")
    guest.run("useradd", "--groups", "xray", "nurse")
    guest.run("systemctl", "daemon-reload")
    guest.start("xray-watcher")


def shown(guest: Guest, name: str) -> str:
    """A property of the service."""
    return guest.run("systemctl", "show", "-P", name, "xray-watcher").stdout.strip()


def log_has(guest: Guest, text: str) -> str:
    """Wait until the service has logged this; returns the last such line."""
    script = '"$@" | grep -F -- "$0" | tail -n 1 | grep .'
    return guest.wait_until("sh", "-c", script, text, *LOG)


def drop(guest: Guest, number: int, folder: str) -> str:
    """Draw an image and let a nurse with narrow rights copy it; returns what it shows."""
    script = (
        'umask 077; mkdir -p "$2"; cd "$2/.."; '
        'cp "/tmp/drawn/$1" "$2/.copy.part"; mv "$2/.copy.part" "$2/$1"'
    )
    listed = guest.run("cat", "/tmp/drawn/drawn.csv", check=False)
    if listed.returncode:
        guest.run(PROGRAM, "phantoms", "/tmp/drawn", "--count", "24")
        listed = guest.run("cat", "/tmp/drawn/drawn.csv")
    name, drawn = listed.stdout.splitlines()[1 + number].split(",")
    guest.run("runuser", "-u", "nurse", "--", "sh", "-c", script, "sh", name, folder)
    return drawn.strip()


def test_it_is_ready_when_systemd_says_so_and_says_how_it_is(guest: Guest) -> None:
    assert shown(guest, "ActiveState") == "active"
    guest.wait_until("sh", "-c", "systemctl show -P StatusText xray-watcher | grep ^watching:")
    assert log_has(guest, "network ready")


def test_the_restrictions_are_in_force(guest: Guest) -> None:
    """Else the tests below would prove nothing."""
    pid = shown(guest, "MainPID")
    status = dict(
        line.split(":\t", 1)
        for line in guest.run("cat", f"/proc/{pid}/status").stdout.splitlines()
        if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    uid = guest.run("id", "-u", "xray-watcher").stdout.strip()
    assert status["Uid"].split() == [uid] * 4
    assert "0022" not in status["Umask"]
    root = f"/proc/{pid}/root"
    inside = ["nsenter", "-t", pid, "-m", "sh", "-c"]
    refused = guest.run(*inside, "touch /usr/here 2>&1; touch /etc/here 2>&1", check=False).stdout
    assert refused.count("Read-only file system") == 2
    assert guest.run("ls", f"{root}/home", check=False).stdout == ""
    devices = guest.run("ls", f"{root}/dev").stdout.split()
    assert "null" in devices
    assert "kmsg" not in devices
    assert guest.run("ls", "/sys/class/net").stdout.split() == ["lo"]
    assert guest.run("getent", "hosts", "example.org", check=False).returncode != 0


def test_what_a_nurse_drops_is_scored_and_filed(guest: Guest) -> None:
    """The decoding children and the forward pass included; her rights keep nobody out."""
    drawn = [drop(guest, number, "/srv/xray/inbox/ward 3") for number in (1, 2, 3)]
    drawn.append(drop(guest, 4, "/srv/xray/inbox"))
    script = "test $(find /srv/xray/classified_images -type f | wc -l) = 4"
    guest.wait_until("sh", "-c", script, seconds=120)
    lines = guest.wait_until("sh", "-c", "cat /srv/xray/logs/results-*.jsonl | grep .")
    records = [json.loads(line) for line in lines.splitlines()]
    assert {r["top_label"] for r in records} == set(drawn)
    assert {r["source"] for r in records} == {"ward 3", ""}
    said = "images filed since the start"
    script = f"systemctl show -P StatusText xray-watcher | grep '4 {said}'"
    guest.wait_until("sh", "-c", script)


def processes(guest: Guest) -> tuple[str, str, list[str]]:
    """The outer process, the inner one, and its decoders."""
    outer = shown(guest, "MainPID")
    inner, *_ = guest.run("cat", f"/proc/{outer}/task/{outer}/children").stdout.split()
    script = f"for task in /proc/{inner}/task/*; do cat $task/children; done"
    return outer, inner, guest.run("sh", "-c", script).stdout.split()


def test_a_decoder_has_given_up_everything_under_the_unit(guest: Guest) -> None:
    """The unit's own filter must let it: systemd's group for that is younger than Debian 12."""
    _, inner, decoders = processes(guest)
    outside = int(filters(guest, inner))
    assert decoders
    assert {filters(guest, pid) for pid in decoders} == {str(outside + 1)}
    told = guest.run("runuser", "-u", "xray-watcher", "--", PROGRAM, "status", "--json").stdout
    assert json.loads(told)["sandbox_lacks"] == []


def test_all_that_a_child_which_was_taken_over_tries_is_refused_under_the_unit(
    guest: Guest,
) -> None:
    """The unit with another program: its user, its folders, its filters."""
    told = "/var/lib/xray-watcher/attacked"
    attacked = f"{PLACE}/venv/bin/python {PLACE}/checkout/tests/attacked.py {told}.tmp"
    unit = guest.run("cat", "/usr/local/lib/systemd/system/xray-watcher.service").stdout
    lines = [
        line
        for line in unit.splitlines()
        if not line.startswith(("Exec", "Type=", "Restart", "Watchdog", "NotifyAccess"))
    ]
    at = lines.index("[Service]") + 1
    lines[at:at] = ["Type=oneshot", f"ExecStart={attacked}", f"StandardOutput=file:{told}.json"]
    guest.write("/run/systemd/system/attacked.service", "\n".join(lines) + "\n")
    guest.run("systemctl", "daemon-reload")
    guest.start("attacked")
    became = json.loads(guest.run("cat", f"{told}.json").stdout)
    assert {name: how for name, how in became.items() if how != "EPERM"} == {}
    assert len(became) > 75
    guest.run("rm", "-r", f"{told}.tmp", f"{told}.json")


def filters(guest: Guest, pid: str) -> str:
    return guest.run(
        "sh", "-c", f"sed -n 's/Seccomp_filters:.//p' /proc/{pid}/status"
    ).stdout.strip()


def test_nobody_of_the_services_user_reads_its_memory(guest: Guest) -> None:
    as_service = ["runuser", "-u", "xray-watcher", "--"]
    outer, inner, decoders = processes(guest)
    for pid in (outer, inner, *decoders):
        for name in ("mem", "environ", "fd", "maps"):
            attempt = f"ls /proc/{pid}/{name}/" if name == "fd" else f"head -c1 /proc/{pid}/{name}"
            done = guest.run(*as_service, "sh", "-c", attempt, check=False)
            assert "Permission denied" in done.stdout, (pid, name, done)


def test_who_is_in_the_group_reads_results_and_changes_none(guest: Guest) -> None:
    as_nurse = ["runuser", "-u", "nurse", "--", "sh", "-c"]
    assert guest.run(*as_nurse, "cat /srv/xray/logs/results-*.csv").stdout
    for attempt in (
        "rm /srv/xray/classified_images/*/*",
        "touch /srv/xray/classified_images/High/mine.jpg",
        "echo >> /srv/xray/logs/results-*.csv",
        "cat /etc/xray-watcher/../xray-watcher/config.toml > /etc/xray-watcher/config.toml",
        "rm /var/lib/xray-watcher/ledger.sqlite3",
    ):
        assert guest.run(*as_nurse, attempt, check=False).returncode != 0, attempt


def test_status_says_that_it_is_healthy(guest: Guest) -> None:
    done = guest.run("runuser", "-u", "xray-watcher", "--", PROGRAM, "status")
    assert "is running, healthy" in done.stdout


def test_a_share_that_comes_and_goes_under_the_inbox_is_seen(guest: Guest) -> None:
    """The service has mounts of its own; those of the server must reach it all the same."""
    state = "systemctl show -P StatusText xray-watcher | grep"
    guest.run("mount", "-t", "tmpfs", "tmpfs", "/srv/xray/inbox")
    guest.wait_until("sh", "-c", f"{state} 'degraded: inbox: Another file system'")
    guest.run("umount", "/srv/xray/inbox")
    guest.wait_until("sh", "-c", f"{state} ^watching", seconds=120)


def test_systemctl_reload_takes_a_good_file(guest: Guest) -> None:
    guest.write("/etc/xray-watcher/config.toml", CONFIG.replace("0.3", "0.4"))
    guest.run("systemctl", "reload", "xray-watcher")
    taken = json.loads(log_has(guest, "configuration reloaded"))
    assert taken["changed"] == ["batch.quiet_seconds"]
    guest.wait_until("sh", "-c", "systemctl show -P ActiveState xray-watcher | grep -x active")


def test_systemctl_reload_refuses_a_broken_file_and_the_service_goes_on(guest: Guest) -> None:
    pid = shown(guest, "MainPID")
    guest.write("/etc/xray-watcher/config.toml", CONFIG.replace("0.3", "-1"))
    assert guest.run("systemctl", "reload", "xray-watcher", check=False).returncode != 0
    assert log_has(guest, "batch.quiet_seconds: -1 is not allowed")
    guest.run("systemctl", "kill", "--kill-who=main", "-s", "HUP", "xray-watcher")
    assert log_has(guest, "configuration not reloaded")
    guest.wait_until("sh", "-c", "systemctl show -P ActiveState xray-watcher | grep -x active")
    assert shown(guest, "MainPID") == pid
    guest.write("/etc/xray-watcher/config.toml", CONFIG)


def test_people_are_told_under_the_same_restrictions(guest: Guest) -> None:
    """By HTTP and by a program, which are all that the service starts or connects to."""
    told = "/var/lib/xray-watcher/told.json"
    guest.write("/tmp/sink.py", SINK)
    guest.run("systemd-run", "--unit", "sink", f"{PLACE}/venv/bin/python", "/tmp/sink.py")
    guest.wait_until("systemctl", "is-active", "sink")
    ways = (
        '[notify.webhook]\nurl = "http://127.0.0.1:9099/told"\nevents = ["high"]\n'
        f'[notify.command]\nargv = ["/usr/bin/tee", "-a", "{told}"]\nevents = ["high"]\n'
    )
    guest.write("/etc/xray-watcher/config.toml", CONFIG + ways)
    guest.run("systemctl", "restart", "xray-watcher")
    for number in range(6, 24):
        drop(guest, number, "/srv/xray/inbox")
    for path in ("/tmp/posted.json", told):
        guest.wait_until("grep", '"event": *"high"', path)
    guest.run("systemctl", "stop", "sink")
    guest.write("/etc/xray-watcher/config.toml", CONFIG)
    guest.run("systemctl", "restart", "xray-watcher")


def test_no_other_machine_is_reached_without_the_drop_in_for_that(guest: Guest) -> None:
    """The other machine's address is on the loopback here, where there is no other network."""
    guest.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    guest.write("/tmp/sink.py", SINK.replace("127.0.0.1", "192.0.2.1"))
    guest.run("systemd-run", "--unit", "sink", f"{PLACE}/venv/bin/python", "/tmp/sink.py")
    guest.wait_until("systemctl", "is-active", "sink")
    guest.run("rm", "-f", "/tmp/posted.json")
    way = '[notify.webhook]\nurl = "http://192.0.2.1:9099/told"\nevents = ["high"]\n'
    guest.write("/etc/xray-watcher/config.toml", CONFIG + way)
    guest.run("systemctl", "restart", "xray-watcher")
    for number in range(6, 24):
        drop(guest, number, "/srv/xray/inbox")
    status = f"runuser -u xray-watcher -- {PROGRAM} status | grep 'no answer in time'"
    guest.wait_until("sh", "-c", status)
    assert guest.run("test", "-e", "/tmp/posted.json", check=False).returncode != 0
    drop_in = "/run/systemd/system/xray-watcher.service.d/network.conf"
    example = f"{PLACE}/checkout/deploy/systemd/examples/network.conf"
    guest.run("install", "-D", "-m", "644", example, drop_in)
    guest.run("systemctl", "daemon-reload")
    guest.run("systemctl", "restart", "xray-watcher")
    guest.wait_until("grep", '"event": *"high"', "/tmp/posted.json")
    guest.run("systemctl", "stop", "sink")
    guest.run("rm", drop_in)
    guest.run("systemctl", "daemon-reload")
    guest.write("/etc/xray-watcher/config.toml", CONFIG)
    guest.run("systemctl", "restart", "xray-watcher")


def test_a_service_that_hangs_is_started_again_by_the_watchdog(guest: Guest) -> None:
    drop_in = "/run/systemd/system/xray-watcher.service.d/quick.conf"
    guest.write(drop_in, "[Service]\nWatchdogSec=15\nRestartSec=1\n")
    guest.run("systemctl", "daemon-reload")
    guest.run("systemctl", "restart", "xray-watcher")
    pid = shown(guest, "MainPID")
    guest.run("sh", "-c", f"kill -STOP $(cat /proc/{pid}/task/{pid}/children)")
    guest.wait_until("sh", "-c", "systemctl show -P NRestarts xray-watcher | grep -x 1")
    guest.wait_until("sh", "-c", "systemctl show -P ActiveState xray-watcher | grep -x active")
    assert shown(guest, "MainPID") != pid
    assert "watchdog" in guest.run(*LOG).stdout.lower()
    guest.run("rm", drop_in)
    guest.run("systemctl", "daemon-reload")


def test_it_stops_when_it_is_told_to_with_success(guest: Guest) -> None:
    guest.run("systemctl", "stop", "xray-watcher")
    assert shown(guest, "Result") == "success"
    assert shown(guest, "ExecMainStatus") == "0"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("quiet_seconds = 0.3", "quiet_seconds = -1"), 78),
        (('"phantom"', '"densenet121-res224-nih"'), 10),
    ],
)
def test_what_does_not_mend_itself_is_not_tried_again(
    guest: Guest, change: tuple[str, str], code: int
) -> None:
    guest.write("/etc/xray-watcher/config.toml", CONFIG.replace(*change))
    assert guest.run("systemctl", "start", "xray-watcher", check=False).returncode != 0
    assert shown(guest, "ExecMainStatus") == str(code)
    assert shown(guest, "ActiveState") == "failed"
    assert shown(guest, "NRestarts") == "0"
    guest.write("/etc/xray-watcher/config.toml", CONFIG)
    guest.run("systemctl", "reset-failed", "xray-watcher")


def test_the_pages_are_served_and_uploads_taken_under_the_same_restrictions(guest: Guest) -> None:
    guest.start("xray-watcher", "xray-watcher-web")
    python = f"{PLACE}/venv/bin/python"
    ask = "import requests; print(requests.get('http://127.0.0.1:8080/healthz', timeout=20).text)"
    guest.wait_until(python, "-c", ask)
    send = (
        "import requests, sys; image = open('/tmp/drawn/phantom-003-pneumothorax.png', 'rb'); "
        "answer = requests.post('http://127.0.0.1:8080/predict_batch', files={'files': image}, "
        "timeout=100); print(answer.text); sys.exit(answer.status_code != 200)"
    )
    (result,) = json.loads(guest.run(python, "-c", send).stdout)["results"]
    assert result["top_label"] == "Pneumothorax"
    assert guest.run("systemctl", "is-active", "xray-watcher-web").stdout.strip() == "active"
    show = (
        "import requests; answer = requests.get("
        f"'http://127.0.0.1:8080/images/{result['index']}/thumbnail.png', timeout=100); "
        "print(answer.status_code, answer.headers['content-type'])"
    )
    assert guest.run(python, "-c", show).stdout.split() == ["200", "image/png"]
