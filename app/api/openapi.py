"""What the OpenAPI document says beyond FastAPI's own: problems, streams, and the definition by reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from app.api import documented
from app.api.access import declared
from app.api.answers import JSON
from app.api.problems import Problem
from app.domain.json import dumps

KEY = "key"
KEY_WORDS = (
    "An API key, made by `fettle keys create` or `POST /v1/keys`. Its scopes are `read`, `submit`, `work` and `admin`, "
    "which includes the others. A service without keys on a loopback address asks for none."
)
Responses = dict[int | str, dict[str, Any]]
EVENT = {
    "type": "object",
    "description": "Server-sent events, one after the other; this is one of them.",
    "properties": {
        "id": {"type": "string", "description": "What `Last-Event-ID` takes."},
        "event": {"type": "string", "description": "The type; `reset` where earlier events are gone."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [
                    {"$ref": f"#/components/schemas/{name}"} for name in ("EventItem", "StudyReset", "ProjectReset")
                ]
            },
        },
    },
    "required": ["event", "data"],
}


def stream_responses(*, seen_all: bool) -> Responses:
    """The answers of an event stream; `seen_all`: 204 where the client has seen the last event."""
    content: dict[str, Any] = {
        "text/event-stream": {"schema": EVENT},
        "application/json": {"schema": {"$ref": "#/components/schemas/EventPage"}},
    }
    responses: Responses = {200: {"description": "The events, as a stream or a page of it", "content": content}}
    if seen_all:
        responses[204] = {"description": "The study is finished and the client has seen its last event"}
    return responses


def install(app: FastAPI) -> None:
    """Give `app` its OpenAPI document at `/openapi.json`, made at the first request for it."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes, tags=app.openapi_tags
            )
            app.openapi_schema = _secured(_corrected(document), app.routes)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]

    @cache
    def text() -> bytes:
        return dumps(app.openapi()).encode()

    async def openapi(request: Request) -> Response:  # noqa: ARG001
        return Response(await to_thread.run_sync(text), media_type=JSON)

    app.add_route("/openapi.json", openapi, include_in_schema=False)


def _secured(document: dict[str, Any], routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """Say of every operation which scope a key needs for it; a list of roles is what OpenAPI 3.1 has for that."""
    document["components"]["securitySchemes"] = {KEY: {"type": "http", "scheme": "bearer", "description": KEY_WORDS}}
    for (path, method), access in declared(routes).items():
        operation = document["paths"].get(re.sub(r":\w+}", "}", path), {}).get(method.lower())
        if operation is None:
            continue
        operation["security"] = [] if access.scope is None else [{KEY: [access.scope]}]
        needed = "Open to everybody." if access.scope is None else f"Needs a key with the scope `{access.scope}`."
        operation["description"] = f"{operation.get('description', '')}\n\n{needed}".strip()
    return document


def _corrected(document: dict[str, Any]) -> dict[str, Any]:
    from app.api.schemas import EventPage

    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (Problem, EventPage):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    if "Study" in schemas and "StudyDefinition" in schemas:
        schemas["Study"]["properties"]["definition"] = {"$ref": "#/components/schemas/StudyDefinition"}
    for schema in schemas.values():
        _close_patterns(schema)
    documented.complete(document)
    return document


def _close_patterns(schema: Any) -> None:
    """Say that keys which match no pattern are refused: pydantic refuses them, and doesn't say it."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            _close_patterns(part)
    elif isinstance(schema, list):
        for part in schema:
            _close_patterns(part)
