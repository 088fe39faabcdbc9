"""Requests at work are bounded, in all and for each sender."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from xray_watcher.web.refusals import Refused
from xray_watcher.web.slots import Busy, Slots

BUSY = "You have your share of what everybody uses, or all of it is taken; come again in a minute."


class RequestSlots:
    """Gives each request a place while it is at work, or refuses it."""

    def __init__(self, app: ASGIApp, requests: Slots) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on when it may have a place."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = scope.get("state", {}).get("connection", lambda: None)()
        try:
            slot = self._requests.take(scope["user"].keys, connection)
        except Busy:
            # What else stands in the pipeline is not worked on.
            busy = Refused("busy", BUSY, headers={"Connection": "close"})
            await busy.answer(Headers(scope=scope))(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests.leave(slot)
