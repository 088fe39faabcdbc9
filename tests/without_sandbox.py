"""Run a program as where the kernel has neither Landlock nor seccomp.

Run as `python without_sandbox.py PROGRAM [ARGUMENT ...]`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from xray_watcher.system import sandbox

_NOT_THERE = 0x00050000 | errno.ENOSYS
_ALLOW = 0x7FFF0000


def hide() -> None:
    """Have the calls that the sandbox is made with answered as by an older kernel."""
    seccomp = sandbox._MACHINES[os.uname().machine].seccomp
    hidden = (444, 445, 446, seccomp)  # the first three are Landlock's
    steps = [sandbox._Instruction(0x20, 0, 0, 0)]
    for number in hidden:
        steps.append(sandbox._Instruction(0x15, 0, 1, number))
        steps.append(sandbox._Instruction(0x06, 0, 0, _NOT_THERE))
    steps.append(sandbox._Instruction(0x06, 0, 0, _ALLOW))
    program = (sandbox._Instruction * len(steps))(*steps)
    sandbox._libc.prctl(38, *(ctypes.c_ulong(n) for n in (1, 0, 0, 0)))
    pointer = ctypes.byref(sandbox._Program(len(steps), program))
    assert sandbox._syscall(seccomp, 1, 0, pointer) == 0


if __name__ == "__main__":
    hide()
    os.execvp(sys.argv[1], sys.argv[1:])
