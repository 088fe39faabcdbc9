"""`web.thumbnails`: pictures for people, made anew in a child and checked as an attacker's."""

from __future__ import annotations

import asyncio
import hashlib
import io
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import numpy as np
import pictures
import pytest
from PIL import Image
from starlette.requests import ClientDisconnect

from xray_watcher.config.settings import Settings
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode_for_display
from xray_watcher.imaging.preview_child import WORKER_COMMAND, write_png
from xray_watcher.web.context import WebContext
from xray_watcher.web.thumbnails import NoPicture, Thumbnails

CHEST = Image.fromarray(pictures.chest())
CONTENT = pictures.png(CHEST)


class OneImage:
    """A context whose ledger knows one image, with the index 7, filed under High."""

    def __init__(self, root: Path, content: bytes, **differing: Any) -> None:
        self.settings = Settings(root=str(root))
        row = {
            "level": "High",
            "filed_name": "0007_a.png",
            "sha256": hashlib.sha256(content).digest(),
            "removal": None,
        }
        self.row = SimpleNamespace(**(row | differing))
        self.file = root / "classified_images" / "High" / "0007_a.png"
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(content)

    def ledger(self) -> OneImage:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass

    def image_with_index(self, index: int) -> Any:
        return self.row if index == 7 else None


def thumbnails(context: OneImage, command: Sequence[str] = WORKER_COMMAND) -> Thumbnails:
    return Thumbnails(cast(WebContext, context), command)


def png(made: Thumbnails, index: int = 7, size: Any = "thumbnail") -> bytes:
    return asyncio.run(made.png(index, size))


def refusal(made: Thumbnails, index: int = 7) -> str:
    with pytest.raises(NoPicture) as caught:
        png(made, index)
    return str(caught.value)


def test_a_thumbnail_shows_the_picture_in_small(tmp_path: Path) -> None:
    made = thumbnails(OneImage(tmp_path, CONTENT))
    image = Image.open(io.BytesIO(png(made)))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (192, 160))
    expected = CHEST.resize((192, 160), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(image, int) - np.asarray(expected, int)).mean() < 2


def test_the_large_size_is_never_larger_than_the_picture(tmp_path: Path) -> None:
    made = thumbnails(OneImage(tmp_path, CONTENT))
    image = Image.open(io.BytesIO(png(made, size="picture")))
    assert image.size == CHEST.size
    assert np.array_equal(np.asarray(image), np.asarray(CHEST))


def test_it_is_made_once_and_then_kept(tmp_path: Path) -> None:
    context = OneImage(tmp_path, CONTENT)
    made = thumbnails(context)
    first = png(made)
    context.file.unlink()  # nothing is read again
    assert png(made) == first


def test_what_is_kept_is_not_shown_once_retention_has_removed_the_file(tmp_path: Path) -> None:
    context = OneImage(tmp_path, CONTENT)
    made = thumbnails(context)
    png(made)
    context.row.removal = "begun"
    assert "removed by retention" in refusal(made)


@pytest.mark.parametrize(
    "content",
    [
        pictures.png(Image.fromarray(np.arange(300 * 250).reshape(250, 300).astype(np.uint16))),
        pictures.turned(pictures.chest(), 6, as_jpeg=True),
        pictures.png(CHEST.convert("RGB")),
    ],
    ids=["16 bits", "turned", "colour"],
)
def test_what_is_shown_is_grey_and_upright(tmp_path: Path, content: bytes) -> None:
    made = thumbnails(OneImage(tmp_path, content))
    image = Image.open(io.BytesIO(png(made, size="picture")))
    assert np.array_equal(
        np.asarray(image), np.asarray(decode_for_display(content, DecodeLimits()))
    )


def test_nothing_of_the_senders_bytes_is_in_it(tmp_path: Path) -> None:
    content = pictures.png(CHEST)
    comment = pictures.chunk(b"tEXt", b"Comment\x00<script>alert(1)</script>")
    made = thumbnails(OneImage(tmp_path, pictures.with_chunks(content, comment)))
    assert b"script" not in png(made, size="picture")


def test_a_file_that_was_exchanged_is_not_shown(tmp_path: Path) -> None:
    context = OneImage(tmp_path, CONTENT)
    context.file.write_bytes(pictures.png(CHEST.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    assert "somebody has changed it" in refusal(thumbnails(context))


def test_a_file_that_is_gone_is_no_fault_of_ours(tmp_path: Path) -> None:
    context = OneImage(tmp_path, CONTENT)
    context.file.unlink()
    assert "No such file" in refusal(thumbnails(context))


@pytest.mark.parametrize("differing", [{"level": None}, {"filed_name": None}])
def test_what_was_not_scored_and_filed_has_no_picture(tmp_path: Path, differing: Any) -> None:
    assert "No image was scored" in refusal(thumbnails(OneImage(tmp_path, CONTENT, **differing)))


def test_an_unknown_index_has_no_picture(tmp_path: Path) -> None:
    assert "No image was scored" in refusal(thumbnails(OneImage(tmp_path, CONTENT)), 8)


def child_that_answers(header: bytes, frame: bytes) -> Sequence[str]:
    code = (
        "import socket, sys\n"
        "def say(b):\n"
        "    sys.stdout.buffer.write(len(b).to_bytes(4, 'little') + b)\n"
        "    sys.stdout.flush()\n"
        'say(b\'{"status": "ready"}\')\n'
        "requests = socket.socket(fileno=0)\n"
        "socket.recv_fds(requests, 8, 1)\n"
        'say(b\'{"status": "read"}\')\n'
        f"say({header!r}); say({frame!r})\n"
        "requests.recv(1)\n"
    )
    return (sys.executable, "-c", code)


HEADER = b'{"status": "decoded", "width": 4, "height": 2, "sha256": "%s"}' % (
    hashlib.sha256(CONTENT).hexdigest().encode()
)
ROWS = b"\x00abcd\x02efgh"


def test_a_childs_rows_become_a_picture(tmp_path: Path) -> None:
    command = child_that_answers(HEADER, zlib.compress(ROWS))
    made = png(thumbnails(OneImage(tmp_path, CONTENT), command))
    assert made == write_png(4, 2, zlib.compress(ROWS))
    assert Image.open(io.BytesIO(made)).size == (4, 2)


@pytest.mark.parametrize(
    ("header", "frame"),
    [
        (HEADER, zlib.compress(ROWS + b"x")),
        (HEADER, zlib.compress(ROWS[:-1])),
        (HEADER, zlib.compress(ROWS)[:-3]),
        (HEADER, zlib.compress(ROWS) + b"<script>"),
        (HEADER, zlib.compress(b"\x07abcd\x02efgh")),
        (HEADER, b"GIF89a"),
        (HEADER, zlib.compress(bytes(50_000_000))),
        (HEADER, bytes(5000)),
        (HEADER.replace(b'"width": 4', b'"width": 4000'), zlib.compress(ROWS)),
        (HEADER.replace(b'"height": 2', b'"height": -2'), zlib.compress(ROWS)),
        (HEADER.replace(b'"sha256": "', b'"sha256": "zz'), zlib.compress(ROWS)),
        (b"[]", b""),
    ],
)
def test_a_child_that_was_taken_over_can_give_wrong_pixels_at_worst(
    tmp_path: Path, header: bytes, frame: bytes
) -> None:
    command = child_that_answers(header, frame)
    assert "without sense" in refusal(thumbnails(OneImage(tmp_path, CONTENT), command))


def test_nothing_is_made_for_those_who_went_away_while_others_had_their_turn(
    tmp_path: Path,
) -> None:
    made = thumbnails(OneImage(tmp_path, CONTENT))

    async def gone() -> bool:
        return True

    async def here() -> bool:
        return False

    async def asked() -> list[bytes | BaseException]:
        crowd = [made.png(7, "picture", gone) for _ in range(50)]
        return await asyncio.gather(*crowd, made.png(7, "picture", here), return_exceptions=True)

    *crowd, mine = asyncio.run(asked())
    assert {type(one) for one in crowd} == {ClientDisconnect}
    assert isinstance(mine, bytes)
