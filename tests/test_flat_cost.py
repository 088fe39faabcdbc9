"""What an image costs does not hang on how many came before it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import Rig

_seen: list[str] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("os.listdir", "os.scandir"):
        _seen.append(str(arguments[0]))


@pytest.fixture
def listings() -> Iterator[list[str]]:
    """Every folder that this process lists, whoever in it does."""
    if not getattr(sys, "_xray_watcher_hook", False):  # a hook stays for the life of a process
        sys.addaudithook(_note)
        sys._xray_watcher_hook = True  # type: ignore[attr-defined]
    _seen.clear()
    yield _seen
    _seen.clear()


def test_no_folder_of_results_is_listed_while_images_pass(
    tmp_path: Path, listings: list[str]
) -> None:
    rig = Rig(tmp_path)
    outputs = [str(tmp_path / name) for name in ("classified_images", "rejected", "logs")]
    listings.clear()
    for number in range(40):
        rig.drop(f"{number}.jpg", "unreadable" if number == 7 else f"picture:Edema#{number}")
        rig.drop(f"same/{number}.jpg", f"picture:Edema#{number}")  # the same bytes once more
    rig.settle()
    rig.tick(60)
    assert any(folder.startswith(str(rig.inbox)) for folder in listings)  # the hook sees them
    assert not [folder for folder in listings if folder.startswith(tuple(outputs))]


def test_a_start_beside_what_was_done_lists_no_folder_of_results(
    tmp_path: Path, listings: list[str]
) -> None:
    rig = Rig(tmp_path)
    for number in range(20):
        rig.drop(f"{number}.jpg", f"picture:Edema#{number}")
    rig.settle()
    rig.crash()
    again = Rig(tmp_path, clock=rig.clock)
    listings.clear()
    again.drop("new.jpg", "picture:Fracture")
    again.settle()
    assert len(again.records()) == 21
    assert not [folder for folder in listings if "classified_images" in folder]
