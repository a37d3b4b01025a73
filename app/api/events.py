"""The streams: a study's events, and the whole project's."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Annotated, Any

from fastapi import Header, Query, Request, Response

from app.api.access import needs
from app.api.answers import JSON
from app.api.deps import DEFAULT_LIMIT, Api, CursorText, Project
from app.api.gate import Gate, caller_of
from app.api.hub import BATCH, PAGE_BYTES, project_reset
from app.api.openapi import stream_responses
from app.api.pagination import MAX_INTEGER, Cursors
from app.api.problems import invalid_request
from app.api.routing import router as make_router
from app.api.sse import EventStream, project_chunks, study_chunks, wants_json
from app.domain.access import Scope
from app.errors import BadRequest, FieldError
from app.store.events import (
    START,
    Position,
    ProjectPage,
    latest_position,
    project_page,
    read_log,
    restores,
)
from app.store.studies import find_study

router = make_router("events")

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", max_length=100, description="The id of the last event that was seen.")
]
Follow = Annotated[bool, Query(description="False: send what there is and close.")]
PageLimit = Annotated[int | None, Query(ge=1, le=1000, description="With `Accept: application/json` alone.")]


@router.get("/v1/studies/{study_id:id}/events", responses=stream_responses(seen_all=True))
@needs(Scope.READ)
async def follow_study(
    study_id: str,
    request: Request,
    api: Api,
    project: Project,
    after: Annotated[int | None, Query(ge=0, le=MAX_INTEGER, description="Start after this event number.")] = None,
    last_event_id: LastEventId = None,
    limit: PageLimit = None,
    cursor: CursorText = None,
    follow: Follow = True,
) -> Response:
    """A study's events as they happen, from the beginning or after the last one seen."""
    start = _last_number(last_event_id) if last_event_id else after or 0
    as_json = wants_json(request.headers.get("accept"))
    study = await api.hub.read(lambda session: find_study(session, project, study_id))
    if as_json:
        cursors = Cursors(["events", study_id], [int])
        begin = (cursors.decode(cursor) or (start,))[0]
        size = limit or DEFAULT_LIMIT
        found = await api.hub.read(lambda session: read_log(session, study.id, begin, size + 1))
        events = [] if found is None else found.events
        is_last = found is None or (found.is_complete and len(events) <= size)
        more = None if is_last else cursors.encode((events[:size][-1].seq,))
        reset = None if found is None or found.reset is None else f'{{"first_seq":{found.reset}}}'
        return _json_page([event.data for event in events[:size]], more, reset)
    _refuse_paging(limit, cursor)
    page = await api.hub.read(lambda session: read_log(session, study.id, start, BATCH, PAGE_BYTES))
    if page is not None and page.has_ended and start == page.last_seq:
        return Response(status_code=204)
    chunks = study_chunks(api.hub, study.id, page, start, follow=follow)
    return EventStream(chunks, _place(request), api.hub.backlog)


@router.get("/v1/events", responses=stream_responses(seen_all=False))
@needs(Scope.READ)
async def follow_project(
    request: Request,
    api: Api,
    project: Project,
    after: Annotated[
        str | None, Query(max_length=100, description="Start after the event with this id; `latest`: only new ones.")
    ] = None,
    last_event_id: LastEventId = None,
    limit: PageLimit = None,
    cursor: CursorText = None,
    follow: Follow = True,
) -> Response:
    """The events of all studies of the project as they happen; order is kept within a study."""
    as_json = wants_json(request.headers.get("accept"))
    start, of_life = _position(last_event_id or after)
    life = await api.hub.read(restores)
    is_lost = of_life is not None and of_life != life
    if is_lost:
        start = START
    begin = await api.hub.read(lambda session: latest_position(session, project)) if start is None else start
    if as_json:
        cursors = Cursors(["firehose", project, *([life] if life else [])], [int, int, int])
        key: Any = cursors.decode(cursor) or begin
        size = limit or DEFAULT_LIMIT
        page = await api.hub.read(lambda session: project_page(session, project, key, size + 1))
        is_last = page.is_complete and len(page.events) <= size
        more = None if is_last else cursors.encode(page.events[:size][-1].position)
        reset = project_reset(None) if is_lost and not cursor else project_reset(page.gone) if page.gone else None
        return _json_page([event.data for event in page.events[:size]], more, reset)
    _refuse_paging(limit, cursor)
    found: ProjectPage = await api.hub.read(lambda session: project_page(session, project, begin, BATCH, PAGE_BYTES))
    chunks = project_chunks(api.hub, project, found, begin, follow=follow, life=life, is_lost=is_lost)
    return EventStream(chunks, _place(request), api.hub.backlog)


def _place(request: Request) -> AbstractContextManager[None]:
    gate: Gate = request.app.state.gate
    return gate.streams.held(caller_of(request, request.state.caller))


def _json_page(items: list[str], next_cursor: str | None, reset: str | None) -> Response:
    cursor = "null" if next_cursor is None else f'"{next_cursor}"'
    return Response(
        f'{{"items":[{",".join(items)}],"next_cursor":{cursor},"reset":{reset or "null"}}}', media_type=JSON
    )


def _refuse_paging(limit: int | None, cursor: str | None) -> None:
    given = [name for name, value in (("limit", limit), ("cursor", cursor)) if value is not None]
    if given:
        message = "Expected with Accept: application/json alone: a stream has no pages."
        raise invalid_request([FieldError(("query", name), message) for name in given])


def _last_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        message = f"Expected the number of an event. Received: {text[:40]!r}"
        raise invalid_request([FieldError(("header", "Last-Event-ID"), message)])
    return int(text)


def _position(text: str | None) -> tuple[Position | None, int | None]:
    """The position of an opaque id, and how often the database had been restored when it was given.

    Neither without an id: the log's start, or None for `latest`.

    Raises:
        BadRequest: it is no id that a stream gave.
    """
    if not text:
        return START, None
    if text == "latest":
        return None, None
    try:
        position, study, seq, *lives = (int(part, 16) for part in text.split("-"))
    except ValueError:
        position, study, seq, lives = -1, -1, -1, []
    if len(lives) > 1 or not all(0 <= part <= MAX_INTEGER for part in (position, study, seq, *lives)):
        raise BadRequest(f"Expected the id of an event of this stream. Received: {text[:100]!r}", code="BAD_CURSOR")
    return (position, study, seq), (lives[0] if lives else 0)
