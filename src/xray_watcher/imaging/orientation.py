"""How a stored picture becomes the displayed one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Turn(NamedTuple):
    """How a stored picture becomes the displayed one: flipped along stored axes, then swapped."""

    flips_x: bool
    flips_y: bool
    swaps: bool

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The displayed pixels of stored ones, `[height, width]`."""
        flipped = pixels[:: -1 if self.flips_y else 1, :: -1 if self.flips_x else 1]
        return np.ascontiguousarray(flipped.T if self.swaps else flipped)


UPRIGHT = Turn(flips_x=False, flips_y=False, swaps=False)
"""What is displayed as it is stored."""

EXIF_ORIENTATION = 0x0112
"""The tag (CIPA DC-008) whose values `TURNS` has."""

TURNS = {
    2: Turn(flips_x=True, flips_y=False, swaps=False),
    3: Turn(flips_x=True, flips_y=True, swaps=False),
    4: Turn(flips_x=False, flips_y=True, swaps=False),
    5: Turn(flips_x=False, flips_y=False, swaps=True),
    6: Turn(flips_x=False, flips_y=True, swaps=True),
    7: Turn(flips_x=True, flips_y=True, swaps=True),
    8: Turn(flips_x=True, flips_y=False, swaps=True),
}
"""By the value of the tag; the others ask for nothing."""
