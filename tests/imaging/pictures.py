"""One picture in every encoding that arrives, and files that only look like pictures."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.uint8]

REAL_IMAGES = sorted(Path(__file__).parents[3].glob("shared/images/*.*g"))
ORIENTATION = 0x0112


def chest(width: int = 300, height: int = 250) -> Grey:
    """A picture without symmetry: a ramp, two dark lungs, a bright heart, some grain."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    picture = 90 + 80 * x + 40 * y + rng.normal(0, 3, (height, width))
    for centre_x, centre_y, radius, lightness in ((0.3, 0.4, 0.2, -80), (0.7, 0.45, 0.17, -70)):
        picture += lightness * (np.hypot(x - centre_x, (y - centre_y) * 0.7) < radius)
    picture += 60 * (np.hypot(x - 0.6, y - 0.7) < 0.15)
    return picture.clip(0, 255).astype(np.uint8)


def png(image: Image.Image, **options: object) -> bytes:
    return _saved(image, format="PNG", **options)


def jpeg(image: Image.Image, **options: object) -> bytes:
    return _saved(image, format="JPEG", **({"quality": 95} | options))


def _saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def header(width: int, height: int, depth: int, colour: int, *, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def raw_png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *, interlaced: bool = False
) -> bytes:
    """A PNG made by hand; `rows` are the uncompressed scan lines, each with its filter byte."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + header(width, height, depth, colour, interlaced=interlaced)
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def with_chunks(data: bytes, chunks: bytes) -> bytes:
    """The PNG with more chunks after its header."""
    after_header = 8 + 25
    return data[:after_header] + chunks + data[after_header:]


def deep_png(samples: NDArray[np.uint16], colour: int) -> bytes:
    """A 16-bit PNG of `[height, width, channels]`, of a kind that Pillow cannot write."""
    height, width, _ = samples.shape
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in samples)
    return raw_png(width, height, 16, colour, rows)


def lossless(grey: Grey) -> dict[str, bytes]:
    """The same pixels in every encoding that keeps 8 bits of them."""
    image = Image.fromarray(grey)
    white = Image.new("L", image.size, 255)
    opaque = Image.new("L", image.size, 200)
    opaque.paste(255, (0, 0, *image.size))
    deep = grey.astype(np.uint16) * 257
    palette = image.convert("P")
    palette.putpalette([level for level in range(256) for _ in range(3)])
    reversed_palette = Image.fromarray(255 - grey).convert("P")
    reversed_palette.putpalette([255 - level for level in range(256) for _ in range(3)])
    see_through = image.convert("P")
    see_through.putpalette([255] * 3 * 256)
    return {
        "grey": png(image),
        "grey 16 bits": png(Image.fromarray(deep)),
        "colour": png(image.convert("RGB")),
        "colour with alpha": png(Image.merge("RGBA", (image, image, image, opaque))),
        "white behind an alpha of the picture": png(Image.merge("RGBA", (*[white] * 3, image))),
        "grey with alpha": png(Image.merge("LA", (image, opaque))),
        "white grey behind alpha": png(Image.merge("LA", (white, image))),
        "palette": png(palette),
        "palette in another order": png(reversed_palette),
        "white palette with transparency": png(see_through, transparency=bytes(range(256))),
        "colour 16 bits": deep_png(np.repeat(deep[..., None], 3, axis=2), colour=2),
        "colour 16 bits with alpha": deep_png(
            np.concatenate([np.repeat(deep[..., None], 3, axis=2), deep[..., None] * 0 + 65535], 2),
            colour=6,
        ),
        "grey 16 bits with alpha": deep_png(np.stack([deep, deep * 0 + 65535], 2), colour=4),
    }


def lossy(grey: Grey) -> dict[str, bytes]:
    """The same picture in every kind of JPEG."""
    image = Image.fromarray(grey)
    return {
        "grey": jpeg(image),
        "progressive": jpeg(image, progressive=True),
        "colour": jpeg(image.convert("RGB")),
        "colour, not subsampled": jpeg(image.convert("RGB"), subsampling=0),
        "CMYK": jpeg(image.convert("RGB").convert("CMYK")),
    }


_TO_STORED = {  # what undoes each orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(grey: Grey, orientation: int, *, as_jpeg: bool) -> bytes:
    """A file that shows `grey` when its EXIF orientation is applied."""
    method = _TO_STORED[orientation]
    image = Image.fromarray(grey)
    stored = image if method is None else image.transpose(method)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return jpeg(stored, exif=exif) if as_jpeg else png(stored, exif=exif)


def foreign() -> dict[str, bytes]:
    """What arrives under the name of a picture and is none that is handled."""
    image = Image.fromarray(chest())
    return {
        kind: _saved(image.convert("RGB"), format=kind)
        for kind in ("GIF", "TIFF", "WEBP", "BMP", "EPS", "PDF", "JPEG2000", "ICO")
    } | {
        "HTML": b"<!doctype html><title>502 Bad Gateway</title>",
        "text": b"IHDR",
        "DICOM": b"\x00" * 128 + b"DICM" + b"\x02\x00" * 90,
    }
