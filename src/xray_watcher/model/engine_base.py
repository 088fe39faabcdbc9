"""What every engine says of its network."""

from __future__ import annotations

from xray_watcher.core.catalogue import WeightSet
from xray_watcher.core.values import ModelInfo


class EngineBase:
    """An engine of a set of weights.

    Args:
        weights: the set.
        sha256: of the file that they are from.
    """

    def __init__(self, weights: WeightSet, sha256: str) -> None:
        self._weights = weights
        self._sha256 = sha256
        self._trained = list(weights.trained)

    @property
    def labels(self) -> tuple[str, ...]:
        """The trained labels, in the order of the scores."""
        return self._weights.labels

    @property
    def operating_points(self) -> tuple[float, ...]:
        """The raw score of each label that becomes 0.5."""
        return self._weights.trained_points

    @property
    def info(self) -> ModelInfo:
        """Which network this is."""
        return ModelInfo(self._weights.name, self._sha256, self._precision, self._weights.simulated)

    @property
    def _precision(self) -> str:
        """The number format of its convolutions."""
        return "float32"
