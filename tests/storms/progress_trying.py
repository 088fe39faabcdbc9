"""Tries some cells of `make progress` in one life of the service; what is tried stands there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from faults import HANG
from progress_cells import TWO_NAMES, UNSEEN, VANISHING, Cell
from progress_life import BACK_OFF_S, LATER_S, Life, Stuck, life

import audit

RESUMES_S = BACK_OFF_S + 15
QUIET_AFTER_S = 32.0  # then `status` says that the service hangs
WATCHDOG_S = 60.0  # half of what systemd is told
FIRST_S = 120.0  # for good files where nothing fails, on a machine that has other work
MET_S = 30.0  # in which a call must be made at all

BELOW = {
    "inbox": "/inbox/",
    "subfolder": "/inbox/",
    "claimed": "/.xray-watcher/0",
    "results": "",
    "results-apart": "",
    "upload": "/uploads/",
    "retention": "/classified_images/",
    "fsck": "",
}
"""By place, the part of a path at which a call fails."""

ONE_BATCH = {"XRAY_WATCHER_BATCH__QUIET_SECONDS": "1"}
"""While one batch is held before its scoring, no other file is claimed."""


@dataclass
class Outcome:
    """What became of one cell; None where all was as promised.

    Attributes:
        cell: its name.
        met: how often the call was made and failed.
        stalled: how the others were kept.
        said: what `status` said wrongly.
        stuck: how it did not go on by itself.
        lost: what the auditor found.
        resumed_s: how long after the end of the cause it was filed.
    """

    cell: str
    met: int = 0
    stalled: str | None = None
    said: str | None = None
    stuck: str | None = None
    lost: str | None = None
    resumed_s: float | None = None

    @property
    def is_kept(self) -> bool:
        """Whether every promise was kept."""
        return self.met > 0 and not (self.stalled or self.said or self.stuck or self.lost)

    def in_words(self) -> str:
        """All of it in one line."""
        parts = [("others wait", self.stalled), ("told", self.said)]
        parts += [("does not go on", self.stuck), ("LOST", self.lost)]
        words = [f"{what}: {how}" for what, how in parts if how]
        if not self.met:
            words.append("the call is never made")
        return f"{self.cell}: {'; '.join(words) or 'as promised'}"


class Tried:
    """The cells of one life: a bad file, a rule and an outcome each."""

    def __init__(self, lived: Life, cells: Sequence[Cell], hang_s: float) -> None:
        self.lived, self.cells, self.hang_s = lived, cells, hang_s
        self.outcomes = [Outcome(str(cell)) for cell in cells]
        self.names: list[str] = []
        self._numbers: list[int] = []  # of what arrived
        self.rules: list[int] = []
        self.hangs = any(cell.error == HANG for cell in cells)
        lived.faults.hang_for(hang_s)

    @property
    def later_s(self) -> float:
        """So much longer may good files take."""
        return LATER_S + (self.hang_s if self.hangs else 0)

    def make_rules(self, *, on: bool = True, everywhere: bool = False) -> None:
        """Let each call fail on its file, in its place or everywhere; off, it is only followed."""
        for number, cell in enumerate(self.cells):
            mark, below = _mark(number), BELOW[cell.place]
            if cell.fails_folder and cell.place != "subfolder":
                mark, below = ("uploads", "/.xray-watcher/") if cell.place == "upload" else (
                    "Low", "")  # fmt: skip
            if cell.call == "decode" or everywhere:
                below = ""
            rule = self.lived.faults.add(cell.call, cell.error, mark=mark, below=below, on=on)
            self.rules.append(rule)

    def put_bad(self) -> None:
        """Put each cell's file where it fails."""
        for number, cell in enumerate(self.cells):
            mark = _mark(number)
            self._numbers.append(len(self.lived.arrived))
            if cell.place == "upload":
                self.names.append(self.lived.upload(mark))
            elif cell.place == "subfolder":
                name = f"ward-{mark}/{number}.png" if cell.fails_folder else f"ward/{mark}.png"
                self.names.append(self.lived.put(name))
            else:
                two_names = cell.place == "claimed" and cell.call in TWO_NAMES
                self.names.append(self.lived.put(f"{mark}.png", second_name=two_names))

    def note(self, field: str, what: str, *, only: Sequence[int] | None = None) -> None:
        """Note a broken promise with all cells of the life, or with some; the first one counts."""
        for number, outcome in enumerate(self.outcomes):
            if (only is None or number in only) and getattr(outcome, field) is None:
                setattr(outcome, field, what)

    @contextmanager
    def noting(self, field: str, what: str = "") -> Iterator[None]:
        """Note what does not come about in time."""
        try:
            yield
        except Stuck as stuck:
            self.note(field, f"{what} {stuck}".strip())

    def waiting(self) -> list[int]:
        """The cells whose files are not filed."""
        numbers = enumerate(self._numbers)
        return [cell for cell, number in numbers if not self.lived.has_filed(number)]

    def nameless(self) -> list[int]:
        """The cells whose files are filed under a name that is not theirs."""
        filed = self.lived.filed()
        return [cell for cell, name in enumerate(self.names) if name not in filed]

    def count(self) -> None:
        """Note how often each call was met."""
        for rule, outcome in zip(self.rules, self.outcomes, strict=True):
            outcome.met = self.lived.faults.hits(rule)

    def lift(self) -> None:
        """The causes are gone."""
        for rule in self.rules:
            self.lived.faults.lift(rule)


def _mark(number: int) -> str:
    return f"{0xBAD0000 + number:012x}"


def on_its_way(group: Sequence[Cell], hang_s: float, *, real: bool = False) -> list[Outcome]:
    """Files that fail before they are filed."""
    is_late = group[0].place.startswith("results")
    is_apart, env = group[0].place == "results-apart", ONE_BATCH if is_late else {}
    with life(apart=is_apart, real=real, **env) as lived:
        tried = Tried(lived, group, hang_s)
        lived.start()
        usual_s = lived.wait_filed(lived.others(), FIRST_S)
        if any(cell.needs_no_flags for cell in group):
            lived.faults.refuse_flags()
        if is_late:
            first = _fail_once_decided(tried)
        else:
            tried.make_rules()
            tried.put_bad()
            first = lived.others()
        if tried.hangs:
            see_it_hang(tried)
        with tried.noting("stalled", "those beside it:"):
            lived.wait_filed(first, usual_s + tried.later_s)
        with tried.noting("stalled", "those after it:"):
            lived.wait_filed(lived.others(), usual_s + tried.later_s)
        if not tried.hangs:
            see_it_named(tried)
        tried.count()
        see_it_go_on(tried)
        see_nothing_lost(tried)
        return tried.outcomes


def _fail_once_decided(tried: Tried) -> list[str]:
    """Hold the network until all are claimed and decoded, and let them fail from then on."""
    lived = tried.lived
    lived.gate.unlink()
    tried.make_rules(on=False)
    tried.put_bad()
    first = lived.others()
    lived.wait(lambda: lived.claimed() == len(tried.cells) + len(first), FIRST_S)
    time.sleep(1.5)  # they are hashed and decoded
    for rule in tried.rules:
        lived.faults.put_on(rule)
    lived.gate.touch()
    return first


def see_it_hang(tried: Tried) -> None:
    """While a call hangs: `status` says so, and the watchdog is fed."""
    lived, rule = tried.lived, tried.rules[0]
    began_s = time.monotonic()
    try:
        lived.wait(lambda: lived.faults.hits(rule) > 0, MET_S)
    except Stuck:
        return
    if tried.hang_s < QUIET_AFTER_S + 5:
        return
    while lived.faults.is_on(rule) and time.monotonic() < began_s + QUIET_AFTER_S:
        time.sleep(0.2)
    if tried.cells[0].call == "decode" or not lived.faults.is_on(rule):
        return  # a child hangs: it was ended, or is waited for beside the rest
    problems = lived.status()["troubles"]  # a file that a thread reads holds nothing else up
    hangs = f"{problems.get('hangs', '')} {problems.get('files', '')}"
    if tried.cells[0].place == "retention":  # in its first turn, before it has reported anything
        hangs += problems.get("starting", "")
    if lived.faults.is_on(rule) and not re.search("does not answer|told nothing yet", hangs):
        tried.note("said", f"does not say that it hangs: {problems}")


def see_it_named(tried: Tried, component: str = "", waiting: Sequence[int] | None = None) -> None:
    """`status` says how many files wait, and blames nothing else.

    Args:
        tried: the cells.
        component: what may be named beside the files.
        waiting: the cells whose files wait; None are those that are not filed.
    """
    waiting = tried.waiting() if waiting is None else waiting
    waiting = [n for n in waiting if str(tried.cells[n]) not in VANISHING | UNSEEN]
    if not waiting:
        return  # it could do without the call
    if any(cell.place == "upload" and cell.fails_folder for cell in tried.cells):
        component = "uploads"
    named = [number for number in waiting if tried.cells[number].is_told]
    complaint = tried.lived.complaint(range(len(named), len(waiting) + 1), len(named), component)
    if complaint:
        tried.note("said", complaint, only=waiting)


def see_it_go_on(tried: Tried) -> None:
    """The causes go away: what waited is filed by itself."""
    lived = tried.lived
    left = tried.waiting()
    tried.lift()
    if not lived.is_running:  # systemd would start it again
        tried.note("stalled", "the service ended")
        lived.start()
    began_s = time.monotonic()
    while left and time.monotonic() < began_s + RESUMES_S:
        still = tried.waiting()
        for number in set(left).difference(still):
            tried.outcomes[number].resumed_s = round(time.monotonic() - began_s, 1)
        left = still
        time.sleep(0.1)
    vanished = [n for n in left if str(tried.cells[n]) in VANISHING]
    stuck = sorted(set(left).difference(vanished))
    if stuck:
        tried.note("stuck", f"not after {RESUMES_S:.0f} s", only=stuck)
    if not left:
        with tried.noting("stuck", "something is left"):
            lived.wait(lambda: not lived.left(), RESUMES_S)
    if lived.systemd.longest_gap_s > WATCHDOG_S:
        tried.note("stalled", f"the watchdog waited {lived.systemd.longest_gap_s:.0f} s")


def see_nothing_lost(tried: Tried) -> None:
    """Restart it if it does not go on, as somebody would; then nothing may be lost."""
    lived = tried.lived
    vanishing = [cell for cell in tried.cells if str(cell) in VANISHING]
    try:
        if vanishing or any(outcome.stuck for outcome in tried.outcomes):
            lived.service.kill()
            lived.start()
            lived.wait(lambda: not lived.left(), RESUMES_S)
        lived.end(missing=len(vanishing))
        if not vanishing and (nameless := tried.nameless()):
            tried.note("lost", "its name", only=nameless)
    except (AssertionError, OSError, ValueError, KeyError) as error:
        tried.note("lost", audit.named(error) if isinstance(error, AssertionError) else repr(error))
