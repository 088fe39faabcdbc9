"""deploy/Dockerfile and compose.yaml, without an engine; `make container-test` builds the image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from xray_watcher.config.loading import load_settings

CHECKOUT = Path(__file__).parents[2]
DEPLOY = CHECKOUT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
SHARE = "samba/xray-inbox.conf"
SIDECAR = DEPLOY / "samba-sidecar.sh"
MADE_BY_THE_USER = ("config.toml", "smb_password")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_what_the_dockerfile_copies_is_there_and_not_kept_out() -> None:
    ignored = (CHECKOUT / ".dockerignore").read_text().split()
    for source in re.findall(
        r"^COPY (?:--ch\S+ )*([^-\s]\S*) ", DOCKERFILE.read_text(), re.MULTILINE
    ):
        assert (CHECKOUT / source).exists(), source
        assert source not in ignored


def test_every_container_is_confined_and_listens_on_this_server_alone(
    compose: dict[str, Any],
) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["tmpfs"], name
        for port in service.get("ports", []):
            assert port.startswith("${SMB_ADDRESS:-127.0.0.1}:"), name


CONFINED = """
mount --make-rprivate /
corner=$1 capabilities=$2; shift 2
ip link set lo up
mount --bind "$corner/root" /srv
mount --bind "$corner/passwd" /etc/passwd
mount --bind "$corner/group" /etc/group
mount -t tmpfs tmpfs "$corner/share"
cp "$1" "$corner/share/xray-inbox.conf"
mount --bind "$corner/share" /etc/samba
mount -o remount,ro,bind /
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir /run/secrets
echo Secret-20 >/run/secrets/smb_password
chmod 600 /run/secrets/smb_password
chown 1000 /run/secrets/smb_password
echo taken >/run/file
keeps="--bounding-set=-all$capabilities --inh-caps=-all$capabilities --no-new-privs"
setpriv $keeps sh "$2" >/run/log 2>&1 &
for _ in $(seq 100); do
    if smbclient -U xray%Secret-20 //127.0.0.1/xray-inbox -c 'put /run/file a.png' >/run/told 2>&1
    then
        smbclient -U xray%Secret-20 //127.0.0.1/xray-inbox -c 'mkdir er; put /run/file er/b.png'
        stat -c '%U %G %a %n' /srv/xray/inbox/a.png /srv/xray/inbox/er/b.png
        touch /etc/written 2>&1 || true
        exit
    fi
    sleep 0.2
done
cat /run/told /run/log
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or None in map(shutil.which, ("smbd", "smbclient", "setpriv", "ip")),
    reason="a confined smbd needs root, samba, smbclient and iproute2",
)
def test_the_sidecar_works_within_what_the_compose_file_leaves_it(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    """In namespaces of its own, its root read only, with the capabilities named and no others."""
    inbox = tmp_path / "root" / "xray" / "inbox"
    inbox.mkdir(parents=True)
    (tmp_path / "share").mkdir()
    os.chown(inbox, 2000, 2000)
    for name, lines in {
        "passwd": ("xray-watcher:x:2000:2000::/:/bin/false", "xray:x:2001:2000::/:/bin/false"),
        "group": ("xray:x:2000:",),
    }.items():
        known = Path("/etc", name).read_text()
        (tmp_path / name).write_text(known + "".join(f"{line}\n" for line in lines))
    capabilities = "".join(f",+{one.lower()}" for one in compose["services"]["samba"]["cap_add"])
    spaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-ec"]
    done = subprocess.run(
        [*spaces, CONFINED, "sh", tmp_path, capabilities, DEPLOY / SHARE, SIDECAR],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "xray-watcher xray 640 /srv/xray/inbox/a.png" in done.stdout, done.stdout + done.stderr
    assert "xray-watcher xray 640 /srv/xray/inbox/er/b.png" in done.stdout
    assert "Read-only file system" in done.stdout + done.stderr


def test_what_the_compose_file_names_is_there(compose: dict[str, Any]) -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE.read_text(), re.MULTILINE))
    for name, service in compose["services"].items():
        build = service.get("build")
        if build is not None:
            assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE
            assert build["target"] in stages
        for other in service.get("depends_on", []):
            assert other in compose["services"], name
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            named = source.removeprefix("./")
            is_known = source in compose["volumes"] or named in MADE_BY_THE_USER
            assert is_known or named == SHARE, source


def test_the_share_that_the_sidecar_exports_is_there() -> None:
    assert (DEPLOY / SHARE).exists()


def test_the_services_are_confined(compose: dict[str, Any]) -> None:
    for name in ("watcher", "web", "weights"):
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert compose["services"]["watcher"]["network_mode"] == "none"
    assert re.search(r"^USER 2000:2000$", DOCKERFILE.read_text(), re.MULTILINE)


def test_the_pages_are_reached_from_this_server_alone(compose: dict[str, Any]) -> None:
    """On the host's own loopback, where no token is asked for."""
    web = compose["services"]["web"]
    assert web["network_mode"] == "host"
    assert "ports" not in web
    example = CHECKOUT / "config" / "xray-watcher.toml"
    settings = load_settings(str(example), {"state_dir": "/var/lib/xray-watcher"}, {}).settings
    assert (settings.web.host, settings.web.port) == ("127.0.0.1", 8080)
    assert "http://127.0.0.1:8080/healthz" in web["healthcheck"]["test"][-1]


def test_the_image_starts_with_the_example_s_folders() -> None:
    text = DOCKERFILE.read_text()
    example = (CHECKOUT / "config" / "xray-watcher.toml").read_text()
    (root,) = re.findall(r'^root = "(.*)"$', example, re.MULTILINE)
    assert f'VOLUME ["{root}", "/var/lib/xray-watcher"]' in text
    assert re.search(r'^HEALTHCHECK .* CMD \["xray-watcher", "status"\]$', text, re.MULTILINE)
