"""The real service with a network that is loaded when the file $MAY_LOAD appears."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "storms"))

from stub_service import StubEngine

from xray_watcher.cli.main import main
from xray_watcher.model.engine import Engine
from xray_watcher.service import network


def load_when_told(*_args: object, **_options: object) -> Engine:
    while not os.path.exists(os.environ["MAY_LOAD"]):
        time.sleep(0.01)
    return StubEngine()


if __name__ == "__main__":
    network.load_engine = load_when_told
    main()
