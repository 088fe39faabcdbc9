"""The real service, its network a stub, with its inbox or everything on a share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from arrivals import picture_number
from fuse_share import Share
from kill_storm import COMMAND

import audit
from service import Service


class OnShare(Service):
    """A service, and what other hosts put into its inbox, whatever it sees of the share."""

    def __init__(self, share: Share, root: Path, *, everything: bool, **env: str) -> None:
        self.arrived: list[bytes] = []
        self.results = share.mounted / "root" if everything else root
        self.results_on_server = share.on_server / "root" if everything else root
        self.inbox_on_server = share.on_server / "root" / "inbox"
        self.inbox_on_server.mkdir(parents=True)
        inbox = share.mounted / "root" / "inbox"
        places = {"XRAY_WATCHER_INTAKE__INBOX": str(inbox)}
        if everything:
            places = {"XRAY_WATCHER_ROOT": str(self.results)}
        super().__init__(
            root, command=COMMAND, **places, XRAY_WATCHER_INTAKE__SCAN_SECONDS="1", **env
        )
        self.inbox = inbox

    def send(self, *numbers: int) -> None:
        for number in numbers:
            content = picture_number(number)
            (self.inbox_on_server / f"{number}.png").write_bytes(content)
            self.arrived.append(content)

    @property
    def filed(self) -> int:
        """Images that are filed, as the server of the results has it."""
        return len(audit.filed(self.results_on_server))

    def is_watching(self) -> bool:
        return self.log.exists() and "watching" in self.log.read_text()

    def problems(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.command("status", "--json").stdout)["troubles"]
        return found

    def is_well(self) -> bool:
        return not self.problems()

    def check(self, arrived: Sequence[bytes] = ()) -> None:
        audit.check(self.results, [*self.arrived, *arrived], inbox=self.inbox)


@contextmanager
def service_on(
    share: Share, root: Path, *, everything: bool = False, **env: str
) -> Iterator[OnShare]:
    """A service that is killed in the end."""
    service = OnShare(share, root, everything=everything, **env)
    try:
        yield service
    finally:
        service.kill()
