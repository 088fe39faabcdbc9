"""Files that arrive all the time, in every way that people and modalities have."""

from __future__ import annotations

import os
import random
import threading
import time
from abc import ABC, abstractmethod
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

MOST_WAITING = 150  # or a service that is killed all the time would only fall behind


class Sender(ABC):
    """Drops files in a thread of its own until it is told to stop.

    Attributes:
        arrived: the contents that lie in the inbox, or did.
    """

    def __init__(self, inbox: Path) -> None:
        self.arrived: list[bytes] = []
        self._inbox = inbox
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._drop_on, daemon=True)

    def start(self) -> None:
        """Begin to drop."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the file in hand and end."""
        self._ended.set()
        self._thread.join()

    @abstractmethod
    def _drop_on(self) -> None:
        """Drop until `_ended` is set."""


class Arrivals(Sender):
    """Drops files into an inbox until it is stopped; `arrived` holds the bytes of each.

    Among them are whole pictures, duplicates, texts, pictures without their end, empty files,
    subfolders, names used again, copies that pause and copies under a temporary name.
    """

    def __init__(self, inbox: Path, seed: int, *, pause_s: float = 0.15) -> None:
        super().__init__(inbox)
        self._random = random.Random(seed)
        self._pause_s = pause_s
        self._number = 0

    def _drop_on(self) -> None:
        while not self._ended.is_set():
            if sum(path.is_file() for path in self._inbox.rglob("*.png")) > MOST_WAITING:
                time.sleep(self._pause_s)
                continue
            for _ in range(self._random.choice((1, 1, 2, 5, 12))):
                self._drop()
            time.sleep(self._random.uniform(0, 2 * self._pause_s))

    def _drop(self) -> None:
        self._number += 1
        content = self._content()
        path = self._inbox / self._name()
        path.parent.mkdir(parents=True, exist_ok=True)
        way = self._random.random()
        if way < 0.7:
            path.write_bytes(content)
        elif way < 0.85:
            self._slowly(path, content)
        else:
            part = path.with_suffix(".part")
            part.write_bytes(content)
            os.rename(part, path)
        self.arrived.append(content)

    def _name(self) -> str:
        """A new name; or one used before that has left the inbox, as modalities count anew."""
        folder = self._random.choice(("", "", "er/", "ward 3/night/", "пример/"))
        again = f"{folder}IM0001.png"
        if self._random.random() < 0.1 and not (self._inbox / again).exists():
            return again
        return f"{folder}{self._random.choice(('IM', 'a b', '=x'))}{self._number}.png"

    def _slowly(self, path: Path, content: bytes) -> None:
        with path.open("wb", buffering=0) as file:
            file.write(content[: len(content) // 2])
            time.sleep(self._random.uniform(0, 0.6))
            file.write(content[len(content) // 2 :])

    def _content(self) -> bytes:
        kind = self._random.random()
        if kind < 0.08 and self.arrived:
            return self._random.choice(self.arrived)
        if kind < 0.14:
            return f"notes, number {self._number}".encode()
        picture = picture_number(self._number + 1_000_000 * self._random.randrange(1000))
        if kind < 0.18:
            return picture[: self._random.randrange(40, len(picture))]
        return b"" if kind < 0.19 else picture


def picture_number(number: int) -> bytes:
    """A small picture, another for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (20, 20), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
