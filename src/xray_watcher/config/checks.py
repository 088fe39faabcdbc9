"""What only the settings as a whole can show: folders that overlap, labels without a level."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import combinations

from xray_watcher.config.base import did_you_mean
from xray_watcher.config.keys import FOLDERS, THRESHOLDS
from xray_watcher.config.settings import Settings
from xray_watcher.config.sources import show_value
from xray_watcher.config.upkeep import NotifySettings, RetentionSettings
from xray_watcher.core.catalogue import OUTPUTS
from xray_watcher.core.values import LEVELS
from xray_watcher.errors import Unavailable
from xray_watcher.system.deadline import answer_in_time

_ANSWER_S = 2.0
_LEVEL_KEYS = tuple(f"risk.levels.{level}" for level in LEVELS)
_LABELS = ", ".join(OUTPUTS)
_ENGINE = "model.engine"


@dataclass(frozen=True, slots=True)
class KeyProblem:
    """One problem of settings whose values are sound each by itself.

    Attributes:
        keys: the keys that it is about, the one to change first.
        text: what is wrong and what is allowed.
    """

    keys: tuple[str, ...]
    text: str


def check(settings: Settings) -> Iterator[KeyProblem]:
    """Find every problem of the settings as a whole."""
    yield from _missing_root(settings)
    yield from _overlapping_folders(settings)
    yield from _unknown_labels(settings)
    yield from _labels_in_two_levels(settings)
    yield from _labels_without_level(settings)
    yield from _open_to_the_network(settings)
    yield from _unfinished_channels(settings.notify)
    yield from _ages_below_the_floor(settings.retention)
    yield from _beyond_onnx(settings)


def _missing_root(settings: Settings) -> Iterator[KeyProblem]:
    if not settings.root:
        yield KeyProblem(
            ("root",),
            'is not set; say where the folders lie: root = "/path" in the file, XRAY_WATCHER_ROOT, '
            "or --root",
        )


def _overlapping_folders(settings: Settings) -> Iterator[KeyProblem]:
    for (first, one), (second, other) in combinations(_placed_folders(settings).items(), 2):
        if one == other:
            yield _overlap(first, second, f"{show_value(one)} is also {second}")
        elif _is_below(one, other):
            yield _overlap(
                first, second, f"{show_value(one)} lies in {second}, {show_value(other)}"
            )
        elif _is_below(other, one):
            yield _overlap(second, first, f"{show_value(other)} lies in {first}, {show_value(one)}")


def _overlap(inner: str, outer: str, text: str) -> KeyProblem:
    return KeyProblem((inner, outer), f"{text}; no two of these folders may be the same or nested")


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
    """Where links lead to; the paths themselves on a share that hangs, which `status` reports."""
    try:
        true = answer_in_time(
            lambda: [os.path.realpath(path) for path in paths.values()], _ANSWER_S, "A folder"
        )
    except Unavailable:
        return paths
    if true is None:  # whoever was asked has ended: somebody changes the folders meanwhile
        return paths
    return dict(zip(paths, true, strict=True))


def _is_below(inner: str, outer: str) -> bool:
    return os.path.commonpath((inner, outer)) == outer


def _unknown_labels(settings: Settings) -> Iterator[KeyProblem]:
    in_levels = [
        (f"risk.levels.{level}", label)
        for level in LEVELS
        for label in settings.risk.levels.of(level)
    ]
    in_thresholds = [(f"{THRESHOLDS}.{label}", label) for label in settings.risk.thresholds]
    for key, label in in_levels + in_thresholds:
        if label not in OUTPUTS:
            parts = (f"no network has the label {show_value(label)}", did_you_mean(label, OUTPUTS))
            yield KeyProblem((key,), "; ".join([*filter(None, parts), f"allowed: {_LABELS}"]))


def _labels_in_two_levels(settings: Settings) -> Iterator[KeyProblem]:
    for one, other in combinations(LEVELS, 2):
        others = set(settings.risk.levels.of(other))
        for label in dict.fromkeys(settings.risk.levels.of(one)):
            if label in others:
                yield KeyProblem(
                    (f"risk.levels.{other}", f"risk.levels.{one}"),
                    f"{show_value(label)} stands in {one} and in {other}; "
                    "a label stands in one level only",
                )


def _labels_without_level(settings: Settings) -> Iterator[KeyProblem]:
    weights = settings.weight_set
    level_of = settings.risk_rules().level_of
    for label in weights.labels:
        if label not in level_of:
            yield KeyProblem(
                (*_LEVEL_KEYS, "model.weights"),
                f"no level names {show_value(label)}, which {weights.name} scores; "
                f"add it to {', '.join(LEVELS[:-1])} or {LEVELS[-1]}",
            )


def _open_to_the_network(settings: Settings) -> Iterator[KeyProblem]:
    web = settings.web
    if not web.token_file and not _is_loopback(web.host):
        yield KeyProblem(
            ("web.host", "web.token_file"),
            f"{show_value(web.host)} can be reached from other machines, so web.token_file must be "
            "set; make it with `xray-watcher token`, or allowed: 127.0.0.1",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unfinished_channels(notify: NotifySettings) -> Iterator[KeyProblem]:
    webhook, smtp, argv = notify.webhook, notify.smtp, notify.command.argv
    if webhook.url and webhook.url_file:
        keys = ("notify.webhook.url_file", "notify.webhook.url")
        yield KeyProblem(keys, "stands beside notify.webhook.url; set one of them")
    if smtp.host and not smtp.sender:
        yield KeyProblem(("notify.smtp.sender", "notify.smtp.host"), "is not set; a mail needs one")
    if smtp.host and not smtp.to:
        yield KeyProblem(
            ("notify.smtp.to", "notify.smtp.host"), "is empty; nobody would get a mail"
        )
    if bool(smtp.user) != bool(smtp.password_file):
        keys = ("notify.smtp.password_file", "notify.smtp.user")
        yield KeyProblem(keys, "needs notify.smtp.user; set both or none")
    if argv and not os.path.isabs(argv[0]):
        what = f"{show_value(argv[0])} is not allowed; allowed: a full path"
        yield KeyProblem(("notify.command.argv",), what)


def _ages_below_the_floor(retention: RetentionSettings) -> Iterator[KeyProblem]:
    floor = retention.keep_at_least_days
    for name, days in retention:
        if name.endswith("_days") and name != "keep_at_least_days" and 0 < days < floor:
            yield KeyProblem(
                (f"retention.{name}", "retention.keep_at_least_days"),
                f"{days} is below retention.keep_at_least_days, {floor}; raise it or lower that",
            )


def _beyond_onnx(settings: Settings) -> Iterator[KeyProblem]:
    model = settings.model
    if model.engine != "onnx":
        return
    if model.device == "cuda":
        yield KeyProblem(("model.device", _ENGINE), 'the engine "onnx" runs on "cpu" only')
    if model.precision == "bfloat16":
        yield KeyProblem(("model.precision", _ENGINE), 'the engine "onnx" has "float32" only')
    if model.weights_file:
        yield KeyProblem(
            ("model.weights_file", _ENGINE),
            'the engine "onnx" takes imported weights only: '
            f"`xray-watcher weights import FILE --name {model.weights} --trust`",
        )
