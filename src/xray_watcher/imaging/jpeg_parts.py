"""The parts of a JPEG (ITU-T T.81): its frame, its tables and its scans, found without decoding.

Whatever cannot be about the coded data is left out of the copy that `rebuild` makes: metadata,
colour profiles, comments, bytes between the segments, odd revisions, wrong parameters of a scan.
What libjpeg complains of in the copy is about the picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DHT, _DAC, _SOI, _EOI, _SOS, _DQT, _DRI = 0xC4, 0xCC, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD
_JFIF, _ADOBE = 0xE0, 0xEE
_TABLES = (_DHT, _DAC, _DQT, _DRI)
_BARE = (0x01, *range(0xD0, 0xD8))  # markers without a length; between segments they mean nothing
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_END_OF_CODED = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # FF00 is a byte, RSTn stands within

_PLAIN_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_LENGTH = 2  # bytes of a segment's length, which counts them too
_FRAME_BYTES = 6  # of a frame's header, ahead of its components
_FACTORS = {1, 2, 3, 4}  # of sampling
_ADOBE_BYTES = 12
_YCBCR, _YCCK = 1, 2  # transforms of an Adobe segment; 0 is none
_SEQUENTIAL_SOS = b"\x00\x3f\x00"  # what the standard asks for; cameras write zeros there
_PROGRESSIVE = (0xC2, 0xCA)
_ARITHMETIC = (0xC9, 0xCA)
_LOSSLESS = 0xC3
_SCALABLE = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)


class BrokenJpegError(ValueError):
    """The parts of a JPEG do not follow one another as they must."""


@dataclass(frozen=True, slots=True)
class Component:
    """One component of a frame: its number and its sampling factors."""

    number: int
    across: int
    down: int


@dataclass(frozen=True, slots=True)
class Frame:
    """What the header of a frame (SOFn) says.

    Attributes:
        kind: the second byte of its marker, 0xC0 to 0xCF.
        bits: of a sample.
        width: in pixels.
        height: likewise.
        components: in their order.
    """

    kind: int
    bits: int
    width: int
    height: int
    components: tuple[Component, ...]

    @property
    def is_scalable(self) -> bool:
        """Whether decoders can make it smaller; a lossless picture they write whole anyway."""
        return self.kind in _SCALABLE

    @property
    def is_handled(self) -> bool:
        """Whether libjpeg reads it: not the hierarchical kinds, nor the arithmetic lossless one."""
        return self.is_scalable or self.kind == _LOSSLESS

    @property
    def is_progressive(self) -> bool:
        """Whether the picture comes in scans of ever more detail."""
        return self.kind in _PROGRESSIVE

    @property
    def is_arithmetic(self) -> bool:
        """Whether the arithmetic coder was used and not Huffman's."""
        return self.kind in _ARITHMETIC

    def blocks(self, component: Component) -> tuple[int, int]:
        """Blocks of 8 x 8 samples, across and down, of a component that has a scan of its own."""
        most_across = max(other.across for other in self.components)
        most_down = max(other.down for other in self.components)
        return (
            -(-self.width * component.across // (8 * most_across)),
            -(-self.height * component.down // (8 * most_down)),
        )

    def units(self) -> tuple[int, int]:
        """Units (MCUs), across and down, of a scan that has several components."""
        most_across = max(component.across for component in self.components)
        most_down = max(component.down for component in self.components)
        return -(-self.width // (8 * most_across)), -(-self.height // (8 * most_down))


@dataclass(frozen=True, slots=True)
class Segment:
    """One marker segment, and for a scan the coded data behind it.

    Attributes:
        marker: the second byte of its marker.
        content: what follows the length.
        coded: of a scan, up to the next marker that ends it.
    """

    marker: int
    content: bytes
    coded: bytes = b""

    @property
    def is_scan(self) -> bool:
        """Whether it is a scan (SOS)."""
        return self.marker == _SOS

    def to_bytes(self) -> bytes:
        """As it stands in a file."""
        length = (len(self.content) + 2).to_bytes(2, "big")
        return bytes((0xFF, self.marker)) + length + self.content + self.coded


def find_end(data: bytes) -> int | None:
    """The offset past the picture's own end marker, stepping over segments (ITU-T T.81, B.1).

    An end marker inside a segment, such as that of a thumbnail, does not count.

    Returns:
        None when it has no end, or a segment has none.
    """
    found = _END_OF_CODED.search(data, len(SOI))
    while found:
        if found.group() == EOI:
            return found.end()
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        found = _END_OF_CODED.search(data, found.end() + length)
    return None


def find_frame(data: bytes) -> Frame | None:
    """The first frame's header; None where there is none, or none that makes sense."""
    try:
        return next((_frame(s) for s, _ in _segments(data) if s.marker in _FRAMES), None)
    except BrokenJpegError:
        return None


def find_scanned_frame(data: bytes) -> Frame | None:
    """The frame's header if each component has coded data: decoders do not complain where not.

    Of a progressive picture that is the scan of mean values; without later ones it is coarse.
    """
    frame, missing = None, set[int]()
    try:
        for segment, _ in _segments(data):
            if segment.marker in _FRAMES:
                frame = _frame(segment)
                missing = {component.number for component in frame.components}
            elif segment.is_scan and frame is not None:
                missing -= _begun(segment, frame)
                if not missing:
                    return frame
    except BrokenJpegError:
        pass
    return None


def _begun(scan: Segment, frame: Frame) -> set[int]:
    """Numbers of the components of which a scan has the first data, or all."""
    count = scan.content[0]
    if frame.is_progressive and scan.content[1 + 2 * count] != 0:
        return set()
    return set(scan.content[1 : 1 + 2 * count : 2])


def has_full_detail(frame: Frame, segments: Iterable[Segment]) -> bool:
    """Whether the scans of a progressive picture bring every coefficient to its last bit."""
    bits_left = {(c.number, place): 1 for c in frame.components for place in range(64)}
    for scan in segments:
        if scan.is_scan:
            first, last, bits = scan.content[-3:]
            for number in scan.content[1:-3:2]:
                bits_left |= {(number, place): bits & 15 for place in range(first, last + 1)}
    return not any(bits_left.values())


def essential(data: bytes) -> tuple[Frame, tuple[Segment, ...]]:
    """The frame, and all segments that the pixels depend on, put right where that is harmless.

    Raises:
        BrokenJpegError: there is not exactly one frame, or a segment makes no sense.
    """
    found = [_with_coded(segment, data, at) for segment, at in _segments(data)]
    frames = [_frame(segment) for segment in found if segment.marker in _FRAMES]
    if len(frames) != 1:
        raise BrokenJpegError
    return frames[0], tuple(_essential(found, frames[0]))


def rebuild(segments: Iterable[Segment]) -> bytes:
    """A JPEG of these segments and nothing else."""
    return SOI + b"".join(segment.to_bytes() for segment in segments) + EOI


def _essential(found: list[Segment], frame: Frame) -> Iterator[Segment]:
    ahead = list(takewhile(lambda segment: not segment.is_scan, found))
    if any(s.marker == _JFIF and s.content.startswith(b"JFIF\0") for s in ahead):
        yield Segment(_JFIF, _PLAIN_JFIF[4:])
    for segment in found:
        if segment.marker in _TABLES or segment.marker in _FRAMES:
            yield segment
        elif segment.marker == _ADOBE and segment.content.startswith(b"Adobe"):
            if len(segment.content) >= _ADOBE_BYTES:
                yield Segment(_ADOBE, _adobe(segment.content, frame))
        elif segment.is_scan:
            yield segment if frame.is_progressive else _with_right_parameters(segment, frame)


def _adobe(content: bytes, frame: Frame) -> bytes:
    """With a transform that there is: of an unknown one libjpeg says that it takes these."""
    transform = content[_ADOBE_BYTES - 1]
    if transform > _YCCK:
        transform = _YCBCR if len(frame.components) == len("YCC") else _YCCK
    return content[: _ADOBE_BYTES - 1] + bytes([transform])


def _with_right_parameters(scan: Segment, frame: Frame) -> Segment:
    if not frame.is_scalable:
        return scan
    return Segment(scan.marker, scan.content[:-3] + _SEQUENTIAL_SOS, scan.coded)


def _segments(data: bytes) -> Iterator[tuple[Segment, int]]:
    """Every segment up to the end marker, and where it ends; coded data is only stepped over.

    Bytes between the segments are passed over, as libjpeg does. Behind a scan they may be the rest
    of what was one.
    """
    at, is_header = len(SOI), True
    while found := _MARKER.search(data, at):
        if not is_header and data[at : found.start()].strip(b"\xff"):
            raise BrokenJpegError
        marker, at = data[found.start() + 1], found.end()
        if marker == _EOI:
            return
        if marker in _BARE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if marker == _SOI or length < _LENGTH or at + length > len(data):
            raise BrokenJpegError
        content, at = data[at + _LENGTH : at + length], at + length
        if marker == _SOS and (not content or len(content) != 4 + 2 * content[0]):
            raise BrokenJpegError
        yield Segment(marker, content), at
        if marker == _SOS:
            at, is_header = _coded_end(data, at), False
    raise BrokenJpegError


def _with_coded(segment: Segment, data: bytes, at: int) -> Segment:
    if not segment.is_scan:
        return segment
    return Segment(segment.marker, segment.content, data[at : _coded_end(data, at)])


def _coded_end(data: bytes, at: int) -> int:
    end = _END_OF_CODED.search(data, at)
    return end.start() if end else len(data)


def _frame(segment: Segment) -> Frame:
    content = segment.content
    if len(content) < _FRAME_BYTES or len(content) != _FRAME_BYTES + 3 * content[5]:
        raise BrokenJpegError
    components = tuple(
        Component(content[at], content[at + 1] >> 4, content[at + 1] & 15)
        for at in range(_FRAME_BYTES, len(content), 3)
    )
    if not components or any(not {c.across, c.down} <= _FACTORS for c in components):
        raise BrokenJpegError
    height, width = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
    return Frame(segment.marker, content[0], width, height, components)
