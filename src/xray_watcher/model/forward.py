"""What computes logits, on whatever device and in whatever number format."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Precision = Literal["float32", "bfloat16", "float16"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Forward(Protocol):
    """A network on a device."""

    @property
    def precision(self) -> Precision:
        """The number format of its convolutions."""
        ...

    def __call__(self, pixels: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Logits `[N, outputs]` of float32 `[N, 1, 224, 224]`.

        Raises:
            RuntimeError: the device failed or is out of memory.
        """
        ...
