"""Writes a DenseNet as an ONNX graph, from its weights alone: torch is not needed for that.

The graph is TorchXRayVision's own, operator for operator, up to the logits; onnxruntime does
its own folding when it loads it. Needs the extra `onnx`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from xray_watcher.core.catalogue import OUTPUTS
from xray_watcher.model.architecture import NORM_EPSILON, SIDE, Architecture

INPUT, OUTPUT = "pixels", "logits"

_IR_VERSION = 8  # with operators of version 17: what onnxruntime 1.14 of 2023 reads, and later ones
_OPERATORS = 17

Arrays = Mapping[str, NDArray[np.float32]]


def onnx_model(architecture: Architecture, state: Arrays, metadata: Mapping[str, str]) -> bytes:
    """The network as the bytes of an ONNX file.

    Args:
        architecture: of the network.
        state: its tensors by name.
        metadata: goes into the file as it is.

    Returns:
        A graph from float32 `[N, 1, 224, 224]` to logits `[N, 18]`.
    """
    graph = _Graph()
    graph.densenet(architecture)
    used = {name for node in graph.nodes for name in node.input} & state.keys()
    made = helper.make_graph(
        graph.nodes,
        "densenet",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", len(OUTPUTS)])],
        [numpy_helper.from_array(state[name], name) for name in sorted(used)],
    )
    model: ModelProto = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", _OPERATORS)], ir_version=_IR_VERSION
    )
    helper.set_model_props(model, dict(sorted(metadata.items())))
    content: bytes = model.SerializeToString()
    return content


class _Graph:
    """Nodes in order; each is named for what it makes."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def densenet(self, architecture: Architecture) -> None:
        features = self._convolution("features.conv0", INPUT, stride=2, padding=3)
        features = self._rectified_norm("features.norm0", features)
        features = self._pool("MaxPool", "features.pool0", features, side=3, padding=1)
        for block, layers in enumerate(architecture.block_config, 1):
            for layer in range(1, layers + 1):
                features = self._layer(f"features.denseblock{block}.denselayer{layer}", features)
            if block < len(architecture.block_config):
                features = self._transition(f"features.transition{block}", features)
        features = self._rectified_norm("features.norm5", features)
        mean = self._add("GlobalAveragePool", "mean", [features])
        flat = self._add("Flatten", "flat", [mean])
        classifier = ["classifier.weight", "classifier.bias"]
        self._add("Gemm", OUTPUT, [flat, *classifier], transB=1)

    def _layer(self, name: str, features: str) -> str:
        squeezed = self._convolution(
            f"{name}.conv1", self._rectified_norm(f"{name}.norm1", features)
        )
        grown = self._convolution(
            f"{name}.conv2", self._rectified_norm(f"{name}.norm2", squeezed), padding=1
        )
        return self._add("Concat", f"{name}.out", [features, grown], axis=1)

    def _transition(self, name: str, features: str) -> str:
        squeezed = self._convolution(f"{name}.conv", self._rectified_norm(f"{name}.norm", features))
        return self._pool("AveragePool", f"{name}.pool", squeezed, side=2, padding=0)

    def _convolution(self, name: str, inputs: str, *, stride: int = 1, padding: int = 0) -> str:
        return self._add(
            "Conv",
            f"{name}.out",
            [inputs, f"{name}.weight"],
            strides=[stride] * 2,
            pads=[padding] * 4,
        )

    def _rectified_norm(self, name: str, features: str) -> str:
        parts = [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        normed = self._add(
            "BatchNormalization", f"{name}.out", [features, *parts], epsilon=NORM_EPSILON
        )
        return self._add("Relu", f"{name}.relu", [normed])

    def _pool(self, kind: str, name: str, features: str, *, side: int, padding: int) -> str:
        return self._add(
            kind,
            f"{name}.out",
            [features],
            kernel_shape=[side] * 2,
            strides=[2, 2],
            pads=[padding] * 4,
        )

    def _add(self, kind: str, output: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output
