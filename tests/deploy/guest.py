"""A Debian with a systemd of its own, in namespaces of its own: here a unit file is in force.

The folder that it starts from is covered by an overlay and stays as it is. It needs root, an
unmounted corner of the cgroup-2 hierarchy, and nothing that is installed or running elsewhere;
it is no virtual machine: kernel and time are the machine's.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

BOOT = r"""
set -eu
lower=$1 corner=$2 target=$3; shift 3
mount --make-rprivate /
cd "$corner"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=upper,workdir=work" root
cd root
mkdir -p proc sys dev run tmp
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
    touch "dev/$name"; mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
while [ $# -gt 0 ]; do
    if [ -d "$1" ]; then mkdir -p ".$2"; else mkdir -p "$(dirname ".$2")"; touch ".$2"; fi
    mount --rbind "$1" ".$2"
    shift 2
done
mkdir -p .before
pivot_root . .before
umount -l /.before
mount --make-rshared / # as systemd does it where it is not told that it is in a container
exec env -i container=namespaces PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd \
    --system "--unit=$target" --log-target=journal --show-status=no
"""

START_S = 60.0


class Guest:
    """One guest; a context manager that starts and ends it.

    Args:
        lower: the root folder of a Debian with systemd; "/" is this machine's own.
        corner: a folder on a disk for what the guest writes, empty or from an earlier life of it.
        network: whether it shares this machine's network; without, it has a loopback alone and
            no way to resolve a name.
        binds: folders and files of this machine, and where the guest has them.
        target: what it starts; sysinit.target has none of the services of a busy machine.
    """

    def __init__(
        self,
        lower: Path,
        corner: Path,
        *,
        network: bool = False,
        binds: Sequence[tuple[str, str]] = (),
        target: str = "multi-user.target",
    ) -> None:
        self._lower, self._corner, self._network, self._binds = lower, corner, network, binds
        self._target = target
        self._cgroup = Path(cgroup_folder()) / f"xray-watcher-guest-{os.getpid()}-{id(self)}"
        self._process: subprocess.Popen[bytes] | None = None
        self.init = 0  # its first process, as this machine counts

    @property
    def files(self) -> Path:
        """What the guest has written, by its own paths; its own mounts are not seen."""
        return self._corner / "upper"

    def __enter__(self) -> Self:
        """Start it and wait until it is up."""
        for name in ("upper", "work", "root"):
            (self._corner / name).mkdir(parents=True, exist_ok=True)
        self._cgroup.mkdir()
        spaces = ["-m", "-p", "-u", "-i", "-C", *([] if self._network else ["-n"])]
        places = (str(self._lower), str(self._corner), self._target)
        flat = [part for bind in self._binds for part in bind]
        command = ["unshare", *spaces, "--fork", "--kill-child", "sh", "-c", BOOT, "boot"]
        # The shell joins the cgroup first: the root of the new cgroup namespace is where it is.
        join = f'echo $$ > "{self._cgroup}/cgroup.procs"; exec "$@"'
        self._process = subprocess.Popen(
            ["sh", "-c", join, "join", *command, *places, *flat],
            stdin=subprocess.DEVNULL,
        )
        try:
            self._wait_until_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        """End it, as a power cut would."""
        if self._process is not None:
            if self.init:
                with suppress(ProcessLookupError):
                    os.kill(self.init, 9)
            self._process.kill()
            self._process.wait()
        for _ in range(100):
            if all(_removed(folder) for folder in _deepest_first(self._cgroup)):
                break
            time.sleep(0.05)

    def _wait_until_up(self) -> None:
        assert self._process is not None
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s:
            if self._process.poll() is not None:
                raise RuntimeError(f"the guest ended with {self._process.returncode}")
            self.init = self.init or _systemd_below(self._process.pid)
            if self.init:
                answer = self.run("systemctl", "is-system-running", check=False)
                if answer.stdout.strip() in ("running", "degraded"):
                    return
            time.sleep(0.2)
        raise RuntimeError(f"the guest is not up after {START_S} s")

    def run(
        self, *command: str, check: bool = True, timeout: float = 120, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the guest as its root; output and errors come together."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.init), "-a", "env", "-i", *_assignments(env), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
        return done

    def start(self, *units: str) -> None:
        """Start units and wait until they are up; what they logged is told if one is not."""
        done = self.run("systemctl", "start", *units, check=False)
        if done.returncode:
            log = self.run("journalctl", "--no-pager", "-n", "50", check=False)
            raise AssertionError(f"{done.stdout}\n{log.stdout}")

    def write(self, path: str, text: str) -> None:
        """Write one of its files."""
        script = 'mkdir -p "$(dirname "$1")"; printf %s "$2" > "$1"'
        self.run("sh", "-c", script, "sh", path, text)

    def wait_until(self, *command: str, seconds: float = 60) -> str:
        """Run a command again and again until it succeeds; returns what it printed."""
        until_s = time.monotonic() + seconds
        while True:
            done = self.run(*command, check=False)
            if done.returncode == 0:
                return done.stdout
            assert time.monotonic() < until_s, f"{command}: {done.returncode}\n{done.stdout}"
            time.sleep(0.2)


def why_not() -> str:
    """Why no guest can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "namespaces with a systemd of their own need root"
    if not os.path.exists("/lib/systemd/systemd"):
        return "systemd is not installed"
    if not cgroup_folder():
        return "there is no cgroup-2 hierarchy that can be written"
    return ""


def cgroup_folder() -> str:
    """Where the cgroup-2 hierarchy is mounted, or nothing."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(",") and os.access(place, os.W_OK):
            return place
    return ""


def debian(release: str) -> Path:
    """A minimal Debian of that release with systemd, made once by debootstrap from the mirror."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "xray-watcher-tests"
    root = cache / f"debian-{release}"
    if not (root / "made").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        include = "--include=systemd,systemd-sysv,dbus,ca-certificates"
        subprocess.run(["debootstrap", "--variant=minbase", include, release, root], check=True)
        (root / "made").touch()
    return root


def pip_sources() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """How pip finds packages on this machine, as variables, and the files that those name."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    pairs = (line.partition("=") for line in told.stdout.splitlines())
    settings = {
        name.rpartition(".")[2].upper().replace("-", "_"): str(ast.literal_eval(value))
        for name, _, value in pairs
    }
    named = " ".join(settings.values())
    places = set(re.findall(r"(?:(?<=file://)|(?<=\s)|^)(/[^\s,]+)", named))
    places |= {os.path.dirname(place) for place in places if place.endswith("/simple")}
    outer = {p for p in places if os.path.exists(p) and os.path.dirname(p) not in places}
    variables = {f"PIP_{name}": value.strip() for name, value in settings.items()}
    return variables, [(place, place) for place in sorted(outer)]


def _assignments(env: Mapping[str, str]) -> Iterator[str]:
    base = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    return (f"{name}={value}" for name, value in {**base, **env}.items())


def _systemd_below(pid: int) -> int:
    """The guest's first process as this machine counts, or 0 if it is not systemd yet."""
    with suppress(OSError, IndexError, ValueError):
        child = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
            return child
    return 0


def _deepest_first(folder: Path) -> Iterator[str]:
    return (path for path, _, _ in os.walk(folder, topdown=False))


def _removed(folder: str) -> bool:
    with suppress(OSError):
        os.rmdir(folder)
    return not os.path.exists(folder)
