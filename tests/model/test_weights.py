"""`model.weights`: what gets into the store, what comes out of it, and what it says."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from checkpoints import FORMS, library_network, read_in_place, save_zip
from server import serving

from xray_watcher.core.catalogue import PHANTOM, PUBLISHED, WeightSet
from xray_watcher.errors import WeightsError
from xray_watcher.model import weights as module
from xray_watcher.model.weights import WeightStore, phantom_path, read_metadata

NIH = "densenet121-res224-nih"
CHEX = "densenet121-res224-chex"
Save = Callable[[object, Path], Path]


@pytest.fixture(autouse=True)
def _in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Foreign checkpoints are read here; test_checkpoint.py has the process for that."""
    monkeypatch.setattr("xray_watcher.model.checkpoint._read_by_child", read_in_place)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_zip(library_network(), tmp_path_factory.mktemp("checkpoint") / "x.pt")


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(str(tmp_path / "weights"))


def known_as(
    monkeypatch: pytest.MonkeyPatch, name: str, path: Path, **changes: object
) -> WeightSet:
    """Make a published set expect this file."""
    (weights,) = (one for one in PUBLISHED if one.name == name)
    ours = dataclasses.replace(
        weights, sha256=module.hash_file(str(path)), bytes=path.stat().st_size, **changes
    )
    monkeypatch.setattr(module, "PUBLISHED", (ours,))
    return ours


def test_a_published_file_is_fetched_checked_and_stored(
    store: WeightStore, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(checkpoint.read_bytes()) as shop:
        weights = known_as(monkeypatch, CHEX, checkpoint, url=shop.url)
        path = store.fetch(CHEX)
    assert sorted(os.listdir(os.path.dirname(path))) == [
        f"{CHEX}.onnx",
        f"{CHEX}.onnx.json",
        f"{CHEX}.safetensors",
    ]
    metadata = read_metadata(path)
    assert metadata["source"] == shop.url
    assert metadata["source_sha256"] == weights.sha256
    loaded = store.load(CHEX)
    assert loaded.sha256 == weights.sha256
    assert loaded.weight_set.labels == weights.labels
    expected = library_network().state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in loaded.module.state_dict().items())


@pytest.mark.parametrize("save", FORMS.values(), ids=FORMS.keys())
def test_a_file_is_imported_from_both_forms_of_the_library(
    store: WeightStore, save: Save, tmp_path: Path
) -> None:
    store.import_file(NIH, str(save(library_network(), tmp_path / "x.pt")), trust=True)
    store.load(NIH)
    (found,) = (one for one in store.list() if one.name == NIH)
    assert found.state == "installed"


def test_a_file_with_another_hash_is_refused_and_nothing_is_stored(
    store: WeightStore, checkpoint: Path
) -> None:
    with pytest.raises(WeightsError, match="SHA-256"):
        store.import_file(CHEX, str(checkpoint))
    with serving(checkpoint.read_bytes()) as shop, pytest.raises(WeightsError, match="bytes"):
        store.fetch(CHEX, url=shop.url)
    with (
        serving(checkpoint.read_bytes()) as shop,
        pytest.raises(WeightsError, match="SHA-256"),
    ):
        store.fetch(NIH, url=shop.url, sha256="00" * 32)
    assert not [one for one in store.list() if one.path]
    assert os.listdir(os.path.dirname(store.path(CHEX))) == []


def test_a_set_whose_hash_is_unknown_needs_the_hash_or_trust(
    store: WeightStore, checkpoint: Path
) -> None:
    with pytest.raises(WeightsError, match="--sha256"):
        store.import_file(NIH, str(checkpoint))
    store.import_file(NIH, str(checkpoint), sha256=module.hash_file(str(checkpoint)).upper())
    assert store.load(NIH).weight_set.name == NIH


def test_an_unknown_name_is_refused_with_those_that_are_known(store: WeightStore) -> None:
    with pytest.raises(WeightsError, match="densenet121-res224-all"):
        store.fetch("densenet121")


def test_missing_weights_are_said_to_be_so_with_the_three_ways_on(store: WeightStore) -> None:
    with pytest.raises(WeightsError) as raised:
        store.load(CHEX)
    assert raised.value.exit_code == 10
    for way in ("weights fetch", "weights import", 'weights = "phantom"'):
        assert way in str(raised.value)


def test_damage_to_stored_weights_is_found(store: WeightStore, checkpoint: Path) -> None:
    path = Path(store.import_file(NIH, str(checkpoint), trust=True))
    whole = bytearray(path.read_bytes())
    for position in (len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="damaged"):
            store.load(NIH)
    for length in (0, 5, 1000, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="damaged"):
            store.load(NIH)
    (found,) = (one for one in store.list() if one.name == NIH)
    assert found.state == "damaged"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory with less room than the weights need."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets this user mount nothing")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_while_weights_are_written_keeps_nothing_of_them(
    small_disk: Path, checkpoint: Path
) -> None:
    store = WeightStore(str(small_disk / "weights"))
    with pytest.raises(WeightsError, match="No space left"):
        store.import_file(NIH, str(checkpoint), trust=True)
    assert os.listdir(small_disk / "weights") == []
    with (
        serving(checkpoint.read_bytes()) as shop,
        pytest.raises(WeightsError, match="No space left"),
    ):
        store.fetch(NIH, url=shop.url, trust=True)
    assert os.listdir(small_disk / "weights") == []


def test_a_checkpoint_file_can_be_used_in_place_without_importing_it(
    store: WeightStore, checkpoint: Path
) -> None:
    loaded = store.load_file(CHEX, str(checkpoint))
    assert loaded.weight_set.name == CHEX
    assert loaded.sha256 == module.hash_file(str(checkpoint))


def test_listing_names_every_set_and_imports_no_torch(store: WeightStore) -> None:
    names = [one.name for one in store.list()]
    assert len(names) == len(set(names)) == 9
    assert {one.state for one in store.list()} == {"missing", "built in"}


def test_the_built_in_weights_are_those_that_the_catalogue_names(store: WeightStore) -> None:
    store.load(PHANTOM.name)
    metadata = read_metadata(phantom_path())
    assert json.loads(metadata["operating_points"]) == list(PHANTOM.operating_points)
    found = store.load(PHANTOM.name).sha256
    assert found == PHANTOM.sha256, f"after `make phantom` core/catalogue.py needs {found}"
