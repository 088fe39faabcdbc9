"""deploy/Dockerfile, built and run: `make container-test`.

buildah and podman from Debian, a Debian from debootstrap as the base (no registry of images is
asked), PyTorch from where pip finds it here. The containers get the options of compose.yaml by
hand: read-only root, no capabilities, no new privileges, no network, the same volumes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from guest import debian, pip_sources

CHECKOUT = Path(__file__).parents[3]
SHARE = CHECKOUT / "deploy" / "samba" / "xray-inbox.conf"
BASE = "localhost/debian:bookworm"
CONFINED = (
    *("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"),
    *("--network", "none", "--tmpfs", "/tmp:mode=1777"),
)
# This machine's root may not raise limits, as an engine does unless it is told some.
LIMITS = ("--ulimit", "nofile=10000:10000", "--ulimit", "nproc=4000:4000")
CONFIG = """
root = "/srv/xray"
[intake]
settle_seconds = 0.5
min_free_bytes = 0
[model]
weights = "phantom"
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="building with chroot needs root"),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="apt-get install buildah"),
    pytest.mark.timeout(3600),
]


class Engine:
    """buildah and podman with a store of their own."""

    def __init__(self, store: Path, run: Path) -> None:
        self._store = ["--root", str(store), "--runroot", str(run), "--storage-driver", "overlay"]

    def buildah(self, *arguments: str) -> str:
        return self._run(["buildah", *self._store, *arguments])

    def podman(self, *arguments: str, check: bool = True) -> str:
        runtime = ["--cgroup-manager", "cgroupfs", "--runtime", "/usr/sbin/runc"]
        return self._run(["podman", *self._store, *runtime, *arguments], check=check)

    def _run(self, command: Sequence[str], *, check: bool = True) -> str:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
            check=False,
        )
        print(*command, done.stdout, sep="\n")
        assert not check or done.returncode == 0, done.stdout[-4000:]
        return done.stdout.strip()

    def build(self, target: str, tag: str) -> None:
        """Build one stage of the Dockerfile."""
        variables, binds = pip_sources()
        given = {"BASE": BASE, "TORCH_INDEX": "", **variables}
        taken = ("BASE", "TORCH_INDEX", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS",
                 "PIP_CONSTRAINT")  # fmt: skip
        arguments = [f"--build-arg={name}={given[name]}" for name in taken if name in given]
        volumes = [f"--volume={outside}:{inside}:ro" for outside, inside in binds]
        self.buildah(
            "bud", "--format=docker", "--layers", "--network=host", "--file=deploy/Dockerfile",
            f"--target={target}", f"--tag={tag}", *arguments, *volumes, str(CHECKOUT),
        )  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    store = tmp_path_factory.mktemp("store")
    made = Engine(store / "root", store / "run")
    container = made.buildah("from", "scratch")
    made.buildah("add", "--quiet", container, str(debian("bookworm")), "/")
    made.buildah("commit", "--quiet", container, BASE)
    yield made
    made.podman("rm", "--all", "--force", check=False)
    made.podman("rmi", "--all", "--force", check=False)


@pytest.fixture(scope="module")
def watcher(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The running watcher; the volumes are called images and state."""
    engine.build("watcher", "xray-watcher")
    config = tmp_path_factory.mktemp("config") / "config.toml"
    config.write_text(CONFIG)
    config.chmod(0o644)
    engine.podman(
        "run", "--detach", "--name=watcher", *CONFINED, *LIMITS, "--volume=images:/srv/xray",
        "--volume=state:/var/lib/xray-watcher",
        f"--volume={config}:/etc/xray-watcher/config.toml:ro", "xray-watcher", "run",
    )  # fmt: skip
    yield "watcher"
    engine.podman("logs", "watcher", check=False)


def wait_until(engine: Engine, container: str, script: str) -> str:
    until_s = time.monotonic() + 120
    while True:
        told = engine.podman("exec", container, "sh", "-c", f"{script} && echo YES", check=False)
        if told.endswith("YES"):
            return told
        assert time.monotonic() < until_s, told
        time.sleep(1)


def test_an_image_is_filed_in_a_container_without_a_network(engine: Engine, watcher: str) -> None:
    wait_until(engine, watcher, "xray-watcher status")
    draw = "xray-watcher phantoms /tmp/drawn --count 4 && cp /tmp/drawn/*003* /srv/xray/inbox/"
    engine.podman("exec", watcher, "sh", "-c", draw)
    found = "test -e /srv/xray/classified_images/High/0000_phantom-003-pneumothorax.png"
    wait_until(engine, watcher, found)


def test_it_is_confined_and_runs_as_its_own_user(engine: Engine, watcher: str) -> None:
    told = engine.podman("exec", watcher, "sh", "-c", "id; touch /usr/x; cat /proc/1/status")
    assert "uid=2000(xray-watcher) gid=2000(xray)" in told
    assert "Read-only file system" in told
    assert "CapEff:\t0000000000000000" in told
    assert "Seccomp:\t2" in told


def test_all_that_a_child_which_was_taken_over_tries_is_refused_in_the_container(
    engine: Engine, watcher: str
) -> None:
    """With the engine's own filter of system calls, and what compose.yaml takes away."""
    told = json.loads(engine.podman("exec", watcher, "xray-watcher", "status", "--json"))
    assert told["sandbox_lacks"] == []
    found = engine.podman(
        "run", "--rm", *CONFINED, *LIMITS, f"--volume={CHECKOUT}/tests:/tests:ro",
        "--entrypoint=/opt/xray-watcher/venv/bin/python", "xray-watcher",
        "/tests/attacked.py", "/tmp/attacked",
    )  # fmt: skip
    became = json.loads(found.splitlines()[-1])
    assert {name: how for name, how in became.items() if how != "EPERM"} == {}
    assert len(became) > 75


def test_the_engine_sees_that_it_is_healthy(engine: Engine, watcher: str) -> None:
    check = json.loads(
        engine.podman("inspect", "--format", "{{json .Config.Healthcheck}}", watcher)
    )
    assert check["Test"] == ["CMD", "xray-watcher", "status"]
    engine.podman("healthcheck", "run", watcher)


def test_the_sidecar_takes_an_image_over_smb(engine: Engine, watcher: str, tmp_path: Path) -> None:
    engine.build("samba", "xray-watcher-samba")
    (tmp_path / "smb_password").write_text("a word")
    engine.podman(
        "run", "--detach", "--name=samba", *LIMITS, "--network=none", "--tmpfs=/run",
        "--tmpfs=/tmp:mode=1777", f"--volume={tmp_path}/smb_password:/run/secrets/smb_password:ro",
        "--volume=images:/srv/xray", f"--volume={SHARE}:/etc/samba/xray-inbox.conf:ro",
        "xray-watcher-samba",
    )  # fmt: skip
    engine.podman("exec", watcher, "cp", "/tmp/drawn/phantom-001-atelectasis.png", "/srv/xray/")
    put = (
        "smbclient //localhost/xray-inbox -U 'xray%a word' "
        "-c 'put /srv/xray/phantom-001-atelectasis.png a.png'"
    )
    wait_until(engine, "samba", put)
    wait_until(engine, watcher, "ls /srv/xray/classified_images/Medium/*_a.png")


def test_it_stops_in_order(engine: Engine, watcher: str) -> None:
    engine.podman("stop", "--time", "90", watcher)
    code = engine.podman("inspect", "--format", "{{.State.ExitCode}}", watcher)
    assert code == "0"
