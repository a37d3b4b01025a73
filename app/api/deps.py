"""What endpoints are given: the service's parts, and the project that the caller works in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Header, Query, Request
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from sqlalchemy.orm import Session

from app.api.access import UndeclaredAccess
from app.api.answers import IDEMPOTENCY_KEY_PATTERN
from app.api.turns import Turns
from app.domain.access import Caller
from app.domain.keys import masked
from app.kept import Kept
from app.store.audit import Actor, Detail, note

if TYPE_CHECKING:
    from app.api.hub import Hub
    from app.api.idempotency import InFlight
    from app.api.keyring import Keyring
    from app.settings import Settings
    from app.store.engine import Database
    from app.tuning.external import ExternalStudies
    from app.tuning.questions import Answer

READING_PATIENCE_S = 120.0
"""How long an upload that has arrived waits for two others to be read."""
FRONTS_BYTES = 16_000_000
"""What is kept of Pareto fronts: 400,000 trials."""
READERS = 2
"""Uploaded files that are read at once."""


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one API process. Endpoints open short sessions of `database`; none is held by an open stream."""

    settings: Settings
    database: Database
    hub: Hub
    in_flight: InFlight
    insights: Kept[Answer]
    keyring: Keyring
    external: Callable[[], ExternalStudies]
    """Made when it is first called: Optuna takes a second to import."""
    readers: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(READERS))
    """Threads that put uploaded files aside, and publish what is kept of them."""
    turns: Turns = field(default_factory=Turns)
    """For what computes: importances, plots, exports, reports, fronts."""
    reading: Turns = field(default_factory=lambda: Turns(patience_s=READING_PATIENCE_S))
    """For uploaded files, which take longer than plots, and wait longer."""
    checks: Turns = field(default_factory=Turns)
    """For definitions, which wait for no plot."""
    asks: Turns = field(default_factory=Turns)
    """For the samplers of trials that outside programs train."""
    fronts: Kept[tuple[int, ...]] = field(default_factory=lambda: Kept(FRONTS_BYTES))
    """The numbers of the trials in Pareto fronts, by study and how many of its trials have finished."""


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def _project(request: Request) -> str:
    caller: Caller = request.state.caller
    return caller.project


@dataclass(frozen=True, slots=True)
class Change:
    """A change that a request makes: its name in the audit log, and who makes it."""

    action: str
    actor: Actor

    def note(self, session: Session, subject: str, *, project: str | None = None, **details: Detail) -> None:
        """Write the change in the audit log, in its own transaction: see `app.store.audit.note`."""
        note(session, self.actor, self.action, subject, details, project=project)


async def _change(request: Request) -> Change:
    caller: Caller = request.state.caller
    action: str | None = request.state.change
    if not action:
        raise UndeclaredAccess(f"Expected needs(…, change=…) at {request.url.path}. Received: {action!r}")
    return Change(action, actor_of(request, caller))


def actor_of(request: Request, caller: Caller) -> Actor:
    """Who sends a request, as the audit log keeps it."""
    request_id = getattr(request.state, "request_id", None)
    return Actor(
        caller.project,
        caller.key_id,
        caller.name,
        None if request_id is None else str(request_id)[:128],
        None if request.client is None else request.client.host[:64],
    )


def _no_secret(key: str | None) -> str | None:
    """An idempotency key as it came. It is kept as it is: an API key must not get into the database with it."""
    if key is not None and masked(key) != key:
        raise PydanticCustomError(
            "secret", "Expected a key of the request's own. Received an API key: it would be kept"
        )
    return key


Api = Annotated[Service, Depends(_service)]
Calling = Annotated[Caller, Depends(_caller)]
Project = Annotated[str, Depends(_project)]
Changing = Annotated[Change, Depends(_change)]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most items of one page.")]
CursorText = Annotated[str | None, Query(alias="cursor", max_length=2000, description="The `next_cursor` of a page.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=IDEMPOTENCY_KEY_PATTERN,
        description="The same key and body give the same answer, however often they are sent.",
    ),
    AfterValidator(_no_secret),
]
DEFAULT_LIMIT = 50
