"""Weights from a foreign checkpoint, which a process of its own reads (`checkpoint_worker`).

A hostile file can end that process, or make it compute until its limits do. What it answers is
checked as if an attacker wrote it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from xray_watcher.errors import WeightsError
from xray_watcher.model.architecture import DENSENET121, shapes
from xray_watcher.model.network import BATCH_COUNTER
from xray_watcher.system.worker import describe_exit, start_child

State = dict[str, torch.Tensor]

MAX_BYTES = 512 << 20
"""No checkpoint of these networks comes near it (the published ones have 28 MB)."""

# -P keeps the current folder, which may be a share, off the import path; -B writes no byte code.
WORKER_COMMAND = (sys.executable, "-P", "-B", "-m", "xray_watcher.model.checkpoint_worker")
"""The program of the child; its seconds of processor time follow."""

_SECONDS = 30.0
_START_SECONDS, _WALL_SECONDS = 300.0, 100.0  # to import torch; to read the file and answer
_MAX_LINE, _MAX_DETAIL = 4096, 1000


def read_checkpoint(path: str) -> State:
    """Read the weights of a DenseNet121 with 18 outputs from any of the three forms.

    The forms are a pickle in torch's zip file, torch's legacy pickle, and safetensors.

    Args:
        path: of the file.

    Returns:
        The tensors by name, float32, finite, exactly those of the network.

    Raises:
        WeightsError: the file cannot be read, names what is not allowed, holds another network, or
            takes more time or memory than any checkpoint of this network.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise WeightsError(f"The checkpoint {path} cannot be read ({error.strerror}).") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError(f"The checkpoint {path} cannot be read (it is not a regular file).")
        if status.st_size > MAX_BYTES:
            raise WeightsError(
                f"{path} has {status.st_size} bytes; no checkpoint of this network is so large."
            )
        return _read_by_child(file, path)
    finally:
        os.close(file)


def _read_by_child(file: int, path: str) -> State:
    try:
        process = start_child([*WORKER_COMMAND, str(_SECONDS)], file)
    except OSError as error:
        raise WeightsError(
            f"The checkpoint {path} cannot be read: no process can be started ({error.strerror})."
        ) from error
    with process:
        try:
            answer = _answer(process)
        except TimeoutError:
            raise WeightsError(
                f"{path} is refused: to read it took more than {_WALL_SECONDS:g} s."
            ) from None
        finally:
            process.kill()
    return _state(answer, process.returncode, path)


def _answer(process: subprocess.Popen[bytes]) -> bytes:
    """All that the child says until it ends, or until that is more than it may."""
    assert process.stdout is not None
    until_s = time.monotonic() + _START_SECONDS
    received = bytearray()
    while len(received) <= MAX_BYTES + 2 * _MAX_LINE:
        if not select.select([process.stdout], [], [], max(0.0, until_s - time.monotonic()))[0]:
            raise TimeoutError
        part = os.read(process.stdout.fileno(), 1 << 20)
        if not part:
            process.wait()
            break
        if not received:
            until_s = time.monotonic() + _WALL_SECONDS  # it is ready
        received += part
    return bytes(received)


def _state(answer: bytes, exit_code: int, path: str) -> State:
    ready, _, rest = answer.partition(b"\n")
    if not ready:
        raise WeightsError(
            f"The checkpoint {path} cannot be read: the process for that does not start; its error "
            f"output says why ({describe_exit(exit_code)})."
        )
    head, _, tensors = rest.partition(b"\n")
    line = _line(head)
    try:
        if line.get("status") == "read":
            return check_state(load(tensors))
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from None
    except SafetensorError:
        line = {}
    detail = line.get("detail")
    if isinstance(detail, str) and detail.isprintable() and len(detail) <= _MAX_DETAIL:
        raise WeightsError(f"{path} {detail}")
    raise WeightsError(f"{path} is refused: {_end(exit_code)}")


def _line(head: bytes) -> dict[str, Any]:
    try:
        found = json.loads(head[:_MAX_LINE])
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _end(exit_code: int) -> str:
    if exit_code == -signal.SIGXCPU:
        return f"to read it took more than {_SECONDS:g} s of processor time."
    return f"the process that read it ended without an answer ({describe_exit(exit_code)})."


def check_state(state: State) -> State:
    """The state if it is that of a DenseNet121 with 18 outputs, sound and finite.

    Raises:
        WeightsError: it is another network's, or damaged; the message lacks its subject, which is
            the file.
    """
    expected = shapes(DENSENET121)
    found = {name: tensor for name, tensor in state.items() if not name.endswith(BATCH_COUNTER)}
    odd = sorted(expected.keys() ^ found.keys())
    if odd:
        raise WeightsError(
            f"is of another network: {len(odd)} tensors are missing or too many, "
            f"such as {odd[0][:100]!a}. A DenseNet121 with 18 outputs is needed."
        )
    for name, tensor in found.items():
        if tensor.shape != expected[name] or tensor.dtype != torch.float32:
            raise WeightsError(
                f"is of another network: {name} is {tuple(tensor.shape)} of "
                f"{tensor.dtype}, not {expected[name]} of torch.float32."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"is damaged: {name} holds values that are not numbers.")
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}
