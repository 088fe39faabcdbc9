"""Checkpoints of the library's own two file forms, with seeded weights: made once for all tests."""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch

from xray_watcher.errors import WeightsError
from xray_watcher.model.checkpoint import State
from xray_watcher.model.checkpoint_worker import read_state
from xray_watcher.model.network import library


@cache
def library_network(seed: int = 0) -> Any:
    """TorchXRayVision's DenseNet121 with seeded weights whose sigmoids are not all 0 or 1."""
    torch.manual_seed(seed)
    network = library().models.DenseNet(weights=None).eval()
    with torch.no_grad():
        network.classifier.weight.mul_(0.01)
        network.classifier.bias.uniform_(-3, 0)
    return network


def save_zip(found: object, path: Path) -> Path:
    torch.save(found, path)
    return path


def save_legacy(found: object, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(found, path, _use_new_zipfile_serialization=False)
    return path


FORMS = {"zip": save_zip, "legacy": save_legacy}


def read_in_place(file: int, path: str) -> State:
    """In the place of `checkpoint._read_by_child`, whose process takes seconds to import torch."""
    try:
        return read_state(os.pread(file, os.fstat(file).st_size, 0))
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from None
