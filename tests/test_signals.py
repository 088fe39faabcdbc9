"""The bell that other processes ring."""

from __future__ import annotations

from pathlib import Path

import pytest

from xray_watcher.system.signals import Waker, wake_from_outside


def test_a_bell_with_a_path_is_rung_from_outside(tmp_path: Path) -> None:
    waker = Waker(str(tmp_path / "bell"))
    assert not waker.wait(0)
    wake_from_outside(str(tmp_path / "bell"))
    assert waker.wait(0)
    assert not waker.wait(0)
    waker.wake()
    assert waker.wait(0)
    waker.close()


def test_ringing_where_nobody_listens_is_no_error_and_waits_for_nobody(tmp_path: Path) -> None:
    wake_from_outside(str(tmp_path / "no" / "bell"))
    waker = Waker(str(tmp_path / "bell"))
    waker.close()
    wake_from_outside(str(tmp_path / "bell"))
    (tmp_path / "link").symlink_to(tmp_path / "bell")
    wake_from_outside(str(tmp_path / "link"))


def test_a_bell_is_made_anew_at_each_start_and_not_where_something_else_lies(
    tmp_path: Path,
) -> None:
    Waker(str(tmp_path / "bell")).close()
    Waker(str(tmp_path / "bell")).close()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="not a named pipe"):
        Waker(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_bell_that_nobody_hears_never_blocks_who_rings(tmp_path: Path) -> None:
    waker = Waker(str(tmp_path / "bell"))
    for _ in range(100_000):
        waker.wake()
    wake_from_outside(str(tmp_path / "bell"))
    assert waker.wait(0)
    waker.close()
