"""Commands that root runs on folders of another user: nothing of anybody else is touched.

That user has put links, pipes, hard links and a forged ledger in every place that they touch.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from service import COMMAND, PATIENCE_S, QUICK, STUB, environment
from xray_watcher.errors import UsageError
from xray_watcher.phantom.files import write_phantoms
from xray_watcher.system.identity import become_owner, find_owner

UID, GID = 12345, 12346
SECRET = "what only root may know"
NAMESPACE = """
mount --make-rprivate /
base=$1 top=$2 kept=$3; shift 3
mkdir -p "$kept"
mount --bind "$base" "$kept"
mount -t tmpfs -o mode=755 tmpfs "$top"
mkdir -p "$base"
mount --bind "$kept" "$base"
exec "$@"
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
    pytest.mark.timeout(600),
]


@pytest.fixture
def anywhere() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def reachable(scratch: Path) -> list[str]:
    """What a command begins with for its user to reach this Python, be it in root's home."""
    base = Path(sys.base_prefix)
    closed = [above for above in base.parents if not above.stat().st_mode & 0o001]
    if not closed:
        return []
    places = (str(base), str(closed[-1]), str(scratch / "python"))
    return ["unshare", "--mount", "sh", "-ec", NAMESPACE, "sh", *places]


def call(scratch: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one command as root, whose other files lie where it is."""
    return subprocess.run(
        [*reachable(scratch), *(STUB if arguments[0] == "run" else COMMAND), *arguments],
        capture_output=True,
        text=True,
        env=environment(**env),
        cwd="/",
        timeout=PATIENCE_S,
        check=False,
    )


class Theirs:
    """Root and state of a service that is another user's, and what lies outside of them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root, self.state, self.outside = home / "root", home / "state", home / "outside"
        for folder in (self.root / "inbox", self.state, self.outside / "profile.d"):
            folder.mkdir(parents=True)
        self.config = home / "config.toml"
        text = QUICK.format(root=json.dumps(str(self.root)), state=json.dumps(str(self.state)))
        self.config.write_text(
            f'{text}[web]\ntoken_file = "{self.state}/tokens"\n[retention]\nhigh_days = 30\n'
            f'rejected_days = 30\nlogs_days = 30\n[metrics]\ntextfile = "{self.state}/x.prom"\n'
        )
        for name in ("shadow", "sub.json", "0000_a.png"):
            (self.outside / name).write_text(SECRET)
            os.chmod(self.outside / name, 0o600)

    def give(self) -> None:
        """Root and state are theirs."""
        for folder in (self.root, self.state):
            subprocess.run(["chown", "-hR", f"{UID}:{GID}", str(folder)], check=True)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as root with their settings; words are parted by spaces."""
        return call(self.home, *command.split(), "--config", str(self.config))

    def owners(self) -> set[tuple[int, int]]:
        """Whose all is that lies in root and state."""
        found = [self.root, self.state, *self.root.rglob("*"), *self.state.rglob("*")]
        return {(status.st_uid, status.st_gid) for status in (path.lstat() for path in found)}

    def seen_outside(self) -> dict[str, tuple[int, int, int, bytes]]:
        """All that lies outside, and how."""
        return {
            str(path.relative_to(self.outside)): (
                (status := path.lstat()).st_mode,
                status.st_uid,
                status.st_ino,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in (self.outside, *self.outside.rglob("*"))
        }


@pytest.fixture(scope="module")
def filed() -> Iterator[Theirs]:
    """One image filed and two rejected by root's own `run --once` in their folders."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        theirs = Theirs(Path(folder))
        write_phantoms(str(theirs.home / "drawn"), 1, 1, lambda: None)
        (image,) = (theirs.home / "drawn").glob("phantom-*")
        shutil.copy(image, theirs.root / "inbox" / image.name)
        for name in ("b.png", "c.png"):
            (theirs.root / "inbox" / name).write_text(f"no picture, {name}")
        theirs.give()
        done = theirs.run("run --once")
        assert done.returncode == 3, done.stderr
        assert "3 images filed, 2 of them rejected" in done.stdout
        assert f"As the user {UID}, to whom {theirs.state} belongs." in done.stderr
        yield theirs


@pytest.fixture
def theirs(filed: Theirs, anywhere: Path) -> Theirs:
    """A copy of that for one test."""
    copied = Theirs(anywhere)
    for folder in ("root", "state"):
        shutil.rmtree(anywhere / folder)
        shutil.copytree(filed.home / folder, anywhere / folder, ignore=_no_pipes)
    with sqlite3.connect(copied.state / "ledger.sqlite3") as ledger:
        places = [("work", copied.root / ".xray-watcher"), ("inbox", copied.root / "inbox")]
        for key, value in places:
            ledger.execute("UPDATE meta SET value = ? WHERE key = ?", (str(value), key))
    ledger.close()
    copied.give()
    return copied


def _no_pipes(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_fifo()]


def test_a_run_as_root_leaves_no_file_of_root_s(filed: Theirs) -> None:
    """A service whose log of the day is root's does not start."""
    assert filed.owners() == {(UID, GID)}
    assert {path.suffix for path in (filed.root / "logs").iterdir()} >= {".jsonl", ".csv"}


COMMANDS = (
    *("status --json", "summary", "check-config", "metrics", "notify test", "retention"),
    *("fsck --repair", "retry --all", "token ward --role view", "weights list", "run --once"),
    *("backup {state}/copy", "weights import {outside}/shadow --trust"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_as_root_works_as_the_owner_of_the_folders(theirs: Theirs, command: str) -> None:
    done = theirs.run(command.format(state=theirs.state, outside=theirs.outside))
    assert f"As the user {UID}" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "please report" not in done.stderr
    assert theirs.owners() == {(UID, GID)}
    wanted = {"status --json": 4, "notify test": 2, COMMANDS[-1]: 10}
    assert done.returncode == wanted.get(command, 0), done.stderr


def links(theirs: Theirs) -> None:
    """Every file is a link to one of root's, every folder one to a folder of root's."""
    for path in [*theirs.state.rglob("*"), *theirs.root.glob("*/*"), *theirs.root.glob(".*/*")]:
        if path.name == "ledger.sqlite3" or path.resolve() != path or not path.exists():
            continue  # or it lies below what is a link by now
        is_folder = path.is_dir()
        if is_folder:
            shutil.rmtree(path)
        else:
            path.unlink()
        path.symlink_to(theirs.outside if is_folder else theirs.outside / "shadow")
    for name in ("tokens", "x.prom", "copy", "copy.part", "lock", "lock.json", "heartbeat.json"):
        (theirs.state / name).unlink(missing_ok=True)
        (theirs.state / name).symlink_to(theirs.outside / f"made-{name}")
    (theirs.state / "weights").mkdir(exist_ok=True)
    for ending in ("safetensors", "safetensors.part", "safetensors.part.json", "onnx"):
        name = f"weights/densenet121-res224-chex.{ending}"
        (theirs.state / name).symlink_to(theirs.outside / "shadow")


def linked_folders(theirs: Theirs) -> None:
    """The folders of the results, of the logs and the inbox are links to folders of root's."""
    for name in ("inbox", "rejected", "logs", "classified_images", ".xray-watcher"):
        (theirs.root / name).rename(theirs.root / f"{name}.before")
        (theirs.outside / name).mkdir()
        (theirs.root / name).symlink_to(theirs.outside / name)


def pipes(theirs: Theirs) -> None:
    """Whoever opens one of the files of their state waits for ever."""
    for name in ("lock", "lock.json", "heartbeat.json", "tokens", "x.prom", "copy", "copy.part"):
        (theirs.state / name).unlink(missing_ok=True)
        os.mkfifo(theirs.state / name)


def hard_links(theirs: Theirs) -> None:
    """Each file has the content of root's own, for it is that."""
    for path in [*theirs.state.rglob("*"), *theirs.root.rglob("*")]:
        if path.is_file() and path.name != "ledger.sqlite3":
            path.unlink()
            os.link(theirs.outside / "shadow", path)
    for name in ("tokens", "copy.part", "x.prom"):
        (theirs.state / name).unlink(missing_ok=True)
        os.link(theirs.outside / "shadow", theirs.state / name)


def forged_names(theirs: Theirs) -> None:
    """The ledger says that rejected and filed images lie in root's folders."""
    forge(theirs, "UPDATE image SET filed_name = '../../outside/shadow', filed_us = 1")


def forged_way_back(theirs: Theirs) -> None:
    """The ledger says that a file came in by a link that leads to a folder of root's."""
    forge(theirs, "UPDATE image SET path = CAST('evil.sh' AS BLOB) WHERE outcome = 'rejected'")
    (theirs.root / "inbox").rename(theirs.root / "before")
    (theirs.root / "inbox").symlink_to(theirs.outside / "profile.d")


def forge(theirs: Theirs, statement: str) -> None:
    ledger = sqlite3.connect(theirs.state / "ledger.sqlite3")
    columns = {row[1] for row in ledger.execute("PRAGMA table_info(image)")}
    if "filed_us" not in columns:
        statement = statement.replace(", filed_us = 1", "")
    changed = ledger.execute(statement).rowcount
    ledger.commit()
    ledger.close()
    assert changed


def keeping_root_s_own(theirs: Theirs, trap: Callable[[Theirs], None]) -> None:
    """Lay a trap and give all of it to them but the secret, which a hard link would give too."""
    trap(theirs)
    theirs.give()
    os.chown(theirs.outside / "shadow", 0, 0)


BACKUP, TOKEN = "backup {state}/copy", "token ward --role view"
FETCH = "weights fetch --url http://127.0.0.1:9/x --trust"
TRAPS = (
    (links, ("status", "retention", "fsck --repair", TOKEN, BACKUP, FETCH)),
    (linked_folders, ("fsck --repair", "retry --all", "retention", "run --once")),
    (pipes, ("status", "fsck", "metrics", TOKEN, BACKUP, "summary")),
    (hard_links, ("status", "fsck --repair", "retry --all", TOKEN, BACKUP, "run --once")),
    (forged_names, ("fsck --deep", "fsck --repair", "retention", "retry --all")),
    (forged_way_back, ("retry --all",)),
)


@pytest.mark.parametrize(("trap", "commands"), TRAPS, ids=[trap.__name__ for trap, _ in TRAPS])
def test_no_trap_in_their_folders_leads_a_command_of_root_s_outside(
    theirs: Theirs, trap: Callable[[Theirs], None], commands: Sequence[str]
) -> None:
    keeping_root_s_own(theirs, trap)
    before = theirs.seen_outside()
    for command in commands:
        done = theirs.run(command.format(state=theirs.state, outside=theirs.outside))
        told = done.stdout + done.stderr
        assert f"As the user {UID}" in done.stderr, (command, told)
        assert SECRET not in told, command
        assert theirs.seen_outside() == before, (command, told)


@pytest.mark.parametrize("name", ["inbox", "logs"])
def test_a_folder_that_is_swapped_for_a_link_all_the_time_leads_nowhere(
    theirs: Theirs, name: str
) -> None:
    before, ends = theirs.seen_outside(), threading.Event()
    (theirs.root / "link").symlink_to(theirs.outside / "profile.d")
    theirs.give()

    def swap() -> None:
        folder, link, aside = theirs.root / name, theirs.root / "link", theirs.root / "aside"
        while not ends.is_set():
            for one, other in ((folder, aside), (link, folder), (folder, link), (aside, folder)):
                one.rename(other)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for command in ("fsck --repair", "retry --all"):
            assert f"As the user {UID}" in theirs.run(command).stderr
    finally:
        ends.set()
        swapping.join()
    assert theirs.seen_outside() == before


# -- who that is --------------------------------------------------------------------------


def test_the_owner_of_a_folder_is_whoever_has_something_on_the_way_to_it(anywhere: Path) -> None:
    (anywhere / "own" / "below").mkdir(parents=True)
    (anywhere / "theirs" / "root-s").mkdir(parents=True)
    (anywhere / "link").symlink_to("theirs/../theirs")
    (anywhere / "their-link").symlink_to(anywhere / "own")
    (anywhere / "loop").symlink_to("loop")
    os.chown(anywhere / "theirs", UID, GID)
    os.chown(anywhere / "their-link", UID + 1, GID, follow_symlinks=False)
    found = {
        name: getattr(find_owner(str(anywhere / name)), "uid", None)
        for name in ("own/below", "own/new/x", "theirs", "theirs/root-s", "theirs/new", "link/x")
    }
    assert list(found.values()) == [None, None, UID, UID, UID, UID]
    assert getattr(find_owner(str(anywhere / "their-link")), "uid", None) == UID + 1
    assert find_owner(str(anywhere / "loop")) is None
    assert find_owner("/") is None


def test_their_folder_that_comes_and_goes_is_theirs_at_each_look(anywhere: Path) -> None:
    (anywhere / "theirs" / "state").mkdir(parents=True)
    (anywhere / "theirs" / "link").symlink_to("/etc")
    os.chown(anywhere / "theirs", UID, GID)
    ends = threading.Event()

    def swap() -> None:
        state, link, aside = (anywhere / "theirs" / name for name in ("state", "link", "aside"))
        while not ends.is_set():
            for one, other in ((state, aside), (link, state), (state, link), (aside, state)):
                one.rename(other)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        seen = {
            getattr(find_owner(str(anywhere / "theirs" / "state")), "uid", None)
            for _ in range(2000)
        }
    finally:
        ends.set()
        swapping.join()
    assert seen == {UID}


def test_root_stays_root_where_all_is_root_s(anywhere: Path) -> None:
    (anywhere / "state").mkdir()
    assert become_owner(str(anywhere / "state"), "", str(anywhere / "new")) is None
    assert os.geteuid() == 0


def test_root_does_not_work_where_state_is_root_s_and_the_images_are_theirs(
    anywhere: Path,
) -> None:
    theirs = Theirs(anywhere)
    os.chown(theirs.root, UID, GID)
    with pytest.raises(UsageError, match=rf"chown -R {UID} {theirs.state}"):
        become_owner(str(theirs.state), str(theirs.root))
    done = theirs.run("run --once")
    assert done.returncode == 2
    assert list(theirs.state.iterdir()) == []


def test_there_is_no_way_back_and_nothing_of_root_s_session_is_left(anywhere: Path) -> None:
    os.chown(anywhere, 65534, 65534)
    code = (
        "import os, sys\n"
        "from xray_watcher.system.identity import become_owner\n"
        "owner = become_owner(sys.argv[1])\n"
        "ids = os.getresuid(), os.getresgid(), os.getgroups()\n"
        "names = [name for name in os.environ if name.startswith('XDG_')]\n"
        "for back in (os.setuid, os.seteuid, os.setgid):\n"
        "    try: back(0); print('root again')\n"
        "    except PermissionError: pass\n"
        "print(owner.name, ids, names, os.environ['HOME'], os.environ['USER'])\n"
    )
    done = subprocess.run(
        [*reachable(anywhere), sys.executable, "-c", code, str(anywhere)],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_STATE_HOME": "/root/x", "HOME": "/root"},
        check=True,
    )
    ids = ((65534,) * 3, (65534,) * 3, [65534])
    assert done.stdout == f"nobody {ids} [] /nonexistent nobody\n"


def test_where_this_python_is_out_of_their_reach_it_says_so(anywhere: Path) -> None:
    if not reachable(anywhere):
        pytest.skip("this Python lies where everybody can read it")
    theirs = Theirs(anywhere)
    theirs.give()
    done = subprocess.run(
        [*COMMAND, "status", "--config", str(theirs.config)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 2
    assert "Install it where 12345 can read it" in done.stderr


@pytest.mark.parametrize("words", ["phantoms {}/drawn --count 1", "demo --folder {}/demo"])
def test_what_root_has_drawn_in_their_folder_is_theirs(anywhere: Path, words: str) -> None:
    theirs = anywhere / "theirs"
    theirs.mkdir()
    os.chown(theirs, UID, GID)
    done = call(anywhere, *words.format(theirs).split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.lstat().st_uid for path in theirs.rglob("*")} == {UID}
