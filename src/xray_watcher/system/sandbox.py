"""A process gives up all that it does not need, before it reads foreign data.

What stays is to read what is handed over, to answer, to compute and to end. Two parts of the kernel
hold the process to that, each enough for most of it: a Landlock ruleset without any right, and a
seccomp filter that knows a few system calls. Neither can be taken back. What else a process tries
fails with EPERM. It is not killed for that: a library that only asks goes on without.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

REQUESTS, ANSWERS = 0, 1
"""The descriptors that stay of use: a socket that hands files over, and the pipe for answers."""

LANDLOCK, SECCOMP = "landlock", "seccomp"

_libc = ctypes.CDLL(None, use_errno=True)
_UNSIGNED = ctypes.c_ulong

# linux/prctl.h, linux/seccomp.h, linux/audit.h, linux/bpf_common.h
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_SET_MODE_FILTER, _OF_ALL_THREADS = 1, 1
_KILL_PROCESS, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EPERM
_X32 = 0x40000000  # a bit in the numbers of x86_64's third kind of system calls
_LOAD, _EQUALS, _HAS_BITS, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16  # within struct seccomp_data

_PROT_EXEC, _MAP_ANONYMOUS = 0x4, 0x20
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # on every machine
_ASK_FOR_VERSION = 1
_RIGHTS_ON_FILES = {1: 13, 2: 14, 3: 15, 4: 15}  # how many kinds a version of Landlock knows
_RIGHTS_ON_FILES_SINCE_5 = 16
_TCP, _SCOPES = 0b11, 0b11  # bind and connect; sockets without a name in a folder, and signals


class LateImportError(BaseException):
    """A module was to be imported that this process can no longer read.

    It is no ImportError: libraries take those for "not installed" and go on otherwise. Pillow would
    take every picture for one that is not turned.
    """


class _Condition(NamedTuple):
    """A condition on the lower half of an argument: a kind of jump, and what counts as true."""

    argument: int
    jump: int
    operand: int
    is_met_by_jump: bool = True


def _equals(argument: int, value: int) -> _Condition:
    return _Condition(argument, _EQUALS, value)


_NO_CODE = (_Condition(2, _HAS_BITS, _PROT_EXEC, is_met_by_jump=False),)

# The numbers on x86_64 and aarch64, the most frequent calls first; None: the machine has no such.
_ALLOWED: tuple[tuple[str, int | None, int | None, tuple[_Condition, ...]], ...] = (
    ("read", 0, 63, ()),
    ("write", 1, 64, (_equals(0, ANSWERS),)),
    ("futex", 202, 98, ()),
    ("mmap", 9, 222, (*_NO_CODE, _Condition(3, _HAS_BITS, _MAP_ANONYMOUS))),
    ("munmap", 11, 215, ()),
    ("brk", 12, 214, ()),
    ("mremap", 25, 216, ()),
    ("madvise", 28, 233, ()),
    ("mprotect", 10, 226, _NO_CODE),
    ("recvmsg", 47, 212, (_equals(0, REQUESTS),)),
    ("close", 3, 57, ()),
    ("lseek", 8, 62, ()),
    ("pread64", 17, 67, ()),
    ("clock_gettime", 228, 113, ()),
    ("clock_getres", 229, 114, ()),
    ("clock_nanosleep", 230, 115, ()),
    ("gettimeofday", 96, 169, ()),
    ("getrandom", 318, 278, ()),
    ("getrusage", 98, 165, ()),
    ("sched_yield", 24, 124, ()),
    ("sched_getaffinity", 204, 123, ()),
    ("sysinfo", 99, 179, ()),
    ("getpid", 39, 172, ()),
    ("gettid", 186, 178, ()),
    ("alarm", 37, None, ()),
    ("setitimer", 38, 103, ()),
    ("rt_sigprocmask", 14, 135, ()),
    ("rt_sigreturn", 15, 139, ()),
    ("sigaltstack", 131, 132, ()),
    ("restart_syscall", 219, 128, ()),
    ("exit", 60, 93, ()),
    ("exit_group", 231, 94, ()),
)
_TO_ITSELF = ("tgkill", 234, 131)  # by which abort(3) ends a process that has damaged its memory


class _Machine(NamedTuple):
    """What a filter is made for.

    Attributes:
        audit: the number by which seccomp knows it.
        column: of `_ALLOWED`.
        seccomp: the number of that system call.
    """

    audit: int
    column: int
    seccomp: int


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 1, 317),
    "aarch64": _Machine(0xC00000B7, 2, 277),
}


def be_opaque() -> None:
    """Let no other process of this user read or write this one's memory, and leave no core dump.

    Its files in /proc belong to root from then on; `/proc/self` stays readable to itself, but
    cannot be written. A program that this process starts is not held to that.
    """
    _libc.prctl(_PR_SET_DUMPABLE, _UNSIGNED(0), _UNSIGNED(0), _UNSIGNED(0), _UNSIGNED(0))


def give_up_everything() -> tuple[str, ...]:
    """Keep reading, answering, computing and ending; give up all else, for all threads.

    Import everything first: an import raises `LateImportError` afterwards. Limits of resources are
    the caller's.

    Returns:
        The parts that this kernel, or what holds this process already, does not have: a
        selection of "landlock" and "seccomp".
    """
    sys.meta_path.insert(0, _NoMoreModules())
    be_opaque()
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, _UNSIGNED(1), _UNSIGNED(0), _UNSIGNED(0), _UNSIGNED(0))
    parts = ((LANDLOCK, _give_up_files_and_network), (SECCOMP, _give_up_system_calls))
    return tuple(name for name, give_up in parts if not give_up())


@cache
def missing_parts() -> tuple[str, ...]:
    """What `give_up_everything` would return, tried once in a child process.

    Returns:
        A selection of "landlock" and "seccomp"; both when no process can be started.
    """
    try:
        child = os.fork()
    except OSError:
        return LANDLOCK, SECCOMP
    if child == 0:
        try:
            missing = give_up_everything()
            os._exit(sum(1 << (LANDLOCK, SECCOMP).index(part) for part in missing))
        finally:
            os._exit(0b11)
    found = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return tuple(part for bit, part in enumerate((LANDLOCK, SECCOMP)) if found & 1 << bit)


class _NoMoreModules:
    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        """Refuse every module that is not imported yet."""
        raise LateImportError(name)


def lack_in_words(missing: Sequence[str]) -> str:
    """What follows from that; empty when nothing is missing."""
    if not missing:
        return ""
    return (
        f"Decoders are less confined here: this kernel, or the container, is without "
        f"{' and '.join(missing)}."
    )


# -- Landlock -----------------------------------------------------------------------------


class _Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr."""

    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scopes", ctypes.c_uint64),
    )


def _give_up_files_and_network() -> bool:
    """Whether Landlock is there and holds this thread: it is to be called while there is one."""
    version = _syscall(_LANDLOCK_CREATE_RULESET, None, 0, _ASK_FOR_VERSION)
    if version < 1:
        return False
    rights = (1 << _RIGHTS_ON_FILES.get(version, _RIGHTS_ON_FILES_SINCE_5)) - 1
    handled = _Ruleset(rights, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    ruleset = _syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0)
    if ruleset < 0:
        return False
    try:
        return _syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


# -- seccomp ------------------------------------------------------------------------------


class _Instruction(ctypes.Structure):
    """struct sock_filter: what to do, how far to jump if so and if not, and an operand."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("first", ctypes.POINTER(_Instruction)))


def _give_up_system_calls() -> bool:
    machine = _MACHINES.get(os.uname().machine)
    if machine is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    instructions = list(_filter(machine, os.getpid()))
    program = (_Instruction * len(instructions))(*instructions)
    pointer = ctypes.byref(_Program(len(instructions), program))
    return _syscall(machine.seccomp, _SET_MODE_FILTER, _OF_ALL_THREADS, pointer) == 0


def _filter(machine: _Machine, own_pid: int) -> Iterator[_Instruction]:
    """The program that the kernel runs at each system call of this process."""
    yield _Instruction(_LOAD, 0, 0, _MACHINE_AT)
    yield _Instruction(_EQUALS, 1, 0, machine.audit)
    yield _Instruction(_RETURN, 0, 0, _KILL_PROCESS)
    yield _Instruction(_LOAD, 0, 0, _NUMBER_AT)
    yield _Instruction(_AT_LEAST, 0, 1, _X32)
    yield _Instruction(_RETURN, 0, 0, _KILL_PROCESS)
    for *call, conditions in (*_ALLOWED, (*_TO_ITSELF, (_equals(0, own_pid),))):
        number = call[machine.column]
        if isinstance(number, int):
            yield from _allowing(number, conditions)
    yield _Instruction(_RETURN, 0, 0, _REFUSE)


def _allowing(number: int, conditions: Sequence[_Condition]) -> Iterator[_Instruction]:
    """Allow a call that meets all conditions, and go on to the next rule with all other calls."""
    body = [step for condition in conditions for step in _checking(condition)]
    yield _Instruction(_EQUALS, 0, len(body) + 1, number)
    yield from body
    yield _Instruction(_RETURN, 0, 0, _ALLOW)


def _checking(condition: _Condition) -> tuple[_Instruction, ...]:
    """Refuse unless the condition holds."""
    load = _Instruction(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * condition.argument)
    skips = (1, 0) if condition.is_met_by_jump else (0, 1)
    test = _Instruction(condition.jump, *skips, condition.operand)
    return load, test, _Instruction(_RETURN, 0, 0, _REFUSE)


def _syscall(number: int, *arguments: object) -> int:
    numbers = (_UNSIGNED(each) if isinstance(each, int) else each for each in arguments)
    return int(_libc.syscall(ctypes.c_long(number), *numbers))
