"""The child process that decodes: everything a hostile picture can reach runs in here.

Started by `decode_pool.DecodePool` as `python -m xray_watcher.imaging.decode_worker MEMORY` and the
arguments that `DecodeLimits.arguments` gives. Standard input is a socket. Each message on it is the
size of a file, in eight bytes, little endian, and the open file itself: this process can open none
(`system.sandbox`). On its standard output go answers, as frames, a length in four bytes, little
endian, and then as many bytes. An answer is a JSON object with a `status`; after "decoded" the
float32 pixels follow, little endian, in a frame of their own (`preview_worker` sends grey ones
instead). There is no pickle, so that a child that was taken over can at worst give wrong pixels.

    ready                         once, when the limits hold and all else is given up
    read                          the file is in memory; from here on the picture is to blame
    decoded width height          and the pixels
    unreadable code detail        the picture's fault
    failed detail                 this program's fault, over this picture
    storage detail                the file could not be read: no fault of the picture
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from typing import BinaryIO, TypeAlias

from PIL import Image

from xray_watcher.errors import UnreadableImage
from xray_watcher.imaging.formats import FORMATS
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode
from xray_watcher.system import sandbox
from xray_watcher.system.worker import confine, read_up_to

Header: TypeAlias = dict[str, str | int]
Task: TypeAlias = Callable[[bytes, DecodeLimits], tuple[Header, bytes]]
"""From the content of a file to the rest of its header and to the frame that follows."""

SIZE_BYTES = 8
"""Of the size of a file, in the message that hands it over."""

# What Pillow and `warnings` import when a picture or a warning first asks for it.
_IMPORTED_LATER = (
    *("PIL.MpoImagePlugin", "PIL.TiffImagePlugin", "PIL.TiffTags"),
    *("PIL.ImageColor", "PIL.ImageFilter", "PIL.ImagePalette"),
    *("encodings.latin_1", "linecache", "tracemalloc"),
)
_NICENESS = 10  # scoring goes first; at 19, any other busy program would starve the decoders


def for_the_network(data: bytes, limits: DecodeLimits) -> tuple[Header, bytes]:
    """The pixels that the network takes."""
    image = decode(data, limits)
    return {"width": image.width, "height": image.height}, image.pixels.astype("<f4").tobytes()


def main(arguments: list[str], task: Task, niceness: int = _NICENESS) -> None:
    """Work on one file after the other until standard input ends, which is when the parent ends.

    Args:
        arguments: memory that it may take, and the limits of a picture.
        task: what is done with a file.
        niceness: how far it steps back behind others who want the cores.
    """
    memory, *rest = arguments
    limits = DecodeLimits.from_arguments(rest)
    requests = confine_child(int(memory), niceness)
    answers = sys.stdout.buffer
    _answer(answers, {"status": "ready"})
    while file := _next_file(requests):
        _work_on(*file, limits, answers, task)


def confine_child(memory: int, niceness: int) -> socket.socket:
    """Set the limits and give up all that decoding does not need.

    Args:
        memory: bytes of address space, what is in use already included.
        niceness: how far this process steps back behind others who want the cores.

    Returns:
        The socket on which files are handed over.
    """
    Image.preinit()
    for name in (*_IMPORTED_LATER, *(kind.module for kind in FORMATS)):
        import_module(name)
    requests = socket.socket(fileno=sandbox.REQUESTS)
    confine(memory, niceness)
    return requests


def _next_file(requests: socket.socket) -> tuple[int, int] | None:
    """The descriptor of the next file and its size; None when there is no next one."""
    message, descriptors, _, _ = socket.recv_fds(requests, SIZE_BYTES, 1)
    return (descriptors[0], int.from_bytes(message, "little")) if descriptors else None


def _work_on(
    descriptor: int, size: int, limits: DecodeLimits, answers: BinaryIO, task: Task
) -> None:
    try:
        # A byte more than there should be shows that the file grows, or is too large.
        data = read_up_to(descriptor, min(size, limits.max_bytes) + 1)
    except OSError as error:
        _answer(answers, {"status": "storage", "detail": error.strerror or type(error).__name__})
        return
    except MemoryError:
        _answer(answers, {"status": "read"})
        _answer(answers, _OVER_MEMORY)
        return
    finally:
        os.close(descriptor)
    _answer(answers, {"status": "read"})
    try:
        header, frame = task(data, limits)
    except UnreadableImage as error:
        _answer(answers, {"status": "unreadable", "code": error.code, "detail": error.detail})
    except MemoryError:
        _answer(answers, _OVER_MEMORY)
    except (Exception, sandbox.LateImportError) as error:  # noqa: BLE001 - nobody else can say it
        _answer(answers, {"status": "failed", "detail": _where(error)})
    else:
        _answer(answers, {"status": "decoded", **header})
        _send(answers, frame)


_OVER_MEMORY: Header = {
    "status": "unreadable",
    "code": "decoder_limit",
    "detail": "Reading the file needs more memory than the decoder may use.",
}


def _where(error: BaseException) -> str:
    """The kind of an error and the line it is from; its message may hold what a sender wrote."""
    if isinstance(error, sandbox.LateImportError):
        return f"it imports {error} too late"
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return type(error).__name__
    file = os.path.basename(place.tb_frame.f_code.co_filename)
    return f"{type(error).__name__} in {file}, line {place.tb_lineno}"


def _answer(answers: BinaryIO, header: Header) -> None:
    _send(answers, json.dumps(header).encode())


def _send(answers: BinaryIO, frame: bytes) -> None:
    answers.write(len(frame).to_bytes(4, "little") + frame)
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1:], for_the_network)
