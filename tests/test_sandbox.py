"""`system.sandbox`: what a child that was taken over reaches, and that decoding works in it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pictures
import pytest
from PIL import Image

from attacked import attack, check_untouched, prepare
from xray_watcher.core.values import Rejection
from xray_watcher.errors import Unavailable, UnreadableImage
from xray_watcher.imaging import opening
from xray_watcher.imaging.decode_pool import DecodeOutcome, DecodePool, Unreadable
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode, decode_for_display
from xray_watcher.imaging.preview_child import PreviewChild
from xray_watcher.system import sandbox

T = TypeVar("T")
LIMITS = DecodeLimits()
HAS_ALL = pytest.mark.skipif(
    bool(sandbox.missing_parts()), reason=f"this kernel is without {sandbox.missing_parts()}"
)
# Who is not confined does these, so that a refusal of them is the sandbox's.
ANYBODY_DOES = (
    "open a file",
    "open its own memory",
    "create a file",
    "stat",
    "list a folder",
    "chmod of the held file",
    "connect to loopback",
    "bind",
    "netlink",
    "send on the socket of requests",
    "write to the error output",
    "fork",
    "spawn",
    "signal 0 to the parent",
    "a signal to the parent",
    "a signal to its thread",
    "map memory that runs",
    "make memory run",
    "map a file",
    "memfd",
    "setsid",
    "dumpable again",
    "one more descriptor",
    "unlink",
)
GREY = pictures.chest()
KINDS = {
    **{f"png {name}": data for name, data in pictures.lossless(GREY).items()},
    **{f"jpeg {name}": data for name, data in pictures.lossy(GREY).items()},
    **{f"turned {n}": pictures.turned(GREY, n, as_jpeg=n % 2 > 0) for n in range(1, 9)},
    **{f"foreign {name}": data for name, data in pictures.foreign().items()},
    "a large JPEG": pictures.jpeg(Image.fromarray(pictures.chest(2000, 2500))),
    "CMYK": pictures.jpeg(Image.fromarray(GREY).convert("CMYK")),
    "empty": b"",
    "cut PNG": pictures.png(Image.fromarray(GREY))[:5000],
    "cut JPEG": pictures.jpeg(Image.fromarray(GREY))[:5000],
    "broken EXIF": pictures.jpeg(Image.fromarray(GREY), exif=b"Exif\x00\x00garbage"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


@HAS_ALL
def test_all_that_a_child_which_was_taken_over_tries_is_refused(folder: Path) -> None:
    found = attack(folder)
    assert {name: became for name, became in found.items() if became != "EPERM"} == {}
    assert len(found) > 75
    assert set(ANYBODY_DOES) < found.keys()
    check_untouched(folder)


def test_without_the_sandbox_the_same_attempts_succeed(folder: Path) -> None:
    """Else the test above would prove nothing."""
    assert attack(folder, *ANYBODY_DOES) == dict.fromkeys(ANYBODY_DOES, "done")


def in_new_process(work: Callable[[], bool]) -> bool:
    """What `work` says in a process of its own, which cannot be confined for this one."""
    child = os.fork()
    if child == 0:
        answer = False
        try:
            answer = work()
        finally:
            os._exit(not answer)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(sandbox.LANDLOCK in sandbox.missing_parts(), reason="without Landlock")
def test_landlock_alone_keeps_files_and_connections_away(folder: Path) -> None:
    """Where seccomp is missing, this much holds."""

    def tries() -> bool:
        libc = ctypes.CDLL(None)
        libc.prctl(38, 1, 0, 0, 0)
        assert sandbox._give_up_files_and_network()
        refused = 0
        for attempt in (
            lambda: os.open(folder / "victim", os.O_RDONLY),
            lambda: os.unlink(folder / "victim"),
            lambda: os.rename(folder / "victim", folder / "moved"),
            lambda: os.mkdir(folder / "new"),
            lambda: os.execv("/bin/true", ["true"]),
        ):
            try:
                attempt()
            except PermissionError:
                refused += 1
        return refused == 5

    assert in_new_process(tries)


# -- the filter itself, for both machines ----------------------------------------------------


def verdict(machine: str, number: int, *arguments: int, audit: int | None = None) -> str:
    """What the filter says of a system call, run as the kernel does (classic BPF)."""
    made_for = sandbox._MACHINES[machine]
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    audit = made_for.audit if audit is None else audit
    data = struct.pack("<IIQ6Q", number, audit, 0, *padded)
    program = list(sandbox._filter(made_for, own_pid=4321))
    at, value = 0, 0
    while True:
        step = program[at]
        at += 1
        if step.code == 0x20:
            value = int.from_bytes(data[step.operand : step.operand + 4], "little")
        elif step.code == 0x06:
            return {0x7FFF0000: "allow", 0x80000000: "kill", 0x00050001: "EPERM"}[step.operand]
        else:
            holds = {
                0x15: value == step.operand,
                0x35: value >= step.operand,
                0x45: bool(value & step.operand),
            }[step.code]
            at += step.if_true if holds else step.if_false


@pytest.mark.parametrize(
    ("machine", "numbers"),
    [
        ("x86_64", {"read": 0, "write": 1, "open": 2, "mmap": 9, "execve": 59, "tgkill": 234}),
        (
            "aarch64",
            {"read": 63, "write": 64, "open": 56, "mmap": 222, "execve": 221, "tgkill": 131},
        ),
    ],
)
def test_the_filter_allows_what_is_on_the_list_and_refuses_the_rest(
    machine: str, numbers: dict[str, int]
) -> None:
    assert verdict(machine, numbers["read"], 7) == "allow"
    assert verdict(machine, numbers["write"], 1) == "allow"
    assert verdict(machine, numbers["write"], 2) == "EPERM"
    assert verdict(machine, numbers["open"]) == "EPERM"
    assert verdict(machine, numbers["execve"]) == "EPERM"
    assert verdict(machine, numbers["mmap"], 0, 4096, 3, 0x22) == "allow"
    assert verdict(machine, numbers["mmap"], 0, 4096, 7, 0x22) == "EPERM"
    assert verdict(machine, numbers["mmap"], 0, 4096, 1, 0x02, 5) == "EPERM"
    assert verdict(machine, numbers["tgkill"], 4321) == "allow"
    assert verdict(machine, numbers["tgkill"], 4320) == "EPERM"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_calls_in_the_manner_of_another_machine_end_the_process(machine: str) -> None:
    """Their numbers mean other calls: 32-bit programs on x86_64 (AUDIT_ARCH_I386), and x32."""
    assert verdict(machine, 0, audit=0x40000003) == "kill"
    assert verdict(machine, 0x40000000 | 59) == "kill"


def test_a_machine_without_a_table_lacks_the_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_MACHINES", {})
    assert in_new_process(lambda: sandbox.SECCOMP in sandbox.give_up_everything())


def test_a_kernel_without_either_lacks_both_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_syscall", lambda *_: -1)
    both = (sandbox.LANDLOCK, sandbox.SECCOMP)
    assert in_new_process(lambda: sandbox.give_up_everything() == both)
    assert sandbox.missing_parts.__wrapped__() == both


# -- decoding in it --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(1, LIMITS) as made:
        yield made


def outcome_of(pool: DecodePool, folder: Path, data: bytes) -> DecodeOutcome:
    path = folder / "x.png"
    path.write_bytes(data)
    return pool.submit(str(path)).result(60)


def outside(task: Callable[[bytes, DecodeLimits], T], data: bytes) -> T | Rejection:
    try:
        return task(data, LIMITS)
    except UnreadableImage as error:
        return Rejection(error.code, error.detail)


@pytest.mark.parametrize("data", KINDS.values(), ids=KINDS)
def test_every_kind_of_picture_is_read_inside_as_outside(
    pool: DecodePool, tmp_path: Path, data: bytes
) -> None:
    found = outcome_of(pool, tmp_path, data)
    expected = outside(decode, data)
    if isinstance(found, Unreadable):
        assert found.rejection == expected
    else:
        assert not isinstance(expected, Rejection)
        assert np.abs(found.image.pixels - expected.pixels).max() < 0.01


def test_every_kind_of_picture_is_shown_inside_as_outside(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "xray_watcher.imaging.preview_worker", "192")
    child = PreviewChild([*command, str(1 << 30), *LIMITS.arguments()], 192)
    try:
        child.await_start()
        for name, data in KINDS.items():
            path = tmp_path / "x.png"
            path.write_bytes(data)
            found = child.work_on(opening.Opener().open(os.fsencode(path), 10), 10)
            expected = outside(decode_for_display, data)
            assert isinstance(found, Rejection) == isinstance(expected, Rejection), name
            assert not isinstance(found, Rejection) or found == expected, name
    finally:
        child.end()


@HAS_ALL
def test_a_decoder_is_confined_before_it_is_given_anything(tmp_path: Path) -> None:
    with DecodePool(1, LIMITS) as pool:
        outcome_of(pool, tmp_path, pictures.png(Image.fromarray(GREY)))
        child = pool._workers[0]._child
        assert child is not None
        status = Path(f"/proc/{child._process.pid}/status").read_text()
        assert "NoNewPrivs:\t1\n" in status
        assert "Seccomp:\t2\n" in status
        assert "Threads:\t1\n" in status
        holds = sorted(os.listdir(f"/proc/{child._process.pid}/fd"))
        assert holds == ["0", "1", "2"]  # not even the file that it was given last
        assert os.readlink(f"/proc/{child._process.pid}/fd/2") == os.devnull


def child_that(work: str) -> tuple[str, ...]:
    """A decoder that does something else with a file: `work(data, limits)`."""
    lines = ("import resource, sys", "from xray_watcher.imaging.decode_worker import main", work)
    return sys.executable, "-c", "\n".join((*lines, "main(sys.argv[1:], work)"))


def test_a_child_that_damages_its_memory_ends_alone_and_is_named(tmp_path: Path) -> None:
    """Inside, abort(3) still ends a process as it should, so that the record says SIGABRT."""
    work = "lambda data, limits: __import__('os').abort()"
    with DecodePool(1, LIMITS, command=child_that(f"work = {work}")) as pool:
        found = outcome_of(pool, tmp_path, b"x")
    assert isinstance(found, Unreadable)
    assert (found.rejection.code, "SIGABRT" in found.rejection.detail) == ("decoder_crash", True)


def test_an_error_of_the_program_is_told_by_its_place_and_costs_that_picture(
    tmp_path: Path,
) -> None:
    """Neither its message, which may hold what a sender wrote, nor a fault of the storage."""
    work = "lambda data, limits: open('/etc/passwd')"
    with DecodePool(1, LIMITS, command=child_that(f"work = {work}")) as pool:
        found = outcome_of(pool, tmp_path, b"x")
    assert isinstance(found, Unreadable)
    assert found.rejection.code == "decoder_crash"
    assert "PermissionError in <string>, line 3" in found.rejection.detail


def test_an_import_that_comes_too_late_is_an_error_and_never_a_library_that_is_not_there(
    tmp_path: Path,
) -> None:
    """Pillow reads no orientation where its own module for that "is not installed"."""
    work = "def work(data, limits):\n    try: import wave\n    except ImportError: return {}, b''\n"
    with DecodePool(1, LIMITS, command=child_that(work)) as pool:
        found = outcome_of(pool, tmp_path, b"x")
    assert isinstance(found, Unreadable)
    assert "it imports wave too late" in found.rejection.detail


def test_a_child_has_a_limit_of_processor_time_and_cannot_lift_it(tmp_path: Path) -> None:
    work = (
        "def work(data, limits):\n"
        "    from xray_watcher.errors import UnreadableImage\n"
        "    try: resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))\n"
        "    except ValueError as error: raise UnreadableImage('corrupt', str(error))\n"
        "    return {}, b''\n"
    )
    with DecodePool(1, LIMITS, seconds=7, command=child_that(work)) as pool:
        found = outcome_of(pool, tmp_path, b"x")
        child = pool._workers[0]._child
        assert child is not None
        soft, _ = resource.prlimit(child._process.pid, resource.RLIMIT_CPU)
    assert isinstance(found, Unreadable)
    assert "not allowed" in found.rejection.detail
    assert 7 <= soft < 60


# -- opening for it --------------------------------------------------------------------------


def test_a_share_that_hangs_while_a_file_is_opened_costs_its_deadline_and_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, (path, real) = threading.Event(), (tmp_path / "x", os.open)
    path.write_bytes(b"12345")

    def hanging(*arguments: object) -> int:
        answers.wait()
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(opening.os, "open", hanging)
    opener, before = opening.Opener(), threading.active_count()
    held = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(Unavailable, match="hangs") as raised:
            opener.open(os.fsencode(path), 0.05)
        assert raised.value.component == "storage"
    assert threading.active_count() == before + 1
    answers.set()
    file = opened_at_last(opener, path)
    assert os.pread(file.descriptor, 9, 0) == b"12345"
    assert file.size == 5
    os.close(file.descriptor)
    opener.stop()
    while threading.active_count() > before:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) == held  # what came too late is closed


def opened_at_last(opener: opening.Opener, path: Path) -> opening.OpenFile:
    for _ in range(200):
        try:
            return opener.open(os.fsencode(path), 5)
        except Unavailable:
            time.sleep(0.05)
    raise AssertionError("never opened")


def test_who_waits_for_a_file_to_be_opened_ends_at_once_when_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(opening.os, "open", lambda *_: answers.wait() and os.memfd_create("x"))
    opener = opening.Opener()
    threading.Timer(0.2, opener.stop).start()
    began_s = time.monotonic()
    with pytest.raises(Unavailable, match="hangs"):
        opener.open(b"/x", 60)
    assert time.monotonic() - began_s < 10
    answers.set()


@pytest.mark.parametrize("is_used", [False, True])
def test_who_asks_after_the_stop_is_answered_at_once(tmp_path: Path, is_used: bool) -> None:
    """The thread that ends takes nobody's answer with it."""
    path, opener = tmp_path / "x", opening.Opener()
    path.write_bytes(b"1")
    if is_used:
        os.close(opener.open(os.fsencode(path), 5).descriptor)
    opener.stop()
    time.sleep(0.2)
    began_s = time.monotonic()
    for _ in range(3):
        with pytest.raises(Unavailable):
            opener.open(os.fsencode(path), 60)
    assert time.monotonic() - began_s < 10


# -- memory ------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize("opaque", [False, True])
def test_an_opaque_process_is_closed_to_others_of_its_user(opaque: bool) -> None:
    ready, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # to change the user has made it opaque
            if opaque:
                sandbox.be_opaque()
            os.write(say, b"x")
            time.sleep(60)
        finally:
            os._exit(0)
    os.read(ready, 1)

    def reads() -> bool:
        os.setgroups([])
        os.setresuid(65534, 65534, 65534)
        try:
            os.close(os.open(f"/proc/{child}/mem", os.O_RDWR))
        except PermissionError:
            return False
        return True

    try:
        assert in_new_process(reads) is not opaque
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(say)
