"""`model.checkpoint`: weights are read from all forms, and nothing of a sender's is ever run."""

from __future__ import annotations

import builtins
import os
import pickle
import signal
import struct
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import FORMS, library_network, save_legacy, save_zip
from safetensors.torch import save_file

from xray_watcher.errors import WeightsError
from xray_watcher.model import checkpoint, checkpoint_worker
from xray_watcher.model.checkpoint import State, read_checkpoint
from xray_watcher.model.network import library

BOTH = pytest.mark.parametrize("save", FORMS.values(), ids=FORMS.keys())
Save = Callable[[object, Path], Path]


class Trap:
    """Runs a function with arguments when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def read_here(path: str) -> State:
    """As the child reads it, in this process: torch takes seconds to import."""
    return checkpoint_worker.read_state(Path(path).read_bytes())


def with_attribute(value: object) -> Any:
    """A module with one more thing in it."""
    network = torch.nn.Sequential()
    network.extra = value
    return network


@BOTH
def test_a_whole_module_gives_its_tensors(save: Save, tmp_path: Path) -> None:
    network = library_network()
    state = read_checkpoint(str(save(network, tmp_path / "x.pt")))
    expected = network.state_dict()
    assert dict.fromkeys(state, True) == {
        name: torch.equal(state[name], expected[name])
        for name in expected
        if not name.endswith("num_batches_tracked")
    }


@BOTH
def test_a_module_with_operating_points_of_its_own_gives_the_same_tensors(
    save: Save, tmp_path: Path
) -> None:
    network = library().models.DenseNet(weights=None, op_threshs=torch.rand(18))
    assert "op_threshs" not in read_here(str(save(network, tmp_path / "x.pt")))


@BOTH
def test_the_tensors_alone_are_taken_too(save: Save, tmp_path: Path) -> None:
    path = save(library_network().state_dict(), tmp_path / "x.pt")
    assert len(read_here(str(path))) > 600


def test_safetensors_are_taken_too(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({k: v.contiguous() for k, v in library_network().state_dict().items()}, path)
    assert len(read_checkpoint(str(path))) > 600


@BOTH
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "posix.system"),
        (eval, "eval"),
        (exec, "exec"),
        (builtins.__import__, "__import__"),
        (getattr, "getattr"),
        (open, "open"),
    ],
)
def test_a_name_with_no_business_in_a_checkpoint_is_refused_and_nothing_is_run(
    save: Save, function: Any, name: str, tmp_path: Path
) -> None:
    flag = tmp_path / "it-ran"
    argument = f"touch {flag}" if function is os.system else f"open({str(flag)!r}, 'w')"
    trap = Trap(function, argument) if function is not open else Trap(open, str(flag), "w")
    path = save(with_attribute(trap), tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=name):
        read_here(str(path))
    assert not flag.exists()


@BOTH
def test_a_class_of_the_library_that_is_not_on_the_list_is_refused(
    save: Save, tmp_path: Path
) -> None:
    path = save(with_attribute(torch.nn.Dropout()), tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="Dropout"):
        read_here(str(path))


def test_a_bare_pickle_that_runs_something_is_refused(tmp_path: Path) -> None:
    flag, path = tmp_path / "it-ran", tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(Trap(os.system, f"touch {flag}")))
    with pytest.raises(WeightsError, match="system"):
        read_here(str(path))
    assert not flag.exists()


@BOTH
def test_another_architecture_is_refused_with_a_tensor_that_tells(
    save: Save, tmp_path: Path
) -> None:
    other = library().models.DenseNet(weights=None, block_config=(6, 12, 32, 32))
    with pytest.raises(WeightsError, match="another network"):
        read_here(str(save(other, tmp_path / "x.pt")))


def test_fourteen_outputs_are_refused(tmp_path: Path) -> None:
    other = library().models.DenseNet(weights=None, num_classes=14)
    with pytest.raises(WeightsError, match="classifier"):
        read_here(str(save_zip(other, tmp_path / "x.pt")))


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in library_network().state_dict().items()}
    state["classifier.bias"][3] = torch.nan
    with pytest.raises(WeightsError, match=r"classifier\.bias"):
        read_here(str(save_zip(state, tmp_path / "x.pt")))


@BOTH
@pytest.mark.parametrize("kept", [0.001, 0.3, 0.99])
def test_a_truncated_file_is_refused(save: Save, kept: float, tmp_path: Path) -> None:
    path = save(library_network(), tmp_path / "x.pt")
    os.truncate(path, int(path.stat().st_size * kept))
    with pytest.raises(WeightsError):
        read_here(str(path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no checkpoint"),
        (b"<!DOCTYPE html><html>Please log in</html>", "web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "no checkpoint"),
        (b"PK\x03\x04" + bytes(100), "damaged"),
        (b"\x80\x02" + b"\xff" * 100, "damaged"),
        ((50).to_bytes(8, "little") + b"{" + b"x" * 100, "damaged"),
    ],
)
def test_a_file_that_is_something_else_is_refused(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said):
        read_here(str(path))


def test_a_zip_that_inflates_without_measure_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(9):
            archive.writestr(f"x/data/{number}", bytes(64 << 20))
    with pytest.raises(WeightsError, match="inflates"):
        read_here(str(path))


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        read_checkpoint(str(tmp_path / "nowhere.pt"))


def test_hooks_and_methods_that_a_file_brings_are_never_called(tmp_path: Path) -> None:
    network = library().models.DenseNet(weights=None)
    network.__dict__["state_dict"] = torch.nn.ReLU()
    network.__dict__["_modules"]["deep"] = torch.nn.Sequential(torch.nn.ReLU())
    assert len(read_here(str(save_legacy(network, tmp_path / "x.pt")))) > 600


# -- what only ends with a process ------------------------------------------------------------

# Pickles in torch's legacy form that name only what is allowed.
PART = b"ctorch.nn.modules.container\nSequential\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
PAIRS = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60))


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content.encode()


NESTED = {  # each twice the one before: to hash it takes 2 ** 60 steps, in C
    "in a set": b"\x80\x02" + PAIRS + b"c__builtin__\nset\n(]h\x3catR.",
    "as a key": b"\x80\x02" + PAIRS + b"}h\x3cNs.",
}
HELD = b"".join(text(name) + b"h\x01" for name in "abcdefgh")
HOLDS_ITSELF = b"\x80\x02" + PART + b")\x81q\x01}" + text("_modules") + b"}(" + HELD + b"usb."
SETS_ATTRIBUTES = (
    b"\x80\x02" + REBUILD + b"N}" + text("__defaults__") + b"(NNNts\x86b0"
    + PART + b"N}" + text("__call__") + b"c__builtin__\nset\ns\x86b0}."
)  # fmt: skip


def zipped(pickled: bytes, path: Path) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/version", "3\n")
    return str(path)


def legacy(pickled: bytes, path: Path) -> str:
    start = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001})
    path.write_bytes(b"".join(pickle.dumps(each, 2) for each in start) + pickled)
    return str(path)


@pytest.mark.parametrize(
    ("form", "pickled"),
    [
        (zipped, NESTED["in a set"]),
        (legacy, NESTED["as a key"]),
        (zipped, HOLDS_ITSELF),
    ],
    ids=["a set in a zip", "a key in the legacy form", "a module that holds itself"],
)
def test_what_would_compute_for_ever_is_refused_in_a_sentence(
    form: Callable[[bytes, Path], str],
    pickled: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint, "_SECONDS", 1.0)
    with pytest.raises(WeightsError, match="took more than 1 s of processor time"):
        read_checkpoint(form(pickled, tmp_path / "x.pt"))


def test_a_file_that_sets_attributes_of_what_is_allowed_leaves_no_trace_here(
    tmp_path: Path,
) -> None:
    before = torch._utils._rebuild_tensor_v2.__defaults__  # type: ignore[attr-defined]
    with pytest.raises(WeightsError):
        read_checkpoint(legacy(SETS_ATTRIBUTES, tmp_path / "x.pt"))
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before  # type: ignore[attr-defined]
    assert "__call__" not in vars(checkpoint_worker._ModuleStub)


# Stand-ins for the child's program.
READY = 'import os, sys, time\nos.write(1, b\'{"status": "ready"}\\n\')\n'


def stand_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    command = (sys.executable, "-c", "\n".join((READY, *lines)))
    monkeypatch.setattr(checkpoint, "WORKER_COMMAND", command)


def test_ctrl_c_ends_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "time.sleep(60)")
    began_s = time.monotonic()
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        read_checkpoint(legacy(HOLDS_ITSELF, tmp_path / "x.pt"))
    assert time.monotonic() - began_s < 20


READ = 'os.write(1, b\'{"status": "read"}\\n\')'


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("os.abort()",), "SIGABRT"),
        (("sys.exit(3)",), "exit status 3"),
        ((READ, "os.write(1, b'nonsense')"), "without an answer"),
        ((READ, "os.write(1, bytes(8) + b'{}')"), "without an answer"),
        ((READ, "os.write(1, (2).to_bytes(8, 'little') + b'{}')"), "another network"),
        (("os.write(1, b'[' * 5000)",), "without an answer"),
        (("os.write(1, b'[]\\n')",), "without an answer"),
        (('os.write(1, b\'{"status": "refused", "detail": "\\\\u001b[31m"}\')',), "without"),
        (("time.sleep(60)",), "took more than 2 s"),
        ((READ, "while True: os.write(1, bytes(1 << 20))"), "without an answer"),
    ],
)
def test_what_a_child_that_was_taken_over_answers_is_not_trusted(
    lines: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, *lines)
    monkeypatch.setattr(checkpoint, "_WALL_SECONDS", 2.0)
    monkeypatch.setattr(checkpoint, "MAX_BYTES", 1 << 20)
    with pytest.raises(WeightsError, match=said) as raised:
        read_checkpoint(legacy(HOLDS_ITSELF, tmp_path / "x.pt"))
    assert str(raised.value).isprintable()


def test_a_child_that_does_not_start_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "WORKER_COMMAND", ("/no/such/program",))
    with pytest.raises(WeightsError, match="no process can be started"):
        read_checkpoint(legacy(HOLDS_ITSELF, tmp_path / "x.pt"))
    monkeypatch.setattr(checkpoint, "WORKER_COMMAND", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(WeightsError, match=r"does not start.*exit status 3"):
        read_checkpoint(legacy(HOLDS_ITSELF, tmp_path / "x.pt"))


def test_a_pipe_in_the_place_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="not a regular file"):
        read_checkpoint(str(tmp_path / "x.pt"))
