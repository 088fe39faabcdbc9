"""Whatever call to the system fails, in a turn or at the start: only our errors come out."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rig import Rig
from xray_watcher.config.settings import Settings
from xray_watcher.config.upkeep import RetentionSettings
from xray_watcher.errors import XrayWatcherError
from xray_watcher.intake.handover import Upload, new_batch, upload_name
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.service.folders import prepare_folders
from xray_watcher.service.upkeep import build_retention
from xray_watcher.system.lock import InstanceLock

CALLS = (
    *("open", "stat", "lstat", "fstat", "listdir", "scandir", "mkdir", "makedirs", "rename"),
    *("replace", "unlink", "rmdir", "fsync", "fchmod", "utime", "statvfs", "read", "pread"),
    *("pwrite", "ftruncate", "link"),
)
CODES = (errno.EIO, errno.ESTALE, errno.ENOSPC)


class Failing:
    """Lets the n-th call of one function below a folder fail, and counts them."""

    def __init__(self, real: Callable[..., Any], at: int, code: int) -> None:
        self.real, self.at, self.code, self.count = real, at, code, 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not arguments or str(arguments[0]).startswith(("/proc", "/sys", "/usr", "/root")):
            return self.real(*arguments, **named)
        self.count += 1
        if self.count == self.at:
            raise OSError(self.code, os.strerror(self.code))
        return self.real(*arguments, **named)


@contextmanager
def failing(name: str, at: int, code: int) -> Iterator[Failing]:
    real = getattr(os, name)
    call = Failing(real, at, code)
    setattr(os, name, call)
    try:
        yield call
    finally:
        setattr(os, name, real)


def begin(root: Path, duplicates: Any = "set-aside") -> Rig:
    """A service with something of everything to do."""
    settings = Settings(
        root=str(root),
        state_dir=str(root / "state"),
        timezone="Europe/Athens",
        retention=RetentionSettings(high_days=40, logs_days=40, keep_at_least_images=0),
    )
    rig = Rig(
        root,
        duplicates=duplicates,
        chores=lambda r: [build_retention(settings, r.ledger, r.spool, r.clock)],
    )
    rig.drop("ct/a.jpg", "picture:Edema#1")
    rig.drop("b.jpg", "unreadable")
    rig.settle()
    rig.clock.passed_s += 41 * 86_400
    rig.drop("ct/c.jpg", "picture:Edema#2")
    rig.drop("d.jpg", "picture:Edema#2")
    upload = Upload(rig.spool.handover.folder, upload_name(new_batch(rig.clock.now()), 0))
    upload.write(b"picture:Fracture#u")
    upload.hand_over("u.jpg")
    return rig


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_fails_in_a_turn_is_waited_for_and_then_done(tmp_path: Path, name: str) -> None:
    met = 0
    for at in (1, 2, 5, 13):
        root = tmp_path / f"{at}"
        rig = begin(root)
        with failing(name, at, CODES[at % 3]) as call:
            try:
                rig.ticks(20, 1.0)
            except XrayWatcherError:  # a disk that did not confirm ends the service, as it should
                rig.crash()
                rig = Rig(root, clock=rig.clock)
        met += call.count >= at
        rig.ticks(130, 5.0)
        assert rig.ledger.open_rows() == [], (at, dict(rig.health.problems))
        assert list(rig.inbox.rglob("*.jpg")) == []
        rig.crash()
    assert met or call.count == 0 or name == "link", "the error met nothing"


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_fails_at_the_start_is_named(tmp_path: Path, name: str) -> None:
    begin(tmp_path).crash()
    settings = Settings(root=str(tmp_path), state_dir=str(tmp_path / "state"))
    for at in range(1, 40):
        with failing(name, at, CODES[at % 3]) as call:
            try:
                with (
                    InstanceLock(settings.folders.lock),
                    Ledger(settings.folders.ledger) as ledger,
                ):
                    prepare_folders(settings, ledger, lambda: None)
            except XrayWatcherError:
                pass  # anything else ends this test
        if call.count < at:
            break


def test_the_lock_that_the_system_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(XrayWatcherError, match="No locks available"):
        InstanceLock(str(tmp_path / "lock")).__enter__()
