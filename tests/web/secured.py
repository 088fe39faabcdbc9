"""The web application with tokens of every role, and time that goes on when it is told to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from asgi import Answer, call
from starlette.applications import Starlette

from rig import HandClock
from xray_watcher.config.settings import Settings, WebSettings
from xray_watcher.web.app import create_app
from xray_watcher.web.tokens import add_token

FORM = {"content-type": "application/x-www-form-urlencoded"}
OURS = {"origin": "http://localhost:8080"}


def settings_of(folder: Path, **web: Any) -> Settings:
    return Settings(
        root=str(folder / "root"), state_dir=str(folder / "root" / "state"), web=WebSettings(**web)
    )


@dataclass(frozen=True)
class Secured:
    """An application with tokens."""

    app: Starlette
    clock: HandClock
    token_file: Path
    tokens: dict[str, str]

    def headers(self, role: str) -> dict[str, str]:
        return {} if role == "anyone" else {"authorization": f"Bearer {self.tokens[role]}"}

    def sign_in(self, token: str, **fields: str) -> Answer:
        body = urlencode({"token": token, **fields}).encode()
        return call(self.app, "POST", "/login", FORM | OURS, body)

    def cookie(self, role: str) -> dict[str, str]:
        value = self.sign_in(self.tokens[role]).headers["set-cookie"].partition(";")[0]
        return {"cookie": value}


def secured_app(folder: Path, token_file: Path) -> Secured:
    """An application on the root in a folder, and a token for each role."""
    tokens = {"view": add_token(str(token_file), "ward", "view")}
    tokens["upload"] = add_token(str(token_file), "modality", "upload")
    clock = HandClock()
    settings = settings_of(folder, token_file=str(token_file))
    return Secured(create_app(settings, clock), clock, token_file, tokens)
