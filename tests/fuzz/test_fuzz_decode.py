"""The short form of fuzzing the decoder; `make fuzz` runs the long one."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from machine import needs

SCRIPT = Path(__file__).parent / "fuzz_decode.py"
WHY_NOT = "atheris is not installed; it has wheels for Linux on x86-64"


def test_made_up_files_are_refused_with_a_reason_or_are_whole(tmp_path: Path) -> None:
    needs(None if importlib.util.find_spec("atheris") else WHY_NOT)
    found = tmp_path / "found"
    command = [sys.executable, str(SCRIPT), "--seconds", "30", "--found", str(found)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    told = ended.stdout + ended.stderr
    assert ended.returncode == 0, told
    assert not list(found.iterdir())
    tried = re.search(r"number_of_executed_units: (\d+)", told)
    assert tried is not None, told
    assert int(tried.group(1)) > 500
