"""The store of weights on this machine: fetched or imported once, then only read.

What lies here is safetensors with its meaning in the metadata; nothing is ever unpickled again.
Importing this module does not import torch, so that `weights list` is quick.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from xray_watcher.core.catalogue import (
    OUTPUTS,
    PHANTOM,
    PUBLISHED,
    UNTRAINED,
    WEIGHT_SETS,
    WeightSet,
)
from xray_watcher.errors import StorageFailure, WeightsError
from xray_watcher.model.architecture import DENSENET121, Architecture, shapes, state_hash
from xray_watcher.model.download import Progress, download
from xray_watcher.model.onnx_file import has_onnx, write_onnx
from xray_watcher.system.files import make_folders, write_whole

if TYPE_CHECKING:
    from xray_watcher.model.network import LoadedNetwork

FORMAT = "xray-watcher/1"
"""What the metadata's `format` says of files of this kind."""

_BUILT_IN = frozenset({PHANTOM.name, UNTRAINED.name})
_NEEDED = frozenset({"name", "operating_points", "architecture"})
_FILE_MODE = 0o644
_FOLDER_MODE = 0o750


@dataclass(frozen=True, slots=True)
class Installed:
    """What is known of one weight set on this machine.

    Attributes:
        name: of the weight set.
        state: "installed", "missing", "built in" or "damaged".
        labels: its trained labels.
        source: where its checkpoint is published.
        sha256: of that checkpoint, if it is installed or known.
        path: of the file here, if it is installed.
    """

    name: str
    state: str
    labels: tuple[str, ...]
    source: str
    sha256: str | None
    path: str | None


class WeightStore:
    """The weights in one folder.

    Args:
        folder: made when something is stored.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def path(self, name: str) -> str:
        """Where a set lies, or would."""
        if name == PHANTOM.name:
            return phantom_path()
        return os.path.join(self._folder, f"{name}.safetensors")

    def onnx_path(self, name: str) -> str:
        """Where a set lies as an ONNX file, or would."""
        return os.path.join(self._folder, f"{name}.onnx")

    def list(self) -> list[Installed]:
        """Every set that can be named, whether it is here or not."""
        return [self._described(weights) for weights in WEIGHT_SETS.values()]

    def _described(self, weights: WeightSet) -> Installed:
        state, sha256, path = "missing", weights.sha256, None
        if weights not in PUBLISHED:
            state = "built in"
        elif os.path.exists(self.path(weights.name)):
            path = self.path(weights.name)
            try:
                state, sha256 = "installed", read_metadata(path).get("source_sha256")
            except WeightsError:
                state = "damaged"
        return Installed(weights.name, state, weights.labels, weights.url, sha256, path)

    # -- putting in -----------------------------------------------------------------------

    def fetch(
        self,
        name: str,
        *,
        url: str | None = None,
        sha256: str | None = None,
        trust: bool = False,
        progress: Progress | None = None,
    ) -> str:
        """Download a published checkpoint, check it and store its weights.

        Args:
            name: of the weight set.
            url: another place that has the same file, such as a mirror.
            sha256: of the file, for sets whose hash is not known here.
            trust: take a file whose hash is not known.
            progress: called with the bytes that are there, and the bytes in all if known.

        Returns:
            The path of the stored weights.

        Raises:
            WeightsError: the file cannot be had, or is not what it should be; what is wrong
                is removed, and a download that was cut is kept to be gone on with.
        """
        weights = _published(name)
        expected = _expected_hash(weights, sha256, trust=trust)
        part = self.path(name) + ".part"
        _make_folder(self._folder)
        source = url or weights.url
        size = weights.bytes if sha256 is None else None
        download(source, part, expected_bytes=size, progress=progress)
        try:
            self._store(weights, part, source, expected)
        finally:
            with suppress(OSError):
                os.unlink(part)
        return self.path(name)

    def import_file(
        self, name: str, file: str, *, sha256: str | None = None, trust: bool = False
    ) -> str:
        """Check a checkpoint file and store its weights; the file itself stays as it is.

        Args:
            name: of the weight set that it belongs to.
            file: in any of the three forms.
            sha256: of the file, for sets whose hash is not known here.
            trust: take a file whose hash is not known, or is not the published one.

        Returns:
            The path of the stored weights.

        Raises:
            WeightsError: the file is not what it should be; nothing is stored.
        """
        weights = _published(name)
        _make_folder(self._folder)
        expected = _expected_hash(weights, sha256, trust=trust)
        self._store(weights, file, os.path.abspath(file), None if trust else expected)
        return self.path(name)

    def _store(self, weights: WeightSet, file: str, source: str, expected: str | None) -> None:
        from safetensors.torch import save

        from xray_watcher.model.checkpoint import read_checkpoint
        from xray_watcher.model.network import arrays

        found = hash_file(file)
        if expected is not None and found != expected:
            raise WeightsError(
                f"{source} is not the file that {weights.name} names: its SHA-256 is {found}, not "
                f"{expected}. It was not used. If it is weights of your own for these labels, name "
                "it in model.weights_file instead."
            )
        state = read_checkpoint(file)
        metadata = make_metadata(
            weights, source, found, state_hash(arrays(state)), asdict(DENSENET121)
        )
        try:
            write_whole(self.path(weights.name), save(state, metadata), _FILE_MODE)
        except (OSError, StorageFailure) as error:
            raise WeightsError(
                f"The weights cannot be written to {self._folder} ({error}). Make room or give "
                "this user write permission there; nothing was left behind."
            ) from error
        if has_onnx():
            write_onnx(self.onnx_path(weights.name), metadata, arrays(state))

    # -- taking out -----------------------------------------------------------------------

    def load(self, name: str) -> LoadedNetwork:
        """Load installed or built-in weights, checked against the hash that was noted with them.

        Raises:
            WeightsError: they are not installed, or damaged; the message says what to do.
        """
        if name == PHANTOM.name:
            return _loaded(PHANTOM, self.path(name))
        self.check_installed(name)
        return _loaded(_published(name), self.path(name))

    def check_installed(self, name: str) -> None:
        """See whether weights are here, without importing torch.

        Raises:
            WeightsError: they are not; the message says what to do.
        """
        if name in _BUILT_IN or os.path.exists(self.path(name)):
            return
        raise WeightsError(
            f"The weights {name} are not installed in {self._folder}. There are three ways on: "
            f"`xray-watcher weights fetch {name}` downloads them; on a server without internet "
            f"`xray-watcher weights import FILE --name {name}` takes a file that you bring; and "
            '`weights = "phantom"` in [model] runs the built-in simulation, which means nothing '
            "on patients."
        )

    def load_file(self, name: str, file: str) -> LoadedNetwork:
        """The network with the weights of a checkpoint file, labelled as the named set.

        Raises:
            WeightsError: the file is not a checkpoint of this network.
        """
        from xray_watcher.model.checkpoint import read_checkpoint
        from xray_watcher.model.network import LoadedNetwork

        return LoadedNetwork(DENSENET121, read_checkpoint(file), WEIGHT_SETS[name], hash_file(file))


def phantom_path() -> str:
    """Where the built-in weights of the phantom network lie."""
    return str(files("xray_watcher.model") / "data" / "phantom.safetensors")


def read_metadata(path: str) -> Mapping[str, str]:
    """What a file of this store says of itself.

    Raises:
        WeightsError: it cannot be read, or is of another kind.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)) from error
    if metadata.get("format") != FORMAT or not metadata.keys() >= _NEEDED:
        raise _damaged(path, "it does not say what it is")
    return metadata


def make_metadata(
    weights: WeightSet, source: str, source_sha256: str, state_sha256: str, shape: dict[str, Any]
) -> dict[str, str]:
    """What a file of this store says of itself: texts, lists as JSON.

    Args:
        weights: what the 18 outputs mean.
        source: where the checkpoint is from.
        source_sha256: hash of the checkpoint.
        state_sha256: hash of the tensors.
        shape: the fields of the `Architecture`.
    """
    points = weights.operating_points
    return {
        "format": FORMAT,
        "name": weights.name,
        "labels": json.dumps(
            [label if p is not None else "" for label, p in zip(OUTPUTS, points, strict=True)]
        ),
        "operating_points": json.dumps(points),
        "architecture": json.dumps(shape),
        "source": source,
        "source_sha256": source_sha256,
        "state_sha256": state_sha256,
    }


def _loaded(weights: WeightSet, path: str) -> LoadedNetwork:
    """The network of a file of this store, if that is still as it was written."""
    from safetensors.torch import load_file

    from xray_watcher.model.network import LoadedNetwork, arrays

    metadata = read_metadata(path)
    file_hash = hash_file(path)
    try:
        architecture = Architecture.from_json(metadata["architecture"])
        state = load_file(path)
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if {name: tuple(tensor.shape) for name, tensor in state.items()} != shapes(architecture):
        raise _damaged(path, "its tensors are not those of the network that it names")
    noted = metadata.get("state_sha256")
    if noted is not None and state_hash(arrays(state)) != noted:
        raise _damaged(path, "its tensors are not those that were written")
    if weights.sha256 is not None and noted is None and file_hash != weights.sha256:
        raise _damaged(path, "it is not the file that the package was made with")
    return LoadedNetwork(architecture, state, weights, metadata.get("source_sha256", file_hash))


def _published(name: str) -> WeightSet:
    for weights in PUBLISHED:
        if weights.name == name:
            return weights
    known = ", ".join(weights.name for weights in PUBLISHED)
    raise WeightsError(f"{name!a} is not a published set of weights. Known: {known}.")


def _expected_hash(weights: WeightSet, sha256: str | None, *, trust: bool) -> str | None:
    """The hash that a file must have; None when it is trusted as it comes."""
    expected = sha256.lower() if sha256 is not None else weights.sha256
    if expected is None and not trust:
        raise WeightsError(
            f"The SHA-256 of {weights.name} is not known here. Give it with --sha256, or say with "
            "--trust that you take the file as it comes (it is read without running any code)."
        )
    return expected


def hash_file(path: str) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"The file {path} cannot be read ({error.strerror}).") from error


def _make_folder(folder: str) -> None:
    try:
        make_folders(folder, _FOLDER_MODE)
    except OSError as error:
        raise WeightsError(
            f"The folder {folder} cannot be made ({error.strerror}). Run this as the service's "
            "user, or give --state-dir."
        ) from error


def _damaged(path: str, why: str) -> WeightsError:
    return WeightsError(
        f"The weights {path} are damaged ({why}). Fetch or import them again; "
        "`xray-watcher weights verify` checks all that are installed."
    )
