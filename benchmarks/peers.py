"""The usual ways, one image after the other, each on the same images, weights and cores.

T:  TorchXRayVision's own: `load_image`, `XRayCenterCrop`, the model, which resizes by itself.
T2: the same with its `XRayResizer(224)` before the model.
V:  the first prototype's: Pillow to RGB, grey, squeezed to 224x224, the model, and the image
    saved once more by Pillow.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from xray_watcher.model.network import library, untrained

SIDE = 224
Pixels = np.ndarray[Any, np.dtype[np.float32]]


class Peers:
    """The three ways with one network.

    Args:
        files: the images.
        folder: where V saves them.
    """

    def __init__(self, files: Sequence[Path], folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._folder.mkdir()
        self._xrv = library()
        self._model = untrained().module
        self._model.input_resolution = SIDE  # as the library's own weights set it
        with contextlib.redirect_stdout(io.StringIO()):
            self._crop = self._xrv.datasets.XRayCenterCrop()
            self._resize = self._xrv.datasets.XRayResizer(SIDE)

    def own(self) -> float:
        """Images a second the library's way, which leaves the resizing to the model."""
        return self._rate(lambda path: self._crop(self._loaded(path)))

    def own_resized(self) -> float:
        """Images a second with the library's resizer."""
        return self._rate(lambda path: self._resize(self._crop(self._loaded(path))))

    def prototype(self) -> float:
        """Images a second the first prototype's way."""
        return self._rate(self._of_prototype)

    def _rate(self, pixels_of: Callable[[Path], Pixels]) -> float:
        with contextlib.redirect_stdout(io.StringIO()):  # the library says once that it resizes
            self._score(pixels_of(self._files[0]))  # warms up
        began_s = time.monotonic()
        for path in self._files:
            self._score(pixels_of(path))
        return len(self._files) / (time.monotonic() - began_s)

    def _score(self, pixels: Pixels) -> list[float]:
        with torch.no_grad():
            scores = self._model(torch.from_numpy(pixels)[None]).sigmoid()[0]
        return scores.tolist()  # type: ignore[no-any-return]

    def _loaded(self, path: Path) -> Pixels:
        return self._xrv.utils.load_image(str(path))  # type: ignore[no-any-return]

    def _of_prototype(self, path: Path) -> Pixels:
        image = Image.open(path).convert("RGB")
        grey = np.asarray(image.convert("L").resize((SIDE, SIDE)), np.float32)
        image.save(self._folder / path.name)
        return (grey[None] / 255 * 2048 - 1024).astype(np.float32)
