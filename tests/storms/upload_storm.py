"""The upload storm: both processes are killed at random moments while clients upload.

    make uploadstorm                  # 300 kills; ARGS="--kills 1000 --seed 5" for another

Every image that a client was told is taken must be filed once; one whose request broke off may be
filed once or not at all, for its client knows that it has to ask or send again; nothing else may
be there, and nothing may be left at the door.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import requests

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from arrivals import picture_number  # noqa: E402

import audit  # noqa: E402
from service import Service  # noqa: E402
from webservice import WebService  # noqa: E402

CLIENTS = 3


@dataclass
class Sent:
    """What clients have sent, and what they were told."""

    taken: list[bytes] = field(default_factory=list)
    unknown: list[bytes] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    number: int = 0

    def next_pictures(self, count: int) -> list[bytes]:
        """Pictures that nobody has sent before."""
        with self.lock:
            self.number += count
            return [picture_number(self.number - n) for n in range(count)]


@dataclass(frozen=True)
class Storm:
    """What a storm was."""

    kills: int
    taken: int
    unknown: int
    filed: int
    seconds: float


def storm(root: Path, kills: int, seed: int) -> Storm:
    """Run one storm.

    Raises:
        AssertionError: a promise was broken.
    """
    began_s = time.monotonic()
    chance = random.Random(seed)
    service, sent, over = WebService(root), Sent(), threading.Event()
    service.start_both()
    clients = [
        threading.Thread(target=upload, args=(service, sent, over, seed + number))
        for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    try:
        for _ in range(kills):
            time.sleep(chance.uniform(0.05, 1.5))
            kill_one(service, chance)
        over.set()
        for client in clients:
            client.join()
        run_to_the_end(service)
    finally:
        over.set()
        service.kill()
    filed = check(root, sent)
    return Storm(kills, len(sent.taken), len(sent.unknown), filed, time.monotonic() - began_s)


def kill_one(service: WebService, chance: random.Random) -> None:
    """SIGKILL to the daemon or to the web, which is started again."""
    if chance.random() < 0.5:
        service.kill_web()
        service.start_web()
        return
    Service.kill(service)  # the daemon alone; its inner process goes with it
    service.start()


def upload(service: WebService, sent: Sent, over: threading.Event, seed: int) -> None:
    """Send batches, one after the other, and note what is told of them."""
    chance = random.Random(seed)
    while not over.is_set():
        pictures = sent.next_pictures(chance.choice((1, 2, 5, 20)))
        form = [("files", (f"{n}.png", content)) for n, content in enumerate(pictures)]
        try:
            answer = requests.post(f"{service.url}/api/v1/batches", files=form, timeout=60)
        except requests.RequestException:
            sent.unknown += pictures
            time.sleep(0.05)
            continue
        told = answer.json()
        if answer.status_code == 202:
            assert told["accepted"] == len(pictures)
            sent.taken += pictures
        else:
            accepted = told.get("accepted", 0)
            sent.taken += pictures[:accepted]
            time.sleep(0.05)


def run_to_the_end(service: WebService) -> None:
    """Let everything be filed."""
    until_s = time.monotonic() + 300  # hundreds of images on a slow and busy machine
    while service.get("/api/v1/status")["pending"] or [
        name for name in service.uploads() if name.endswith(".image")
    ]:
        assert time.monotonic() < until_s, service.log.read_text()[-3000:]
        time.sleep(0.1)
    assert service.stop() == 0


def check(root: Path, sent: Sent) -> int:
    """Taken images are there once, unknown ones once or not at all, and no others."""
    filed = Counter(record["sha256"] for record in audit.jsonl_records(root))
    taken = Counter(audit.sha256(content) for content in sent.taken)
    unknown = Counter(audit.sha256(content) for content in sent.unknown)
    assert not taken - filed, f"{sum((taken - filed).values())} images that were taken are lost"
    assert not filed - taken - unknown, "there are images that nobody sent, or some twice"
    arrived = [*sent.taken, *(c for c in sent.unknown if filed[audit.sha256(c)])]
    audit.check(root, arrived)
    return sum(filed.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = storm(Path(folder) / "root", options.kills, options.seed)
    print(
        f"{found.kills} kills, {found.taken} images taken, {found.unknown} in requests that broke "
        f"off, {found.filed} filed, {found.seconds / 60:.1f} minutes: 0 violations"
    )


if __name__ == "__main__":
    main()
