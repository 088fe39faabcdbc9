"""The parent of a child that was taken over (`attacker.py`), also where there is no pytest.

Run as `python attacked.py FOLDER [NAME ...]`: FOLDER is made and gets what the child goes for. What
became of each attempt is written to standard output as JSON, or what the child has changed.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ATTACKER = (sys.executable, str(Path(__file__).parent / "attacker.py"))
_UNTOUCHED = b"score: Low "


def prepare(folder: Path) -> None:
    """Put there what the child goes for."""
    (folder / "victim").write_text("untouched")
    program = folder / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)


def attack(folder: Path, *names: str) -> dict[str, str]:
    """Have a child try to reach this process and the folder.

    Args:
        folder: what `prepare` has made.
        names: of the attempts; with names the child gives up nothing before.

    Returns:
        What became of each attempt, by its name; see `attacker.py`.

    Raises:
        AssertionError: the child ended with an error, or changed this process's memory.
    """
    memory = ctypes.create_string_buffer(_UNTOUCHED)
    near, far = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener, near, far:
        numbers = (os.getpid(), ctypes.addressof(memory), listener.getsockname()[1])
        done = subprocess.run(
            [*ATTACKER, *map(str, numbers), str(folder), *names],
            stdin=far.fileno(),
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0, done
    assert memory.value == _UNTOUCHED
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def check_untouched(folder: Path) -> None:
    """Raise AssertionError if anything was changed, made or taken away there."""
    assert sorted(path.name for path in folder.iterdir()) == ["program", "victim"]
    assert (folder / "victim").read_text() == "untouched"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir()
    prepare(place)
    became = attack(place, *sys.argv[2:])
    check_untouched(place)
    print(json.dumps(became))
