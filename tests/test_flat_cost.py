"""What an image costs does not hang on how many came before it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from rig import INCOMPLETE_S, Rig

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


def seed_rejections(rig: Rig, count: int) -> None:
    """So many empty files that were set aside before, from index 0 on."""
    with rig.ledger.transaction():
        rig.ledger.db.sqlite.executemany(
            "INSERT INTO image (state, path, size, received_us, settled_us, day, sha256, idx,"
            " outcome, reject_code, folder, filed_name, filed_us) VALUES ('DONE', ?, 0, 0, 0,"
            " '2026-01-01', ?, ?, 'rejected', 'empty', 'rejected', ?, 1)",
            [
                (b"mod/e.jpg", hashlib.sha256(b"").digest(), index, f"{index:04d}_e.jpg")
                for index in range(count)
            ],
        )
        rig.ledger.set_meta("next_index", str(count))


def steps_to_decide_an_empty_file(rig: Rig) -> int:
    """How many steps SQLite takes for it, from its claim to its end; the same on every machine."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    index = rig.ledger.next_index
    rig.drop("again.jpg", "")
    rig.ticks(INCOMPLETE_S, 10.0)
    rig.ledger.db.sqlite.set_progress_handler(step, 1)
    rig.ticks(60.0, 2.0)
    rig.ledger.db.sqlite.set_progress_handler(None, 1)
    assert rig.ledger.next_index == index + 1
    return steps


@pytest.mark.parametrize("duplicates", ["flag", "set-aside"])
def test_one_more_empty_file_costs_the_same_behind_thousands_of_them(
    tmp_path: Path, duplicates: Literal["flag", "set-aside"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A modality that sent one a minute made every image wait for seconds after 70 days (C8)."""
    found = []
    for count in (10, 5_000):
        (tmp_path / str(count)).mkdir()
        rig = Rig(tmp_path / str(count), duplicates=duplicates)
        seed_rejections(rig, count)
        monkeypatch.setattr(rig.daemon._summaries, "refresh", lambda _now_s: None)
        found.append(steps_to_decide_an_empty_file(rig))
        rig.crash()
    few, many = found
    assert many < few * 1.2, found
