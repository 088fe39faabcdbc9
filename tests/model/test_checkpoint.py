"""`model.checkpoint`: weights are read from all forms, and nothing of a sender's is ever run."""

from __future__ import annotations

import builtins
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import FORMS, library_network, save_legacy, save_zip
from safetensors.torch import save_file

from xray_watcher.errors import WeightsError
from xray_watcher.model.checkpoint import read_checkpoint
from xray_watcher.model.network import library

BOTH = pytest.mark.parametrize("save", FORMS.values(), ids=FORMS.keys())
Save = Callable[[object, Path], Path]


class Trap:
    """Runs a function with arguments when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


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
    assert "op_threshs" not in read_checkpoint(str(save(network, tmp_path / "x.pt")))


@BOTH
def test_the_tensors_alone_are_taken_too(save: Save, tmp_path: Path) -> None:
    path = save(library_network().state_dict(), tmp_path / "x.pt")
    assert len(read_checkpoint(str(path))) > 600


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
        read_checkpoint(str(path))
    assert not flag.exists()


@BOTH
def test_a_class_of_the_library_that_is_not_on_the_list_is_refused(
    save: Save, tmp_path: Path
) -> None:
    path = save(with_attribute(torch.nn.Dropout()), tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="Dropout"):
        read_checkpoint(str(path))


def test_a_bare_pickle_that_runs_something_is_refused(tmp_path: Path) -> None:
    flag, path = tmp_path / "it-ran", tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(Trap(os.system, f"touch {flag}")))
    with pytest.raises(WeightsError, match="system"):
        read_checkpoint(str(path))
    assert not flag.exists()


@BOTH
def test_another_architecture_is_refused_with_a_tensor_that_tells(
    save: Save, tmp_path: Path
) -> None:
    other = library().models.DenseNet(weights=None, block_config=(6, 12, 32, 32))
    with pytest.raises(WeightsError, match="another network"):
        read_checkpoint(str(save(other, tmp_path / "x.pt")))


def test_fourteen_outputs_are_refused(tmp_path: Path) -> None:
    other = library().models.DenseNet(weights=None, num_classes=14)
    with pytest.raises(WeightsError, match="classifier"):
        read_checkpoint(str(save_zip(other, tmp_path / "x.pt")))


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in library_network().state_dict().items()}
    state["classifier.bias"][3] = torch.nan
    with pytest.raises(WeightsError, match=r"classifier\.bias"):
        read_checkpoint(str(save_zip(state, tmp_path / "x.pt")))


@BOTH
@pytest.mark.parametrize("kept", [0.001, 0.3, 0.99])
def test_a_truncated_file_is_refused(save: Save, kept: float, tmp_path: Path) -> None:
    path = save(library_network(), tmp_path / "x.pt")
    os.truncate(path, int(path.stat().st_size * kept))
    with pytest.raises(WeightsError):
        read_checkpoint(str(path))


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
        read_checkpoint(str(path))


def test_a_zip_that_inflates_without_measure_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(9):
            archive.writestr(f"x/data/{number}", bytes(64 << 20))
    with pytest.raises(WeightsError, match="inflates"):
        read_checkpoint(str(path))


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        read_checkpoint(str(tmp_path / "nowhere.pt"))


def test_hooks_and_methods_that_a_file_brings_are_never_called(tmp_path: Path) -> None:
    network = library().models.DenseNet(weights=None)
    network.__dict__["state_dict"] = torch.nn.ReLU()
    network.__dict__["_modules"]["deep"] = torch.nn.Sequential(torch.nn.ReLU())
    assert len(read_checkpoint(str(save_legacy(network, tmp_path / "x.pt")))) > 600
