"""The short form of the faults at every system call; `make syscalls` runs the long one."""

from __future__ import annotations

import pytest
import syscall_storm

from machine import lacking, needs


@pytest.mark.parametrize(
    ("fault", "calls", "options"),
    [
        ("kill", ["renameat2"], {}),
        ("ENOSPC", ["ftruncate"], {"two": True}),
        ("EIO", ["link"], {"recovery": True}),
    ],
)
def test_a_fault_at_a_system_call_loses_and_doubles_nothing(
    fault: str, calls: list[str], options: dict[str, bool]
) -> None:
    needs(lacking(strace="strace"))
    tried = syscall_storm.storm(calls, fault, **options)
    assert all(tried[call] for call in calls)
