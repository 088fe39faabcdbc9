"""`imaging.decode_pool`: hostile pictures end a child at most, never the service or a neighbour."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pictures
import pytest
from PIL import Image

from xray_watcher.errors import Unavailable
from xray_watcher.imaging.decode_pool import (
    MOST_KILLS,
    Decoded,
    DecodeOutcome,
    DecodePool,
    Unreadable,
)
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode

LIMITS = DecodeLimits()
PICTURE = pictures.png(Image.fromarray(pictures.chest()))

# Stand-ins for the child's program: each answers "ready" and then behaves in one bad way.
FRAME = (
    "import os, socket, struct, sys\n"
    "def say(b):\n"
    "    sys.stdout.buffer.write(struct.pack('<I', len(b)) + b)\n"
    "    sys.stdout.flush()\n"
)
NEXT = (
    "_, (f,), _, _ = socket.recv_fds(socket.socket(fileno=0), 8, 1)\n"
    "p = os.readlink(f'/proc/self/fd/{f}')\n"
)
READY, READ = 'say(b\'{"status": "ready"}\')\n', 'say(b\'{"status": "read"}\')\n'
HANG = "import time\ntime.sleep(60)\n"


def bad_child(*lines: str) -> Sequence[str]:
    return (sys.executable, "-c", FRAME + "".join(lines))


def put(tmp_path: Path, name: str, content: bytes = PICTURE) -> str:
    path = tmp_path / name
    path.write_bytes(content)
    return str(path)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(2, LIMITS) as made:
        yield made


def outcome_of(pool: DecodePool, path: str) -> DecodeOutcome:
    return pool.submit(path).result(60)


def rejected(pool: DecodePool, path: str) -> tuple[str, str]:
    outcome = outcome_of(pool, path)
    assert isinstance(outcome, Unreadable)
    return outcome.rejection.code, outcome.rejection.detail


def test_a_child_decodes_to_the_same_pixels(pool: DecodePool, tmp_path: Path) -> None:
    outcome = outcome_of(pool, put(tmp_path, "a.png"))
    assert isinstance(outcome, Decoded)
    # A child has one thread; with more of them numpy adds up in another order.
    assert np.abs(outcome.image.pixels - decode(PICTURE, LIMITS).pixels).max() < 0.01
    assert (outcome.image.width, outcome.image.height) == (300, 250)
    assert outcome.seconds > 0


def test_bad_pictures_harm_no_neighbour(pool: DecodePool, tmp_path: Path) -> None:
    paths = [put(tmp_path, f"{n}.png", PICTURE if n % 3 else PICTURE[: 100 * n]) for n in range(30)]
    futures = [pool.submit(path) for path in paths]
    found = [isinstance(future.result(60), Decoded) for future in futures]
    assert found == [n % 3 != 0 for n in range(30)]


@pytest.mark.parametrize("name", ["new\nline.png", "ü\udcff.png", "-rf.png", "=cmd.png"])
def test_names_of_all_kinds_reach_the_child(pool: DecodePool, tmp_path: Path, name: str) -> None:
    path = os.fsencode(tmp_path) + b"/" + os.fsencode(name)
    with open(path, "wb") as file:
        file.write(PICTURE)
    assert isinstance(outcome_of(pool, os.fsdecode(path)), Decoded)


@pytest.mark.parametrize("kind", ["missing", "folder", "link", "pipe"])
def test_what_is_no_file_is_no_fault_of_a_picture(
    pool: DecodePool, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "x.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(put(tmp_path, "a.png"))
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(Unavailable) as raised:
        pool.submit(str(path)).result(60)
    assert raised.value.component == "storage"


def test_a_bomb_meets_the_limit_of_memory_and_the_next_picture_is_decoded(
    tmp_path: Path,
) -> None:
    bomb = put(tmp_path, "bomb.png", pictures.raw_png(9000, 9000, 8, 6, bytes(9000 * 36001)))
    limits = DecodeLimits(max_megapixels=89)
    with DecodePool(1, limits, memory_bytes=400 << 20) as pool:
        assert rejected(pool, bomb)[0] == "decoder_limit"
        assert isinstance(outcome_of(pool, put(tmp_path, "a.png")), Decoded)


@pytest.mark.parametrize("memory_mb", [240, 300, 340])
def test_memory_that_runs_out_over_a_deep_picture_is_told_as_such(
    tmp_path: Path, memory_mb: int
) -> None:
    deep = np.zeros((7000, 7000), np.uint16)
    deep[::2] = 60_000
    path = put(tmp_path, "deep.png", pictures.png(Image.fromarray(deep), compress_level=1))
    with DecodePool(1, LIMITS, memory_bytes=memory_mb << 20) as pool:
        assert rejected(pool, path)[0] == "decoder_limit"


BUSY = (
    "import resource, time\n"
    "resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))\n"
    "until = time.monotonic() + {}\n"
    "while time.monotonic() < until: pass\n"
)


def test_a_child_that_waits_for_a_core_is_given_more_time(tmp_path: Path) -> None:
    """One that is busy looks to us as one that would be: both are runnable."""
    answer = 'say(b\'{"status": "unreadable", "code": "blank", "detail": "Late."}\')\n'
    lines = (READY, NEXT, READ, BUSY.format(2), answer, HANG)
    with DecodePool(1, LIMITS, seconds=0.2, command=bad_child(*lines)) as pool:
        assert rejected(pool, put(tmp_path, "a.png")) == ("blank", "Late.")


def test_a_child_that_never_has_enough_of_it_is_ended(tmp_path: Path) -> None:
    lines = (READY, NEXT, READ, BUSY.format(60))
    with DecodePool(1, LIMITS, seconds=0.03, command=bad_child(*lines)) as pool:
        began_s = time.monotonic()
        assert rejected(pool, put(tmp_path, "a.png"))[0] == "decoder_limit"
        assert 6 < time.monotonic() - began_s < 20  # 100 times 0.03 s, twice


def test_a_child_steps_back_behind_the_scoring(tmp_path: Path) -> None:
    with DecodePool(1, LIMITS) as pool:
        assert isinstance(outcome_of(pool, put(tmp_path, "a.png")), Decoded)
        child = pool._workers[0]._child
        assert child is not None
        assert os.getpriority(os.PRIO_PROCESS, child._process.pid) == 10


def test_a_child_that_is_killed_is_replaced_and_its_picture_tried_again(tmp_path: Path) -> None:
    path = put(tmp_path, "a.png")
    with DecodePool(1, LIMITS) as pool:
        assert isinstance(outcome_of(pool, path), Decoded)
        child = pool._workers[0]._child
        assert child is not None
        os.kill(child._process.pid, signal.SIGKILL)
        assert isinstance(outcome_of(pool, path), Decoded)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((READY, NEXT, READ, "import os\nos.abort()\n"), "decoder_crash"),
        ((READY, NEXT, READ, "say(b'nonsense')\n", HANG), "decoder_crash"),
        ((READY, NEXT, READ, "say(b'[' * 4000)\n", HANG), "decoder_crash"),
        ((READY, NEXT, READ, "say(b'x' * 9999999)\n", HANG), "decoder_crash"),
        (
            (READY, NEXT, READ, 'say(b\'{"status": "unreadable", "code": "mine"}\')\n', HANG),
            "decoder_crash",
        ),
        ((READY, NEXT, READ, HANG), "decoder_limit"),
    ],
)
def test_a_child_that_was_taken_over_can_do_no_more_than_spoil_its_picture(
    lines: tuple[str, ...], code: str, tmp_path: Path
) -> None:
    with DecodePool(1, LIMITS, seconds=0.3, command=bad_child(*lines)) as pool:
        found, detail = rejected(pool, put(tmp_path, "a.png"))
    assert found == code
    assert detail.isprintable()


def test_pixels_that_are_none_are_not_taken(tmp_path: Path) -> None:
    decoded = '{"status": "decoded", "width": 300, "height": 250}'
    lines = (READY, NEXT, READ, f"say(b'{decoded}')\n", "say(b'\\xff' * 200704)\n", HANG)
    with DecodePool(1, LIMITS, seconds=1, command=bad_child(*lines)) as pool:
        assert rejected(pool, put(tmp_path, "a.png"))[0] == "decoder_crash"


def test_a_child_that_does_not_start_is_no_fault_of_a_picture(tmp_path: Path) -> None:
    for command in ((sys.executable, "-c", "raise SystemExit(3)"), ("/no/such/program",)):
        with DecodePool(1, LIMITS, command=command) as pool, pytest.raises(Unavailable) as raised:
            pool.submit(put(tmp_path, "a.png")).result(60)
        assert raised.value.component == "decoder"


def test_a_child_has_no_secrets_and_is_held_to_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XRAY_WATCHER_WEB__TOKEN", "hush-hush")
    with DecodePool(1, LIMITS, memory_bytes=1 << 30) as pool:
        outcome_of(pool, put(tmp_path, "a.png"))
        child = pool._workers[0]._child
        assert child is not None
        process = Path(f"/proc/{child._process.pid}")
        assert b"hush-hush" not in (process / "environ").read_bytes()
        limits = (process / "limits").read_text()
        assert f"Max address space         {1 << 30}" in limits
        assert "Max file size             0" in limits
        assert "Max core file size        0" in limits


DIE = "import os\nos.kill(os.getpid(), 9)\n"
# One that is killed, as by the kernel, when another is at work; it marks its own work by a lock.
IN_SHORT_MEMORY = """
import fcntl, os, time
file = open({lock!r}, "w")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    os.kill(os.getpid(), 9)
time.sleep(0.3)
say(b'{{"status": "decoded", "width": 300, "height": 250}}')
say(bytes(224 * 224 * 4))
file.close()
"""


def test_a_picture_whose_decoder_is_killed_is_tried_again_while_no_other_works(
    tmp_path: Path,
) -> None:
    """As the kernel does when memory is short for all of them, and not for one."""
    work = IN_SHORT_MEMORY.format(lock=str(tmp_path / "lock"))
    with DecodePool(4, LIMITS, command=bad_child(READY, NEXT, READ, work, DIE)) as pool:
        futures = [pool.submit(put(tmp_path, f"{n}.png")) for n in range(8)]
        outcomes = [future.result(60) for future in futures]
    assert [type(outcome) for outcome in outcomes] == [Decoded] * 8


def test_a_decoder_that_is_killed_while_no_other_works_is_a_fault_of_ours_and_not_for_ever(
    tmp_path: Path,
) -> None:
    path = put(tmp_path, "a.png")
    with DecodePool(2, LIMITS, command=bad_child(READY, NEXT, READ, DIE)) as pool:
        for _ in range(MOST_KILLS - 1):
            with pytest.raises(Unavailable, match="memory") as raised:
                outcome_of(pool, path)
            assert raised.value.component == "decoder"
        code, detail = rejected(pool, path)
        assert (code, str(MOST_KILLS) in detail) == ("decoder_crash", True)
        with pytest.raises(Unavailable):  # put back by `retry`, it begins anew
            outcome_of(pool, path)


def test_closing_blames_no_picture_and_waits_for_none_that_waits_to_be_alone(
    tmp_path: Path,
) -> None:
    dying = f"open({str(tmp_path / 'died')!r}, 'w')\n{DIE}"
    hanging = "import time\nif p.endswith('hang.png'): time.sleep(60)\n"
    command = bad_child(READY, NEXT, READ, hanging, dying)
    pool = DecodePool(2, LIMITS, seconds=30, command=command)
    futures = [pool.submit(put(tmp_path, name)) for name in ("hang.png", "dies.png")]
    while not (tmp_path / "died").exists():
        time.sleep(0.01)
    began_s = time.monotonic()
    pool.close()
    assert time.monotonic() - began_s < 5
    for future in futures:
        with pytest.raises(Unavailable, match="stopped"):
            future.result()


def test_closing_ends_the_children_at_once_even_one_that_hangs(tmp_path: Path) -> None:
    pool = DecodePool(2, LIMITS, seconds=30, command=bad_child(READY, NEXT, READ, HANG))
    futures = [pool.submit(put(tmp_path, f"{n}.png")) for n in range(5)]
    time.sleep(0.3)
    began_s = time.monotonic()
    pool.close()
    assert time.monotonic() - began_s < 5
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError):
        pool.submit("x")
