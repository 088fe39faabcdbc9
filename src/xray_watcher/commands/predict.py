"""`xray-watcher predict`: scores files where they lie; no folder, ledger or log is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from xray_watcher.config.settings import Settings
from xray_watcher.core.calibration import scores
from xray_watcher.core.image_record import ModelFields
from xray_watcher.core.naming import safe_name
from xray_watcher.core.risk import assess
from xray_watcher.core.values import REJECTIONS, Rejection, RiskRules
from xray_watcher.errors import Unavailable
from xray_watcher.imaging.decode_pool import Decoded, DecodeOutcome, DecodePool
from xray_watcher.model.engine import Engine
from xray_watcher.records import LOW_CONTRAST, REJECTED, TOP_PREDICTIONS
from xray_watcher.service.network import decode_pool, load_settings_engine

Prediction = dict[str, Any]


def predictions(settings: Settings, paths: Sequence[str]) -> Iterator[Prediction]:
    """Score files, a batch at a time, in their order.

    Yields:
        For each file the fields that the record of a filed image has, as far as they apply.

    Raises:
        WeightsError: the network cannot be loaded.
    """
    engine = load_settings_engine(settings)
    rules, size = settings.risk_rules(), settings.batch.max_size
    with decode_pool(settings) as pool:
        for start in range(0, len(paths), size):
            batch = paths[start : start + size]
            yield from _batch(batch, pool, engine, rules)


def to_text(prediction: Prediction) -> str:
    """One file's result on one line, for people."""
    name = "/".join(safe_name(part) for part in prediction["path"].split("/"))
    if "rejected" in prediction:
        rejected = prediction["rejected"]
        return f"{REJECTED:<8}  {rejected['code']}: {rejected['detail']}  {name}"
    flags = f"  [{', '.join(prediction['flags'])}]" if prediction["flags"] else ""
    top = f"{prediction['top_label']} {prediction['top_probability']:.3f}"
    return f"{prediction['risk_level']:<8}  {top:<32}  {name}{flags}"


def _batch(
    paths: Sequence[str], pool: DecodePool, engine: Engine, rules: RiskRules
) -> Iterator[Prediction]:
    futures = [pool.submit(path) for path in paths]
    outcomes = [_outcome(future) for future in futures]
    pixels = [outcome.image.pixels for outcome in outcomes if isinstance(outcome, Decoded)]
    raw = iter(engine.classify(np.stack(pixels)).tolist() if pixels else [])
    for path, outcome in zip(paths, outcomes, strict=True):
        if isinstance(outcome, Decoded):
            yield _scored(path, outcome, next(raw), engine, rules)
        else:
            yield _rejected(path, outcome)


def _outcome(future: Future[DecodeOutcome]) -> Decoded | Rejection:
    """The decoded picture, or why there is none: it may not even be a file."""
    try:
        outcome = future.result()
    except Unavailable as error:
        return Rejection("unreadable", error.reason)
    return outcome if isinstance(outcome, Decoded) else outcome.rejection


def _scored(
    path: str, decoded: Decoded, raw: Sequence[float], engine: Engine, rules: RiskRules
) -> Prediction:
    try:
        found = scores(engine.labels, raw, engine.operating_points)
    except ValueError:
        return _rejected(path, Rejection("not_finite", REJECTIONS["not_finite"]))
    assessment = assess(found, rules)
    return {
        **_names(path),
        "width": decoded.image.width,
        "height": decoded.image.height,
        "top_label": assessment.top_label,
        "top_probability": assessment.top_score,
        "risk_level": assessment.level,
        "flags": [*assessment.flags, *([LOW_CONTRAST] if decoded.image.has_low_contrast else [])],
        "top_predictions": [
            {"label": label, "prob": score} for label, score in assessment.ranking[:TOP_PREDICTIONS]
        ],
        "all_probs": dict(zip(found.labels, found.calibrated, strict=True)),
        "raw_probs": dict(zip(found.labels, found.raw, strict=True)),
        "simulated": engine.info.simulated,
        "model": vars(ModelFields(engine.info.name, engine.info.sha256, engine.info.precision)),
    }


def _rejected(path: str, rejection: Rejection) -> Prediction:
    return {
        **_names(path),
        "risk_level": REJECTED,
        "rejected": {"code": rejection.code, "detail": rejection.detail},
    }


def _names(path: str) -> Prediction:
    return {"filename": os.path.basename(path), "path": path}
