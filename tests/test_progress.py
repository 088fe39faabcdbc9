"""The short form of `make progress`: single files fail, and the others go on as before."""

from __future__ import annotations

import faults
import progress_scenes
import progress_storm
import pytest
from progress_cells import CANNOT, ERRORS, Cell, cells
from progress_trying import Outcome

from machine import needs

SHORT_HANG_S = 4.0
GROUPS = ("inbox/open", "subfolder/listing", "claimed/read-middle", "upload/rename", "fsck/open")
"""All errors of these calls at these places: each stands for one door of the fault."""


def broken(outcomes: list[Outcome]) -> list[str]:
    return [outcome.in_words() for outcome in outcomes if not outcome.is_kept]


@pytest.mark.timeout(900)
def test_a_file_that_fails_keeps_no_other_waiting() -> None:
    needs(faults.missing())
    chosen = [Cell(*group.split("/"), error) for group in GROUPS for error in ERRORS]
    chosen.append(Cell("inbox", "open", faults.HANG))
    outcomes = progress_storm.storm(chosen, seed=14, hang_s=SHORT_HANG_S)
    assert len(outcomes) == len(chosen)
    assert not broken(outcomes)


@pytest.mark.timeout(900)
def test_files_that_fail_over_midnight_make_no_figure_wrong() -> None:
    needs(faults.missing())
    assert not broken(progress_scenes.SCENES["midnight"](SHORT_HANG_S))


def test_every_call_at_every_place_is_tried_or_has_a_reason() -> None:
    tried = {(cell.place, cell.call) for cell in cells()}
    left_out = {(place, call) for place, reasons in CANNOT.items() for call in reasons}
    assert not tried & left_out
    assert tried | left_out == {(place, call) for place in CANNOT for call in faults.CALLS}
    assert all(reason for reasons in CANNOT.values() for reason in reasons.values())
