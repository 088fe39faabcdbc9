"""Fixtures: a share of FUSE, and services on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fuse_share
import pytest
from fuse_share import Share
from on_share import OnShare, service_on

from machine import needs


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Share]:
    needs(fuse_share.missing())
    with fuse_share.mounted(tmp_path) as share:
        yield share


@pytest.fixture
def service(share: Share, tmp_path: Path) -> Iterator[OnShare]:
    """A service with local results whose inbox is on the share."""
    with service_on(share, tmp_path / "root") as service:
        yield service


@pytest.fixture
def service_on_share(share: Share, tmp_path: Path) -> Iterator[OnShare]:
    """A service that has everything but its ledger on the share."""
    with service_on(share, tmp_path / "root", everything=True) as service:
        yield service
