"""Files that ended other programs end no child of ours: each is confined, and each goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import crashers
import pytest

from xray_watcher.core.values import Rejection
from xray_watcher.imaging import opening
from xray_watcher.imaging.decode_pool import Decoded, DecodePool
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.web.thumbnails import PreviewChild

LIMITS = DecodeLimits()
OF_A_LOST_CHILD = {"decoder_crash", "decoder_limit"}
Files = Callable[[], dict[str, bytes]]


@pytest.mark.parametrize("files", [crashers.pngs, crashers.jpegs])
def test_a_file_that_ended_another_program_ends_no_decoder(tmp_path: Path, files: Files) -> None:
    path, became = tmp_path / "x.png", {}
    with DecodePool(1, LIMITS) as pool:
        for name, data in files().items():
            path.write_bytes(data)
            found = pool.submit(str(path)).result(120)
            child = pool._workers[0]._child
            code = "decoded" if isinstance(found, Decoded) else found.rejection.code
            became[name] = (code, child and child._process.pid)
    lost = {name: code for name, (code, _) in became.items() if code in OF_A_LOST_CHILD}
    assert lost == {}
    assert len({pid for _, pid in became.values()}) == 1
    assert len(became) > 50


@pytest.mark.parametrize("files", [crashers.pngs, crashers.jpegs])
def test_nor_does_it_end_the_maker_of_pictures_for_pages(tmp_path: Path, files: Files) -> None:
    command = (sys.executable, "-m", "xray_watcher.imaging.preview_worker", "192")
    child, path = PreviewChild([*command, str(1 << 30), *LIMITS.arguments()], 192), tmp_path / "x"
    try:
        child.await_start()
        for name, data in files().items():
            path.write_bytes(data)
            found = child.work_on(opening.Opener().open(os.fsencode(path), 10), 20)
            assert not isinstance(found, Rejection) or found.code not in OF_A_LOST_CHILD, name
            assert child.is_running(), name
    finally:
        child.end()
