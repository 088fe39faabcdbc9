"""`imaging.png`: a plain PNG has Pillow's pixels, and what is not plain is left to Pillow."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pictures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xray_watcher.errors import UnreadableImage
from xray_watcher.imaging import png
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode

GREY = pictures.chest()
PNG = pictures.png(Image.fromarray(GREY))
KINDS = [(8, 0, 1, "L"), (8, 2, 3, "RGB"), (16, 0, 2, "I;16")]
"""Bits, colour type (PNG 3rd ed., 6.1), bytes a pixel and Pillow's mode."""
ADAM7_PIXELS = [(8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2)]


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image)
    return pixels if pixels.ndim == 2 else pixels[:, :, 0]


def found(data: bytes, mode: str) -> np.ndarray | None:
    width, height = struct.unpack(">II", data[16:24])
    quickly = png.first_channel(data, mode, width, height)
    return None if quickly is None else quickly[0]


def with_end(data: bytes, chunks: bytes) -> bytes:
    """The PNG with more chunks behind its pixels."""
    return data[:-12] + chunks + data[-12:]


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    width=st.integers(1, 70),
    height=st.integers(1, 40),
    seed=st.integers(0, 1 << 32),
)
def test_every_filter_gives_the_same_pixels_as_pillow(
    kind: tuple[int, int, int, str], width: int, height: int, seed: int
) -> None:
    bits, colour, size, mode = kind
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (height, 1 + width * size)).astype(np.uint8)
    rows[:, 0] = rng.integers(0, 5, height)
    data = pictures.raw_png(width, height, bits, colour, rows.tobytes())
    pixels = found(data, mode)
    assert pixels is not None
    assert np.array_equal(pixels, by_pillow(data))


@pytest.mark.parametrize(("bits", "colour", "size", "mode"), KINDS)
def test_an_interlaced_picture_has_the_same_pixels(
    bits: int, colour: int, size: int, mode: str
) -> None:
    rng = np.random.default_rng(5)
    parts = []
    for columns, rows in ADAM7_PIXELS:
        part = rng.integers(0, 256, (80 // rows, 1 + 96 // columns * size)).astype(np.uint8)
        part[:, 0] = rng.integers(0, 5, len(part))
        parts.append(part.tobytes())
    data = pictures.raw_png(96, 80, bits, colour, b"".join(parts), interlaced=True)
    pixels = found(data, mode)
    assert pixels is not None
    assert np.array_equal(pixels, by_pillow(data))


def test_white_is_the_end_of_the_range_of_bits() -> None:
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    colour = Image.fromarray(GREY).convert("RGB")
    for data, mode, white in (
        (PNG, "L", 255.0),
        (pictures.png(colour), "RGB", 255.0),
        (pictures.png(deep), "I;16", 65535.0),
    ):
        quickly = png.first_channel(data, mode, 300, 250)
        assert quickly is not None
        assert quickly[1] == white


@pytest.mark.parametrize(
    ("bits", "colour", "samples"), [(1, 0, 1), (2, 0, 1), (4, 0, 1), (16, 2, 3), (16, 6, 4)]
)
def test_another_kind_of_pixels_is_left_to_pillow(bits: int, colour: int, samples: int) -> None:
    row = b"\x00" + bytes(number % 256 for number in range(64 * bits * samples // 8))
    data = pictures.raw_png(64, 64, bits, colour, row * 64)
    with Image.open(io.BytesIO(data)) as image:
        assert found(data, image.mode) is None


@pytest.mark.parametrize("left", [0.2, 0.9, 0.999])
def test_a_picture_that_is_not_all_there_is_left_to_pillow(left: float) -> None:
    rows = b"".join(b"\x00" + row.tobytes() for row in GREY)
    short = pictures.raw_png(300, 250, 8, 0, rows[: int(len(rows) * left)])
    assert found(short, "L") is None
    assert found(PNG[: int(len(PNG) * left)], "L") is None


def test_the_checksum_within_the_compressed_data_alone_refuses_no_picture() -> None:
    """That of each chunk covers the same bytes: what is damaged on the way is refused."""
    rows = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in GREY))
    wrong = rows[:-1] + bytes([rows[-1] ^ 1])
    chunks = pictures.header(300, 250, 8, 0) + pictures.chunk(b"IDAT", wrong)
    data = b"\x89PNG\r\n\x1a\n" + chunks + pictures.chunk(b"IEND", b"")
    assert np.array_equal(decode(data, DecodeLimits()).pixels, decode(PNG, DecodeLimits()).pixels)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    with pytest.raises(UnreadableImage):
        decode(bytes(damaged), DecodeLimits())


def test_another_size_than_the_header_says_is_left_to_pillow() -> None:
    assert png.first_channel(PNG, "L", 250, 300) is None


def test_memory_that_runs_out_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", exhausted)
    assert found(PNG, "L") is None


@pytest.mark.parametrize("colour", ["L", "RGB"])
def test_pillow_does_not_decode_a_plain_picture_once_more(
    colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures.png(Image.fromarray(GREY).convert(colour))
    expected = decode(data, DecodeLimits()).pixels
    monkeypatch.delattr(Image.Image, "load")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None, raising=False)
    assert np.array_equal(decode(data, DecodeLimits()).pixels, expected)


@pytest.mark.parametrize("where", ["before the pixels", "after the pixels"])
@pytest.mark.parametrize("form", ["eXIf", "XMP", "packed text"])
def test_orientation_counts_wherever_it_stands(where: str, form: str) -> None:
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    content = exif.tobytes()
    xmp = b'<x tiff:Orientation="6"/>'
    lines = f"\nexif\n{len(content)}\n{content.hex()}\n".encode()
    chunk = {
        "eXIf": pictures.chunk(b"eXIf", content.removeprefix(b"Exif\x00\x00")),
        "XMP": pictures.chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp),
        "packed text": pictures.chunk(
            b"zTXt", b"Raw profile type exif\x00\x00" + zlib.compress(lines)
        ),
    }[form]
    put = pictures.with_chunks if where == "before the pixels" else with_end
    turned = decode(put(PNG, chunk), DecodeLimits())
    assert (turned.width, turned.height) == (250, 300)
    upright = pictures.png(Image.fromarray(np.rot90(GREY, -1)))
    assert np.allclose(turned.pixels, decode(upright, DecodeLimits()).pixels, atol=0.01)


_LARGE = b"0123456789abcdef" * (1100 << 6)
ODD_METADATA = {
    "a large text": pictures.chunk(b"zTXt", b"Comment\0\0" + zlib.compress(_LARGE)),
    "a large raw profile": pictures.chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(_LARGE)
    ),
    "a large XMP": pictures.chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(_LARGE)),
    "a large colour profile": pictures.chunk(b"iCCP", b"p\0\0" + zlib.compress(_LARGE)),
    "a damaged colour profile": pictures.chunk(b"iCCP", b"p\0\0garbage"),
    "an unknown packing": pictures.chunk(b"zTXt", b"Comment\0\7garbage"),
    "a damaged raw profile": pictures.chunk(b"zTXt", b"Raw profile type exif\0\0garbage"),
    **{
        f"an empty {kind.decode()}": pictures.chunk(kind, b"")
        for kind in (
            b"cHRM",
            b"sRGB",
            b"pHYs",
            b"gAMA",
            b"iCCP",
            b"tEXt",
            b"zTXt",
            b"iTXt",
            b"eXIf",
        )
    },
}


@pytest.mark.parametrize("where", ["before the pixels", "after the pixels"])
@pytest.mark.parametrize("name", ODD_METADATA)
def test_damaged_or_large_metadata_costs_no_picture(name: str, where: str) -> None:
    put = pictures.with_chunks if where == "before the pixels" else with_end
    odd = put(PNG, ODD_METADATA[name])
    assert np.array_equal(decode(odd, DecodeLimits()).pixels, decode(PNG, DecodeLimits()).pixels)


def test_transparency_and_palette_are_kept_beside_metadata() -> None:
    palette = Image.fromarray(GREY).convert("P")
    data = pictures.png(palette, transparency=bytes(range(256)))
    odd = pictures.with_chunks(data, ODD_METADATA["a large text"])
    assert np.array_equal(decode(odd, DecodeLimits()).pixels, decode(data, DecodeLimits()).pixels)
