"""`/openapi.json`, made from the routes and the models that their answers are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, TypeAdapter

from xray_watcher import __version__
from xray_watcher.records import NOTICE
from xray_watcher.web.authentication import Role
from xray_watcher.web.models import ErrorAnswer
from xray_watcher.web.multipart import FILES_FIELD
from xray_watcher.web.security import Endpoint, SecuredRoute

_SCHEMAS = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Operation:
    """What the documentation says of one route.

    Attributes:
        answer: model of a good answer; None for any object.
        status: of a good answer.
        query: model of what may follow the question mark.
        takes_files: whether it takes a multipart form of images.
        line: model of one line, where the answer can be asked for as lines.
        errors: statuses that it can answer with beside those that all can.
    """

    summary: str
    answer: type[Any] | None = None
    status: int = 200
    query: type[BaseModel] | None = None
    takes_files: bool = False
    line: type[BaseModel] | None = None
    errors: Sequence[int] = ()


class ApiRoute(SecuredRoute):
    """A route of the API, which documents itself.

    Args:
        role: the least role that may call it.
    """

    def __init__(
        self, path: str, endpoint: Endpoint, operation: Operation, *, role: Role, method: str
    ) -> None:
        self.operation = operation
        self.method = method
        super().__init__(path, endpoint, role=role, methods=[method])


def document(routes: Sequence[ApiRoute]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes."""
    named = [model for route in routes for model in (route.operation.answer, route.operation.line)]
    models = {ErrorAnswer, *(model for model in named if model is not None)}
    _, schemas = TypeAdapter.json_schemas(
        [
            (model.__name__, "serialization", TypeAdapter(model))
            for model in sorted(models, key=lambda model: model.__name__)
        ],
        ref_template=_SCHEMAS,
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = route.path.replace(":index", "")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "xray-watcher", "version": __version__, "description": NOTICE},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: ApiRoute) -> dict[str, Any]:
    operation = route.operation
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {
            str(operation.status): _good(operation),
            **{
                str(status): _answer(status, ErrorAnswer)
                for status in (*_common(route.role), *operation.errors)
            },
        },
    }
    if parameters := [*_in_path(route), *_in_query(operation)]:
        described["parameters"] = parameters
    if operation.takes_files:
        described["requestBody"] = _form()
    if route.role != "anyone":
        described["security"] = [{"token": []}]
    return described


def _common(role: Role) -> tuple[int, ...]:
    return (421,) if role == "anyone" else (401, 403, 421)


def _good(operation: Operation) -> dict[str, Any]:
    answer = _answer(operation.status, operation.answer)
    if operation.line is not None:
        answer["content"]["application/x-ndjson"] = {"schema": _schema(operation.line)}
    return answer


def _answer(status: int, model: type[Any] | None) -> dict[str, Any]:
    content = {"application/json": {"schema": _schema(model)}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _schema(model: type[Any] | None) -> Mapping[str, Any]:
    return {"type": "object"} if model is None else {"$ref": _SCHEMAS.format(model=model.__name__)}


def _in_path(route: ApiRoute) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer" if f"{{{name}:index}}" in route.path else "string"},
        }
        for name in route.param_convertors
    ]


def _in_query(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    return [
        {
            "name": name,
            "in": "query",
            "description": schema.pop("description", ""),
            "schema": schema,
        }
        for name, schema in operation.query.model_json_schema()["properties"].items()
    ]


def _form() -> dict[str, Any]:
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    schema = {"type": "object", "required": [FILES_FIELD], "properties": {FILES_FIELD: files}}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
