"""The engine that runs on onnxruntime; torch is not imported. Needs the extra `onnx`."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from xray_watcher.errors import WeightsError
from xray_watcher.model.architecture import SIDE
from xray_watcher.model.engine import EngineRequest
from xray_watcher.model.engine_base import EngineBase
from xray_watcher.model.onnx_store import Exported, export_weights

Floats = NDArray[np.float32]

_AT_ONCE = 4  # images; more need more memory and are not quicker


def load(request: EngineRequest) -> OnnxEngine:
    """Load a network from its ONNX file, which is made when it is missing."""
    return OnnxEngine(export_weights(request.store, request.weights), threads=request.threads)


class OnnxEngine(EngineBase):
    """Scores batches with a network in an ONNX file, on the processor, in float32.

    Args:
        network: a sound file.
        threads: 0 is one per core that this process may use.

    Raises:
        WeightsError: onnxruntime cannot read it.
    """

    def __init__(self, network: Exported, *, threads: int) -> None:
        super().__init__(network.weights, network.sha256)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        # Threads that wait give their core to the decoders, and an idle service uses none.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                network.path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise WeightsError(
                f"onnxruntime {onnxruntime.__version__} cannot load {network.path} "
                f"({type(error).__name__}). Remove the file: it is made anew at the next start."
            ) from error
        self._input = self._session.get_inputs()[0].name
        self.classify(np.zeros((1, 1, SIDE, SIDE), np.float32))  # the first pass is a slow one

    def classify(self, batch: Floats) -> Floats:
        """Score a batch: sigmoids `[N, labels]` of float32 `[N, 1, 224, 224]`.

        Raises:
            RuntimeError: onnxruntime failed, or is out of memory.
        """
        parts = [batch[start : start + _AT_ONCE] for start in range(0, len(batch), _AT_ONCE)]
        logits = np.concatenate([self._logits(part) for part in parts])[:, self._trained]
        with np.errstate(over="ignore"):  # the exponential of a large number is infinite: a 0
            scores: Floats = 1 / (1 + np.exp(-logits))
        return scores

    def _logits(self, batch: Floats) -> Floats:
        try:
            (logits,) = self._session.run(None, {self._input: batch})
        except Exception as error:
            raise RuntimeError(str(error)) from error
        return logits  # type: ignore[no-any-return]
