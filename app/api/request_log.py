"""A line for every request, and its id on all lines that are logged while it is served."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.keys import masked
from app.logs import context

HEADER = "X-Request-ID"
SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
"""What a client may call its request; another is given an id of ours."""
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are asked for again and again by machines: told at the level `debug`."""
LONGEST_VALUE = 100
"""Characters of a client's text that a line holds."""

log = structlog.get_logger("fettle.request")


class RequestLog:
    """ASGI middleware: gives each request an id, answers with it, and logs how the request ended.

    To be the outermost one. A line tells the route's template and never the path itself; `study` and `trial` where the
    route has them. What a client sent is not told otherwise.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        identity = _identity(scope)
        scope.setdefault("state", {})["request_id"] = identity
        # Never taken back: the server serves each request in a context of its own, and a bug is logged further out.
        context.set(lambda: {"request_id": identity, **_place(scope)})
        began, status = time.perf_counter(), 0

        async def identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                MutableHeaders(scope=message)[HEADER] = identity
            await send(message)

        try:
            await self.app(scope, receive, identified)
        except Exception:
            status = status or 500
            raise
        finally:
            _tell(scope, status, began)


def request_id(scope: Scope) -> str | None:
    """The id of a request, where it was given one."""
    found: str | None = scope.get("state", {}).get("request_id")
    return found


def _identity(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE_ID.fullmatch(value):
            sent = str(value, "ascii")
            return sent if masked(sent) == sent else secrets.token_hex(8)
    return secrets.token_hex(8)


def _place(scope: Scope) -> Mapping[str, Any]:
    """What the request is about, as far as it was routed by now."""
    parts = scope.get("path_params") or {}
    about = {name: parts.get(key) for name, key in (("study", "study_id"), ("trial", "number"))}
    return {
        "method": scope["method"][:LONGEST_VALUE],
        "route": getattr(scope.get("route"), "path_format", None),
        **{name: value if isinstance(value, int) else value[:LONGEST_VALUE] for name, value in about.items() if value},
    }


def _tell(scope: Scope, status: int, began: float) -> None:
    level = "debug" if scope["path"] in PROBES and status < 400 else "error" if status == 500 else "info"
    # A status of 0: the client left before it was answered.
    getattr(log, level)("request", status=status, duration_ms=round((time.perf_counter() - began) * 1000, 1))
