"""`[model]` and `[risk]`: what computes the scores, and how they become a level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from xray_watcher.config.base import AnyPath, Section, allowed, did_you_mean, unit
from xray_watcher.core.catalogue import DEFAULT_WEIGHTS, ENGINES, WEIGHT_SETS
from xray_watcher.core.values import Level

Score = Annotated[float, Field(gt=0, lt=1)]
Labels = tuple[str, ...]

_WEIGHT_NAMES = ", ".join(f'"{name}"' for name in WEIGHT_SETS)
_ENGINE_NAMES = ", ".join(f'"{name}"' for name in ENGINES)


def _known_weights(name: str) -> str:
    if name not in WEIGHT_SETS:
        raise ValueError(did_you_mean(name, WEIGHT_SETS))
    return name


def _known_engine(name: str) -> str:
    if name not in ENGINES:
        raise ValueError(f"must be {_ENGINE_NAMES}")
    return name


class ModelSettings(Section):
    """`[model]`: the network and what it runs on."""

    weights: Annotated[str, AfterValidator(_known_weights), allowed(_WEIGHT_NAMES)] = (
        DEFAULT_WEIGHTS
    )
    """The set of trained weights; "phantom" is a simulation for demonstrations and trials,
    "untrained" is random: both mean nothing on patients."""
    weights_file: Annotated[AnyPath, allowed('a path, or "" for the imported weights')] = ""
    """A checkpoint of the named set to use in place of the published one."""
    engine: Annotated[str, AfterValidator(_known_engine), allowed(_ENGINE_NAMES)] = "torch"
    """What computes the scores; "onnx" needs the extra onnx, starts at once and needs little
    memory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the scores are computed; "auto" is cuda where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the network; "auto" is float32, on cuda float16; "bfloat16" is quicker on
    processors that have it. Both are checked at start."""
    threads: Annotated[int, unit("threads")] = Field(0, ge=0, le=1024)
    """Threads of the network; 0 is one per core."""
    decoders: Annotated[int, unit("processes")] = Field(0, ge=0, le=256)
    """Child processes that decode images; 0 is one per core, but no more than one per 600 MB of the
    memory (the machine's, or the service's limit) beyond 1.5 GB."""


class RiskLevels(Section):
    """`[risk.levels]`: the conditions of each level; every trained label stands in one."""

    High: Labels = (
        "Consolidation",
        "Pneumothorax",
        "Edema",
        "Pneumonia",
        "Lung Lesion",
        "Mass",
        "Nodule",
    )
    """Conditions that are filed under High."""
    Medium: Labels = (
        "Atelectasis",
        "Effusion",
        "Cardiomegaly",
        "Enlarged Cardiomediastinum",
        "Lung Opacity",
        "Infiltration",
        "Emphysema",
        "Fibrosis",
        "Pleural_Thickening",
    )
    """Conditions that are filed under Medium."""
    Low: Labels = ("Fracture", "Hernia")
    """Conditions that are filed under Low."""

    def of(self, level: Level) -> Labels:
        """The labels of one level."""
        return {"High": self.High, "Medium": self.Medium, "Low": self.Low}[level]


class RiskSettings(Section):
    """`[risk]`: how scores become a level."""

    policy: Literal["top-condition", "highest-risk"] = "top-condition"
    """The highest score decides, or the highest level among the conditions at or above their
    threshold."""
    no_finding_level: Level = "Low"
    """The level under "highest-risk" when no condition reaches its threshold."""
    low_margin: Annotated[float, unit("score")] = Field(0.02, ge=0, le=1)
    """First and second score this close together give the flag low_margin."""
    levels: RiskLevels = RiskLevels()
    """The conditions of each level; each trained label once."""
    thresholds: Annotated[
        Mapping[str, Score], allowed("for any label a number above 0 and below 1")
    ] = {}
    """Scores from which a condition counts as present, by label, as "Edema" = 0.6; the others have
    0.5."""
