"""What the API tells of the ledger: records, pages, filters, figures, its own documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from asgi import call
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter
from starlette.applications import Starlette

import audit
from rig import HandClock, Rig
from xray_watcher.config.settings import Settings
from xray_watcher.core.image_record import ImageRecord
from xray_watcher.web.app import create_app
from xray_watcher.web.models import ErrorAnswer, Health, RecordPage
from xray_watcher.web.openapi import ApiRoute

DROPS = {
    "a.jpg": "picture:Edema",
    "er/b.jpg": "picture:Fracture",
    "er/c.jpg": "picture:Edema#c",
    "d.jpg": "nan",
    "again.jpg": "picture:Edema",
    "ward/e.jpg": "picture:Effusion",
    "ward/bad\udcff.jpg": "picture:Pneumonia",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("reading") / "root"
    rig = Rig(made)
    for name, content in DROPS.items():
        rig.drop(name, content)
    rig.settle()
    rig.crash()
    return made


@pytest.fixture(scope="module")
def app(folder: Path) -> Starlette:
    settings = Settings(root=str(folder), state_dir=f"{folder}/state", timezone="Europe/Athens")
    return create_app(settings, HandClock())


def get(app: Starlette, path: str, status: int = 200) -> Any:
    answer = call(app, "GET", path)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    return answer.json


def test_the_records_are_those_of_the_log_newest_first(app: Starlette, folder: Path) -> None:
    page = get(app, "/api/v1/results")
    assert page["results"] == audit.jsonl_records(folder)[::-1]
    assert page["next"] is None
    assert get(app, "/api/v1/results/3") == audit.jsonl_records(folder)[3]


def test_the_records_are_as_the_documentation_says(app: Starlette) -> None:
    assert len(RecordPage.model_validate(get(app, "/api/v1/results")).results) == len(DROPS)
    record = get(app, "/api/v1/results/0")
    TypeAdapter(ImageRecord).validate_python(record)
    schema = get(app, "/openapi.json")["components"]["schemas"]["ImageRecord"]
    assert {*schema["required"]} <= {*record} <= {*schema["properties"]}


@pytest.mark.parametrize("index", ["7", "99999", str(2**62), str(2**64), "9" * 20_000])
def test_an_index_that_is_not_filed_is_not_found(app: Starlette, index: str) -> None:
    assert get(app, f"/api/v1/results/{index}", 404)["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("level=High", {"a.jpg", "c.jpg", "again.jpg", "bad%FF.jpg"}),
        ("level=Rejected", {"d.jpg"}),
        ("label=Edema", {"a.jpg", "c.jpg", "again.jpg"}),
        ("flag=duplicate_of", {"again.jpg"}),
        ("source=er", {"b.jpg", "c.jpg"}),
        ("source=", {"a.jpg", "d.jpg", "again.jpg"}),
        ("source=er&label=Edema", {"c.jpg"}),
        ("source=.", {"a.jpg", "d.jpg", "again.jpg"}),
        ("condition=Effusion", {"e.jpg"}),
        ("condition=Nothing", set()),
        ("label=Nothing", set()),
        ("q=B", {"b.jpg", "bad%FF.jpg"}),
        ("q=%25", {"bad%FF.jpg"}),
        ("from=2026-11-22&to=2026-11-23&level=Rejected", {"d.jpg"}),
        ("from=2026-11-24", set()),
        ("to=2026-11-22", set()),
        ("from=2026-11-20&day=2026-11-23&to=2026-11-30&level=Low", {"b.jpg"}),
        ("day=2026-11-23&level=Low", {"b.jpg"}),
        ("day=2026-11-22", set()),
        ("label=%27%20OR%201=1--", set()),
        ("flag=%22", set()),
    ],
)
def test_records_are_found_by_what_they_hold(app: Starlette, query: str, names: set[str]) -> None:
    found = get(app, f"/api/v1/results?{query}")["results"]
    assert {record["filename"] for record in found} == names


@pytest.mark.parametrize("query", ["", "&day=2026-11-23"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_pages_join_without_a_gap_and_without_a_repeat(
    app: Starlette, folder: Path, limit: int, query: str
) -> None:
    indexes, cursor = [], ""
    while True:
        page = get(app, f"/api/v1/results?limit={limit}{query}{cursor}")
        assert len(page["results"]) <= limit
        indexes += [record["index"] for record in page["results"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert indexes == [record["index"] for record in audit.jsonl_records(folder)][::-1]


@pytest.mark.parametrize(
    "query",
    [
        "level=Middle",
        "day=yesterday",
        "limit=0",
        "limit=1001",
        "limit=x",
        "cursor=-1",
        "cursor=99999999999999999999",
        "colour=red",
        "sort=oldest",
        "from=2026-13-01",
        "q=" + 256 * "x",
        "before=3",
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(app: Starlette, query: str) -> None:
    error = get(app, f"/api/v1/results?{query}", 400)["error"]
    assert error["code"] == "wrong_query"
    assert query.partition("=")[0] in error["message"]


def test_the_figures_of_a_day_are_those_of_the_summary(app: Starlette) -> None:
    figures = get(app, "/api/v1/summary/2026-11-23")
    assert (figures["received"], figures["classified"], figures["rejected"]) == (7, 6, 1)
    assert get(app, "/api/v1/summary/2020-01-01")["received"] == 0
    error = get(app, "/api/v1/summary/today", 400)["error"]
    assert "2026-11-23" in error["message"], "it says how a date is written"


def test_the_status_is_that_of_the_command(app: Starlette) -> None:
    status = get(app, "/api/v1/status")
    assert (status["alive"], status["next_index"], status["pending"]) == (False, 7, 0)


def test_prometheus_is_told_the_totals_of_the_ledger(app: Starlette) -> None:
    answer = call(app, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {
        family.name: family for family in text_string_to_metric_families(answer.body.decode())
    }
    samples = families["xray_watcher_classified"].samples
    told = {s.labels["level"]: s.value for s in samples if s.name.endswith("_total")}
    assert told == {"High": 4, "Medium": 1, "Low": 1}


def test_health_is_unavailable_without_a_daemon_and_says_why(app: Starlette) -> None:
    told = get(app, "/healthz", 503)
    assert Health.model_validate(told).reasons == ["not_running"]


def test_without_a_ledger_everything_says_so(tmp_path: Path) -> None:
    app = create_app(Settings(root=str(tmp_path), state_dir=str(tmp_path / "s")), HandClock())
    for path in (
        "/api/v1/results",
        "/api/v1/results/0",
        "/api/v1/batches/20261123T120000-0123456789ab",
    ):
        error = ErrorAnswer.model_validate(get(app, path, 503)).error
        assert "xray-watcher run" in error.message
    get(app, "/api/v1/status")


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/predict_batch", 405)])
def test_what_there_is_not_is_an_error_in_the_same_form(
    app: Starlette, path: str, status: int
) -> None:
    ErrorAnswer.model_validate(get(app, path, status))


# -- the documentation ------------------------------------------------------------------------


def test_the_documentation_has_every_route_of_the_api(app: Starlette) -> None:
    document = get(app, "/openapi.json")
    assert document["openapi"] == "3.1.0"
    routes = [route for route in app.routes if isinstance(route, ApiRoute)]
    described = {(path, method) for path, of in document["paths"].items() for method in of}
    assert described == {(r.path.replace(":index", ""), r.method.lower()) for r in routes}
    for of in document["paths"].values():
        for operation in of.values():
            assert operation["summary"].endswith(".")


def test_every_reference_of_the_documentation_leads_somewhere(app: Starlette) -> None:
    document = get(app, "/openapi.json")
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert names <= set(document["components"]["schemas"])
    assert {"BatchAnswer", "Result", "ErrorAnswer", "ImageRecord"} <= names


def test_the_documentation_of_an_upload_is_what_a_client_needs(app: Starlette) -> None:
    operation = get(app, "/openapi.json")["paths"]["/predict_batch"]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["files"]["items"]["format"] == "binary"
    assert {*operation["responses"]} >= {"200", "400", "401", "413", "429", "503", "507"}
    assert {*operation["responses"]["200"]["content"]} == {
        "application/json", "application/x-ndjson",
    }  # fmt: skip
    assert operation["security"] == [{"token": []}]
