"""The batch page, and the page on which a person signs in."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from xray_watcher.core.values import LEVELS
from xray_watcher.web.pages.render import Pages
from xray_watcher.web.pages.views import FLAG_WORDS


class BatchPage:
    """The routes of uploading."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def show(self, request: Request) -> Response:
        """The form, and the places that its script fills."""
        settings = self._pages.context.settings
        trained = settings.weight_set.labels
        return await self._pages.page(
            request,
            "batch.html",
            suffixes=settings.intake.suffixes,
            policy=settings.risk.policy,
            conditions={
                level: [label for label in settings.risk.levels.of(level) if label in trained]
                for level in LEVELS
            },
            flag_words=FLAG_WORDS,
        )

    async def sign_in(self, request: Request) -> Response:
        """The form for a token."""
        return await self._pages.page(
            request,
            "login.html",
            has_failed="failed" in request.query_params,
            next=request.query_params.get("next", "/"),
        )
