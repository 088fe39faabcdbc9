"""What ended, overran or held other programs, made anew from public reports; nothing is theirs.

The names say whose reader it was. Each is small; none harms a reader that holds to its sizes.
"""

from __future__ import annotations

import struct
import zlib

import jpeg_writer
from jpeg_writer import segment
from pictures import chest, chunk, header, jpeg, png, raw_png, with_chunks
from PIL import Image

GREY = chest(96, 80)
PNG, JPEG = png(Image.fromarray(GREY)), jpeg(Image.fromarray(GREY))
COLOUR = jpeg(Image.fromarray(GREY).convert("RGB"), subsampling=0)
PROGRESSIVE = jpeg(Image.fromarray(GREY), progressive=True)
_IEND = chunk(b"IEND", b"")
_ROWS = b"".join(b"\0" + row.tobytes() for row in GREY)
_MOST = 0x7FFFFFFF  # the longest chunk that the standard allows
_ANCILLARY = (
    *(b"bKGD", b"cHRM", b"eXIf", b"gAMA", b"hIST", b"iCCP", b"iTXt", b"juNK", b"pCAL", b"pHYs"),
    *(b"sBIT", b"sCAL", b"sPLT", b"sRGB", b"sTER", b"tEXt", b"tIME", b"tRNS", b"zTXt"),
)


def pngs() -> dict[str, bytes]:
    """Of libpng, zlib and Pillow's own reader."""
    return {
        **{f"libpng, a huge {kind.decode()}": _huge(kind) for kind in (*_ANCILLARY, b"IDAT")},
        **{f"libpng, an empty {k.decode()}": with_chunks(PNG, chunk(k, b"")) for k in _ANCILLARY},
        "libpng, more colours than the depth has": _palette(bytes(3 * 256), depth=1),
        "libpng, no colour": _palette(b"", depth=8),
        "libpng, a palette of four bytes": _palette(bytes(4), depth=8),
        "libpng, more transparency than colours": _palette(
            bytes(6), depth=8, more=chunk(b"tRNS", bytes(256))
        ),
        "libpng, transparency before the palette": with_chunks(
            _palette(bytes(6), depth=8), chunk(b"tRNS", bytes(256))
        ),
        "libpng, a histogram longer than the palette": _palette(
            bytes(6), depth=8, more=chunk(b"hIST", bytes(512))
        ),
        "libpng, a profile with a false length": with_chunks(
            PNG, chunk(b"iCCP", b"p\0\0" + zlib.compress(b"\xff" * 132))
        ),
        "libpng, a text without an end of its name": with_chunks(PNG, chunk(b"zTXt", b"x" * 80)),
        "libpng, a suggested palette of half an entry": with_chunks(
            PNG, chunk(b"sPLT", b"name\0\x10" + bytes(7))
        ),
        "libpng, a calibration without parameters": with_chunks(
            PNG, chunk(b"pCAL", b"x\0" + bytes(8) + b"\0\xff" + b"unit")
        ),
        "libpng, EXIF of one byte": with_chunks(PNG, chunk(b"eXIf", b"M")),
        **{
            f"libpng, a row of {width} pixels, depth {depth}": _sized(width, 1, depth, colour)
            for width, depth, colour in (
                (0x7FFFFFFF, 8, 6),
                (0x40000000, 16, 6),
                (0x1FFFFFFF, 1, 0),
            )
        },
        "libpng, no width": _sized(0, 80, 8, 0),
        "libpng, no height": _sized(96, 0, 8, 0),
        "libpng, a height with its sign bit": _sized(96, 0x80000050, 8, 0),
        **{
            f"libpng, depth {depth} of colour {colour}": _sized(96, 80, depth, colour)
            for depth, colour in ((16, 3), (1, 2), (3, 0), (32, 0), (8, 5), (8, 255))
        },
        "libpng, interlaced, one pixel wide": raw_png(
            1, 70_000, 8, 0, bytes(140_000), interlaced=True
        ),
        "libpng, interlaced, without its last pass": raw_png(
            96, 80, 8, 0, _ROWS[: len(_ROWS) // 2], interlaced=True
        ),
        "libpng, a filter that there is not": raw_png(96, 80, 8, 0, b"\x05" + _ROWS[1:]),
        "libpng, two headers": with_chunks(PNG, header(9000, 9000, 16, 6)),
        "libpng, the end first": PNG[:33] + _IEND + PNG[33:],
        "zlib, a block of a kind that there is not": _deflated(b"\x78\x9c\x07"),
        "zlib, codes that are too many": _deflated(b"\x78\x9c\x05\xe0" + b"\x24\x92" * 8),
        "zlib, a distance before the beginning": _deflated(_fixed("000000100010")),
        "zlib, distance code 30 of the fixed ones": _deflated(_fixed("000000111110")),
        "zlib, length code 286 of the fixed ones": _deflated(_fixed("11000110")),
        "zlib, a window larger than there is": _deflated(b"\xf8\x1c" + zlib.compress(_ROWS)[2:]),
        "zlib, a dictionary that nobody has": _deflated(b"\x78\xbb" + bytes(8)),
        "zlib, a stored block whose lengths disagree": _deflated(b"\x78\x01\x01\xff\xff\xff\xff"),
        "zlib, thousands of empty blocks": _deflated(b"\x78\x01" + b"\0\0\0\xff\xff" * 200_000),
        "Pillow, an animation that counts wrongly": with_chunks(
            PNG, chunk(b"acTL", struct.pack(">II", 0xFFFFFFFF, 0))
        ),
        "Pillow, a frame outside of the picture": with_chunks(
            PNG,
            chunk(b"acTL", struct.pack(">II", 2, 0))
            + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 96, 80, _MOST, _MOST, 0, 0, 9, 9)),
        ),
        "Pillow, EXIF that leads to itself": with_chunks(PNG, chunk(b"eXIf", _looping())),
    }


def jpegs() -> dict[str, bytes]:
    """Of libjpeg, libjpeg-turbo, Pillow's own reader and a few others."""
    return {
        "libjpeg-turbo, lossless, made smaller": jpeg_writer.lossless(1792, 1792),
        "libjpeg-turbo, lossless, cut": _ended(jpeg_writer.lossless(400, 400)[:6000]),
        "libjpeg-turbo, lossless of 12 bits": _with_frame(jpeg_writer.lossless(96, 96), 0, b"\x0c"),
        "libjpeg-turbo, a codes table of 256 and more": _ahead(
            segment(0xC4, b"\0" + b"\xff" * 16 + bytes(4080))
        ),
        "libjpeg-turbo, more codes than bits": _ahead(
            segment(0xC4, bytes([0, 9, *[0] * 15, *range(9)]))
        ),
        "libjpeg-turbo, a codes table of number 15": _ahead(
            segment(0xC4, bytes([0x0F, 1, *[0] * 15, 0]))
        ),
        "libjpeg-turbo, a table that is not there": JPEG.replace(
            b"\xff\xda\x00\x08\x01\x01\x00", b"\xff\xda\x00\x08\x01\x01\x33"
        ),
        "libjpeg-turbo, a quantisation of zeros": _ahead(segment(0xDB, bytes(65)), after=True),
        "libjpeg-turbo, a quantisation of number 15": _ahead(segment(0xDB, b"\x0f" + bytes(64))),
        "libjpeg-turbo, half a quantisation": _ahead(segment(0xDB, b"\x10" + bytes(64))),
        **{
            f"libjpeg-turbo, sampling {sampling:02x}": _with_frame(JPEG, 7, bytes([sampling]))
            for sampling in (0x00, 0x10, 0x01, 0x55, 0xFF, 0x44)
        },
        "libjpeg-turbo, unlike samplings": _with_frame(COLOUR, 7, b"\x41\x00\x02\x14\x00\x03\x22"),
        "libjpeg-turbo, a component twice": _with_frame(COLOUR, 6, b"\x01\x11\x00\x01\x11\x00\x01"),
        "libjpeg-turbo, a scan of a component twice": _with_scan(COLOUR, b"\x03\x01\0\x01\0\x01\0"),
        "libjpeg-turbo, a scan of a stranger": _with_scan(COLOUR, b"\x01\x09\0\0\x3f\0"),
        "libjpeg-turbo, two components": _with_frame(JPEG, 5, b"\x02\x01\x11\0\x02\x11\0"),
        "libjpeg-turbo, no component": _with_frame(JPEG, 5, b"\0"),
        "libjpeg-turbo, 255 components": _with_frame(JPEG, 5, b"\xff"),
        "libjpeg-turbo, a height that follows later": _with_frame(JPEG, 1, b"\0\0"),
        "libjpeg-turbo, no width": _with_frame(JPEG, 3, b"\0\0"),
        "libjpeg-turbo, a strip of 65,500 pixels": _with_frame(JPEG, 1, b"\xff\xdc"),
        "libjpeg-turbo, two frames": _ahead(_frame_of(JPEG), after=True),
        "libjpeg-turbo, a frame after the scan": _ended(JPEG[:-2] + _frame_of(COLOUR)),
        "libjpeg-turbo, progressive, a band that ends before it begins": _bands(0x3F, 0x01, 0),
        "libjpeg-turbo, progressive, a band beyond the block": _bands(1, 0xFF, 0),
        "libjpeg-turbo, progressive, a step of 15 bits": _bands(0, 0, 0xFE),
        "libjpeg-turbo, thousands of scans": _scans(3_000),
        "libjpeg-turbo, restarts after each block": _ahead(segment(0xDD, b"\0\1"), after=True),
        "libjpeg-turbo, restarts without end": _ended(JPEG[:-2] + b"\xff\xd0\xff\xd7" * 50_000),
        "libjpeg-turbo, arithmetic coding without its limits": _ahead(segment(0xCC, b"\xff\0" * 9)),
        "libjpeg-turbo, fillings": JPEG[:2] + b"\xff" * 500_000 + JPEG[2:],
        "GDI+, a comment of length 0": JPEG[:2] + b"\xff\xfe\0\0" + JPEG[2:],
        "GDI+, a comment of length 1": JPEG[:2] + b"\xff\xfe\0\1" + JPEG[2:],
        **{
            f"libjpeg, an empty {marker:02X}": _ahead(segment(marker, b""))
            for marker in (0xC0, 0xC4, 0xCC, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xED, 0xEE)
        },
        "libjpeg, a JFIF thumbnail of 255 a side": _ahead(
            segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\xff\xff")
        ),
        "libjpeg, half an Adobe": _ahead(segment(0xEE, b"Adobe")),
        "libjpeg, a profile counted to 255": _ahead(
            b"".join(
                segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 255]) + b"x") for n in range(1, 200)
            )
        ),
        "Pillow, EXIF that leads to itself": _ahead(segment(0xE1, b"Exif\0\0" + _looping())),
        "Pillow, EXIF with a count of billions": _ahead(
            segment(0xE1, b"Exif\0\0" + _counting(0xFFFFFFFF))
        ),
        "Pillow, EXIF that begins outside": _ahead(segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xf0")),
        "Pillow, more pictures than there are": _ahead(
            segment(0xE2, b"MPF\0" + _counting(0x7FFFFFFF, 0xB001))
        ),
        "Pillow, Photoshop's block without its size": _ahead(
            segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\xff")
        ),
        "nothing but the beginning": b"\xff\xd8\xff\xd9",
        "a thousand beginnings": b"\xff\xd8" * 1000 + JPEG[2:],
    }


def _huge(kind: bytes) -> bytes:
    """A chunk that says that it is as long as can be, and is not."""
    return with_chunks(PNG, struct.pack(">I", _MOST) + kind + bytes(100))


def _palette(colours: bytes, *, depth: int, more: bytes = b"") -> bytes:
    plain = raw_png(96, 80, depth, 3, (b"\0" + b"\xff" * (96 * depth // 8)) * 80)
    return with_chunks(plain, chunk(b"PLTE", colours) + more)


def _sized(width: int, height: int, depth: int, colour: int) -> bytes:
    return PNG[:8] + header(width, height, depth, colour) + PNG[33:]


def _deflated(stream: bytes) -> bytes:
    return PNG[:8] + header(96, 80, 8, 0) + chunk(b"IDAT", stream) + _IEND


def _fixed(codes: str) -> bytes:
    """A deflate block of fixed codes, the bits in their order."""
    bits = "1" + "10" + codes + "0" * 40
    packed = [int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits) // 8 * 8, 8)]
    return b"\x78\x9c" + bytes(packed)


def _looping() -> bytes:
    """An EXIF block whose next directory, and whose sub-directories, are itself."""
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, 8) for tag in (0x8769, 0x8825, 0xA005))
    return b"MM\0*" + struct.pack(">IH", 8, 3) + entries + struct.pack(">I", 8)


def _counting(count: int, tag: int = 0x0112) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHII", 8, 1, tag, 4, count, 8) + bytes(4)


def _at(data: bytes, *markers: int) -> int:
    """Where the first segment of one of these kinds begins."""
    at = 2
    while data[at + 1] not in markers:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def _frame_of(data: bytes) -> bytes:
    at = _at(data, 0xC0, 0xC2, 0xC3)
    return data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]


def _with_frame(data: bytes, offset: int, content: bytes) -> bytes:
    """The JPEG with other bytes at that place of its frame header's content."""
    at = _at(data, 0xC0, 0xC2, 0xC3) + 4 + offset
    return data[:at] + content + data[at + len(content) :]


def _with_scan(data: bytes, content: bytes) -> bytes:
    at = _at(data, 0xDA)
    old = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[:at] + segment(0xDA, content) + data[at + old :]


def _ahead(what: bytes, *, after: bool = False) -> bytes:
    """The JPEG with more before all of its segments, or before its scan."""
    at = _at(JPEG, 0xDA) if after else 2
    return JPEG[:at] + what + JPEG[at:]


def _ended(data: bytes) -> bytes:
    return data.rstrip(b"\xff") + b"\xff\xd9"


def _bands(first: int, last: int, steps: int) -> bytes:
    """A progressive JPEG whose first scan has other parameters."""
    return _with_scan(PROGRESSIVE, bytes([1, 1, 0, first, last, steps]))


def _scans(count: int) -> bytes:
    """A progressive JPEG of many scans, each of which costs a pass over the whole picture."""
    large = jpeg(Image.fromarray(chest(1600, 1600)), progressive=True)
    refining = segment(0xDA, bytes([1, 1, 0, 1, 0x3F, 0x10])) + b"\x00"
    return _ended(large[:-2] + refining * count)
