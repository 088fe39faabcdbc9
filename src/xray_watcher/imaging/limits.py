"""What a picture may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, cast, get_args

from xray_watcher.errors import UnreadableImage

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

    def check_size(self, width: int, height: int, frames: int = 1) -> None:
        """Refuse several pictures in a file, and what is too large or too small.

        Args:
            width: in pixels.
            height: likewise.
            frames: how many pictures there are.

        Raises:
            UnreadableImage: the picture is refused.
        """
        if frames != 1:
            raise UnreadableImage("multiple_frames", f"The file holds {frames} pictures, not one.")
        size = f"The picture has {width} x {height} pixels"
        if max(width, height) > self.max_side:
            raise UnreadableImage("too_large", f"{size}; the limit is {self.max_side} a side.")
        if width * height > self.max_megapixels * 1e6:
            raise UnreadableImage(
                "too_large", f"{size}; the limit is {self.max_megapixels:g} million."
            )
        if min(width, height) < self.min_side:
            raise UnreadableImage(
                "too_small", f"{size}; at least {self.min_side} a side are needed."
            )
