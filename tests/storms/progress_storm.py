"""One file among good ones fails, at each call that touches it: the others go on as before.

    make progress                     # all cells and scenes; less than an hour on two cores
    make progress ARGS="--only 'inbox/*' 'claimed/open/*' --alone"

The service is real but for its network (`stub_service`); a preloaded library fails the calls
(`faults`). A cell is a place, a call and an error (`progress_cells`). All errors of one call at one
place have a bad file each and go through one life of the service together; where a promise is
broken, each goes through one of its own, so that the table names it. In each life

- three good files are filed before anything fails: so long it takes;
- three more come together with the bad ones, and three after them: filed as quickly, and 5 s;
- `status --json` says how many files wait, and blames nothing else;
- the causes go away: the bad files are filed by themselves, within the longest back-off;
- the auditor finds every file once.

A call that hangs in the main process cannot be passed by: the kernel does not come back from it.
Then the others may take the hang's time longer, `status` says that the service hangs, and the
watchdog is fed all the while.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "shares")]

import faults  # noqa: E402
import fuse_share  # noqa: E402
from faults import CALLS  # noqa: E402
from progress_cells import CANNOT, Cell, cells, groups, real_cells  # noqa: E402
from progress_elsewhere import under_fsck, under_retention  # noqa: E402
from progress_life import told  # noqa: E402
from progress_scenes import SCENES  # noqa: E402
from progress_trying import Outcome, on_its_way  # noqa: E402

LANES = 4  # lives side by side; they mostly wait
HANG_S = 60.0
ELSEWHERE = {"retention": under_retention, "fsck": under_fsck}


Try = Callable[[Sequence[Cell], float], list[Outcome]]


def _try(group: Sequence[Cell], hang_s: float) -> list[Outcome]:
    return ELSEWHERE.get(group[0].place, on_its_way)(group, hang_s)


def _try_real(group: Sequence[Cell], hang_s: float) -> list[Outcome]:
    return on_its_way(group, hang_s, real=True)


def tried(group: Sequence[Cell], hang_s: float, try_: Try = _try) -> list[Outcome]:
    """Try some cells in one life; where that breaks a promise, each in one of its own."""
    try:
        outcomes = try_(group, hang_s)
    except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as error:
        words = f"the storm could not go on: {type(error).__name__}: {error}"[:300]
        outcomes = [Outcome(str(cell), stuck=words) for cell in group]
    broken = [outcome.in_words() for outcome in outcomes if not outcome.is_kept]
    told("\n".join(broken) or f"{outcomes[0].cell} and {len(outcomes) - 1} more: as promised")
    if len(group) > 1 and broken:
        return [outcome for cell in group for outcome in tried((cell,), hang_s, try_)]
    return outcomes


def storm(
    chosen: Sequence[Cell],
    seed: int,
    *,
    lanes: int = LANES,
    alone: bool = False,
    hang_s: float = HANG_S,
    real: bool = False,
) -> list[Outcome]:
    """Try cells, some lives side by side.

    Args:
        chosen: what is tried.
        seed: of the order of the lives.
        lanes: lives side by side.
        alone: each cell has a life of its own.
        hang_s: how long a call hangs.
        real: on a file system that really fails.
    """
    lives = groups(list(chosen), alone=alone)
    random.Random(seed).shuffle(lives)
    try_ = _try_real if real else _try
    with ThreadPoolExecutor(lanes) as threads:
        found = [threads.submit(tried, group, hang_s, try_) for group in lives]
        try:
            outcomes = [outcome for one in found for outcome in one.result()]
        except BaseException:  # Ctrl-C: the lives that are under way come to their end
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return sorted(outcomes, key=lambda outcome: outcome.cell)


def table(outcomes: Sequence[Outcome]) -> str:
    """For docs/evidence/reliability.md: by place and call, how many cells were tried and kept."""
    tried_at, broken_at = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for outcome in outcomes:
        place, call, _ = outcome.cell.split("/")
        tried_at[place, call] += 1
        broken_at[place, call] += not outcome.is_kept
    lines = ["| | " + " | ".join(CANNOT) + " |", "|---" * (len(CANNOT) + 1) + "|"]
    for call in CALLS:
        row = []
        for place in CANNOT:
            count, broken = tried_at[place, call], broken_at[place, call]
            row.append("-" if not count else f"{count}" if not broken else f"{broken} of {count}")
        lines.append(f"| {call} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=["*"], help="as inbox/open/EIO, with * and ?")
    parser.add_argument("--seed", type=int, default=1, help="order of the lives")
    parser.add_argument("--lanes", type=int, default=LANES, help="lives side by side")
    parser.add_argument("--hang", type=float, default=HANG_S, help="seconds")
    parser.add_argument("--alone", action="store_true", help="each cell in a life of its own")
    parser.add_argument("--json", type=Path, help="write the outcomes there")
    parser.add_argument(
        "--scenes", nargs="*", choices=SCENES, default=list(SCENES), help="beside the cells"
    )
    parser.add_argument("--real", action="store_true", help="a sample of the cells, on FUSE")
    options = parser.parse_args()
    if why_not := faults.missing() or (fuse_share.missing() if options.real else None):
        sys.exit(f"not run: {why_not}")
    began_s = time.monotonic()
    chosen = real_cells() if options.real else cells()
    outcomes = storm(
        [cell for cell in chosen if any(fnmatchcase(str(cell), p) for p in options.only)],
        options.seed,
        lanes=options.lanes,
        alone=options.alone,
        hang_s=options.hang,
        real=options.real,
    )
    print(table(outcomes))
    for name in () if options.real else options.scenes:
        try:
            found = SCENES[name](options.hang)
        except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as error:
            found = [Outcome("all of it", stuck=f"{type(error).__name__}: {error}"[:300])]
        outcomes += [replace(outcome, cell=f"{name}: {outcome.cell}") for outcome in found]
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    report(outcomes, (time.monotonic() - began_s) / 60)


def report(outcomes: Sequence[Outcome], minutes: float) -> None:
    """Print what was broken and the sums, and end with 1 if there is something."""
    for outcome in outcomes:
        if not outcome.is_kept:
            print(outcome.in_words())
    resumed = sorted(o.resumed_s for o in outcomes if o.resumed_s is not None)
    if resumed:
        print(
            f"filed after the cause was gone: median {resumed[len(resumed) // 2]:.1f} s, "
            f"longest {resumed[-1]:.1f} s"
        )
    counts = Counter(
        what for o in outcomes for what in ("stalled", "said", "stuck", "lost") if getattr(o, what)
    )
    print(
        f"{len(outcomes)} cells in {minutes:.0f} minutes: {counts['stalled']} stalls, "
        f"{counts['stuck']} that did not go on, {counts['said']} not named rightly, "
        f"{counts['lost']} lost, {sum(not o.met for o in outcomes)} never met"
    )
    sys.exit(any(not outcome.is_kept for outcome in outcomes))


if __name__ == "__main__":
    main()
