"""New settings for a service that runs: checked whole before anything ends for their sake."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from xray_watcher.config.settings import Settings
from xray_watcher.errors import ConfigError, XrayWatcherError
from xray_watcher.system.deadline import answer_in_time

_ANSWER_S = 20.0


def load_in_child(load: Callable[[], Settings]) -> Settings:
    """Load and check settings in a child process.

    The files may lie on a share that hangs, and what checking imports is not kept in memory.

    Args:
        load: reads all settings, and checks all that a start checks before it touches a folder.

    Raises:
        ConfigError: the settings are wrong; it carries every problem.
        Unavailable: a file did not answer in time.
    """
    answer = answer_in_time(lambda: _answer(load), _ANSWER_S, "the configuration")
    if answer is None:
        problem = "the settings cannot be checked; `xray-watcher check-config` says why"
        raise ConfigError([problem])
    if "problems" in answer:
        raise ConfigError(answer["problems"])
    settings: Settings = pickle.loads(bytes.fromhex(answer["settings"]))  # noqa: S301 - our own
    return settings


def _answer(load: Callable[[], Settings]) -> dict[str, Any]:
    try:
        return {"settings": pickle.dumps(load()).hex()}
    except ConfigError as error:
        return {"problems": error.problems}
    except XrayWatcherError as error:
        return {"problems": [str(error)]}
