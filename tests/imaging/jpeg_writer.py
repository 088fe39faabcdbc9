"""JPEGs of kinds that Pillow does not write, and sound ones with something odd about them."""

from __future__ import annotations

import io
import re
import struct
import subprocess

from PIL import Image


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def lossless(width: int, height: int) -> bytes:
    """Vertical stripes as a lossless JPEG (SOF3, 8 bits, each sample predicted by its left one).

    All rows are equal: the first sample of a row is predicted by the one above.
    """
    same, lighter, darker = "0", "101", "100"
    stripes = (same, lighter, same, lighter, same, darker, darker, same)
    bits = "".join([same, *(stripes[x // 9 % 8] for x in range(1, width))]) * height
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = struct.pack(">BHHB", 8, height, width, 1) + bytes((1, 0x11, 0))
    codes = bytes([0, 1, 1, *[0] * 14, 0, 1])
    return (
        b"\xff\xd8"
        + segment(0xC3, frame)
        + segment(0xC4, codes)
        + segment(0xDA, bytes((1, 1, 0, 1, 0, 0)))
        + coded
        + b"\xff\xd9"
    )


def by_cjpeg(image: Image.Image, *options: str) -> bytes:
    """The picture as libjpeg-turbo's own program writes it."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PPM")
    command = ["cjpeg", "-quality", "90", *options]
    return subprocess.run(command, input=buffer.getvalue(), capture_output=True, check=True).stdout


def first_coded(data: bytes) -> int:
    """Where the coded data of a JPEG without foreign bytes in its header begins."""
    at = 2
    while data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def damaged(data: bytes, start: int) -> dict[str, bytes]:
    """The JPEG, whose coded data begins at `start`, with much of it missing."""
    length = len(data) - 2 - start

    def at(share: float) -> int:
        return start + int(length * share)

    cuts = {
        f"cut at {share:.0%}": data[: at(share)].rstrip(b"\xff") + b"\xff\xd9"
        for share in (0.05, 0.4, 0.9)
    }
    hole = length // 4
    return cuts | {
        "a hole of zeros": data[: at(0.4)] + bytes(hole) + data[at(0.4) + hole :],
        "a part is gone": data[: at(0.4)].rstrip(b"\xff") + data[at(0.4) + hole :],
    }


def odd(grey: bytes, colour: bytes, restarts: bytes) -> dict[str, bytes]:
    """Sound JPEGs of which libjpeg complains, or would if it were asked to.

    Args:
        grey: a plain JPEG.
        colour: one with three components.
        restarts: a grey one with restart markers.
    """
    comment = segment(0xFE, b"made by")
    profile = segment(0xE2, b"ICC_PROFILE\0\1\2" + b"x" * 200)
    profile_0 = segment(0xE2, b"ICC_PROFILE\0\0\1" + b"x" * 200)
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\x09")

    def ahead(data: bytes, what: bytes) -> bytes:
        return data[:2] + what + data[2:]

    def zeroed(data: bytes) -> bytes:
        start = first_coded(data)
        return data[: start - 3] + bytes(3) + data[start:]

    def padded(count: int) -> bytes:
        start = first_coded(restarts)
        coded = re.sub(rb"\xff[\xd0-\xd7]", lambda found: bytes(count) + found[0], restarts[start:])
        return restarts[:start] + coded

    return {
        "another JFIF version": ahead(grey, segment(0xE0, b"JFIF\0\2\1\0\0\1\0\1\0\0")),
        "two stray bytes": ahead(grey, comment + b"\0\0"),
        "three hundred stray bytes": ahead(grey, comment + b"\x37" * 300),
        "FF00 in the header": ahead(grey, comment + b"\xff\0\xff\0"),
        "a part of a colour profile": ahead(colour, profile),
        "a colour profile counted from 0": ahead(grey, profile_0),
        "a colour profile twice": ahead(grey, profile * 2),
        "an unknown Adobe transform": ahead(colour, adobe),
        "scan parameters of zero": zeroed(grey),
        "scan parameters of zero, in colour": zeroed(colour),
        **{f"{count} zeros before each restart": padded(count) for count in (1, 16, 17, 600)},
        **{
            f"{count} zeros before the end": grey[:-2] + bytes(count) + grey[-2:]
            for count in (1, 16, 17, 3000)
        },
    }
