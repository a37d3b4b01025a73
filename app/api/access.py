"""Who may call what: every route declares the scope that it needs, and nothing is served that doesn't.

    401  the `Authentication` middleware: before routes are looked for, and before any of the body is read
    403  `StrictRoute`, which knows the route's scope: before path, query and body are looked at

So neither answer depends on what there is. A service without keys serves anybody (see `app.main.check_exposure`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from app.api.problems import of_error
from app.domain.access import VISITOR, Caller, Scope
from app.errors import FettleError, Forbidden, Unauthenticated, Unready

if TYPE_CHECKING:
    from app.api.keyring import Keyring
    from app.api.rates import Rates

log = logging.getLogger("fettle.access")

NOTHING = ""
"""What a route changes that only looks: `needs(Scope.SUBMIT, change=NOTHING)`."""
DOCUMENTS = frozenset({"/openapi.json", "/docs"})
"""They say what the API can do, not what it holds: everybody may see them."""
RECHECK_S = 5.0
"""How often an open stream looks whether its key is still in force."""
SAFE_METHODS = frozenset({"GET", "HEAD"})

F = TypeVar("F", bound=Callable[..., Any])


class UndeclaredAccess(RuntimeError):
    """A route says not who may call it, or what is written of it in the audit log."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a route: holders of `scope`, everybody where it is None. `change` is its name in the audit log."""

    scope: Scope | None
    change: str | None = None


def needs(scope: Scope, *, change: str | None = None) -> Callable[[F], F]:
    """Declares, right below the route, the scope of an endpoint and what its calls are named in the audit log."""
    return _declaring(Access(scope, change))


def public(endpoint: F) -> F:
    """Declares that everybody may call an endpoint, whether or not there are keys."""
    return _declaring(Access(None))(endpoint)


def _declaring(access: Access) -> Callable[[F], F]:
    def declare(endpoint: F) -> F:
        endpoint.__access__ = access  # type: ignore[attr-defined]
        return endpoint

    return declare


def access_of(endpoint: Callable[..., Any] | None) -> Access:
    """What an endpoint declares.

    Raises:
        UndeclaredAccess: nothing.
    """
    found = getattr(endpoint, "__access__", None)
    if not isinstance(found, Access):
        name = getattr(endpoint, "__qualname__", endpoint)
        raise UndeclaredAccess(f"Expected @needs(scope) or @public below the route of {name}. Received: neither")
    return found


def authorise(caller: Caller, access: Access) -> None:
    """Return where the caller may call a route.

    Raises:
        Forbidden: they may not.
    """
    if access.scope is not None and not caller.may(access.scope):
        has = ", ".join(sorted(caller.scopes)) or "none"
        log.info("refused: the key %s asked for what needs %s", caller.key_id, access.scope)
        raise Forbidden(f"Expected a key with the scope {access.scope}. Received one with: {has}.")


def declared(routes: Sequence[BaseRoute]) -> dict[tuple[str, str], Access]:
    """The access of every route by path and method.

    Raises:
        UndeclaredAccess: one declares none, or is of a kind that is not checked; or it changes something and doesn't
            say what that is called in the audit log.
    """
    found: dict[tuple[str, str], Access] = {}
    for route in iter_route_contexts(routes):
        path = str(route.path)
        access = _access(route)
        for method in route.methods or ():
            audited = access.change is not None or access.scope is Scope.WORK or method in SAFE_METHODS
            if not audited:
                raise UndeclaredAccess(f"Expected needs(…, change=…) at {method} {path}. Received: no change")
            found[path, method] = access
    return found


def _access(route: RouteContext) -> Access:
    from app.api.routing import StrictRoute

    if isinstance(route.original_route, StrictRoute):
        access = access_of(route.endpoint)
        if access.scope is None and "{" in str(route.path):
            raise UndeclaredAccess(f"Expected a public route without parameters. Received: {route.path}")
        return access
    if route.path in DOCUMENTS and set(route.methods or ()) <= SAFE_METHODS:
        return Access(None)
    kind = type(route.original_route).__name__
    raise UndeclaredAccess(f"Expected a StrictRoute, whose access is checked. Received: {kind} {route.path}")


def install(app: FastAPI, *, open_paths: Sequence[str] = ()) -> None:
    """Check that all routes declare their access, and ask callers of `app` who they are: the outermost but for logs.

    `open_paths` need no key although their routes declare a scope.

    Raises:
        UndeclaredAccess: see `declared`.
    """
    table = declared(app.routes)
    public_paths = {path for (path, _), access in table.items() if access.scope is None}
    app.add_middleware(Authentication, public=frozenset(public_paths), opened=frozenset(open_paths))


class Authentication:
    """ASGI middleware that says who calls, in `request.state.caller`, and refuses those whom nobody knows."""

    def __init__(self, app: ASGIApp, public: frozenset[str], opened: frozenset[str]) -> None:
        self.app = app
        self.public = public
        self.opened = opened

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        path = scope["path"]
        if path in self.public or path in self.opened:
            state["caller"] = VISITOR if path in self.public else _READER
            await self.app(scope, receive, send)
            return
        keyring: Keyring = scope["app"].state.service.keyring
        header = _authorization(scope)
        try:
            caller = await self._caller(scope, header)
        except FettleError as error:
            await of_error(error)(scope, receive, send)
            return
        state["caller"] = caller
        if (connection := state.get("connection")) is not None:
            connection.is_known = True
        checked_at, streams = time.monotonic(), False

        async def watched(message: Message) -> None:
            nonlocal checked_at, streams
            if message["type"] == "http.response.start":
                streams = any(
                    name == b"content-type" and value.startswith(_STREAM) for name, value in message["headers"]
                )
            elif streams and message.get("more_body") and time.monotonic() - checked_at > RECHECK_S:
                checked_at = time.monotonic()
                await _recheck(keyring, header)
            await send(message)

        await self.app(scope, receive, watched)

    async def _caller(self, scope: Connection, header: bytes | None) -> Caller:
        """Who calls; keys that nobody has are counted, and soon refused as too many."""
        rates: Rates = scope["app"].state.gate.rates
        keyring: Keyring = scope["app"].state.service.keyring
        try:
            return await keyring.caller(header)
        except Unauthenticated:
            if header is not None:
                address = scope["client"][0] if scope.get("client") else None
                rates.check_failures(address)
                rates.failed(address)
            raise


class NotAnyLonger(OSError):
    """The key of an open stream is not in force any longer: to the stream it is as if the client had left."""


async def _recheck(keyring: Keyring, header: bytes | None) -> None:
    try:
        await keyring.caller(header)
    except Unauthenticated:
        raise NotAnyLonger from None
    except Unready:
        return  # a database that is away ends no streams


_STREAM = b"text/event-stream"
_READER = Caller(VISITOR.project, frozenset({Scope.READ}))


def _authorization(scope: Connection) -> bytes | None:
    """The value of the one `Authorization` header; None without it, and with several."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    return found[0] if len(found) == 1 else None
