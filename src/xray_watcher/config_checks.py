"""What only the settings as a whole can show: folders that overlap, labels without a level."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from xray_watcher.config import Settings, did_you_mean
from xray_watcher.config_keys import FOLDERS, THRESHOLDS
from xray_watcher.config_sources import shown
from xray_watcher.core.catalogue import OUTPUTS
from xray_watcher.core.values import LEVELS
from xray_watcher.deadline import answer_in_time
from xray_watcher.errors import Unavailable

_ANSWER_S = 2.0
_LEVEL_KEYS = tuple(f"risk.levels.{level}" for level in LEVELS)
_LABELS = ", ".join(OUTPUTS)


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of settings whose values are sound each by itself.

    Attributes:
        keys: the keys that it is about, the one to change first.
        text: what is wrong and what is allowed.
    """

    keys: tuple[str, ...]
    text: str


def check(settings: Settings) -> Iterator[Finding]:
    """Find every problem of the settings as a whole."""
    yield from _missing_root(settings)
    yield from _overlapping_folders(settings)
    yield from _unknown_labels(settings)
    yield from _labels_in_two_levels(settings)
    yield from _labels_without_level(settings)


def _missing_root(settings: Settings) -> Iterator[Finding]:
    if not settings.root:
        yield Finding(
            ("root",),
            'is not set; say where the folders lie: root = "/path" in the file, XRAY_WATCHER_ROOT, '
            "or --root",
        )


def _overlapping_folders(settings: Settings) -> Iterator[Finding]:
    for (first, one), (second, other) in combinations(_placed_folders(settings).items(), 2):
        if one == other:
            yield _overlap(first, second, f"{shown(one)} is also {second}")
        elif _is_below(one, other):
            yield _overlap(first, second, f"{shown(one)} lies in {second}, {shown(other)}")
        elif _is_below(other, one):
            yield _overlap(second, first, f"{shown(other)} lies in {first}, {shown(one)}")


def _overlap(inner: str, outer: str, text: str) -> Finding:
    return Finding((inner, outer), f"{text}; no two of these folders may be the same or nested")


def _placed_folders(settings: Settings) -> dict[str, str]:
    """The true path of each folder; without a root only of those that do not need one."""
    folders = settings.folders
    given = {"state_dir": settings.state_dir} | {
        f"intake.{name}": value for name, value in settings.intake if f"intake.{name}" in FOLDERS
    }
    return _true_paths(
        {
            key: os.path.abspath(getattr(folders, name))
            for key, name in FOLDERS.items()
            if settings.root or os.path.isabs(given[key])
        }
    )


def _true_paths(paths: dict[str, str]) -> dict[str, str]:
    """Where links lead to; on a share that hangs nobody can tell, and `status` must say so."""
    try:
        true = answer_in_time(
            lambda: [os.path.realpath(path) for path in paths.values()], _ANSWER_S, "A folder"
        )
    except Unavailable:
        return paths
    return dict(zip(paths, true, strict=True))


def _is_below(inner: str, outer: str) -> bool:
    return os.path.commonpath((inner, outer)) == outer


def _unknown_labels(settings: Settings) -> Iterator[Finding]:
    in_levels = [
        (f"risk.levels.{level}", label)
        for level in LEVELS
        for label in settings.risk.levels.of(level)
    ]
    in_thresholds = [(f"{THRESHOLDS}.{label}", label) for label in settings.risk.thresholds]
    for key, label in in_levels + in_thresholds:
        if label not in OUTPUTS:
            parts = (f"no network has the label {shown(label)}", did_you_mean(label, OUTPUTS))
            yield Finding((key,), "; ".join([*filter(None, parts), f"allowed: {_LABELS}"]))


def _labels_in_two_levels(settings: Settings) -> Iterator[Finding]:
    for one, other in combinations(LEVELS, 2):
        others = set(settings.risk.levels.of(other))
        for label in dict.fromkeys(settings.risk.levels.of(one)):
            if label in others:
                yield Finding(
                    (f"risk.levels.{other}", f"risk.levels.{one}"),
                    f"{shown(label)} stands in {one} and in {other}; "
                    "a label stands in one level only",
                )


def _labels_without_level(settings: Settings) -> Iterator[Finding]:
    weights = settings.weight_set
    level_of = settings.risk_rules().level_of
    for label in weights.labels:
        if label not in level_of:
            yield Finding(
                (*_LEVEL_KEYS, "model.weights"),
                f"no level names {shown(label)}, which {weights.name} scores; "
                f"add it to {', '.join(LEVELS[:-1])} or {LEVELS[-1]}",
            )
