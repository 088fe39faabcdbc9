"""Made chest images as files: for the demonstration, for tests, and for users' own trials.

What is drawn is `phantom/drawing.py`'s; here it gets the sizes and file forms that people have.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_watcher.errors import UsageError
from xray_watcher.phantom.drawing import CONDITIONS, draw, frame, to_uint8, to_uint16

NORMAL = "normal"
"""What stands for "no condition drawn" in names and tables."""

DRAWN_CSV = "drawn.csv"

_JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class Form:
    """One way in which an image is stored: file type, bits a pixel, and size in pixels."""

    suffix: str
    bits: int
    width: int
    height: int


FORMS: tuple[Form, ...] = (
    Form(".jpg", 8, 1024, 1024),
    Form(".png", 16, 512, 512),
    Form(".jpeg", 24, 800, 960),
    Form(".png", 8, 1250, 1000),
)
"""The forms that made images take in turn; 24 bits are a grey picture stored as RGB."""


@dataclass(frozen=True, slots=True)
class MadeImage:
    """A file's name and content, and what was drawn: a condition or `NORMAL`."""

    name: str
    drawn: str
    content: bytes


def draw_images(count: int, seed: int) -> Iterator[MadeImage]:
    """Draw images: the normal chest and each condition in turn, in every form in turn.

    Args:
        count: how many.
        seed: the same seed draws the same images.
    """
    rng = np.random.default_rng(seed)
    kinds = (None, *CONDITIONS)
    for number in range(count):
        condition = kinds[number % len(kinds)]
        form = FORMS[(number + number // len(kinds)) % len(FORMS)]
        drawn = condition or NORMAL
        name = f"phantom-{number:03d}-{drawn.lower().replace(' ', '-')}{form.suffix}"
        yield MadeImage(name, drawn, encode_image(rng, condition, form))


def write_phantoms(folder: str, count: int, seed: int, each: Callable[[], object]) -> None:
    """Write made images and `drawn.csv`, which says what was drawn in each.

    Args:
        folder: made when it is missing; must hold no `drawn.csv` yet.
        count: how many images.
        seed: the same seed draws the same images.
        each: called after each image.

    Raises:
        UsageError: there are made images in this folder already.
    """
    os.makedirs(folder, exist_ok=True)
    try:
        table = open(os.path.join(folder, DRAWN_CSV), "x", encoding="utf-8", newline="")  # noqa: SIM115
    except FileExistsError:
        raise UsageError(f"{folder} holds made images already; name another folder.") from None
    with table:
        rows = csv.writer(table)
        rows.writerow(("filename", "drawn"))
        for image in draw_images(count, seed):
            with open(os.path.join(folder, image.name), "wb") as file:
                file.write(image.content)
            rows.writerow((image.name, image.drawn))
            each()


def encode_image(rng: np.random.Generator, condition: str | None, form: Form) -> bytes:
    """Draw one chest and store it in a form.

    Args:
        rng: varies the drawing.
        condition: one of `CONDITIONS`, or None for a normal chest.
        form: of the file; the chest fills its shorter side.

    Returns:
        The content of the file.
    """
    side = min(form.width, form.height)
    picture = frame(draw(rng, condition, side=side), form.width, form.height)
    file = io.BytesIO()
    if form.suffix == ".png":
        _image(picture, form).save(file, "PNG")
    else:
        _image(picture, form).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _image(picture: NDArray[np.floating[Any]], form: Form) -> Image.Image:
    if form.bits == 16:
        return Image.fromarray(to_uint16(picture))
    grey = Image.fromarray(to_uint8(picture))
    return grey.convert("RGB") if form.bits == 24 else grey
