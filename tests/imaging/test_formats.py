"""`imaging.formats`: the table of formats, and what follows from it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pictures
import pytest
from PIL import Image

from xray_watcher.config.settings import IntakeSettings
from xray_watcher.core.values import REJECTIONS, SeenFile
from xray_watcher.errors import UnreadableImage
from xray_watcher.imaging import formats
from xray_watcher.imaging.formats import (
    FORMATS,
    HEAD_BYTES,
    JPEG,
    PNG,
    Format,
    completeness,
    recognise,
)
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.picture import GreyImage
from xray_watcher.imaging.pixels import decode
from xray_watcher.intake.readiness import check_readiness

PICTURES = (Path(__file__).parents[2] / "docs" / "pictures.md").read_text(encoding="utf-8")
GREY = pictures.chest()
WHOLE = {
    "JPEG": pictures.jpeg(Image.fromarray(GREY)),
    "PNG": pictures.png(Image.fromarray(GREY)),
}
EACH = pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)


# A complete format: an entry, and a module with `read`, which is this one. Its files have a header
# of one line and no end marker, so that both ends of a file cannot tell whether it is whole.
PGM = Format(
    name="PGM",
    suffixes=(".pgm",),
    signature=b"P5 ",
    end_marker=None,
    module=__name__,
)


def read(data: bytes, limits: DecodeLimits) -> GreyImage:
    """Decode a PGM of 8 bits whose header is one line."""
    header = re.match(rb"P5 (\d{1,5}) (\d{1,5}) 255\n", data)
    if header is None:
        raise UnreadableImage("corrupt", "The PGM's header is damaged.")
    width, height = int(header[1]), int(header[2])
    limits.check_size(width, height)
    if len(data) - header.end() < width * height:
        raise UnreadableImage("incomplete", "The end of the PGM is missing.")
    pixels = np.frombuffer(data, np.uint8, width * height, header.end())
    return GreyImage(pixels.reshape(height, width), 0, 255, width, height)


WHOLE_PGM = b"P5 %d %d 255\n" % (GREY.shape[1], GREY.shape[0]) + GREY.tobytes()


@pytest.fixture
def with_pgm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, PGM))


@pytest.mark.usefixtures("with_pgm")
def test_a_format_is_one_module_and_one_entry() -> None:
    assert np.array_equal(
        decode(WHOLE_PGM, DecodeLimits()).pixels, decode(WHOLE["PNG"], DecodeLimits()).pixels
    )
    with pytest.raises(UnreadableImage) as caught:
        decode(WHOLE_PGM[:-1], DecodeLimits())
    assert caught.value.code == "incomplete"


def test_without_its_entry_a_format_is_a_wrong_one() -> None:
    with pytest.raises(UnreadableImage) as caught:
        decode(WHOLE_PGM, DecodeLimits())
    assert caught.value.code == "wrong_format"
    assert caught.value.detail == REJECTIONS["wrong_format"]


def readiness(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    status = path.stat()
    fd = os.open(path, os.O_RDONLY)
    try:
        file = SeenFile(str(path), status.st_size, status.st_mtime_ns, status.st_ino)
        return check_readiness(fd, file, overdue=False)
    finally:
        os.close(fd)


@pytest.mark.usefixtures("with_pgm")
def test_without_an_end_marker_the_settle_time_decides_and_then_the_decoder(tmp_path: Path) -> None:
    for content in (WHOLE_PGM, WHOLE_PGM[:1000]):
        assert completeness(content[:HEAD_BYTES], content[-100:]) == "unknown"
        assert readiness(tmp_path / "film", content) == "ready"


@EACH
def test_with_an_end_marker_a_part_is_waited_for(kind: Format, tmp_path: Path) -> None:
    whole = WHOLE[kind.name]
    assert readiness(tmp_path / "film", whole) == "ready"
    assert readiness(tmp_path / "film", whole[:-1]) == "unfinished"
    assert readiness(tmp_path / "film", whole[:1]) == "unfinished"


@EACH
def test_a_whole_picture_is_recognised_by_its_content(kind: Format) -> None:
    whole = WHOLE[kind.name]
    assert recognise(whole[:HEAD_BYTES]) is kind
    assert kind.ends(whole[-100:]) == "whole"
    assert [each.name for each in FORMATS if each.begins(whole)] == [kind.name]


def test_a_signature_may_stand_further_behind() -> None:
    kind = replace(PGM, signature=b"DICM", signature_at=128)
    assert kind.begins(bytes(128) + b"DICM")
    assert not kind.begins(b"DICM" + bytes(128))
    assert kind.may_begin(b"x" * 128 + b"DI")
    assert not kind.may_begin(b"x" * 20)
    assert not kind.may_begin(b"x" * 128 + b"DX")


@EACH
def test_a_format_has_a_module_that_reads_it(kind: Format) -> None:
    assert callable(import_module(kind.module).read)


@EACH
def test_the_sentence_and_the_documents_name_each_format(kind: Format) -> None:
    assert f" a {kind.name}" in REJECTIONS["wrong_format"]
    assert re.search(rf"^\| {kind.name} \|", PICTURES, re.MULTILINE)


def test_the_documents_name_the_suffixes_that_are_taken_by_default() -> None:
    assert ", ".join(f"`{suffix}`" for suffix in IntakeSettings().suffixes) in " ".join(
        PICTURES.split()
    )
    assert IntakeSettings().suffixes == (*JPEG.suffixes, *PNG.suffixes)
    assert len(set(formats.SUFFIXES)) == len(formats.SUFFIXES)
