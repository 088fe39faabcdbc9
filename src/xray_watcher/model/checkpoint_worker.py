"""The child process that reads foreign checkpoints, without running any code of their sender.

Started by `checkpoint.read_checkpoint` as `python -m xray_watcher.model.checkpoint_worker SECONDS`,
with the open file as its standard input. On its standard output go "ready", once all but reading
and answering is given up (`system.sandbox`), and an answer; each is one line of JSON with a
`status`. After "read" the tensors follow as safetensors, to the end.

    read                          and the tensors
    refused detail                the file's fault; the sentence's subject, the file, is left out
    failed detail                 this program's fault

The published checkpoints are pickles of whole modules, and unpickling runs whatever a pickle
names. Here every class that such a file may name becomes an inert `_ModuleStub` that only holds
attributes, a few functions that make tensors are allowed by exact name, and every other name is
refused. What comes out is walked as data: no method of a read object is ever called. What a pickle
does all the same, such as to hash what is nested a thousand times, or to set attributes of what is
allowed, ends with this process.
"""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import re
import resource
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2

from xray_watcher.errors import WeightsError
from xray_watcher.model.checkpoint import MAX_BYTES, State, check_state
from xray_watcher.system.sandbox import ANSWERS, REQUESTS, LateImportError
from xray_watcher.system.worker import confine, read_up_to

_MEMORY_BYTES = 3 * MAX_BYTES + (256 << 20)  # the file, its tensors and the answer
_NICENESS = 0  # somebody waits for it

_ZIP_HEAD, _PICKLE_HEAD = b"PK\x03\x04", b"\x80"
_MAX_DEPTH = 12  # of modules in modules
_IGNORED = "op_threshs"  # operating points are the catalogue's, never the file's


class _ModuleStub:
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
    **dict.fromkeys(_PARTS, _ModuleStub),
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


def read_state(data: bytes) -> State:
    """The weights of a DenseNet121 with 18 outputs in any of the three forms.

    The forms are a pickle in torch's zip file, torch's legacy pickle, and safetensors.

    Args:
        data: the content of the file.

    Returns:
        The tensors by name, float32, finite, exactly those of the network.

    Raises:
        WeightsError: the file names what is not allowed, or holds another network; the message
            lacks its subject, which is the file.
    """
    return check_state(dict(_entries(_content(data))))


def _content(data: bytes) -> object:
    head = data[:16]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if head.startswith(_ZIP_HEAD):
                return _zip_content(data)
            if head.startswith(_PICKLE_HEAD):
                return torch.load(
                    io.BytesIO(data), map_location="cpu", weights_only=False, pickle_module=_PICKLE
                )
            if head[8:9] == b"{":
                return load_safetensors(data)
    except _Refused as error:
        raise _refusal(str(error)) from None
    except WeightsError:
        raise
    except (SafetensorError, Exception) as error:  # noqa: BLE001 - a made-up file raises anything
        raise _unreadable(error) from None
    if head.lstrip().startswith(b"<"):
        raise WeightsError("is a web page, not a checkpoint: probably a proxy's or a login page.")
    raise WeightsError("is no checkpoint: neither a torch file nor safetensors.")


def _zip_content(data: bytes) -> object:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        inflated = sum(entry.file_size for entry in archive.infolist())
    if inflated > MAX_BYTES:
        raise WeightsError(f"inflates to {inflated} bytes; no checkpoint is so large.")
    parts: list[Any] = [(_ModuleStub, name) for name in _PARTS]
    with torch.serialization.safe_globals(parts):
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def _unreadable(error: Exception) -> WeightsError:
    named = _GLOBAL.search(str(error))
    if isinstance(error, pickle.UnpicklingError) and named:
        return _refusal(named[1])
    return WeightsError(f"is damaged or no checkpoint of torch ({type(error).__name__}).")


def _refusal(name: str) -> WeightsError:
    shown = name if name.isprintable() and len(name) < 200 else "something unprintable"
    return WeightsError(
        f"is refused: it names {shown}, which a checkpoint of this network has no use for. "
        "Nothing of it was run. Do not use this file; fetch the published one."
    )


# -- from what was read to tensors --------------------------------------------------------


def _entries(found: object) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(found, _ModuleStub):
        yield from _of_part(found, "", _MAX_DEPTH)
    elif isinstance(found, dict):
        yield from _tensors(found, "")
    else:
        raise WeightsError(f"holds no network but {type(found).__name__}.")


def _of_part(part: object, prefix: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if not isinstance(part, _ModuleStub) or depth == 0:
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


# -- the process --------------------------------------------------------------------------


def main(seconds: float) -> None:
    """Read one file, answer and end.

    Args:
        seconds: processor time for the file, what it takes to start left out.
    """
    _import_the_rest()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = math.ceil(usage.ru_utime + usage.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (until, until + 5))  # SIGXCPU, and then SIGKILL
    confine(_own_memory() + _MEMORY_BYTES, _NICENESS)
    _answer(status="ready")
    try:
        state = read_state(read_up_to(REQUESTS, MAX_BYTES + 1))
    except WeightsError as error:
        _answer(status="refused", detail=str(error))
    except (MemoryError, RecursionError) as error:
        _answer(status="refused", detail=str(_unreadable(error)))
    except LateImportError as error:
        _answer(status="failed", detail=f"imports {error} too late")
    else:
        _answer(status="read")
        _write(save(state))


def _import_the_rest() -> None:
    """Torch and its kin import much when it is first asked for: read and write one of each form."""
    state = {"w": torch.zeros(1)}
    zipped, legacy = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(state, zipped)
        torch.save(state, legacy, _use_new_zipfile_serialization=False)
    for data in (zipped.getvalue(), legacy.getvalue(), save(state)):
        _content(data)
    for name in _IMPORTED_LATER:
        import_module(name)


_IMPORTED_LATER = ("encodings.cp437", "linecache", "tracemalloc")


def _own_memory() -> int:
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def _answer(**line: str) -> None:
    _write(json.dumps(line).encode() + b"\n")


def _write(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(ANSWERS, rest) :]


if __name__ == "__main__":
    main(float(sys.argv[1]))
