"""deploy/install.sh without a system of its own; `make install-test` does the whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPT = DEPLOY / "install.sh"
UNIT = "usr/local/lib/systemd/system/xray-watcher.service"
CONFIG = "etc/xray-watcher/config.toml"


def installing(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SCRIPT), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, **env},
        timeout=60,
    )


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its mode and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="`make test` installs shellcheck")
@pytest.mark.parametrize(
    "script", [*sorted(DEPLOY.rglob("*.sh")), *sorted(DEPLOY.parent.glob(".ci/*-*"))], ids=str
)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


def test_a_dry_run_prints_every_step_and_changes_nothing(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    done = installing("--dry-run", "--prefix", str(prefix), "--root", "/data/xray")
    assert done.returncode == 0, done.stdout
    steps = [line for line in done.stdout.splitlines() if line.startswith("== ")]
    assert [step.split()[1] for step in steps] == [*(f"{n}." for n in range(1, 10)), "Done"]
    assert "pip install" in done.stdout
    assert "web.txt" in done.stdout
    assert "onnx.txt" not in done.stdout
    assert "systemd-sysusers" in done.stdout
    assert "/data/xray/inbox" in done.stdout
    assert os.listdir(tmp_path) == []


def test_nothing_comes_from_the_index_without_a_hash() -> None:
    told = installing("--dry-run", "--extras", "onnx,web").stdout.splitlines()
    commands = [line for line in told if "pip install" in line]
    locks = DEPLOY / "locks"
    parts = " ".join(f"-r {locks}/{part}.txt" for part in ("base", "onnx", "web"))
    assert [line.partition(" --no-input ")[2] for line in commands] == [
        f"--require-hashes --target /opt/xray-watcher/tmp/build -r {locks}/build.txt",
        f"--require-hashes {parts}",
        f"--no-index --no-deps --no-build-isolation {DEPLOY.parent}",
    ]


def wheel(folder: Path) -> str:
    """Write a small package into a folder; returns the hash of its file."""
    file = folder / "small-1.0-py3-none-any.whl"
    about = "small-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("small.py", "")
        packed.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        packed.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        packed.writestr(f"{about}/RECORD", "")
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.skipif(os.geteuid() != 0, reason="the installer is root's")
@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="`.ci/test-tools` has systemd")
@pytest.mark.parametrize("is_right", [True, False])
def test_a_package_with_another_hash_is_not_installed_and_that_is_said(
    is_right: bool, tmp_path: Path
) -> None:
    """In a copy that has no program: no run gets beyond that.

    What builds it needs the same package, which is not the program's because of that.
    """
    checkout, prefix, there = tmp_path / "the checkout", tmp_path / "prefix", tmp_path / "there"
    there.mkdir()
    locks = checkout / "deploy" / "locks"
    locks.mkdir(parents=True)
    digest = wheel(there)
    for part, locked in (("build", digest), ("base", digest if is_right else "0" * 64)):
        (locks / f"{part}.txt").write_text(f"small==1.0 --hash=sha256:{locked}\n")
    script = checkout / "deploy" / "install.sh"
    script.write_text(
        SCRIPT.read_text()
        .replace("\nLOCAL=/usr/local\n", f"\nLOCAL={tmp_path}/local\n")
        .replace("\nLOCK=/run/", f"\nLOCK={tmp_path}/")
    )
    venv = ["-m", "venv", "--without-pip", "--system-site-packages", prefix / "venv"]
    subprocess.run([sys.base_prefix + "/bin/python3", *venv], check=True)
    done = subprocess.run(
        ["sh", script, "--prefix", prefix, "--extras", ""],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(there)},
    )
    assert done.returncode == 1
    assert ("A package is not the one that this release was made with" in done.stderr) != is_right
    assert ("pip failed. Is its index" in done.stderr) == is_right
    assert ("small==1.0 from" in done.stderr) != is_right, "pip names it"
    assert bool(list(prefix.glob("venv/lib/*/site-packages/small.py"))) == is_right
    assert sorted(os.listdir(prefix)) == ["venv"]
    assert not (tmp_path / "local").exists()


def test_files_are_staged_with_the_paths_that_were_asked_for(tmp_path: Path) -> None:
    done = installing("--root", "/data/xray", "--prefix", "/opt/x", DESTDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout
    unit = (tmp_path / UNIT).read_text()
    assert "ExecStart=/opt/x/venv/bin/xray-watcher run" in unit
    assert "ReadWritePaths=/data/xray\n" in unit
    assert 'root = "/data/xray"' in (tmp_path / CONFIG).read_text()
    assert (
        "d /data/xray/inbox "
        in (tmp_path / "usr/local/lib/tmpfiles.d/xray-watcher.conf").read_text()
    )
    placed = "".join(content.decode() for _, content in tree(tmp_path).values())
    assert "/srv/xray" not in placed
    assert "/opt/xray-watcher" not in placed


def test_a_second_time_nothing_changes_and_settings_are_kept(tmp_path: Path) -> None:
    installing("--root", "/data/xray", DESTDIR=str(tmp_path))
    (tmp_path / CONFIG).write_text('root = "/data/xray"\ntimezone = "Europe/Athens"\n')
    before = tree(tmp_path)
    done = installing(DESTDIR=str(tmp_path))  # the root is the one that the settings have
    assert done.returncode == 0, done.stdout
    assert "kept as it is" in done.stdout
    assert tree(tmp_path) == before


def test_a_second_time_program_and_extras_stay_where_and_what_they_were(tmp_path: Path) -> None:
    installing("--prefix", "/opt/x", "--extras", "", DESTDIR=str(tmp_path))
    assert installing(DESTDIR=str(tmp_path)).returncode == 0
    assert "ExecStart=/opt/x/venv/bin/xray-watcher run" in (tmp_path / UNIT).read_text()
    assert (tmp_path / "opt/x/share/extras").read_text() == "\n"
    installing("--extras", "web,onnx", DESTDIR=str(tmp_path))
    installing(DESTDIR=str(tmp_path))
    assert (tmp_path / "opt/x/share/extras").read_text() == "web,onnx\n"
    assert not (tmp_path / "opt/xray-watcher").exists()
    installing("--uninstall", DESTDIR=str(tmp_path))
    assert not (tmp_path / "opt").exists() or os.listdir(tmp_path / "opt") == []


def test_neither_path_is_put_into_the_other(tmp_path: Path) -> None:
    options = ("--root", "/opt/xray-watcher-data", "--prefix", "/srv/xray/xw")
    done = installing(*options, DESTDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout
    unit = (tmp_path / UNIT).read_text()
    assert "ExecStart=/srv/xray/xw/venv/bin/xray-watcher run" in unit
    assert "ReadWritePaths=/opt/xray-watcher-data\n" in unit
    assert 'root = "/opt/xray-watcher-data"' in (tmp_path / CONFIG).read_text()
    folders = (tmp_path / "usr/local/lib/tmpfiles.d/xray-watcher.conf").read_text()
    assert "d /opt/xray-watcher-data/inbox " in folders


def test_the_pages_are_for_those_who_have_a_token(tmp_path: Path) -> None:
    installing(DESTDIR=str(tmp_path))
    written = (tmp_path / CONFIG).read_text().splitlines()
    assert 'token_file = "/var/lib/xray-watcher/tokens"' in written
    lines = (DEPLOY.parent / "config" / "xray-watcher.toml").read_text().splitlines()
    differing = [new for old, new in zip(lines, written, strict=True) if old != new]
    assert [line.partition(" ")[0] for line in differing] == ["token_file"]


def test_checkout_and_stage_may_have_spaces_and_be_named_from_where_one_is(tmp_path: Path) -> None:
    checkout = tmp_path / "the checkout"
    checkout.mkdir()
    for name in ("deploy", "config"):
        (checkout / name).symlink_to(DEPLOY.parent / name)
    done = subprocess.run(
        ["sh", "the checkout/deploy/install.sh"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "DESTDIR": "the stage"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "the stage" / UNIT).exists()


def test_two_at_once_come_one_after_the_other(tmp_path: Path) -> None:
    held = ["flock", "--no-fork", str(tmp_path), "sh", "-c", "echo held; read end"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(held, **pipes) as first:  # type: ignore[call-overload]
        assert first.stdout.readline() == "held\n"
        second = subprocess.Popen(
            ["sh", str(SCRIPT)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "DESTDIR": str(tmp_path)},
        )
        assert second.stdout is not None
        assert "another run of install.sh is at work" in second.stdout.readline()
        assert os.listdir(tmp_path) == []
        first.communicate("\n")
    assert second.communicate()
    assert second.returncode == 0
    assert (tmp_path / UNIT).exists()


def test_what_root_runs_is_not_looked_for_where_it_is_started(tmp_path: Path) -> None:
    """Python looks there: a `pip.py` in a folder that others write would be root's program."""
    (tmp_path / "pip.py").write_text("import os; os.mkdir('taken-over')\n")
    python = tmp_path / "prefix" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(shutil.which("python3") or "")
    done = subprocess.run(
        ["sh", str(SCRIPT), "--dry-run", "--prefix", str(tmp_path / "prefix")],
        check=False,
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 0
    assert not (tmp_path / "taken-over").exists()


def test_units_are_not_written_for_another_root_than_the_settings_have(tmp_path: Path) -> None:
    installing("--root", "/data/xray", DESTDIR=str(tmp_path))
    before = tree(tmp_path)
    done = installing("--root", "/data/other", DESTDIR=str(tmp_path))
    assert done.returncode == 2
    assert 'says root = "/data/xray"' in done.stdout
    assert tree(tmp_path) == before
    (tmp_path / CONFIG).write_text("root = '/data/moved'\n")
    assert installing(DESTDIR=str(tmp_path)).returncode == 0
    assert "ReadWritePaths=/data/moved\n" in (tmp_path / UNIT).read_text()


def test_an_environment_whose_python_has_changed_is_made_anew(tmp_path: Path) -> None:
    """As after an upgrade of Debian: the link is there, and what it leads to has no pip."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    done = installing("--dry-run", "--prefix", str(tmp_path))
    assert f"-m venv --clear {tmp_path}/venv" in done.stdout
    assert f"TMPDIR={tmp_path}/tmp" in done.stdout, "pip unpacks gigabytes: not in memory"
    python.unlink()
    python.symlink_to(shutil.which("python3") or "")
    kept = installing("--dry-run", "--prefix", str(tmp_path))
    assert "will be brought up to date" in kept.stdout
    assert "-m venv" not in kept.stdout
    other = tmp_path / "python9"
    other.write_text(
        '#!/bin/sh\ncase "$*" in *sys.exit*) exit 0 ;; *version_info*) echo 9 9 ;; esac\n'
    )
    other.chmod(0o755)
    named = installing("--dry-run", "--prefix", str(tmp_path), "--python", str(other))
    assert f"{other} -m venv --clear {tmp_path}/venv" in named.stdout


def test_what_was_staged_is_removed_but_for_settings_and_ledger(tmp_path: Path) -> None:
    installing(DESTDIR=str(tmp_path))
    ledger = tmp_path / "var/lib/xray-watcher/ledger.sqlite3"
    image = tmp_path / "srv/xray/inbox/a.jpg"
    for file in (ledger, image):
        file.parent.mkdir(parents=True)
        file.write_text("theirs")
    kept = {CONFIG, str(ledger.relative_to(tmp_path)), str(image.relative_to(tmp_path))}
    assert installing("--uninstall", "--dry-run", DESTDIR=str(tmp_path)).returncode == 0
    assert set(tree(tmp_path)) > kept
    done = installing("--uninstall", DESTDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert set(tree(tmp_path)) == kept
    assert installing("--uninstall", "--purge", DESTDIR=str(tmp_path)).returncode == 0
    assert set(tree(tmp_path)) == {"srv/xray/inbox/a.jpg"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rooot", "/x"], "--rooot is not an option"),
        (["--root"], "--root needs a value"),
        (["--root", "/srv/x ray"], "--root must be an absolute path"),
        (["--root", "srv"], "--root must be an absolute path"),
        (["--prefix", "/opt/../etc"], "--prefix must be an absolute path"),
        (["--prefix", "/"], "--prefix must be an absolute path"),
        (["--extras", "web;rm"], "--extras is a list"),
        (["--extras", "web,dev"], "there are web and onnx, and no dev"),
        (["--extras", "x-web"], "there are web and onnx, and no x-web"),
        (["--extras", "build"], "there are web and onnx, and no build"),
        (["--weights", "/no/such/file"], "/no/such/file cannot be read"),
        (["--purge"], "--purge goes with --uninstall"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    done = installing(*arguments, DESTDIR=str(tmp_path))
    assert done.returncode == 2
    assert words in done.stdout
    assert os.listdir(tmp_path) == []


def test_somebody_who_is_not_root_is_told_how() -> None:
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        ["sh", "-s"],
        input=SCRIPT.read_text(),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        **nobody,  # type: ignore[call-overload]
    )
    assert done.returncode == 1
    assert "sudo sh deploy/install.sh" in done.stderr


def test_every_path_that_an_installation_places_is_removed_again() -> None:
    """What the two halves of the script name is the same."""
    dry = installing("--dry-run").stdout.split()
    removed = installing("--uninstall", "--dry-run").stdout.split()
    placed = {word for word in dry if word.startswith("/usr/local/") and "." in word}
    assert placed
    assert placed <= set(removed)
    assert "/usr/local/bin/xray-watcher" in removed
