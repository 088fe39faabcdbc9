"""Reads the Huffman codes of a JPEG one by one, to find out whether exactly those are there.

libjpeg stops at its first complaint, and TurboJPEG refuses samplings that it has no name for. What
they leave undecided is walked here (ITU-T T.81, F.2.2 and G.2), some two million codes a second: of
each stretch of coded data it is known how many blocks it has, and these must use it up. Behind
them only padding may stand.
"""

from __future__ import annotations

import io
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
from PIL import Image

from xray_watcher.imaging.jpeg_parts import (
    BrokenJpegError,
    Component,
    Frame,
    Segment,
    essential,
)

_DHT, _DRI = 0xC4, 0xDD
_RESTART = re.compile(rb"\xff+([\xd0-\xd7])")
_COEFFICIENTS = 64
_LONGEST = 16  # bits of a code
_MOST_MEAN_BITS = 11  # of a mean value's difference, with samples of 8 bits
_END_OF_BLOCK, _NO_CODE = 1000, 500  # as steps: beyond all coefficients, and distinct
_BEYOND = 1 << 24  # as bits to drop: further than any stretch reaches
_SLACK = 1 << 12  # zero bytes behind a stretch: more than the codes of a block can reach over
_NO_SYMBOL = 0x7F << 12 | 1 << 8  # a run beyond all coefficients
_ZEROS_ONLY = 15  # the run of a symbol without a value that stands for 16 zeros

Codes = list[int]
"""What the next 16 bits stand for; what that is differs by kind of scan."""


Symbols = list[tuple[int, int, int]]
"""Symbol, length of its code, and how many of all values of 16 bits begin with the code."""


class _NotThereError(Exception):
    """The codes and the data do not agree."""


@dataclass
class _Tables:
    """Code tables as the segments so far have set them, by class and number, and restarts."""

    symbols: dict[int, Symbols] = field(default_factory=dict)
    restart: int = 0


@dataclass(frozen=True)
class _ScanHeader:
    """What a scan's header says: its components with their tables, and its band of coefficients."""

    components: tuple[tuple[Component, int, int], ...]
    first: int
    last: int
    is_refinement: bool

    @property
    def is_of_means(self) -> bool:
        return self.first == 0


class _Stretch:
    """Coded data between two restarts: a window of 24 bits at each byte, and where we are."""

    def __init__(self, coded: bytes) -> None:
        # A byte of 0xFF has a zero behind it; others in front of a marker only fill up.
        self.data = coded.rstrip(b"\xff").replace(b"\xff\x00", b"\xff")
        padded = np.frombuffer(self.data + bytes(_SLACK), np.uint8).astype(np.uint32)
        windows = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
        self.windows = array("I", windows.tobytes())
        self.at = 0

    def finish(self, frame: Frame, *, is_last: bool) -> None:
        """Raise where more or less was read than there is; zeros may follow as padding.

        An encoder fills its last byte up with ones (T.81, F.1.2.3), and some cameras add a byte of
        ones to one that is full. Where zeros follow on other bits, they may as well be a hole in
        the picture, and the codes before them its last blocks. Devices that pad their data write no
        progressive pictures; in these, only the last scan may have padding.
        """
        used, rest = divmod(self.at + 7, 8)
        unused = 7 - rest
        padding = self.data[used:]
        if not unused and not frame.is_progressive:
            padding = padding.removeprefix(b"\xff")
        if padding and frame.is_progressive and not is_last:
            raise _NotThereError
        if used > len(self.data) or padding.strip(b"\x00"):
            raise _NotThereError
        fill = (1 << unused) - 1
        if padding and self.data[used - 1] & fill != fill:
            raise _NotThereError
        if padding and not unused and not self.data[used - 1]:
            raise _NotThereError


Walk = Callable[[_Stretch, range], None]


def is_all_there(frame: Frame, segments: Sequence[Segment]) -> bool:
    """Whether the coded data has exactly the blocks that the frame promises.

    Args:
        frame: sequential or progressive, with Huffman codes and 8 bits a sample.
        segments: as `jpeg_parts.essential` finds them.
    """
    tables = _Tables(dict(_usual_symbols()))
    history = {c.number: _nothing_yet(frame, c) for c in frame.components}
    try:
        for segment in segments:
            if segment.marker == _DHT:
                tables.symbols.update(_symbols(segment.content))
            elif segment.marker == _DRI:
                tables.restart = int.from_bytes(segment.content[:2], "big")
            elif segment.is_scan:
                _walk(frame, segment, tables, history, is_last=segment is segments[-1])
    except (_NotThereError, BrokenJpegError, IndexError, KeyError):
        return False
    return True


def _nothing_yet(frame: Frame, component: Component) -> list[int]:
    """For each block of a progressive picture, as bits, which of its coefficients are not zero."""
    across, down = frame.blocks(component) if frame.is_progressive else (0, 0)
    return [0] * (across * down)


# ---------------------------------------------------------------- tables


def _symbols(content: bytes) -> Iterator[tuple[int, Symbols]]:
    """The code tables of a DHT segment, each with its class and number in one byte."""
    at = 0
    while at < len(content):
        counts, first = content[at + 1 : at + 17], at + 17
        values = content[first : first + sum(counts)]
        lengths = [length for length, count in enumerate(counts, 1) for _ in range(count)]
        if len(values) != len(lengths):
            raise BrokenJpegError
        yield (
            content[at],
            [(v, n, 1 << (_LONGEST - n)) for v, n in zip(values, lengths, strict=True)],
        )
        at = first + len(values)


@lru_cache(1)
def _usual_symbols() -> tuple[tuple[int, Symbols], ...]:
    """The code tables of T.81, K.3, which pictures of a film (motion JPEG) leave out."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")  # has them, unless it is asked to optimise
    _, segments = essential(file.getvalue())
    return tuple(
        table
        for segment in segments
        if segment.marker == _DHT
        for table in _symbols(segment.content)
    )


def _filled(codes: Iterable[tuple[int, int]], missing: int) -> Codes:
    """One entry for each value of 16 bits, from entries and shares in the order of the codes."""
    found: Codes = []
    for entry, share in codes:
        found += [entry] * share
    if len(found) > 1 << _LONGEST:
        raise BrokenJpegError
    return found + [missing] * ((1 << _LONGEST) - len(found))


def _means(symbols: Symbols) -> Codes:
    """How many bits a mean value's difference takes, its code included."""
    return _filled(
        ((n + v if v <= _MOST_MEAN_BITS else _BEYOND, share) for v, n, share in symbols), _BEYOND
    )


def _steps(symbols: Symbols) -> Codes:
    """Of a block's other coefficients: the step, and in the lower 8 bits the bits to drop."""
    return _filled(
        ((_step(v) << 8 | n + (v & 15), share) for v, n, share in symbols), _NO_CODE << 8
    )


def _step(symbol: int) -> int:
    run, size = symbol >> 4, symbol & 15
    if size:
        return run + 1
    return {0: _END_OF_BLOCK, _ZEROS_ONLY: 16}.get(run, _NO_CODE)


def _plain(symbols: Symbols) -> Codes:
    """The symbol, and in the lower 8 bits the length of its code."""
    return _filled(((v << 8 | n, share) for v, n, share in symbols), _NO_SYMBOL)


# ---------------------------------------------------------------- scans


def _scan(frame: Frame, segment: Segment) -> _ScanHeader:
    content = segment.content
    by_number = {component.number: component for component in frame.components}
    listed = tuple(
        (by_number[content[at]], content[at + 1] >> 4, 0x10 | content[at + 1] & 15)
        for at in range(1, 1 + 2 * content[0], 2)
    )
    first, last, bits = content[-3:]
    return _ScanHeader(listed, first, min(last, _COEFFICIENTS - 1), bits >> 4 != 0)


def _walk(
    frame: Frame, segment: Segment, tables: _Tables, history: dict[int, list[int]], *, is_last: bool
) -> None:
    """Walk a scan, one stretch between restarts after the other."""
    scan = _scan(frame, segment)
    own = scan.components[0][0]
    across, down = frame.blocks(own) if len(scan.components) == 1 else frame.units()
    units = across * down
    length = tables.restart or max(units, 1)
    parts = _RESTART.split(segment.coded)
    stretches, restarts = parts[::2], parts[1::2]
    if len(stretches) != -(-units // length):
        raise _NotThereError
    if any(number != b"%c" % (0xD0 + at % 8) for at, number in enumerate(restarts)):
        raise _NotThereError
    walk = _walker(frame, scan, tables, history[own.number])
    for at, stretch in enumerate(map(_Stretch, stretches)):
        walk(stretch, range(at * length, min((at + 1) * length, units)))
        stretch.finish(frame, is_last=is_last)


def _walker(frame: Frame, scan: _ScanHeader, tables: _Tables, history: list[int]) -> Walk:
    if not frame.is_progressive:
        pairs = [
            (_means(tables.symbols[means]), _steps(tables.symbols[others]))
            for component, means, others in scan.components
            for _ in range(_blocks_in_unit(scan, component))
        ]
        return partial(_whole_blocks, pairs)
    if scan.is_of_means:
        counts = [(_blocks_in_unit(scan, c), means) for c, means, _ in scan.components]
        if scan.is_refinement:
            return partial(_refined_means, sum(count for count, _ in counts))
        return partial(
            _first_means, [_means(tables.symbols[m]) for count, m in counts for _ in range(count)]
        )
    codes = _plain(tables.symbols[scan.components[0][2]])
    return partial(_refined_band if scan.is_refinement else _first_band, codes, scan, history)


def _blocks_in_unit(scan: _ScanHeader, component: Component) -> int:
    return 1 if len(scan.components) == 1 else component.across * component.down


def _whole_blocks(pairs: Sequence[tuple[Codes, Codes]], stretch: _Stretch, units: range) -> None:
    windows, at, end = stretch.windows, 0, 8 * len(stretch.data)
    for _ in units:
        for means, steps in pairs:
            at += means[windows[at >> 3] >> (8 - (at & 7)) & 0xFFFF]
            place = 1
            while place < _COEFFICIENTS:
                step = steps[windows[at >> 3] >> (8 - (at & 7)) & 0xFFFF]
                at += step & 0xFF
                place += step >> 8
            if at > end or _COEFFICIENTS < place < _END_OF_BLOCK:
                raise _NotThereError
    stretch.at = at


def _first_means(codes: Sequence[Codes], stretch: _Stretch, units: range) -> None:
    windows, at = stretch.windows, 0
    for _ in units:
        for means in codes:
            at += means[windows[at >> 3] >> (8 - (at & 7)) & 0xFFFF]
    stretch.at = at


def _refined_means(blocks: int, stretch: _Stretch, units: range) -> None:
    stretch.at = blocks * len(units)


def _first_band(
    codes: Codes, scan: _ScanHeader, history: list[int], stretch: _Stretch, units: range
) -> None:
    """Coefficients of a band; `history` gets a bit for each that is not zero."""
    windows, at, to_skip, last = stretch.windows, 0, 0, scan.last
    for unit in units:
        if to_skip:
            to_skip -= 1
            continue
        place, found = scan.first, 0
        while place <= last:
            code = codes[windows[at >> 3] >> (8 - (at & 7)) & 0xFFFF]
            at += code & 0xFF
            run, size = code >> 12, code >> 8 & 15
            if size:
                place += run
                found |= 1 << place
                at += size
                place += 1
            elif run == _ZEROS_ONLY:
                place += 16
            else:
                to_skip, at = _blocks_to_skip(stretch, at, run)
                to_skip -= 1
                break
        if place > last + 1:
            raise _NotThereError
        history[unit] |= found
    _end_band(stretch, at, to_skip)


def _refined_band(
    codes: Codes, scan: _ScanHeader, history: list[int], stretch: _Stretch, units: range
) -> None:
    """One more bit for each coefficient that is not zero, and those that are not any more."""
    windows, at, to_skip, last = stretch.windows, 0, 0, scan.last
    band = (1 << (last + 1)) - 1
    for unit in units:
        known, place, found = history[unit] & band, scan.first, 0
        while not to_skip and place <= last:
            code = codes[windows[at >> 3] >> (8 - (at & 7)) & 0xFFFF]
            at += code & 0xFF
            zeros, size = code >> 12, code >> 8 & 15
            if not size and zeros != _ZEROS_ONLY:
                to_skip, at = _blocks_to_skip(stretch, at, zeros)
                break
            at += size
            while place <= last and (zeros or known >> place & 1):
                at += known >> place & 1
                zeros -= ~known >> place & 1
                place += 1
            if size > 1 or (size and place > last):
                raise _NotThereError
            found |= size << place
            place += 1
        if to_skip:
            at += (known >> place).bit_count()
            to_skip -= 1
        history[unit] |= found
    _end_band(stretch, at, to_skip)


def _blocks_to_skip(stretch: _Stretch, at: int, bits: int) -> tuple[int, int]:
    """How many blocks end here, this one included, and where the data goes on."""
    window = stretch.windows[at >> 3] >> (8 - (at & 7)) & 0xFFFF
    return (1 << bits) + (window >> (_LONGEST - bits)), at + bits


def _end_band(stretch: _Stretch, at: int, to_skip: int) -> None:
    stretch.at = at
    if to_skip:
        raise _NotThereError
