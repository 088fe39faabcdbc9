"""What a test needs of the machine, beyond Python."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(why_not: str | None) -> None:
    """Skip the test, with the reason, where the machine cannot run it; in CI that is a failure."""
    if why_not is None:
        return
    if os.environ.get("CI_HAS_ALL"):
        pytest.fail(f"CI must be able to run this: {why_not}")
    pytest.skip(f"not run: {why_not}")


def lacking(**packages: str) -> str | None:
    """Why programs cannot be used: those that are not installed, with their Debian packages."""
    missing = {program: package for program, package in packages.items() if not _is_there(program)}
    if not missing:
        return None
    return f"apt-get install {' '.join(sorted(set(missing.values())))} (for {', '.join(missing)})"


def _is_there(program: str) -> bool:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None
