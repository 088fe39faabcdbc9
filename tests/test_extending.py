"""Every example of docs/extending.md does what the page says, with the real parts around it."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from datetime import UTC
from email.message import EmailMessage
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pictures
import pytest
from asgi import call
from PIL import Image
from pydantic import create_model
from secured import secured_app
from structlog.testing import capture_logs

import audit
from rig import Rig
from xray_watcher.config.scoring import ModelSettings
from xray_watcher.config.upkeep import NotifySettings
from xray_watcher.core.catalogue import UNTRAINED
from xray_watcher.errors import UnreadableImage
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.pixels import decode
from xray_watcher.intake.handover import uploads_folder
from xray_watcher.model.engine import load_engine
from xray_watcher.notify.setup import build_channels, build_subscriptions
from xray_watcher.service.chores import Contained
from xray_watcher.service.upkeep import build_notifier
from xray_watcher.web.context import WebContext
from xray_watcher.web.pages.render import Pages

HOME = Path(__file__).parents[1]
PAGE = (HOME / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = {
    part.splitlines()[0]: re.findall(r"```python\n# src/(\S+)\.py\n(.*?)```", part, re.DOTALL)
    for part in PAGE.split("\n## ")[1:]
}
DAY = "2026-11-23"

Extend = Callable[[str], list[ModuleType]]


@pytest.fixture
def extend(monkeypatch: pytest.MonkeyPatch) -> Extend:
    """Run the examples of a section as the modules that they are, or as the ends of modules."""

    def run(section: str) -> list[ModuleType]:
        return [_run(monkeypatch, path, code) for path, code in SECTIONS[section]]

    return run


def _run(monkeypatch: pytest.MonkeyPatch, path: str, code: str) -> ModuleType:
    name = path.replace("/", ".")
    if not (HOME / "src" / f"{path}.py").exists():
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, path, "exec"), vars(module))
        return module
    module = importlib.import_module(name)
    tables = {key: dict(value) for key, value in vars(module).items() if type(value) is dict}
    after = dict(vars(module))
    exec(compile(code, path, "exec"), after)
    for key, value in after.items():
        if key in tables and value is vars(module)[key]:
            _keep_for_this_test(monkeypatch, value, tables[key])
        elif vars(module).get(key) is not value:
            monkeypatch.setattr(module, key, value, raising=False)
    return module


def _keep_for_this_test(
    monkeypatch: pytest.MonkeyPatch, table: dict[Any, Any], before: dict[Any, Any]
) -> None:
    for key in table.keys() - before.keys():
        monkeypatch.setitem(table, key, table.pop(key))


def test_a_format_decodes_a_whole_picture_and_refuses_a_part(extend: Extend) -> None:
    grey = pictures.chest()
    pgm = b"P5 %d %d 255\n" % (grey.shape[1], grey.shape[0]) + grey.tobytes()
    with pytest.raises(UnreadableImage) as without:
        decode(pgm, DecodeLimits())
    extend("A picture format")
    same = decode(pictures.png(Image.fromarray(grey)), DecodeLimits()).pixels
    assert np.array_equal(same, decode(pgm, DecodeLimits()).pixels)
    with pytest.raises(UnreadableImage) as cut:
        decode(pgm[:-1], DecodeLimits())
    assert (without.value.code, cut.value.code) == ("wrong_format", "incomplete")


def test_a_source_hands_a_file_over_that_is_filed_under_its_name(
    extend: Extend, tmp_path: Path
) -> None:
    (mailbox,) = extend("A source of images")
    rig = Rig(tmp_path)
    rig.tick()
    message = EmailMessage()
    message.add_attachment(b"picture:Edema", "image", "png", filename="film.png")
    mail = tmp_path / "mails" / "new" / "1.host"
    mail.parent.mkdir(parents=True)
    mail.write_bytes(bytes(message))
    folder = uploads_folder(rig.spool.work.path)
    taken = mailbox.take_mails(mail.parents[1], folder, rig.settings.folders.waker, rig.clock.now())
    rig.settle()
    (record,) = audit.jsonl_records(tmp_path)
    assert taken == 1
    assert not mail.exists()
    assert (record["source"], record["filename"]) == ("mail", "film.png")
    assert record["risk_level"] == "High"


def test_an_engine_scores_under_its_name(extend: Extend, tmp_path: Path) -> None:
    extend("An engine")
    engine = load_engine(
        UNTRAINED.name, "", str(tmp_path), kind="mean", threads=1, device="auto", precision="auto"
    )
    scores = engine.classify(np.full((2, 1, 224, 224), 512, np.float32))
    assert scores.dtype == np.float32
    assert scores.shape == (2, len(engine.labels))
    assert scores[0, 0] == 0.75
    assert ModelSettings(engine="mean").engine == "mean"


def test_a_channel_gets_the_notification_of_an_image(extend: Extend, tmp_path: Path) -> None:
    extend("A notification channel")
    target = tmp_path / "messages"
    target.mkdir()
    settings = _with_folder(str(target))
    assert settings.kinds == ("folder",)
    channels, subscriptions = build_channels(settings), build_subscriptions(settings)
    rig = Rig(
        tmp_path / "root",
        subscriptions=subscriptions,
        chores=lambda rig: [
            build_notifier(
                settings, rig.ledger, channels, subscriptions, rig.health, rig.waker, rig.clock
            )
        ],
    )
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    rig.daemon._drain()  # the threads of the channels end
    (message,) = target.glob("high-*.json")
    assert '"index":0' in message.read_text().replace(" ", "")


def _with_folder(folder: str) -> NotifySettings:
    """The settings with the field that the page asks for."""
    section = importlib.import_module("xray_watcher.config.upkeep").FolderSettings
    fields: dict[str, Any] = {"folder": (section, section())}
    extended = create_model("Extended", __base__=NotifySettings, **fields)
    return extended(folder=section(folders=(folder,)))  # type: ignore[call-arg]


def test_an_effect_is_committed_with_a_filing(extend: Extend, tmp_path: Path) -> None:
    (urgent,) = extend("An effect of a filing")
    rig = Rig(tmp_path, effects=[urgent.UrgentNotices({"icu"}, "pager")])
    for name in ("icu/a.jpg", "ward/b.jpg"):
        rig.drop(name, f"picture:Edema#{name}")
    rig.settle()
    records = {record["source"]: record["index"] for record in audit.jsonl_records(tmp_path)}
    found = rig.ledger.db.rows("SELECT channel, event, subject FROM notice", ())
    assert [tuple(row) for row in found] == [("pager", "high", str(records["icu"]))]


def test_a_chore_is_called_by_the_daemon_when_it_is_due(extend: Extend, tmp_path: Path) -> None:
    (module,) = extend("A chore")
    rig = Rig(tmp_path, chores=lambda _rig: [Contained(module.FreeSpace(str(tmp_path)))])
    with capture_logs() as logs:
        rig.ticks(5)
        assert _count(logs) == 1
        rig.tick(3600)
    assert _count(logs) == 2
    assert not rig.health.problems


def _count(logs: list[Any]) -> int:
    return len([line for line in logs if line.get("code") == "free_space"])


def test_a_chore_that_fails_shows_in_status_and_holds_up_no_image(
    extend: Extend, tmp_path: Path
) -> None:
    (module,) = extend("A chore")
    rig = Rig(tmp_path, chores=lambda _rig: [Contained(module.FreeSpace(str(tmp_path / "gone")))])
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    assert list(rig.health.problems) == ["free-space"]
    assert len(audit.filed(tmp_path)) == 1


def test_a_page_answers_and_its_role_is_held(extend: Extend, tmp_path: Path) -> None:
    (module,) = extend("A page")
    root = tmp_path / "root"
    rig = Rig(root)
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    site = secured_app(tmp_path, tmp_path / "tokens")
    page = module.LevelsPage(Pages(WebContext(rig.settings, rig.clock)))
    site.app.router.routes.append(page.route)
    shown = call(site.app, "GET", f"/levels/{DAY}", site.headers("view"))
    assert (shown.status, shown.body) == (200, b"High 1\n")
    assert call(site.app, "GET", f"/levels/{DAY}").status == 401
    assert call(site.app, "GET", "/levels/1999-01-01", site.headers("view")).status == 404


def test_a_report_is_written_from_the_ledger(extend: Extend, tmp_path: Path) -> None:
    (module,) = extend("A report")
    path = tmp_path / "week.csv"
    rig = Rig(
        tmp_path,
        chores=lambda rig: [
            Contained(module.WeekReport(str(path), rig.ledger, rig.clock, UTC)),
        ],
    )
    rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    rig.tick(601)
    assert path.read_text().splitlines()[:3] == [
        "day,High,Medium,Low",
        f"{DAY},1,0,0",
        "2026-11-22,0,0,0",
    ]


def test_each_section_has_its_example_and_its_row_in_the_table() -> None:
    rows = re.findall(r"^\| \[([^\]]+)\]\(#([^)]+)\)", PAGE, re.MULTILINE)
    assert [name.capitalize() for name, _ in rows] == list(SECTIONS)
    assert [anchor.replace("-", " ").capitalize() for _, anchor in rows] == list(SECTIONS)
    for section, examples in SECTIONS.items():
        lines = max(len(code.splitlines()) for _, code in examples)
        assert 20 <= lines <= 40, f"{section}: {lines} lines"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w/]+\.(?:py|toml|md))`", PAGE))))
def test_each_file_that_the_page_names_is_there(path: str) -> None:
    places = (HOME, HOME / "src" / "xray_watcher")
    assert any((place / path).exists() for place in places)


@pytest.mark.parametrize(("name", "path"), re.findall(r"`(\w+)` in `([\w/]+)\.py`", PAGE))
def test_each_entry_that_the_page_names_is_there(name: str, path: str) -> None:
    module = path.replace("/", ".").removesuffix(".__init__")
    assert hasattr(importlib.import_module(f"xray_watcher.{module}"), name)
