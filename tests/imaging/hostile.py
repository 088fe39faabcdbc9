"""What somebody with bad intentions, or bad luck, drops: RELIABILITY.md, rows 16 to 32."""

from __future__ import annotations

import random
import struct
import zlib

import crashers
import numpy as np
from pictures import chest, chunk, foreign, header, jpeg, lossless, lossy, png, raw_png, with_chunks
from PIL import Image

GREY = chest(200, 160)
PNG, JPEG = png(Image.fromarray(GREY)), jpeg(Image.fromarray(GREY))


def not_whole() -> dict[str, bytes]:
    """What must be set aside, whatever else happens."""
    rng = random.Random(16)
    return {
        "empty": b"",
        **{f"foreign {name}": data for name, data in foreign().items()},
        **_parts(rng),
        **_flips(rng),
        **_bombs(),
        **_blank(),
        "tiny": png(Image.new("L", (1, 1), 7)),
        "narrow": png(Image.fromarray(GREY[:, :15])),
        "picture and script": JPEG + b"<script>alert(1)</script>",
        "picture and archive": PNG + b"PK\x03\x04" + rng.randbytes(500),
        "two pictures": JPEG + JPEG,
        "animation": _animation(),
        "text": b"DOE^JOHN 1970-01-01",
        "rows missing": raw_png(200, 160, 8, 0, (b"\0" + GREY[0].tobytes()) * 80),
    }


def heavy_or_damaged_unseen() -> dict[str, bytes]:
    """What may be classified or set aside, but must harm nobody.

    The first ended other programs, the next are whole pictures that are hard to read; of flipped
    bits in a JPEG nobody can know.
    """
    rng = random.Random(17)
    comment = b"Comment\0\0" + zlib.compress(bytes(10**8), 9)
    profile = b"p\0\0" + zlib.compress(bytes(10**8), 9)
    found = {
        **crashers.pngs(),
        **crashers.jpegs(),
        "text bomb": with_chunks(PNG, chunk(b"zTXt", comment)),
        "profile bomb": with_chunks(PNG, chunk(b"iCCP", profile)),
        "flood of texts": with_chunks(PNG, chunk(b"tEXt", b"a\0bcdefghij") * 200_000),
        "flood of comments": JPEG[:2] + b"\xff\xfe\x00\x0chello hell" * 100_000 + JPEG[2:],
        "large and deep": _large_and_deep(),
        "large and progressive": jpeg(
            Image.fromarray(np.tile(GREY, (40, 30))).convert("RGB"), progressive=True, quality=30
        ),
    }
    for number in range(20):
        damaged = bytearray(JPEG)
        damaged[rng.randrange(2, len(JPEG) - 2)] ^= 1 << rng.randrange(8)
        found[f"jpeg with flip {number}"] = bytes(damaged)
    return found


def _parts(rng: random.Random) -> dict[str, bytes]:
    """Pictures cut at some percents of their lengths, left so or filled up again."""
    found = {}
    coded = {**{f"png {k}": v for k, v in lossless(GREY).items()}, **lossy(GREY)}
    for name, whole in coded.items():
        end = whole[-2:] if whole.startswith(b"\xff\xd8") else whole[-12:]
        for percent in rng.sample(range(1, 100), 3):
            kept = whole[: len(whole) * percent // 100]
            rest = len(whole) - len(kept)
            filling = rng.choice((b"", bytes(rest), rng.randbytes(rest)))
            found[f"{percent} % of {name}"] = kept + filling + rng.choice((b"", end))
    return found


def _flips(rng: random.Random) -> dict[str, bytes]:
    found = {}
    for number in range(30):
        damaged = bytearray(PNG)
        damaged[rng.randrange(len(PNG))] ^= 1 << rng.randrange(8)
        found[f"png with flip {number}"] = bytes(damaged)
    return found


def _bombs() -> dict[str, bytes]:
    """A few kilobytes that promise, or hold, many megapixels."""
    at = JPEG.index(b"\xff\xc0")
    side = struct.pack(">HH", 65_535, 65_535)
    found = {"jpeg of 65,535 pixels a side": JPEG[: at + 5] + side + JPEG[at + 9 :]}
    for side_pixels in (9_000, 30_000, 65_535):
        found[f"png of {side_pixels} pixels a side"] = _zeros(side_pixels, side_pixels, 8, 0, 1)
    found["png with more pixels than it says"] = raw_png(64, 64, 8, 0, bytes(50_000_000))
    return found


def _zeros(width: int, height: int, depth: int, colour: int, bytes_a_pixel: int) -> bytes:
    """A whole PNG of zeros, as far as 200 MB of them go."""
    deflating = zlib.compressobj(1)
    rows = min(height, 200_000_000 // (width * bytes_a_pixel))
    data = b"".join(deflating.compress(bytes(1 + width * bytes_a_pixel)) for _ in range(rows))
    data += deflating.flush()
    return (
        PNG[:8] + header(width, height, depth, colour) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def _large_and_deep() -> bytes:
    """Nearly 50 megapixels of 16 bits and four channels: as much as is allowed."""
    width, height = 7_000, 7_000
    deflating = zlib.compressobj(1)
    row = b"\0" + bytes(4 * width) + b"\xff" * (4 * width)
    data = b"".join(deflating.compress(row) for _ in range(height)) + deflating.flush()
    return PNG[:8] + header(width, height, 16, 6) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _blank() -> dict[str, bytes]:
    modes = ("1", "L", "RGB", "RGBA", "P", "I;16")
    return {f"blank {mode}": png(Image.new(mode, (100, 100))) for mode in modes}


def _animation() -> bytes:
    frames = [Image.fromarray(np.roll(GREY, shift)) for shift in range(3)]
    return png(frames[0], save_all=True, append_images=frames[1:])
