"""The weights of the store as ONNX files.

Such a file is derived from weights that are here, so one that is missing, damaged or of other
weights is made anew, and is never a reason to stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import structlog
from safetensors.numpy import load_file

from xray_watcher.core.catalogue import UNTRAINED, WEIGHT_SETS, WeightSet
from xray_watcher.model.architecture import DENSENET121, Architecture, shapes, state_hash
from xray_watcher.model.onnx_file import Arrays, read_source_hash, what_is_wrong, write_onnx
from xray_watcher.model.weights import WeightStore, hash_file, make_metadata, read_metadata

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Exported:
    """A sound ONNX file, what its outputs mean, and the hash of its checkpoint."""

    path: str
    weights: WeightSet
    sha256: str


def export_weights(store: WeightStore, name: str) -> Exported:
    """The ONNX file of installed or built-in weights; made when it is not there or not sound.

    Raises:
        WeightsError: the weights are not here, or damaged, or the file cannot be written.
    """
    path = store.onnx_path(name)
    wrong = what_is_wrong(path, _load_state_hash(store, name))
    if wrong is not None:
        _log.info(
            "writing the ONNX file of the network", code="onnx_written", weights=name, because=wrong
        )
        write_onnx(path, *_metadata_and_state(store, name))
    return Exported(path, WEIGHT_SETS[name], read_source_hash(path))


def _load_state_hash(store: WeightStore, name: str) -> str | None:
    if name == UNTRAINED.name:
        return None  # torch draws them, the same every time
    store.check_installed(name)
    return read_metadata(store.path(name)).get("state_sha256")


def _metadata_and_state(store: WeightStore, name: str) -> tuple[Mapping[str, str], Arrays]:
    if name == UNTRAINED.name:
        from xray_watcher.model.network import arrays, untrained

        drawn = untrained()
        shape = asdict(DENSENET121)
        metadata = make_metadata(UNTRAINED, "", drawn.sha256, drawn.sha256, shape)
        return metadata, arrays(drawn.state)
    path = store.path(name)
    noted, state = read_metadata(path), load_file(path)
    of_arrays = {tensor: array.shape for tensor, array in state.items()}
    is_whole = of_arrays == shapes(Architecture.from_json(noted["architecture"]))
    if not is_whole or state_hash(state) != noted.get("state_sha256"):
        store.load(name)  # raises, and says what is wrong
    return {"source_sha256": hash_file(path), **noted}, state
