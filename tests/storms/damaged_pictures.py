"""Damaged JPEGs by the thousand, made from films: is one scored, and is a whole one refused?

    make damaged                                    # 21,000 files; about an hour beside other work
    make damaged ARGS="--files 1000 --seed 7"

Films are written in every kind of JPEG that arrives, and with harmless oddities; each of these must
be accepted. Then parts are cut off or overwritten. What is accepted all the same is read by
libjpeg-turbo's own program `djpeg`, which prints every complaint: there must be none that the whole
file does not give too. The table says how often a hole decodes without any, and how much it then
changes what the network sees. The films are those in ../shared/images where they lie, else drawn.

Needs `cjpeg`, `djpeg` and `jpegtran`; says so and counts as not run where they lack.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]

from machine import lacking  # noqa: E402
from xray_watcher.errors import UnreadableImage  # noqa: E402
from xray_watcher.imaging.limits import DecodeLimits  # noqa: E402
from xray_watcher.imaging.picture import DecodedImage  # noqa: E402
from xray_watcher.imaging.pixels import decode  # noqa: E402
from xray_watcher.phantom.files import draw_images  # noqa: E402

REAL = sorted(Path(__file__).parents[3].glob("shared/images/*.*g"))
LIMITS = DecodeLimits()
SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
_SIDE = 768  # the shorter one: what is larger takes longer and shows nothing else
_COMPLAINT = re.compile(
    r"Corrupt JPEG data.*|Premature end of JPEG.*|Inconsistent progression.*|Invalid SOS.*"
    r"|Unsupported.*|Invalid.*|.*[Cc]annot.*|.*error.*"
)
_MADE: dict[str, tuple[str, ...]] = {
    "grey": ("-grayscale",),
    "grey, optimised": ("-grayscale", "-optimize"),
    "colour 4:4:4": ("-sample", "1x1"),
    "colour 4:2:2": ("-sample", "2x1"),
    "colour 4:4:0": ("-sample", "1x2"),
    "colour 4:2:0": ("-sample", "2x2"),
    "colour 4:1:1": ("-sample", "4x1"),
    "colour 4:4:1": ("-sample", "1x4"),
    "colour 4:1:0": ("-sample", "4x2"),
    "colour 2x4": ("-sample", "2x4"),
    "colour 3x1": ("-sample", "3x1"),
    "colour, mixed sampling": ("-sample", "2x2,1x1,1x2"),
    "colour, sampling by half": ("-sample", "2x2,2x1,1x1"),
    "RGB": ("-rgb",),
    "grey, progressive": ("-grayscale", "-progressive"),
    "colour, progressive": ("-progressive", "-sample", "2x2"),
    "colour 4:1:0, progressive": ("-progressive", "-sample", "4x2"),
    "grey, restart each row": ("-grayscale", "-restart", "1"),
    "colour, restart each 16 units": ("-sample", "2x2", "-restart", "16B"),
    "colour 4:1:0, restart each row": ("-sample", "4x2", "-restart", "1"),
    "grey, progressive, restart": ("-grayscale", "-progressive", "-restart", "1"),
    "grey, arithmetic": ("-grayscale", "-arithmetic"),
    "colour, arithmetic": ("-sample", "2x2", "-arithmetic"),
    "grey, arithmetic, progressive": ("-grayscale", "-arithmetic", "-progressive"),
}


def missing() -> str | None:
    """Why it cannot be tried here, if it cannot."""
    return lacking(cjpeg="libjpeg-turbo-progs", djpeg="libjpeg-turbo-progs")


# ---------------------------------------------------------------- whole pictures


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def _behind_start(addition: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:2] + addition + data[2:]


def _bad_scan_parameters(data: bytes) -> bytes:
    start, _ = _coded(data)
    return data[: start - 3] + bytes(3) + data[start:]


def _padded_restarts(data: bytes) -> bytes:
    start, _ = _coded(data)
    return data[:start] + re.sub(
        rb"(\xff[\xd0-\xd7])", lambda found: bytes(6) + found[1], data[start:]
    )


def _padded_end(data: bytes) -> bytes:
    return data[:-2] + bytes(608) + data[-2:]


_JFIF = _segment(0xE0, b"JFIF\0\2\1\0\0\1\0\1\0\0")
_ICC = _segment(0xE2, b"ICC_PROFILE\0\3\2" + b"x" * 500)
_ODD: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "grey, JFIF 2.01": ("grey", _behind_start(_JFIF)),
    "colour, broken colour profile": ("colour 4:2:0", _behind_start(_ICC)),
    "grey, 14 stray bytes ahead": ("grey", _behind_start(_segment(0xFE, b"a") + bytes(14))),
    "grey, 300 stray bytes ahead": ("grey", _behind_start(_segment(0xFE, b"a") + b"\x37" * 300)),
    "colour, Adobe transform 9": (
        "colour 4:2:0",
        _behind_start(_segment(0xEE, b"Adobe\0\x64\0\0\0\0\x09")),
    ),
    "colour, wrong scan parameters": ("colour 4:2:0", _bad_scan_parameters),
    "grey, padding before restarts": ("grey, restart each row", _padded_restarts),
    "grey, 608 bytes of padding": ("grey", _padded_end),
    "colour 4:1:0, JFIF 2.01": ("colour 4:1:0", _behind_start(_JFIF)),
}
KINDS = (*_MADE, *_ODD, "CMYK", "as it came")


def films() -> Iterator[tuple[Image.Image, bytes | None]]:
    """Pictures, and the JPEG that they came as."""
    contents = [path.read_bytes() for path in REAL] or [
        made.content for made in draw_images(8, seed=5)
    ]
    for content in contents:
        with Image.open(io.BytesIO(content)) as image:
            grey = (
                image.convert("L") if image.mode != "I;16" else image.point(lambda v: v / 257, "L")
            )
        grey.thumbnail((_SIDE * 2, _SIDE * 2))
        factor = max(1.0, min(grey.size) / _SIDE)
        small = grey.resize((int(grey.width / factor), int(grey.height / factor)))
        yield small, content if content.startswith(b"\xff\xd8") else None


def whole(kind: str, image: Image.Image, came_as: bytes | None, quality: int) -> bytes | None:
    """The picture as a JPEG of a kind; None where there is none."""
    if kind == "as it came":
        return came_as
    if kind in _ODD:
        of, change = _ODD[kind]
        made = whole(of, image, came_as, quality)
        return None if made is None else change(made)
    buffer = io.BytesIO()
    if kind == "CMYK":
        image.convert("RGB").convert("CMYK").save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()
    image.convert("RGB").save(buffer, "PPM")
    command = ["cjpeg", "-quality", str(quality), *_MADE[kind]]
    return subprocess.run(command, input=buffer.getvalue(), capture_output=True, check=True).stdout


# ---------------------------------------------------------------- damage


def _coded(data: bytes) -> tuple[int, int]:
    """Where coded data begins, and where the end marker stands."""
    at = 2
    while True:
        at = data.index(b"\xff", at)
        marker = data[at + 1]
        if marker == 0xDA or (0xC0 <= marker <= 0xFE and marker != 0xD8):
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if marker == 0xDA:
                return end, data.rstrip(b"\0").rindex(b"\xff\xd9")
            at = end
        else:
            at += 1


@dataclass(frozen=True)
class Damage:
    """What was done: in words and, of a hole, how many bytes."""

    how: str
    size: int = 0


def damaged(data: bytes, rng: random.Random) -> tuple[Damage, bytes]:
    """The JPEG with one part of its coded data missing or overwritten."""
    start, end = _coded(data)
    how = rng.choice(("cut", "zeros", "zeros", "noise", "noise", "gone", "stray"))
    if how == "cut":
        kept = data[: rng.randrange(start, end - 16)].rstrip(b"\xff")
        return Damage("cut"), kept + data[end:]
    size = rng.choice([size for size in SIZES if size < (end - start) // 2])
    at = rng.randrange(start, end - size)
    before = data[:at].rstrip(b"\xff")
    noise = rng.randbytes(size).replace(b"\xff", b"\xfe")
    if how == "stray":
        return Damage(how, size), before + noise + data[at:]
    filling = {"zeros": bytes(size), "noise": noise, "gone": b""}[how]
    return Damage(how, size), before + filling + data[at + size :]


def complaints(data: bytes) -> Counter[str]:
    """What libjpeg says of a JPEG that it reads to its end: each complaint, without figures."""
    command = ["djpeg", "-verbose", "-verbose", "-verbose", "-outfile", "/dev/null"]
    told = subprocess.run(command, input=data, capture_output=True, check=False)
    lines = (line.strip() for line in told.stderr.decode("ascii", "replace").splitlines())
    return Counter(
        re.sub(r"\d+|0x[0-9a-f]+", "N", line) for line in lines if _COMPLAINT.fullmatch(line)
    )


# ---------------------------------------------------------------- the storm


@dataclass
class Found:
    """What came out, by kind of picture and by damage."""

    wholes: int = 0
    refused: list[str] = field(default_factory=list)
    tried: Counter[tuple[str, Damage]] = field(default_factory=Counter)
    accepted: Counter[tuple[str, Damage]] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    changes: dict[tuple[str, Damage], list[float]] = field(default_factory=dict)

    def add(self, other: Found) -> None:
        """Count what came out of other films too."""
        self.wholes += other.wholes
        self.refused += other.refused
        self.tried += other.tried
        self.accepted += other.accepted
        self.told += other.told
        for key, changes in other.changes.items():
            self.changes.setdefault(key, []).extend(changes)


def _decoded(data: bytes) -> DecodedImage | UnreadableImage:
    try:
        return decode(data, LIMITS)
    except UnreadableImage as error:
        return error


def storm(files: int, seed: int, jobs: int = 1) -> Found:
    """Damage films until there are so many files."""
    pictures = list(films())
    each = max(1, files // (len(pictures) * len(KINDS)))
    found = Found()
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for part in pool.map(_film, range(len(pictures)), repeat(each), repeat(seed)):
            found.add(part)
    return found


def _film(number: int, each: int, seed: int) -> Found:
    found, rng = Found(), random.Random(f"{seed} {number}")
    image, came_as = list(films())[number]
    for kind in KINDS:
        quality = rng.choice((60, 75, 85, 90, 95))
        made = whole(kind, image, came_as, quality)
        if made is not None:
            _damage(made, kind, f"{kind}, film {number}, quality {quality}", each, rng, found)
    return found


def _damage(made: bytes, kind: str, name: str, each: int, rng: random.Random, found: Found) -> None:
    reference = _decoded(made)
    found.wholes += 1
    if isinstance(reference, UnreadableImage):
        found.refused.append(f"{name}: {reference.detail}")
        return
    harmless = complaints(made)
    for _ in range(each):
        damage, data = damaged(made, rng)
        found.tried[kind, damage] += 1
        result = _decoded(data)
        if isinstance(result, UnreadableImage) or data == made:
            continue
        more = complaints(data) - harmless
        change = float(np.abs(result.pixels - reference.pixels).mean())
        found.accepted[kind, damage] += 1
        found.changes.setdefault((kind, damage), []).append(change)
        if more:
            found.told.append(f"{name}, {damage}, changed by {change:.1f}: {dict(more)}")


def table(found: Found) -> str:
    """The share of damaged files that decode without a complaint, in Markdown."""
    hows: Sequence[tuple[str, Sequence[int]]] = (
        ("cut", (0,)),
        ("zeros", SIZES),
        ("noise", SIZES),
        ("gone", SIZES),
        ("stray", SIZES),
    )
    lines = [
        "| Kind | Files | Cuts | Zeros | Noise | Bytes gone | Bytes put in | Worst change |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind in KINDS:
        tried = sum(count for (of, _), count in found.tried.items() if of == kind)
        shares = [_share(found, how, sizes, kind) for how, sizes in hows]
        worst = max([0.0, *(max(c) for (of, _), c in found.changes.items() if of == kind)])
        lines.append(f"| {kind} | {tried} | {' | '.join(shares)} | {worst:.0f} |")
    lines += [
        "",
        "| Bytes | Zeros | Noise | Bytes gone | Bytes put in |",
        "|---:|---:|---:|---:|---:|",
    ]
    for size in SIZES:
        shares = [_share(found, how, (size,), None) for how, _ in hows[1:]]
        lines.append(f"| {size} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _share(found: Found, how: str, sizes: Sequence[int], kind: str | None) -> str:
    def total(counter: Counter[tuple[str, Damage]]) -> int:
        return sum(
            count
            for (of, damage), count in counter.items()
            if damage.how == how and damage.size in sizes and kind in (None, of)
        )

    tried, accepted = total(found.tried), total(found.accepted)
    return f"{accepted} of {tried}" if tried else "-"


def main() -> None:
    """Run the storm, print its table; 1 when a damaged picture was accepted, or a whole refused."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=23_000)
    parser.add_argument("--seed", type=int, default=20261130)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    if why := missing():
        sys.exit(f"not run: {why}")
    found = storm(options.files, options.seed, options.jobs)
    print(table(found))
    print(f"\n{sum(found.tried.values())} damaged files of {found.wholes} whole ones.")
    print(f"Whole and refused: {len(found.refused)}", *found.refused, sep="\n")
    print(f"Accepted though djpeg complains: {len(found.told)}", *found.told, sep="\n")
    sys.exit(bool(found.refused or found.told))


if __name__ == "__main__":
    main()
