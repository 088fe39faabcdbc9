"""The real web with short patience, so that tests of slow clients need not be slow.

python tests/web/impatient_web.py serve --config FILE
"""

from __future__ import annotations

from xray_watcher.cli.main import main
from xray_watcher.web import limits, server

HEAD_S = 1.5
WINDOW_S = 2.0

if __name__ == "__main__":
    server.HEAD_S = HEAD_S
    server.DRAIN_S = HEAD_S
    limits.PACE_WINDOW_S = WINDOW_S
    limits.SLOT_WAIT_S = 0.5
    main()
