"""The short form of fuzzing the web; `make fuzz-http` runs the long one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "fuzz_http.py"


def test_whatever_is_sent_is_answered_in_our_form_and_leaves_nothing_behind() -> None:
    command = [sys.executable, str(SCRIPT), "--seconds", "20"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    told = ended.stdout + ended.stderr
    assert ended.returncode == 0, told
    answers = re.search(r"(\d+) answers", told)
    assert answers is not None, told
    assert int(answers[1]) > 50, told
