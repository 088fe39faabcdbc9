"""What the kernel says is mounted, as a test would have it; and small disks to be filled."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of a few kilobytes in memory; the test is skipped where nobody may mount."""
    folder.mkdir()
    call = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(call, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fake_mounts(folder: Path, point: str, kind: str, source: str = "//nas/xray") -> str:
    """A file like /proc/self/mountinfo with a root disk and one mount; returns its path."""
    escaped = point.replace("\\", "\\134").replace(" ", "\\040")
    lines = [
        "25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
        f"40 25 0:51 / {escaped} rw,relatime shared:2 - {kind} {source} rw,vers=3.1.1",
    ]
    path = folder / "mountinfo"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)
