"""Routes that read requests strictly: known query parameters, JSON bodies, no unknown fields anywhere."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar

from anyio import to_thread
from fastapi import APIRouter, Request, Response, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor

from app.api.access import access_of, authorise
from app.api.body import is_storable_text, read_json, unstorable
from app.api.field_errors import ENOUGH, MAX_PLACES, field_errors
from app.api.gate import Gate, budgets_of
from app.api.problems import invalid_request
from app.errors import FieldError, Invalid, InvalidStudy, NotFound, UnsupportedMediaType

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
BODY_METHODS = {"POST", "PATCH", "PUT"}
JSON_TYPES = ("application/json", "application/merge-patch+json")

MAX_QUERY_PARAMETERS = 200
QUICK_BYTES = 8_192
"""A larger body is read on a thread: all others would wait for it."""


class IdConvertor(Convertor[str]):
    """An id in a path: anything up to the next slash or the colon of a custom action."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class NumberConvertor(Convertor[int]):
    """A trial's number in a path; longer ones than 15 digits match no route."""

    regex = "[0-9]{1,15}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", IdConvertor())
register_url_convertor("number", NumberConvertor())


class StrictRoute(APIRoute):
    """A route that refuses whom it isn't for, and what it doesn't know.

    Its endpoint declares whom it is for (`app.api.access`); `invalid` is the error for a body of the wrong shape.
    """

    invalid: ClassVar[type[Invalid]] = Invalid

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        access = access_of(self.endpoint)
        known = {f.alias for f in get_flat_params(self.dependant) if isinstance(f.field_info, params.Query)}
        form = self.body_field is not None and isinstance(self.body_field.field_info, params.Form)
        model = None if self.body_field is None else self.body_field.field_info.annotation
        budgets = budgets_of(self.path, self.methods or ())

        async def strict(request: Request) -> Response:
            authorise(request.state.caller, access)
            gate: Gate = request.app.state.gate
            gate.admit(request, request.state.caller, budgets)
            request.state.change = access.change
            _check_path(request)
            _check_query(request, known)
            if request.method in BODY_METHODS and not form:
                await self._check_body(request, has_body=model is not None)
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise self._refusal(error.errors(), error.body, model) from None

        return strict

    async def _check_body(self, request: Request, *, has_body: bool) -> None:
        data = await request.body()
        if not data:
            return
        _check_media_type(request)
        value, errors = await to_thread.run_sync(_read, data) if len(data) > QUICK_BYTES else _read(data)
        if not has_body and value not in ({}, None):
            names = list(value)[:MAX_PLACES] if isinstance(value, dict) else []
            errors += [FieldError((name,), "Expected no fields: this action takes none.") for name in names]
            errors = errors or [FieldError((), "Expected no body, or an empty object.")]
        if errors:
            raise invalid_request(errors, self.invalid)
        request.state.json = value
        if has_body and len(data) > QUICK_BYTES and not self._embed_body_fields:
            value = await to_thread.run_sync(self._validated, value)
        request._json = value  # read once, strictly; Starlette keeps it here

    def _validated(self, value: Any) -> Any:
        """What the endpoint is given for the body: it is no work to take it for valid again.

        Raises:
            Invalid: it isn't valid.
        """
        field = self.body_field
        if field is None:
            return value
        found, errors = field.validate(value, loc=("body",))
        if errors:
            raise self._refusal(errors, value, field.field_info.annotation)
        return found

    def _refusal(self, found: Sequence[Mapping[str, Any]], body: Any, model: Any) -> Invalid:
        of_body = [{**e, "loc": e["loc"][1:]} for e in found[:ENOUGH] if e["loc"][0] == "body"]
        others = [e for e in found[:ENOUGH] if e["loc"][0] != "body"]
        errors = field_errors(of_body, body, model)
        for e in others:
            (told,) = field_errors([{**e, "loc": ()}], None)
            errors.append(FieldError(tuple(e["loc"]), told.msg))
        return invalid_request(errors, self.invalid if of_body else Invalid)


class StudyRoute(StrictRoute):
    """A route whose body is a study's definition, or a part of one."""

    invalid = InvalidStudy


def router(tag: str, route_class: type[StrictRoute] = StrictRoute) -> APIRouter:
    """A router of strict routes under one tag of the API's documentation."""
    return APIRouter(route_class=route_class, tags=[tag], redirect_slashes=False)


def _read(data: bytes) -> tuple[Any, list[FieldError]]:
    value = read_json(data)
    return value, unstorable(value)


def _check_path(request: Request) -> None:
    for value in request.path_params.values():
        if isinstance(value, str) and not is_storable_text(value):
            raise NotFound("Expected a path without NUL characters.")


def _check_query(request: Request, known: set[str]) -> None:
    if request.scope["query_string"].count(b"&") >= MAX_QUERY_PARAMETERS:
        raise invalid_request([FieldError(("query",), f"Expected at most {MAX_QUERY_PARAMETERS} query parameters.")])
    errors = []
    for name, value in request.query_params.multi_items():
        if name not in known:
            expected = f"one of {', '.join(sorted(known))}" if known else "no query parameters"
            errors.append(FieldError(("query", name), f"Expected {expected}. Received: {name[:100]!r}"))
        elif not is_storable_text(value):
            errors.append(FieldError(("query", name), "Expected text without NUL characters."))
    if errors:
        raise invalid_request(errors)


def _check_media_type(request: Request) -> None:
    received = request.headers.get("content-type", "")
    if received.partition(";")[0].strip().lower() not in JSON_TYPES:
        raise UnsupportedMediaType(f"Expected Content-Type: application/json. Received: {received[:100] or 'none'!r}")
