"""How a stored picture becomes the displayed one."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image


class Turn(NamedTuple):
    """How a stored picture becomes the displayed one; the flips are of the stored axes."""

    method: Image.Transpose
    flips_x: bool
    flips_y: bool
    swaps: bool


_TURNS = {  # by the value of EXIF's Orientation (CIPA DC-008, tag 0x0112)
    2: Turn(Image.Transpose.FLIP_LEFT_RIGHT, flips_x=True, flips_y=False, swaps=False),
    3: Turn(Image.Transpose.ROTATE_180, flips_x=True, flips_y=True, swaps=False),
    4: Turn(Image.Transpose.FLIP_TOP_BOTTOM, flips_x=False, flips_y=True, swaps=False),
    5: Turn(Image.Transpose.TRANSPOSE, flips_x=False, flips_y=False, swaps=True),
    6: Turn(Image.Transpose.ROTATE_270, flips_x=False, flips_y=True, swaps=True),
    7: Turn(Image.Transpose.TRANSVERSE, flips_x=True, flips_y=True, swaps=True),
    8: Turn(Image.Transpose.ROTATE_90, flips_x=True, flips_y=False, swaps=True),
}
_ORIENTATION = 0x0112


def read_turn(image: Image.Image) -> Turn | None:
    """What the metadata of an opened picture asks for; None is nothing, or damaged metadata."""
    try:
        # Of Pillow's base: what it has read by now. That of a PNG would decode the pixels for it.
        return _TURNS.get(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - metadata of cameras is often damaged, the picture is not
        return None
