"""Reads the weights out of a checkpoint without running any code of its sender.

The published checkpoints are pickles of whole modules, and unpickling runs whatever a pickle
names. Here every class that such a file may name becomes an inert `_Part` that only holds
attributes, a few functions that make tensors are allowed by exact name, and every other name is
refused. What comes out is walked as data: no method of a read object is ever called.
"""

from __future__ import annotations

import pickle
import re
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2

from xray_watcher.errors import WeightsError
from xray_watcher.model.architecture import DENSENET121, shapes
from xray_watcher.model.network import BATCH_COUNTER

State = dict[str, torch.Tensor]

MAX_BYTES = 512 << 20
"""No checkpoint of these networks comes near it (the published ones have 28 MB)."""

_ZIP_HEAD, _PICKLE_HEAD = b"PK\x03\x04", b"\x80"
_MAX_DEPTH = 12  # of modules in modules
_IGNORED = "op_threshs"  # operating points are the catalogue's, never the file's


class _Part:
    """Stands for a module of any class: attributes, and nothing that runs."""

    dump_patches = False  # torch asks for it where a legacy file carries its source text


_LIBRARIES = ("torchxrayvision.models", "torchvision.models.densenet")
_PARTS = (
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.pooling.AvgPool2d",
    "torch.nn.modules.pooling.MaxPool2d",
    *(
        f"{library}.{name}"
        for library in _LIBRARIES
        for name in ("DenseNet", "_DenseBlock", "_DenseLayer", "_Transition")
    ),
)
_ALLOWED: Mapping[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    **dict.fromkeys(_PARTS, _Part),
}


class _Refused(pickle.UnpicklingError):
    """A name that is not on the list."""


class _Unpickler(pickle.Unpickler):
    """Knows the names of `_ALLOWED`; storages are made by torch's own subclass of this one."""

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up in the list.

        Raises:
            _Refused: it is not there.
        """
        full_name = f"{module}.{name}"
        if full_name not in _ALLOWED:
            raise _Refused(full_name)
        return _ALLOWED[full_name]


def _load(file: IO[bytes], **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_PICKLE = types.ModuleType("restricted_pickle")
_PICKLE.__dict__.update(Unpickler=_Unpickler, load=_load, UnpicklingError=pickle.UnpicklingError)


def read_checkpoint(path: str) -> State:
    """Read the weights of a DenseNet121 with 18 outputs from any of the three forms.

    The forms are a pickle in torch's zip file, torch's legacy pickle, and safetensors.

    Args:
        path: of the file.

    Returns:
        The tensors by name, float32, finite, exactly those of the network.

    Raises:
        WeightsError: the file cannot be read, names what is not allowed, or holds another
            network.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            size = file.seek(0, 2)
    except OSError as error:
        raise WeightsError(f"The checkpoint {path} cannot be read ({error.strerror}).") from error
    if size > MAX_BYTES:
        raise WeightsError(f"{path} has {size} bytes; no checkpoint of this network is so large.")
    return checked(dict(_entries(_content(path, head), path)), path)


def _content(path: str, head: bytes) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if head.startswith(_ZIP_HEAD):
                return _zip_content(path)
            if head.startswith(_PICKLE_HEAD):
                return torch.load(
                    path, map_location="cpu", weights_only=False, pickle_module=_PICKLE
                )
            if head[8:9] == b"{":
                return load_file(path)
    except _Refused as error:
        raise _refusal(path, str(error)) from None
    except WeightsError:
        raise
    except (SafetensorError, Exception) as error:  # noqa: BLE001 - a made-up file raises anything
        raise _unreadable(path, error) from None
    if head.lstrip().startswith(b"<"):
        raise WeightsError(
            f"{path} is a web page, not a checkpoint: probably a proxy's or a login page."
        )
    raise WeightsError(f"{path} is no checkpoint: neither a torch file nor safetensors.")


def _zip_content(path: str) -> object:
    with zipfile.ZipFile(path) as archive:
        inflated = sum(entry.file_size for entry in archive.infolist())
    if inflated > MAX_BYTES:
        raise WeightsError(f"{path} inflates to {inflated} bytes; no checkpoint is so large.")
    parts: list[Any] = [(_Part, name) for name in _PARTS]
    with torch.serialization.safe_globals(parts):
        return torch.load(path, map_location="cpu", weights_only=True)


_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def _unreadable(path: str, error: Exception) -> WeightsError:
    named = _GLOBAL.search(str(error))
    if isinstance(error, pickle.UnpicklingError) and named:
        return _refusal(path, named[1])
    return WeightsError(f"{path} is damaged or no checkpoint of torch ({type(error).__name__}).")


def _refusal(path: str, name: str) -> WeightsError:
    shown = name if name.isprintable() and len(name) < 200 else "something unprintable"
    return WeightsError(
        f"{path} is refused: it names {shown}, which a checkpoint of this network has no use for. "
        "Nothing of it was run. Do not use this file; fetch the published one."
    )


# -- from what was read to tensors --------------------------------------------------------


def _entries(found: object, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(found, _Part):
        yield from _of_part(found, "", _MAX_DEPTH)
    elif isinstance(found, dict):
        yield from _tensors(found, "")
    else:
        raise WeightsError(f"{path} holds no network but {type(found).__name__}.")


def _of_part(part: object, prefix: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if not isinstance(part, _Part) or depth == 0:
        return
    held = vars(part)
    for kind in ("_parameters", "_buffers"):
        yield from _tensors(held.get(kind), prefix)
    children = held.get("_modules")
    for name, child in children.items() if isinstance(children, dict) else ():
        yield from _of_part(child, f"{prefix}{name}.", depth - 1)


def _tensors(held: object, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in held.items() if isinstance(held, dict) else ():
        if isinstance(value, torch.Tensor) and name != _IGNORED:
            yield f"{prefix}{name}", value.detach()


def checked(state: State, source: str) -> State:
    """The state if it is that of a DenseNet121 with 18 outputs, sound and finite.

    Raises:
        WeightsError: it is another network's, or damaged.
    """
    expected = shapes(DENSENET121)
    found = _without_counters(state)
    odd = sorted(expected.keys() ^ found.keys())
    if odd:
        raise WeightsError(
            f"{source} is of another network: {len(odd)} tensors are missing or too many, "
            f"such as {odd[0][:100]!a}. A DenseNet121 with 18 outputs is needed."
        )
    for name, tensor in found.items():
        if tensor.shape != expected[name] or tensor.dtype != torch.float32:
            raise WeightsError(
                f"{source} is of another network: {name} is {tuple(tensor.shape)} of "
                f"{tensor.dtype}, not {expected[name]} of torch.float32."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{source} is damaged: {name} holds values that are not numbers.")
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def _without_counters(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.endswith(BATCH_COUNTER)}
