"""From scores to a risk level: a table look-up and flags, nothing else."""

from __future__ import annotations

from xray_watcher.core.values import LEVELS, Assessment, Level, RiskRules, Scores

DEFAULT_THRESHOLD = 0.5
"""The operating point of every label after calibration."""

_URGENCY = {level: rank for rank, level in enumerate(reversed(LEVELS))}

Ranking = tuple[tuple[str, float], ...]


def assess(scores: Scores, rules: RiskRules) -> Assessment:
    """Decide the level of one image.

    Args:
        scores: the calibrated scores of the trained labels.
        rules: the `[risk]` table of the configuration.

    Returns:
        The level, the ranking of all labels and the flags. Equal scores rank the more
        urgent condition first, so that a tie never lowers the level.

    Raises:
        KeyError: when a label has no level; the configuration is checked for that at start.
    """
    ranking = _rank(scores, rules)
    present = tuple(
        label for label, score in ranking if score >= rules.thresholds.get(label, DEFAULT_THRESHOLD)
    )
    level = _POLICIES[rules.policy](ranking, present, rules)
    top_label, top_score = ranking[0]
    return Assessment(level, top_label, top_score, ranking, _flags(ranking, present, level, rules))


def _rank(scores: Scores, rules: RiskRules) -> Ranking:
    pairs = zip(scores.labels, scores.calibrated, strict=True)
    return tuple(sorted(pairs, key=lambda pair: (-pair[1], -_URGENCY[rules.level_of[pair[0]]])))


def _top_condition(ranking: Ranking, _present: tuple[str, ...], rules: RiskRules) -> Level:
    return rules.level_of[ranking[0][0]]


def _highest_risk(_ranking: Ranking, present: tuple[str, ...], rules: RiskRules) -> Level:
    levels = [rules.level_of[label] for label in present]
    return max(levels, key=_URGENCY.__getitem__, default=rules.no_finding_level)


_POLICIES = {"top-condition": _top_condition, "highest-risk": _highest_risk}


def _flags(
    ranking: Ranking, present: tuple[str, ...], level: Level, rules: RiskRules
) -> tuple[str, ...]:
    holds = {
        "no_finding": not present,
        "low_margin": len(ranking) > 1 and ranking[0][1] - ranking[1][1] <= rules.low_margin,
        "higher_risk_present": any(
            _URGENCY[rules.level_of[label]] > _URGENCY[level] for label in present
        ),
    }
    return tuple(flag for flag, is_set in holds.items() if is_set)
