"""The batch page, and the page on which a person signs in."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from xray_watcher.core.risk import DEFAULT_THRESHOLD
from xray_watcher.core.values import LEVELS
from xray_watcher.web.pages.render import Pages


class BatchPage:
    """The routes of uploading."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def show(self, request: Request) -> Response:
        """The form, and the places that its script fills."""
        settings = self._pages.context.settings
        trained, rules = settings.weight_set.labels, settings.risk_rules()
        return await self._pages.page(
            request,
            "batch.html",
            suffixes=settings.intake.suffixes,
            policy=settings.risk.policy,
            conditions={
                level: [label for label in settings.risk.levels.of(level) if label in trained]
                for level in LEVELS
            },
            points={
                label: [level, rules.thresholds.get(label, DEFAULT_THRESHOLD)]
                for label, level in rules.level_of.items()
            },
        )

    async def sign_in(self, request: Request) -> Response:
        """The form for a token."""
        return await self._pages.page(
            request,
            "login.html",
            has_failed="failed" in request.query_params,
            next=request.query_params.get("next", ""),
        )
