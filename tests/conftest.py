"""For the whole suite, which runs three at a time: see `make test`."""

from __future__ import annotations

import ctypes
import os
import subprocess

import pytest
from hypothesis import settings

# Threads on the same cores must not spin while they wait for each other, or for nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# An example may wait for a core, or for what it is the first to import.
settings.register_profile("beside-others", deadline=None)
settings.load_profile("beside-others")

CLONE_NEWNS = 0x00020000


def keep_mounts_private() -> None:
    """Give this process mounts of its own, which end with it: a killed run leaves no disk behind.

    Only root can mount, so only root needs it. A kernel that refuses changes nothing.
    """
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) == 0:
        subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True)


keep_mounts_private()

LONGEST = (
    "test_kill_storm.py",
    "test_shares.py",
    "test_reload_storm.py",
    "test_wheel.py",
    "test_crashers.py",
    "test_acting.py",
    "test_printing.py",
    "test_at_a_glance.py",
    "test_web_reloading.py",
    "test_faults.py",
    "test_in_browser.py",
    "test_end_to_end.py",
    "test_inbox.py",
    "test_parity.py",
    "test_samba.py",
    "test_power_cut.py",
    "test_guide.py",
    "test_predicting.py",
    "test_syscall_storm.py",
    "test_pixels.py",
    "test_confined.py",
    "test_fast_densenet.py",
    "test_filling_disk.py",
    "test_kills.py",
    "test_upload_storm.py",
    "test_broken_configurations.py",
    "test_fuzz_decode.py",
    "test_maintenance.py",
    "test_privacy.py",
    "test_stateful.py",
    "test_metrics.py",
    "test_hostile.py",
    "test_progress.py",
    "test_file_systems.py",
)
"""Modules of half a minute to four; each is run by one worker, so none may begin last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first; the order is kept within each."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
