"""The real service with a network that costs nothing: all but the forward pass is real.

python tests/storms/stub_service.py run --config FILE
"""

from __future__ import annotations

import os
import time

import numpy as np
from numpy.typing import NDArray

from xray_watcher.cli.main import main
from xray_watcher.core.catalogue import UNTRAINED
from xray_watcher.core.values import ModelInfo
from xray_watcher.model.engine import Engine
from xray_watcher.service import network

WAITS_FOR = os.environ.get("XRAY_STUB_WAITS_FOR", "")
"""Path of a file before which nothing is scored, for tests of what happens meanwhile."""


class StubEngine:
    """Scores an image by its own pixels, so that every image has a result of its own."""

    labels = UNTRAINED.labels
    operating_points = UNTRAINED.trained_points
    info = ModelInfo("untrained", "00" * 32, "float32", simulated=True)

    def classify(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Means of as many strips of the image as there are labels, scaled to 0..1."""
        while WAITS_FOR and not os.path.exists(WAITS_FOR):
            time.sleep(0.05)
        strips = np.array_split(batch.reshape(len(batch), -1), len(self.labels), axis=1)
        means = np.stack([strip.mean(axis=1) for strip in strips], axis=1)
        scores: NDArray[np.float32] = np.clip(means / 2048 + 0.5, 0, 1).astype(np.float32)
        return scores


def stub(*_args: object, **_options: object) -> Engine:
    return StubEngine()


if __name__ == "__main__":
    network.load_engine = stub
    main()
