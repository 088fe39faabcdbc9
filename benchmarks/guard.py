"""The regression guard of CI: the forward pass beside onnxruntime's.

It prints and never fails: other work on the machine moves even a ratio.
"""

from __future__ import annotations

import statistics

from forward import ONNXRUNTIME, OURS, OURS_BF16_MANY, OURS_MANY, PRODUCT, ways
from measuring import in_turns, ratio

MOST = 1.2
"""Times onnxruntime's time, of the float32 forward pass."""


def main() -> None:
    found = in_turns(ways(cores=1), rounds=5)
    for name, measured in found.items():
        unit = "billion operations a second" if name == PRODUCT else "ms an image on one core"
        print(f"{name}: {statistics.median(measured):.1f} {unit}")
    slower = ratio(found, OURS, ONNXRUNTIME)
    verdict = "as it should be" if slower <= MOST else f"SLOWER than the {MOST} it should be"
    print(f"ours takes {slower:.2f} x the time of onnxruntime: {verdict}")
    if OURS_BF16_MANY in found:
        times = ratio(found, OURS_MANY, OURS_BF16_MANY)
        print(f"bfloat16 is {times:.2f} x as quick as float32")


if __name__ == "__main__":
    main()
