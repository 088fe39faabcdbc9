"""`model.onnx_*`: the engine without torch, and the files that it reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoints import library_network, read_in_place, save_zip
from networks import SMALL, as_if_trained

from xray_watcher.core.catalogue import PUBLISHED, WEIGHT_SETS
from xray_watcher.errors import UsageError, WeightsError
from xray_watcher.model import engine as engine_module
from xray_watcher.model.engine import Engine, load_engine
from xray_watcher.model.onnx_engine import OnnxEngine
from xray_watcher.model.onnx_export import onnx_model
from xray_watcher.model.onnx_store import Exported, export_weights
from xray_watcher.model.weights import WeightStore, read_metadata

NIH = "densenet121-res224-nih"
PIXELS = np.random.default_rng(4).uniform(-1024, 1024, (6, 1, 224, 224)).astype(np.float32)


@pytest.fixture(autouse=True)
def _in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Foreign checkpoints are read here; test_checkpoint.py has the process for that."""
    monkeypatch.setattr("xray_watcher.model.checkpoint._read_by_child", read_in_place)


def load(name: str, folder: Path | str, kind: str = "onnx") -> Engine:
    return load_engine(name, "", str(folder), kind=kind, threads=1, device="auto", precision="auto")


def import_nih(folder: Path, seed: int = 0) -> WeightStore:
    store = WeightStore(str(folder / "weights"))
    file = save_zip(library_network(seed), folder / f"{seed}.pt")
    store.import_file(NIH, str(file), trust=True)
    return store


@pytest.mark.parametrize(("seed", "weights"), [*enumerate(PUBLISHED)])
def test_the_graph_gives_the_logits_of_the_library_s_network_for_every_set(
    seed: int, weights: object
) -> None:
    torch.set_num_threads(1)
    network = as_if_trained(weights, seed=seed)  # type: ignore[arg-type]
    arrays = {name: tensor.numpy() for name, tensor in network.state.items()}
    session = onnxruntime.InferenceSession(onnx_model(network.architecture, arrays, {}))
    (found,) = session.run(None, {"pixels": PIXELS[:2]})
    with torch.inference_mode():
        expected = network.module(torch.from_numpy(PIXELS[:2]))
    assert np.abs(found - expected.numpy()).max() < 1e-4


@pytest.mark.parametrize("name", ["phantom", "untrained"])
def test_what_is_built_in_is_exported_when_it_is_first_needed(name: str, tmp_path: Path) -> None:
    found, expected = load(name, tmp_path), load(name, tmp_path, "torch")
    assert (tmp_path / f"{name}.onnx").exists()
    assert np.abs(found.classify(PIXELS) - expected.classify(PIXELS)).max() < 1e-4
    assert found.info == expected.info
    assert found.labels == expected.labels
    assert found.operating_points == expected.operating_points


def test_an_import_exports_too_and_a_start_reads_what_lies_there(tmp_path: Path) -> None:
    store = import_nih(tmp_path)
    path = Path(store.onnx_path(NIH))
    written = path.stat().st_mtime_ns
    engine, expected = load(NIH, path.parent), load(NIH, path.parent, "torch")
    assert path.stat().st_mtime_ns == written
    assert engine.info == expected.info
    assert np.abs(engine.classify(PIXELS) - expected.classify(PIXELS)).max() < 1e-4
    meta = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert meta == dict(read_metadata(store.path(NIH)))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove_note(path: Path) -> None:
    Path(f"{path}.json").unlink()


@pytest.mark.parametrize("harm", [damage, os.unlink, remove_note])
def test_a_file_that_is_not_as_it_was_written_is_made_anew(harm: object, tmp_path: Path) -> None:
    expected = load("phantom", tmp_path).classify(PIXELS[:1])
    path = tmp_path / "phantom.onnx"
    sound = path.read_bytes()
    harm(path)  # type: ignore[operator]
    assert np.array_equal(load("phantom", tmp_path).classify(PIXELS[:1]), expected)
    assert path.read_bytes() == sound


def test_a_file_of_earlier_weights_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = import_nih(tmp_path)
    earlier = Path(store.onnx_path(NIH)).read_bytes()
    with monkeypatch.context() as patch:  # as when the extra is not there at the second import
        patch.setattr("xray_watcher.model.weights.has_onnx", lambda: False)
        import_nih(tmp_path, seed=1)
    assert Path(store.onnx_path(NIH)).read_bytes() == earlier
    found = export_weights(store, NIH)
    assert Path(found.path).read_bytes() != earlier
    assert found.sha256 == store.load(NIH).sha256


def test_damaged_weights_are_not_exported(tmp_path: Path) -> None:
    store = import_nih(tmp_path)
    os.unlink(store.onnx_path(NIH))
    damage(Path(store.path(NIH)))
    with pytest.raises(WeightsError, match="damaged"):
        export_weights(store, NIH)


def test_what_onnxruntime_cannot_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(WeightsError, match=f"cannot load {path}"):
        OnnxEngine(Exported(str(path), WEIGHT_SETS["untrained"], ""), threads=1)


def test_a_failure_of_onnxruntime_is_one_of_the_network(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        load("phantom", tmp_path).classify(PIXELS[:, :, :100])


def test_a_score_whose_logit_is_extreme_is_zero_or_one(tmp_path: Path) -> None:
    network = as_if_trained(architecture=SMALL)
    network.state["classifier.bias"].mul_(1e4)
    arrays = {name: tensor.numpy() for name, tensor in network.state.items()}
    path = tmp_path / "x.onnx"
    path.write_bytes(onnx_model(SMALL, arrays, {}))
    engine = OnnxEngine(Exported(str(path), network.weight_set, ""), threads=1)
    assert set(engine.classify(PIXELS[:1]).ravel().tolist()) == {0.0, 1.0}


def test_without_the_extra_the_message_has_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r'pip install "xray-watcher\[onnx\]"') as raised:
        load("phantom", tmp_path)
    assert raised.value.exit_code == 2


def test_it_runs_without_torch_and_once_exported_without_onnx(tmp_path: Path) -> None:
    load("phantom", tmp_path)
    code = (
        "import sys, json\n"
        "from xray_watcher.model.engine import load_engine\n"
        f"load_engine('phantom', '', {str(tmp_path)!r}, kind='onnx', threads=1, device='auto',"
        " precision='auto')\n"
        "print(json.dumps([name in sys.modules for name in ('torch', 'onnx', 'onnxruntime')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [False, False, True]
