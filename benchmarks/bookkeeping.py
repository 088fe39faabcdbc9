"""What the promise costs: claim, hash, commit, file and log, without decoding and scoring.

    python benchmarks/bookkeeping.py

The daemon of the tests on real folders and a real ledger, in one process, with a decoder and a
network that cost nothing; batches of 16 files of the size of a radiograph.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from rig import Rig

BYTES = 400_000
BATCHES = 20


def cost_ms(batch: int = 16) -> tuple[float, float]:
    """Milliseconds an image: on the clock, and of processor time (the rest waits for the disk)."""
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder) / "root", max_size=batch)
        for number in range(BATCHES * batch):
            filling = "x" * BYTES
            rig.drop(f"{number}.jpg", f"picture:Edema#{number} {filling}")
        rig.ticks(5)  # all have settled; none is in hand
        done, began_s, cpu_s = rig.pipeline.done, time.monotonic(), time.process_time()
        while not rig.pipeline.is_idle or rig.settling.waiting or len(rig.settling):
            rig.tick(0.5)
        images = rig.pipeline.done - done
        return (
            (time.monotonic() - began_s) * 1000 / images,
            (time.process_time() - cpu_s) * 1000 / images,
        )


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    clock, cpu = cost_ms()
    print(f"{clock:.2f} ms an image on the clock, {cpu:.2f} ms of processor time")


if __name__ == "__main__":
    main()
