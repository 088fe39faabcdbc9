"""`imaging.jpeg`: a JPEG is read only when all of its coded data is there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import jpeg_writer
import numpy as np
import pictures
import pytest
import simplejpeg
from PIL import Image

from machine import lacking, needs
from xray_watcher.errors import UnreadableImage
from xray_watcher.imaging.decode_pool import Decoded, DecodePool, Unreadable
from xray_watcher.imaging.jpeg_huffman import is_all_there
from xray_watcher.imaging.jpeg_parts import essential
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode

LIMITS = DecodeLimits()
FILM = Image.fromarray(pictures.chest(420, 350))
GREY = pictures.jpeg(FILM)
COLOUR = pictures.jpeg(FILM.convert("RGB"))
RESTARTS = pictures.jpeg(FILM, restart_marker_blocks=40)
ODD = jpeg_writer.odd(GREY, COLOUR, RESTARTS)
SAMPLINGS = ("4x2", "2x4", "3x1", "2x2,2x1,1x1", "2x2,1x1,1x2", "1x1,2x2,1x1", "1x2,1x1,1x2")
ARITHMETIC = {
    "grey": ("-grayscale",),
    "colour": ("-sample", "2x2"),
    "4:1:0": ("-sample", "4x2"),
    "progressive": ("-grayscale", "-progressive"),
}


def pixels(data: bytes) -> np.ndarray:
    return decode(data, LIMITS).pixels


def refusal(data: bytes) -> UnreadableImage:
    with pytest.raises(UnreadableImage) as caught:
        decode(data, LIMITS)
    return caught.value


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(1, LIMITS) as made:
        yield made


# ---------------------------------------------------------------- harmless complaints


@pytest.mark.parametrize("name", ODD)
def test_what_is_harmless_costs_no_picture(name: str) -> None:
    assert np.abs(pixels(ODD[name]) - pixels(GREY)).mean() < 4


@pytest.mark.parametrize("name", ODD)
def test_what_is_harmless_hides_no_damage(name: str) -> None:
    start = ODD[name].rindex(b"\xff\xda\x00") + 8
    for how, data in jpeg_writer.damaged(ODD[name], start).items():
        if not ("before the end" in name and how == "cut at 90%"):  # which may be in the padding
            assert refusal(data).code == "corrupt", how


def test_bytes_before_the_end_that_are_no_padding_are_damage() -> None:
    for extra in (b"\x01", b"\x80\x80", bytes(5) + b"\x07", b"\xfe" * 16):
        assert refusal(GREY[:-2] + extra + GREY[-2:]).code == "corrupt"


def test_zeros_over_the_end_of_the_coded_data_are_no_padding() -> None:
    for length in range(16, 4096, 16):
        kept = GREY[: -2 - length]
        assert refusal(kept + bytes(length) + GREY[-2:]).code in ("corrupt", "incomplete")


def test_data_between_the_scans_is_damage() -> None:
    progressive = pictures.jpeg(FILM, progressive=True)
    second = progressive.index(b"\xff\xc4", jpeg_writer.first_coded(progressive))
    assert refusal(progressive[:second] + bytes(40) + GREY[-2:]).code == "corrupt"


# ---------------------------------------------------------------- other samplings and codings


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("way", ["sequential", "progressive", "restarts"])
def test_a_sampling_without_a_name_is_read_and_checked(sampling: str, way: str) -> None:
    needs(lacking(cjpeg="libjpeg-turbo-progs"))
    options = {"sequential": (), "progressive": ("-progressive",), "restarts": ("-restart", "1")}
    whole = jpeg_writer.by_cjpeg(FILM, "-sample", sampling, *options[way])
    assert np.abs(pixels(whole) - pixels(GREY)).mean() < (40 if sampling == "1x1,2x2,1x1" else 12)
    for how, data in jpeg_writer.damaged(whole, jpeg_writer.first_coded(whole)).items():
        assert refusal(data).code == "corrupt", how


@pytest.mark.parametrize("kind", ARITHMETIC)
def test_arithmetic_coding_is_read_and_checked(kind: str) -> None:
    needs(lacking(cjpeg="libjpeg-turbo-progs"))
    whole = jpeg_writer.by_cjpeg(FILM, "-arithmetic", *ARITHMETIC[kind])
    assert np.abs(pixels(whole) - pixels(GREY)).mean() < 12
    for how, data in jpeg_writer.damaged(whole, jpeg_writer.first_coded(whole)).items():
        assert refusal(data).code == "corrupt", how


def test_a_large_arithmetic_picture_is_read() -> None:
    """Pillow reads such data only in one piece, and takes 64 KiB at a time unless it is told."""
    needs(lacking(cjpeg="libjpeg-turbo-progs"))
    noise = np.random.default_rng(1).integers(0, 256, (400, 500), np.uint8)
    whole = jpeg_writer.by_cjpeg(Image.fromarray(noise), "-arithmetic", "-sample", "4x2")
    assert len(whole) > 1 << 16
    decode(whole, LIMITS)


def test_arithmetic_data_that_may_have_been_made_up_is_refused_with_what_to_do() -> None:
    needs(lacking(cjpeg="libjpeg-turbo-progs"))
    half = np.asarray(FILM).copy()
    half[170:] = 0
    error = refusal(jpeg_writer.by_cjpeg(Image.fromarray(half), "-arithmetic", "-grayscale"))
    assert error.code == "corrupt"
    assert "arithmetically" in error.detail


def test_a_component_without_a_scan_is_missing(tmp_path: Path) -> None:
    needs(lacking(cjpeg="libjpeg-turbo-progs"))
    scans = tmp_path / "scans"
    scans.write_text("0;\n1;\n2;\n")
    whole = jpeg_writer.by_cjpeg(FILM, "-scans", str(scans))
    decode(whole, LIMITS)
    second = whole.index(b"\xff\xda", jpeg_writer.first_coded(whole))
    assert refusal(whole[:second] + b"\xff\xd9").code == "corrupt"


# ---------------------------------------------------------------- the codes


@pytest.mark.parametrize(
    "saved",
    [
        {"quality": 95},
        {"quality": 50, "optimize": True},
        {"progressive": True},
        {"progressive": True, "quality": 30, "restart_marker_rows": 2},
        {"restart_marker_blocks": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_all_codes_of_a_whole_picture_are_there_and_of_no_part(
    saved: dict[str, object], mode: str
) -> None:
    rng = random.Random(3)
    data = pictures.jpeg(FILM.convert("RGB").convert(mode), **saved)
    assert is_all_there(*essential(data))
    start = jpeg_writer.first_coded(data)
    for _ in range(20):
        kept = data[: rng.randrange(start, len(data) - 16)].rstrip(b"\xff")
        if b"\xff\xda" in kept:
            assert not _is_there(kept + b"\xff\xd9")


def _is_there(data: bytes) -> bool:
    try:
        return is_all_there(*essential(data))
    except ValueError:
        return False


def test_a_code_that_does_not_exist_is_heard_of() -> None:
    """libjpeg's quick reader of codes passes over it without a word."""
    start = jpeg_writer.first_coded(GREY)
    rng = random.Random(5)
    for _ in range(40):
        at = rng.randrange(start, len(GREY) - 3000)
        data = GREY[:at].rstrip(b"\xff") + b"\xff\x00" * 40 + GREY[at + 80 :]
        assert refusal(data).code == "corrupt"


# ---------------------------------------------------------------- lossless pictures


@pytest.mark.parametrize("side", [64, 96, 200, 895, 896, 1000, 1791, 1792, 2048, 3584, 4000])
def test_a_lossless_picture_ends_no_child_whole_or_cut(
    pool: DecodePool, tmp_path: Path, side: int
) -> None:
    whole = jpeg_writer.lossless(side, side)
    child = _child(pool, tmp_path)
    (tmp_path / "whole.jpg").write_bytes(whole)
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 4 // 10].rstrip(b"\xff") + b"\xff\xd9")
    found = pool.submit(str(tmp_path / "whole.jpg")).result(60)
    assert isinstance(found, Decoded)
    assert (found.image.width, found.image.height) == (side, side)
    cut = pool.submit(str(tmp_path / "cut.jpg")).result(60)
    assert isinstance(cut, Unreadable)
    assert cut.rejection.code == "corrupt"
    assert _child(pool, tmp_path) == child


def _child(pool: DecodePool, tmp_path: Path) -> object:
    (tmp_path / "plain.jpg").write_bytes(GREY)
    assert isinstance(pool.submit(str(tmp_path / "plain.jpg")).result(60), Decoded)
    return pool._workers[0]._child


def test_no_decoder_is_asked_to_make_a_lossless_picture_smaller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    real = simplejpeg.decode_jpeg

    def watched(data: bytes, **options: object) -> np.ndarray:
        asked.append((options["min_width"], options["min_height"]))
        return np.asarray(real(data, **options))

    monkeypatch.setattr(simplejpeg, "decode_jpeg", watched)
    whole = jpeg_writer.lossless(1900, 2000)
    decode(whole, LIMITS)
    refusal(whole[: len(whole) // 2].rstrip(b"\xff") + b"\xff\xd9")
    assert set(asked) == {(1900, 2000)}


@pytest.mark.parametrize("kind", [0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF])
def test_a_kind_that_is_not_handled_says_so(kind: int) -> None:
    at = GREY.index(b"\xff\xc0")
    error = refusal(GREY[: at + 1] + bytes([kind]) + GREY[at + 2 :])
    assert error.code == "unsupported_mode"
    assert "Save it" in error.detail
