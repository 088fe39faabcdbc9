"""Coverage-guided fuzzing of the decoder with atheris (libFuzzer).

    make fuzz                              # 15 minutes
    make fuzz ARGS="--seconds 60 --seed 5"

Each made-up file must be refused with a reason of ours, or give finite pixels of the right shape.
One that is accepted must be whole: without its last byte it must be refused. Half of the changed
PNGs get their checksums put right, since else no change would reach what lies behind them.
The first file that breaks a promise ends the run and is kept in `fuzz-found/`.
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from subprocess import STDOUT

try:
    import atheris
except ImportError as error:
    sys.exit(f"not run: atheris cannot be imported ({error}); it has wheels for Linux on x86-64")

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "imaging")]

with atheris.instrument_imports(include=["PIL", "xray_watcher.imaging"]):
    import numpy as np
    import pictures
    from PIL import Image

    from xray_watcher.core.values import REJECTIONS
    from xray_watcher.errors import UnreadableImage
    from xray_watcher.imaging.limits import DecodeLimits
    from xray_watcher.imaging.picture import DecodedImage
    from xray_watcher.imaging.pixels import decode

MEMORY_MB = 1024  # as a decoder has
SECONDS_A_FILE = 10
LIMITS = DecodeLimits(min_side=8)
FOUND = Path("fuzz-found")
TELL_EVERY = 5_000
outcomes: Counter[str] = Counter()


def check(data: bytes) -> None:
    """Decode one made-up file and hold the decoder to its promises."""
    code = outcome(data)
    outcomes[code] += 1
    if code == "accepted":
        shorter = outcome(data.rstrip(b"\x00")[:-1])
        assert shorter != "accepted", "a file without its end was accepted"
    if sum(outcomes.values()) % TELL_EVERY == 0:
        print(dict(outcomes.most_common()), flush=True)


def outcome(data: bytes) -> str:
    try:
        image = decode(data, LIMITS)
    except UnreadableImage as error:
        code, detail = error.code, error.detail
    else:
        check_pixels(image)
        return "accepted"
    assert code in REJECTIONS
    assert detail.isprintable()
    return code


def check_pixels(image: DecodedImage) -> None:
    assert image.pixels.shape == (1, 224, 224)
    assert image.pixels.dtype == np.float32
    assert np.abs(image.pixels).max() <= 1024  # not so of a number that is none


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Let libFuzzer change a file; put every other PNG's checksums right."""
    changed: bytes = atheris.Mutate(data, max_size)
    return with_right_checksums(changed)[:max_size] if seed % 2 else changed


def with_right_checksums(data: bytes) -> bytes:
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    fixed, at = bytearray(data), 8
    while at + 12 <= len(fixed):
        end = at + 8 + int.from_bytes(fixed[at : at + 4], "big")
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def write_seeds(corpus: Path) -> None:
    """Small files of every kind that is handled, and of some that are not."""
    grey = pictures.chest(14, 11)
    turned = pictures.turned(grey, 6, as_jpeg=True)
    commented = pictures.png(Image.fromarray(grey), transparency=3)
    seeds = [*pictures.lossless(grey).values(), *pictures.lossy(grey).values(), turned, commented]
    seeds += [data for data in pictures.foreign().values() if len(data) < 5_000]
    for number, data in enumerate(seeds):
        (corpus / str(number)).write_bytes(data)


def fuzz(corpus: str, options: argparse.Namespace) -> None:
    """Fuzz in this process, and end it."""
    atheris.Setup(
        [
            sys.argv[0],
            corpus,
            f"-max_total_time={options.seconds}",
            f"-seed={options.seed}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-timeout={SECONDS_A_FILE}",
            f"-artifact_prefix={options.found}/",
            "-max_len=8192",
            "-print_final_stats=1",
            "-verbosity=0",
        ],
        check,
        custom_mutator=mutate,
    )
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=900)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, default=FOUND, help="where a bad file is kept")
    parser.add_argument("--corpus", help=argparse.SUPPRESS)  # in the process that fuzzes
    options = parser.parse_args()
    if options.corpus:
        fuzz(options.corpus, options)
    options.found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="xray-watcher-fuzz-") as corpus:
        write_seeds(Path(corpus))
        child = subprocess.run(
            [sys.executable, *sys.argv, "--corpus", corpus], text=True, check=False, stderr=STDOUT
        )
    sys.exit(child.returncode)


if __name__ == "__main__":
    main()
