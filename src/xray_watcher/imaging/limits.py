"""What a picture may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, cast, get_args

DeepRange = Literal["full", "observed"]


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a picture may be at most and must be at least, and how its values are read.

    Attributes:
        max_bytes: size of the file.
        max_megapixels: millions of pixels; Pillow itself refuses more than 89.
        min_side: shorter side in pixels.
        max_side: longer side in pixels.
        deep_range: what is white in a grey picture of 16 bits: "full" is 65535, "observed" the
            lightest value that is there, and black the darkest.
    """

    max_bytes: int = 67_108_864
    max_megapixels: float = 50.0
    min_side: int = 64
    max_side: int = 12_000
    deep_range: DeepRange = "full"

    def arguments(self) -> tuple[str, ...]:
        """As the arguments of a child process, which `from_arguments` reads."""
        return tuple(str(getattr(self, name)) for name in self.__slots__)

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> Self:
        """What `arguments` wrote.

        Raises:
            ValueError: they are others.
        """
        max_bytes, max_megapixels, min_side, max_side, deep_range = arguments
        if deep_range not in get_args(DeepRange):
            raise ValueError(deep_range)
        return cls(
            int(max_bytes),
            float(max_megapixels),
            int(min_side),
            int(max_side),
            cast(DeepRange, deep_range),
        )
