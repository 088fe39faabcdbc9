"""Meets torch. Import its modules late: torch and torchxrayvision together cost seconds."""

import os

# Torch reads it once, at its first allocation: buffers in huge pages save a tenth of the time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
