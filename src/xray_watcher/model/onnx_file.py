"""An ONNX file beside the weights, and the note beside that says what it must be."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from numpy.typing import NDArray

from xray_watcher.errors import StorageFailure, WeightsError
from xray_watcher.model.architecture import Architecture
from xray_watcher.system.files import make_folders, read_facts, write_whole

Arrays = Mapping[str, NDArray[Any]]

_KEPT = ("state_sha256", "source_sha256")
_MODE = 0o644


def has_onnx() -> bool:
    """Whether the extra `onnx` is installed."""
    return find_spec("onnx") is not None and find_spec("onnxruntime") is not None


def write_onnx(path: str, metadata: Mapping[str, str], state: Arrays) -> None:
    """Write an ONNX file and its note.

    Args:
        path: of the file.
        metadata: as a file of the store has it.
        state: the tensors by name.

    Raises:
        WeightsError: it cannot be written.
    """
    from xray_watcher.model.onnx_export import onnx_model

    model = onnx_model(Architecture.from_json(metadata["architecture"]), state, metadata)
    note = {"sha256": hashlib.sha256(model).hexdigest(), **{key: metadata[key] for key in _KEPT}}
    try:
        make_folders(os.path.dirname(path))
        write_whole(path, model, _MODE)
        write_whole(_note(path), json.dumps(note).encode() + b"\n", _MODE)
    except (OSError, StorageFailure) as error:
        raise WeightsError(
            f"The network cannot be written to {path} ({error}). Make room or give this user "
            "write permission there."
        ) from error


def read_source_hash(path: str) -> str:
    """Hash of the checkpoint that a sound ONNX file was made from, in hexadecimal."""
    return str(read_facts(_note(path))["source_sha256"])


def what_is_wrong(path: str, state_sha256: str | None) -> str | None:
    """Why an ONNX file cannot be used, or None if it can.

    Args:
        path: of the file.
        state_sha256: hash of the tensors that it must hold; None if any will do.
    """
    note = read_facts(_note(path))
    if not note.keys() >= {"sha256", *_KEPT}:
        return "there was none"
    if state_sha256 not in (None, note["state_sha256"]):
        return "the weights have changed"
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"the one that was there could not be read ({error.strerror})"
    return None if found == note["sha256"] else "the one that was there was damaged"


def _note(path: str) -> str:
    return f"{path}.json"
