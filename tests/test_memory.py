"""`system.memory`, and how many decoders it has room for."""

from __future__ import annotations

from pathlib import Path

import pytest

from xray_watcher.service.network import choose_decoders
from xray_watcher.system.memory import memory_bytes, of_the_machine

GB = 10**9


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """A tree of control groups, version 2, and where a process of it says that it is."""
    (tmp_path / "cgroup").write_text("0::/system.slice/xray-watcher.service\n")
    (tmp_path / "fs/system.slice/xray-watcher.service").mkdir(parents=True)
    return tmp_path


def limit(groups: Path, group: str, text: str) -> None:
    (groups / "fs" / group / "memory.max").write_text(f"{text}\n")


def told(groups: Path) -> int:
    return memory_bytes(str(groups / "cgroup"), str(groups / "fs"))


def test_without_a_limit_it_is_the_machine_s(groups: Path) -> None:
    limit(groups, "system.slice/xray-watcher.service", "max")
    assert told(groups) == of_the_machine() > 0


def test_the_limit_of_the_unit_counts(groups: Path) -> None:
    limit(groups, "system.slice/xray-watcher.service", "1000")
    assert told(groups) == 1000


def test_a_limit_of_a_group_above_counts_if_it_is_less(groups: Path) -> None:
    limit(groups, "system.slice/xray-watcher.service", "1000")
    limit(groups, "system.slice", "900")
    assert told(groups) == 900


def test_a_container_sees_its_own_limit_at_the_top(groups: Path) -> None:
    (groups / "cgroup").write_text("0::/\n")
    limit(groups, ".", "800")
    assert told(groups) == 800


def test_the_limits_of_version_1_count(groups: Path) -> None:
    (groups / "cgroup").write_text("9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n")
    (groups / "fs/memory").mkdir()
    (groups / "fs/memory/memory.limit_in_bytes").write_text("700\n")
    assert told(groups) == 700


@pytest.mark.parametrize("text", ["", "nonsense", "4:memory", "0::/\n4:memory:/\n\xff"])
def test_what_the_kernel_does_not_say_is_no_limit(groups: Path, text: str) -> None:
    (groups / "cgroup").write_text(text, encoding="latin-1")
    limit(groups, ".", "nonsense")
    assert told(groups) == of_the_machine()


def test_a_machine_without_control_groups_has_its_own_memory(tmp_path: Path) -> None:
    assert told(tmp_path) == of_the_machine()


@pytest.mark.parametrize(
    ("cores", "memory", "decoders"),
    [
        (2, 24 * GB, 2),
        (1, 24 * GB, 1),
        (8, 24 * GB, 8),
        (64, 24 * GB, 37),
        (8, 4 << 30, 4),  # MemoryMax of the unit
        (8, 2 * GB, 1),
        (8, GB, 1),
    ],
)
def test_there_are_as_many_decoders_as_cores_if_memory_has_room_for_them(
    cores: int, memory: int, decoders: int
) -> None:
    assert choose_decoders(cores, memory) == decoders
