"""The weight sets that can be named: what each network's 18 outputs mean.

Source of labels, operating points and addresses: `torchxrayvision.models.model_urls`,
release 1.5.7 (a test compares every number with the installed library). Sizes and
SHA-256 are given where they are known; other files need `--sha256` or `--trust`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OUTPUTS: tuple[str, ...] = (
    "Atelectasis",
    "Consolidation",
    "Infiltration",
    "Pneumothorax",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Effusion",
    "Pneumonia",
    "Pleural_Thickening",
    "Cardiomegaly",
    "Nodule",
    "Mass",
    "Hernia",
    "Lung Lesion",
    "Fracture",
    "Lung Opacity",
    "Enlarged Cardiomediastinum",
)
"""The 18 outputs in the library's order (`torchxrayvision.datasets.default_pathologies`)."""

_RELEASE = "https://github.com/mlmed/torchxrayvision/releases/download/v1/"


@dataclass(frozen=True, slots=True)
class WeightSet:
    """One named set of DenseNet121 weights.

    Attributes:
        name: the name in the configuration.
        operating_points: for each of the 18 outputs the raw sigmoid value in 0..1 that
            becomes a score of 0.5, or None where the output was never trained.
        url: where the published checkpoint lies; empty for sets made on this machine.
        bytes: size of the published file, or None where it is not known.
        sha256: hash of the published file in hexadecimal, or None where it is not known.
        simulated: true where the results mean nothing on patients.
    """

    name: str
    operating_points: tuple[float | None, ...]
    url: str = ""
    bytes: int | None = None
    sha256: str | None = None
    simulated: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The trained labels, in the order of the outputs."""
        return tuple(OUTPUTS[i] for i in self.trained)

    @property
    def trained(self) -> tuple[int, ...]:
        """The positions of the trained outputs among the 18."""
        return tuple(i for i, point in enumerate(self.operating_points) if point is not None)

    @property
    def trained_points(self) -> tuple[float, ...]:
        """The operating points of the trained labels, in the order of `labels`."""
        return tuple(point for point in self.operating_points if point is not None)


# fmt: off
_ALL = (
    0.07422872, 0.038290843, 0.09814756, 0.0098118475, 0.023601074, 0.0022490358, 0.010060724,
    0.103246614, 0.056810737, 0.026791653, 0.050318155, 0.023985857, 0.01939503, 0.042889766,
    0.053369623, 0.035975814, 0.20204692, 0.05015312,
)
_NIH = (
    0.039117552, 0.0034529066, 0.11396341, 0.0057298196, 0.00045666535, 0.0018880932,
    0.012037827, 0.038744126, 0.0037213727, 0.014730946, 0.016149804, 0.054241467,
    0.037198864, 0.0004403434, None, None, None, None,
)
_PC = (
    0.031012505, 0.013347598, 0.081435576, 0.001262615, 0.002587246, 0.0035944257, 0.0023071,
    0.055412333, 0.044385884, 0.042766232, 0.043258056, 0.037629247, 0.005658899,
    0.0091741895, None, 0.026507627, None, None,
)
_CHEX = (
    0.1988969, 0.05710573, None, 0.0531293, 0.1435217, None, None, 0.27212676, 0.07749717,
    None, 0.19712369, None, None, None, 0.09932402, 0.09273402, 0.3270967, 0.10888247,
)
_RSNA = (
    None, None, None, None, None, None, None, None, 0.13486601, None, None, None, None, None,
    None, None, 0.13511065, None,
)
_MIMIC_NB = (
    0.08558747, 0.011884617, None, 0.0040595434, 0.010733786, None, None, 0.118761964,
    0.022924708, None, 0.06358637, None, None, None, 0.022143636, 0.017476924, 0.1258702,
    0.014020768,
)
_MIMIC_CH = (
    0.09121389, 0.010573786, None, 0.005023008, 0.003698257, None, None, 0.08001232,
    0.037242252, None, 0.05006329, None, None, None, 0.019866971, 0.03823637, 0.11303808,
    0.0069147074,
)
# fmt: on


def _published(
    name: str,
    operating_points: tuple[float | None, ...],
    datasets: str = "",
    **known: Any,
) -> WeightSet:
    """A published set: its name's end, and what its file is called by, where that differs."""
    file = f"{datasets or name}-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
    return WeightSet(f"densenet121-res224-{name}", operating_points, _RELEASE + file, **known)


PUBLISHED: tuple[WeightSet, ...] = (
    _published("all", _ALL, "nih-pc-chex-mimic_ch-google-openi-kaggle", bytes=28_382_008,
               sha256="56524913dd16a906422e8d8b66a7a5c46be1d82eb7ac012d8103776f1aa68899"),
    _published("nih", _NIH),
    _published("pc", _PC),
    _published("chex", _CHEX, bytes=28_381_998,
               sha256="1a914ae802170187a4852e594708206c12468eeeefd66aa4e8e26141649d61a4"),
    _published("rsna", _RSNA, "kaggle"),
    _published("mimic_nb", _MIMIC_NB),
    _published("mimic_ch", _MIMIC_CH),
)  # fmt: skip
"""The sets that TorchXRayVision publishes for its DenseNet121 at 224 pixels."""

UNTRAINED = WeightSet("untrained", _CHEX, simulated=True)
"""The true architecture with seeded random weights: for benchmarks and tests only."""

PHANTOM = WeightSet(
    "phantom",
    tuple(None if point is None else 0.5 for point in _CHEX),
    sha256="eeda1a0da6d35838c0e16c7d1582a2236a4973d4b42666f9a96c041192cc57b9",
    simulated=True,
)
"""A small network trained on drawings, in the package: for demonstrations, tests and trials."""

WEIGHT_SETS: dict[str, WeightSet] = {
    weights.name: weights for weights in (*PUBLISHED, PHANTOM, UNTRAINED)
}
"""Every set by its name in the configuration."""

DEFAULT_WEIGHTS = "densenet121-res224-chex"


@dataclass(frozen=True, slots=True)
class EngineKind:
    """One way to compute scores.

    Attributes:
        module: its function `load` makes the engine (see `model.engine.Load`).
        packages: that the module needs beside those that are always installed.
        extra: the extra that installs them.
    """

    module: str
    packages: tuple[str, ...] = ()
    extra: str = ""


ENGINES: dict[str, EngineKind] = {
    "torch": EngineKind("xray_watcher.model.torch_engine"),
    "onnx": EngineKind("xray_watcher.model.onnx_engine", ("onnx", "onnxruntime"), "onnx"),
}
"""Every engine by its name in the configuration."""
