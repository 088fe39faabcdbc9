"""Anything may happen in any order: arrivals, kills, edits, midnights. Nothing is lost or doubled.

Hypothesis makes up the orders. After each step every file that arrived is somewhere exactly once,
and under one index; at the end, when all has settled, the auditor checks folders and logs, and
that the figures of the days together are all that arrived.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedWriter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import audit
from rig import LABELS, HandClock, Rig

NAMES = st.sampled_from(
    ("a.jpg", "b.png", "er/a.jpg", "=1+1.jpg", "new\nline.png", "x" * 250 + ".jpg")
)
CONTENTS = st.one_of(
    st.sampled_from(LABELS).map(lambda label: f"picture:{label}"),  # the same bytes again and again
    st.builds("picture:{}#{}".format, st.sampled_from(LABELS), st.integers(0, 10**6)),
    st.integers(0, 10**6).map("no picture {}".format),
    st.just("nan"),
)
STEPS = ("begin_claims", "decide", "finish")
WALL_CLOCKS = st.sampled_from(
    [
        datetime(2026, 10, 25, 0, 59, 58, tzinfo=UTC),  # 3:59:58 in Athens, the first of two
        datetime(2026, 10, 25, 1, 30, tzinfo=UTC),  # 3:30 for the second time
        datetime(2027, 3, 28, 0, 59, 58, tzinfo=UTC),  # 2:59:58, and then it is 4:00
        datetime(2026, 11, 23, 21, 59, 58, tzinfo=UTC),  # two seconds before midnight
        datetime(2026, 2, 28, 12, 0, tzinfo=UTC),  # months back
        datetime(2031, 12, 31, 21, 59, tzinfo=UTC),  # years ahead
    ]
)


@dataclass
class Writing:
    """A file that somebody has open and writes in its place."""

    file: BufferedWriter
    content: bytes


class Killed(BaseException):
    """Stands for SIGKILL."""


class Life(RuleBasedStateMachine):
    """One root with a daemon that is started, killed and started again."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="xray-watcher-life-"))
        self.clock = HandClock()
        self.rig = Rig(self.root, clock=self.clock, max_size=3)
        self.arrived: Counter[bytes] = Counter()
        self.writing: dict[str, str] = {}
        self.open: dict[str, Writing] = {}

    def teardown(self) -> None:
        """Finish what is being written, let all settle, and look at everything once more."""
        if not hasattr(self, "rig"):
            return
        self.rig.engine.broken = False
        while self.open:
            self.finish_in_place()
        for name, content in self.writing.items():
            self.rig.drop(name, content)
            self.arrived[content.encode()] += 1
        self.rig.ticks(90)
        self.rig.settle()
        assert not self.rig.health.problems
        for log in self.rig.ledger.log_states():  # as `fsck --repair` does with edits of old days
            self.rig.logs.repair(log, self.clock.now())
        self.rig.ticks(90)  # the summaries are written once a minute
        days = (self.root / "logs" / "daily").glob("*.json")
        received = [json.loads(day.read_text())["received"] for day in days]
        assert sum(received) == self.arrived.total()
        self.rig.crash()
        audit.check(self.root, list(self.arrived.elements()))
        shutil.rmtree(self.root)

    # -- what others do -------------------------------------------------------------------

    @rule(name=NAMES, content=CONTENTS)
    def drop(self, name: str, content: str) -> None:
        if name in self.writing or (self.rig.inbox / name).exists():
            return  # whoever overwrites his own file has one file
        self.arrived[self.rig.drop(name, content)] += 1

    @rule(name=NAMES, content=CONTENTS)
    def begin_to_write(self, name: str, content: str) -> None:
        if name not in self.writing and not (self.rig.inbox / name).exists():
            self.writing[name] = content
            (self.rig.inbox / name).parent.mkdir(exist_ok=True)
            (self.rig.inbox / f"{name[:240]}.part").write_text(content[:5])

    @precondition(lambda self: self.writing)
    @rule()
    def finish_writing(self) -> None:
        name, content = self.writing.popitem()
        if not (self.rig.inbox / name).exists():
            part = self.rig.inbox / f"{name[:240]}.part"
            part.write_text(content)
            part.rename(self.rig.inbox / name)
            self.arrived[content.encode()] += 1

    @rule(name=NAMES, content=CONTENTS)
    def begin_in_place(self, name: str, content: str) -> None:
        path = self.rig.inbox / name
        if name in self.writing or path.exists():
            return
        path.parent.mkdir(exist_ok=True)
        file = path.open("wb", buffering=0)
        file.write(content.encode()[:5])
        self.open[name] = Writing(file, content.encode())

    @precondition(lambda self: self.open)
    @rule()
    def finish_in_place(self) -> None:
        _, writing = self.open.popitem()
        writing.file.write(writing.content[5:])
        writing.file.close()
        self.arrived[writing.content] += 1

    @rule(data=st.data())
    def somebody_deletes_a_file_of_the_inbox(self, data: st.DataObject) -> None:
        if files := self.lying():
            path = data.draw(st.sampled_from(files))
            self.arrived[path.read_bytes()] -= 1
            path.unlink()

    @rule(data=st.data(), name=NAMES)
    def somebody_renames_a_file_of_the_inbox(self, data: st.DataObject, name: str) -> None:
        target = self.rig.inbox / name
        if (files := self.lying()) and not target.exists() and name not in self.writing:
            target.parent.mkdir(exist_ok=True)
            data.draw(st.sampled_from(files)).rename(target)

    @rule(form=st.sampled_from(("csv", "jsonl")), how=st.sampled_from(("edit", "delete", "add")))
    def somebody_opens_a_log(self, form: str, how: str) -> None:
        for log in (self.root / "logs").glob(f"results-*.{form}"):
            if how == "delete":
                log.unlink()
            elif how == "edit":
                log.write_bytes(log.read_bytes().replace(b"High", b"high"))
            else:
                log.write_bytes(log.read_bytes() + b"a note\n")

    @rule()
    def somebody_tidies_an_empty_folder_away(self) -> None:
        low = self.root / "classified_images" / "Low"
        if low.exists() and not any(low.iterdir()):
            low.rmdir()

    # -- what time and fate do ------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.5, 3.0, 12.0)))
    def time_passes(self, seconds: float) -> None:
        self.rig.ticks(seconds)

    @rule(hours=st.sampled_from((6, 13, 30)))
    def a_day_goes_by(self, hours: int) -> None:
        self.rig.tick(hours * 3600)

    @rule(now=WALL_CLOCKS)
    def the_clock_on_the_wall_is_set(self, now: datetime) -> None:
        self.clock.set_to(now)

    @rule(step=st.sampled_from(STEPS), after=st.booleans())
    def a_kill_strikes_at_a_step(self, step: str, after: bool) -> None:
        original = getattr(self.rig.ledger, step)

        def dying(*args: object, **kwargs: object) -> object:
            if after:
                original(*args, **kwargs)
            raise Killed

        setattr(self.rig.ledger, step, dying)
        with suppress(Killed):
            self.rig.ticks(8)
        self.start_again()

    @rule()
    def start_again(self) -> None:
        self.rig.crash()
        self.rig = Rig(self.root, clock=self.clock, max_size=3)

    @rule(broken=st.booleans())
    def the_network_fails_or_recovers(self, broken: bool) -> None:
        self.rig.engine.broken = broken

    # -- what must always hold ------------------------------------------------------------

    @invariant()
    def every_file_is_somewhere_once(self) -> None:
        if not hasattr(self, "rig"):
            return
        inbox = self.lying()
        work = [p for p in (self.root / ".xray-watcher").iterdir() if p.name.isdecimal()]
        filed = list(audit.filed(self.root).values())
        found = Counter(path.read_bytes() for path in [*inbox, *work, *filed])
        assert found == self.arrived

    def lying(self) -> list[Path]:
        """The files of the inbox that have arrived and not left."""
        being_written = {self.rig.inbox / name for name in self.open}
        return sorted(
            path
            for path in self.rig.inbox.rglob("*")
            if path.is_file() and path.suffix != ".part" and path not in being_written
        )

    @invariant()
    def indexes_are_given_once(self) -> None:
        if hasattr(self, "rig"):
            indexes = [path.name.split("_")[0] for path in audit.filed(self.root).values()]
            assert len(indexes) == len(set(indexes))


TestLife = Life.TestCase
TestLife.pytestmark = [pytest.mark.timeout(0 if os.environ.get("XRAY_LIVES") else 300)]
LIVES = os.environ.get("XRAY_LIVES")  # `make lives`: many more, and others each time
TestLife.settings = settings(
    max_examples=int(LIVES or 100),
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=LIVES is None,
    database=None,
)
