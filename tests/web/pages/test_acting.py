"""Nothing that a person chose or typed is lost: not by an ended session, nor a wrong token."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import watched_page
from pagesite import Site
from playwright.sync_api import Browser, Page, expect

WAIT_MS = 60_000
FILMS = 500
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """As many as a night brings; none is a picture, so that each is decided at once."""
    folder = tmp_path_factory.mktemp("films")
    paths = [folder / f"CR{number:04d}.png" for number in range(FILMS)]
    for path in paths:
        path.write_bytes(b"no picture")
    return paths


class Guarded:
    """A site with tokens: one for looking, one for uploading."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "tokens"
        self.site = Site(folder / "root", f"token_file = {json.dumps(str(self.file))}")
        self.view, self.upload = (
            self.site.command("token", role, "--role", role).stdout.split()[-1]
            for role in ("view", "upload")
        )
        self.site.http.headers["Authorization"] = f"Bearer {self.upload}"
        self.lines = self.file.read_text()

    def asked(self) -> int:
        return self.site.http.get(f"{self.site.url}/api/v1/status", timeout=60).status_code

    def set_tokens(self, lines: str) -> None:
        """Write the file and wait until the server has read it; sessions end with their token."""
        self.file.write_text(lines)
        status = 200 if lines else 401
        self.site.wait_until(lambda: self.asked() == status)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    made = Guarded(tmp_path_factory.mktemp("guarded"))
    try:
        made.site.start_both()
        yield made
    finally:
        made.site.kill()


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def count_uploads(page: Page) -> list[str]:
    sent: list[str] = []
    page.on(
        "request", lambda request: sent.append(request.url) if request.method == "POST" else None
    )
    return sent


def test_500_films_stay_chosen_when_the_session_has_ended(
    browser: Browser, guarded: Guarded, films: list[Path]
) -> None:
    page = browser.new_page(base_url=guarded.site.url)
    page.goto("/")
    sign_in(page, guarded.upload)
    expect(page.locator("#upload")).to_be_visible()
    page.set_input_files("#files", films)
    guarded.set_tokens("")
    sent = count_uploads(page)
    page.get_by_role("button", name="Predict").click()
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("Your session has ended, so nothing was sent.")
    expect(problem).to_contain_text("Your 500 images stay chosen.")
    expect(problem).to_be_in_viewport()
    expect(page.locator(".service")).to_have_text("Signed out")
    expect(page.locator("#chosen-words")).to_contain_text("500 images selected")
    assert sent == []

    guarded.set_tokens(guarded.lines)
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Sign in").click()
    sign_in(popup.value, guarded.upload)
    expect(popup.value).to_have_url(re.compile("/live$"))
    popup.value.close()
    expect(page.locator("#spoken-ready")).to_contain_text("500 images chosen: press Predict")
    expect(problem).to_be_hidden()
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#result-words")).to_contain_text("500 of 500")
    expect(page.locator("#chosen")).to_be_hidden()
    page.close()


def test_500_films_stay_chosen_while_the_service_is_stopped(
    browser: Browser, tmp_path: Path, films: list[Path]
) -> None:
    site = Site(tmp_path / "root")
    try:
        site.start_web()
        page = browser.new_page(base_url=site.url)
        page.goto("/")
        page.set_input_files("#files", films)
        sent = count_uploads(page)
        page.get_by_role("button", name="Predict").click()
        problem = page.get_by_role("alert")
        expect(problem).to_contain_text("The service is not running, so nothing was sent.")
        expect(problem).to_contain_text("Your 500 images stay chosen.")
        expect(page.locator("#chosen-words")).to_contain_text("500 images selected")
        assert sent == []
        site.start()
        expect(page.locator("#spoken-ready")).to_contain_text("500 images chosen: press Predict")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#result-words")).to_contain_text("500 of 500")
        page.close()
    finally:
        site.kill()


@pytest.mark.parametrize(
    ("answer", "stay"),
    [
        ({"error": {"code": "no_room", "message": "No room."}, "batch": "b", "accepted": 3}, 2),
        ({"error": {"code": "busy", "message": "Busy."}}, 5),
    ],
    ids=["three were taken", "none was taken"],
)
def test_only_what_was_taken_is_cleared(
    browser: Browser, site: Site, answer: dict[str, object], stay: int
) -> None:
    page = browser.new_page(base_url=site.url)
    page.goto("/")
    page.route("**/predict_batch", lambda route: route.fulfill(status=507, json=answer))
    page.set_input_files(
        "#files",
        [{"name": f"{n}.png", "mimeType": "image/png", "buffer": b"x"} for n in range(5)],
    )
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_contain_text(f"{stay} images stay chosen.")
    names = page.locator("#chosen-names li").all_inner_texts()
    assert names == [f"{n}.png" for n in range(5 - stay, 5)]
    expect(page.get_by_role("button", name="Predict")).to_be_enabled()
    page.close()


def test_an_upload_that_is_cancelled_or_cut_off_leaves_the_films_chosen(
    browser: Browser, site: Site
) -> None:
    page = browser.new_page(base_url=site.url)
    page.goto("/")
    page.route("**/predict_batch", lambda route: route.abort())
    page.set_input_files("#files", [{"name": "a.png", "mimeType": "image/png", "buffer": b"x"}])
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_contain_text("Your 1 image stay")
    expect(page.locator("#chosen-words")).to_contain_text("1 image selected")
    page.close()


def test_a_wrong_token_keeps_the_aim(browser: Browser, guarded: Guarded) -> None:
    guarded.set_tokens(guarded.lines)
    with watched_page(browser, guarded.site.url) as page:
        page.goto("/days?date=2026-11-24")
        sign_in(page, "wrong")
        expect(page.get_by_role("alert")).to_contain_text("not known")
        sign_in(page, guarded.view)
        expect(page).to_have_url(re.compile("/days/2026-11-24$"))


@pytest.mark.parametrize(("role", "first"), [("view", "/live"), ("upload", "/")])
def test_each_role_lands_where_it_can_do_something(
    browser: Browser, guarded: Guarded, role: str, first: str
) -> None:
    guarded.set_tokens(guarded.lines)
    with watched_page(browser, guarded.site.url) as page:
        page.goto("/")
        sign_in(page, getattr(guarded, role))
        expect(page).to_have_url(guarded.site.url + first)


def test_who_may_only_look_is_offered_no_upload(browser: Browser, guarded: Guarded) -> None:
    guarded.set_tokens(guarded.lines)
    with watched_page(browser, guarded.site.url) as page:
        page.goto("/login")
        sign_in(page, guarded.view)
        page.goto("/")
        expect(page.locator("main")).to_contain_text("allows looking, not uploading")
        expect(page.get_by_role("button", name="Predict")).to_be_hidden()
