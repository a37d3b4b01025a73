"""Errors as RFC 9457 problems: every answer that is not a success has the same shape."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from app.api.field_errors import MAX_PLACES, field_errors
from app.api.headers import ALWAYS, DEFAULTS
from app.api.request_log import HEADER, request_id
from app.domain.json import dumps
from app.domain.keys import masked
from app.errors import FettleError, FieldError, Invalid, RequestTimeout, Unready
from app.store.engine import is_transient
from app.store.presence import is_moved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger("fettle.api")

PROBLEM_TYPE = "application/problem+json"
MAX_WORDS, MAX_PART = 2_000, 200
"""Characters of a message, and of one part of a place."""
RETRY_AFTER_S = 2
MOVED = (
    "Expected the database's file that this service opened. Received another, or none: it was deleted, moved or "
    "replaced. Nothing is read or written until it is back or the service is restarted; the service's log says more."
)
METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE")


class ProblemError(BaseModel):
    """What is wrong with one place of the request."""

    loc: list[str | int] = Field(description="The path: below the body, or from `query`, `header` or `path`.")
    msg: str


class Problem(BaseModel):
    """RFC 9457 problem details, with a stable `code`."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable: STUDY_NOT_FOUND, INVALID_STUDY, STATE_CONFLICT, …")
    errors: list[ProblemError]


def problem_response(
    status: int,
    code: str,
    title: str,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer that tells a problem."""
    content = {
        "type": f"urn:fettle:problem:{code.lower().replace('_', '-')}",
        "title": title,
        "status": status,
        "detail": _short(detail, MAX_WORDS),
        "code": code,
        "errors": [
            {"loc": [_short(part, MAX_PART) for part in e.loc], "msg": _short(e.msg, MAX_WORDS)}
            for e in errors[:MAX_PLACES]
        ],
    }
    # A path or message may repeat what was sent: lone surrogates of it must not break the answer.
    body = masked(dumps(content)).encode("utf-8", errors="replace")
    return Response(body, status, media_type=PROBLEM_TYPE, headers={**ALWAYS, **DEFAULTS, **(headers or {})})


def _short(part: str | int, most: int) -> str | int:
    """What was sent may be repeated in part only: an answer is no larger for it."""
    return part if isinstance(part, int) or len(part) <= most else f"{part[:most]}…"


def of_error(error: FettleError) -> Response:
    """The answer to one of our own errors."""
    headers = dict(error.headers)
    if error.status in {429, 503}:
        headers["Retry-After"] = str(getattr(error, "retry_after_s", RETRY_AFTER_S))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return problem_response(error.status, error.code, error.title, error.detail, error.errors, headers)


def invalid_request(errors: Sequence[FieldError], kind: type[Invalid] = Invalid) -> Invalid:
    """An error about these places of a request."""
    first = errors[0]
    where = ".".join(map(str, first.loc))
    others = len(errors) - 1
    more = f" (and {others if others < MAX_PLACES else f'at least {MAX_PLACES}'} more)" if others else ""
    return kind(f"{where}: {first.msg}{more}" if where else f"{first.msg}{more}", errors=errors)


def install(app: FastAPI) -> None:
    """Answer all errors of `app` as problems."""
    app.add_exception_handler(FettleError, _on_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(DBAPIError, _on_database)
    app.add_exception_handler(PoolTimeout, _on_database)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_bug)


async def _on_error(_request: Request, error: Any) -> Response:
    return of_error(error)


async def _on_http(request: Request, error: Any) -> Response:
    status = HTTPStatus(error.status_code)
    code, detail, headers = status.name, str(error.detail), dict(error.headers or {})
    if status == HTTPStatus.NOT_FOUND:
        detail = f"Expected a path of the API, see /openapi.json. Received: {request.url.path}"
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _methods(request)
        headers["Allow"] = ", ".join(allowed)
        detail = f"Expected one of {', '.join(allowed)}. Received: {request.method}"
    return problem_response(status, code, status.phrase, detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """The methods that the path is served with."""
    routes = request.app.router.routes
    scopes = {method: {**request.scope, "method": method} for method in METHODS}
    return [m for m, scope in scopes.items() if any(r.matches(scope)[0] is Match.FULL for r in routes)]


async def _on_validation(_request: Request, error: Any) -> Response:
    return of_error(invalid_request(field_errors(error.errors(), error.body)))


async def _on_database(request: Request, error: Any) -> Response:
    if isinstance(error, DBAPIError) and is_moved(error.orig):
        log.warning("database moved: %s %s: %s", request.method, request.url.path, error.orig)
        return of_error(Unready(MOVED))
    if isinstance(error, DBAPIError) and not is_transient(error):
        return await _on_bug(request, error)
    log.warning("database unavailable: %s %s: %s", request.method, request.url.path, error)
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    detail = "Expected a database that answers. Received: none. Try again in a moment."
    return problem_response(503, "UNREADY", "Not ready", detail, headers=headers)


async def _on_disconnect(_request: Request, _error: Any) -> Response:
    """The client left before its body had arrived: nobody reads this."""
    return of_error(RequestTimeout("Expected the whole body. The connection ended before."))


async def _on_bug(request: Request, error: Any) -> Response:
    log.error("internal error: %s %s", request.method, request.url.path, exc_info=error)
    detail = "The service met an error of its own; its log has the traceback."
    identity = request_id(request.scope)  # this answer is made outside of what adds it to the others
    headers = {HEADER: identity} if identity else {}
    return problem_response(500, "INTERNAL", "Internal error", detail, headers=headers)
