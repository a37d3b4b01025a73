"""Server-sent events: the streams of a study and of a project, and what a client asks for."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from typing import Any

import anyio
from fastapi import Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Receive, Scope, Send

from app.api.backlog import Backlog
from app.api.hub import (
    BATCH,
    PAGE_BYTES,
    Batch,
    Encoded,
    Hub,
    Inbox,
    encode_project_event,
    encode_project_reset,
    encode_reset,
    encode_study_event,
)
from app.errors import NotAcceptable
from app.store.events import LogPage, Position, ProjectPage, project_page, read_log

log = logging.getLogger("fettle.stream")

EVENT_STREAM = "text/event-stream"
PING = b": ping\n\n"
MAX_ACCEPT = 2_000
"""Characters of an `Accept` header that are looked at."""
PIECE_BYTES = 64 * 1024
"""What is handed to the server at once: it buffers what the client doesn't take."""


class EventStream(Response):
    """A stream that ends with its generator, or with the client; both free everything at once, and its `place`.

    A client that takes nothing any more ends with its connection: see `app.api.sockets`.
    """

    media_type = None

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], place: AbstractContextManager[None], backlog: Backlog
    ) -> None:
        super().__init__(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.chunks = chunks
        self.place = place
        self.backlog = backlog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        async with aclosing(self.chunks):
            with self.place:
                await self._stream(receive, send)

    async def _stream(self, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as group:

            async def leave() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(leave)
            sending = _Sending(self.backlog, group.cancel_scope.cancel)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async for chunk in self.chunks:
                    try:
                        with sending.held(chunk):
                            for piece in _pieces(chunk):
                                await send({"type": "http.response.body", "body": piece, "more_body": True})
                    except OSError:
                        break  # the client has left, or may not go on
            except SQLAlchemyError as error:
                # The answer has begun: it ends here, and the client comes back to go on after its last event.
                log.warning("a stream ends early, the event log could not be read: %s", error)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            group.cancel_scope.cancel()


def _pieces(chunk: bytes) -> Iterator[bytes]:
    """A chunk in parts of which the server's buffer for a client never holds more than two."""
    if len(chunk) <= PIECE_BYTES:
        yield chunk
        return
    for start in range(0, len(chunk), PIECE_BYTES):
        yield chunk[start : start + PIECE_BYTES]


class _Sending:
    """What a stream sends now, counted in `backlog`; told to give it up, it leaves its client."""

    def __init__(self, backlog: Backlog, leave: Callable[[], object]) -> None:
        self._backlog = backlog
        self._leave = leave
        self._chunk: bytes | None = None

    @contextmanager
    def held(self, chunk: bytes) -> Iterator[None]:
        """Count a chunk for the length of the block."""
        self._chunk = chunk
        self._backlog.hold(self, chunk)
        try:
            yield
        finally:
            self._release()

    def give_up(self) -> None:
        """Leave the client: it comes back to go on after its last event."""
        self._release()
        self._leave()

    def _release(self) -> None:
        chunk, self._chunk = self._chunk, None
        if chunk is not None:
            self._backlog.release(self, chunk)


async def study_chunks(
    hub: Hub, study_id: int, page: LogPage | None, sent: int, *, follow: bool
) -> AsyncGenerator[bytes, None]:
    """A study's events after number `sent`, the first of them in `page`, until its end or the client's."""

    async def more(at: int) -> LogPage | None:
        return await hub.read(lambda session: read_log(session, study_id, at, BATCH, PAGE_BYTES))

    last_seq = sent
    while page is not None and not hub.is_closing:
        (chunk, sent), last_seq = _of_page(page, sent), page.last_seq
        has_ended, is_complete = page.has_ended, page.is_complete
        page = None  # while the client takes the chunk, only that is held
        if chunk:
            yield chunk
        if has_ended or (is_complete and not follow):
            return
        if is_complete:
            break
        page = await more(sent)
        if page is None:
            return
    else:
        return
    with hub.join(("study", study_id), min(sent, last_seq)) as inbox:
        while sent < inbox.joined_at:
            page = await more(sent)
            if page is None:
                return
            (chunk, sent), has_ended = _of_page(page, sent), page.has_ended
            page = None
            if chunk:
                yield chunk
            if has_ended:
                return
        async for chunk in _from_inbox(inbox, sent, hub.ping_s):
            yield chunk


async def project_chunks(
    hub: Hub, project: str, page: ProjectPage | None, sent: Position, *, follow: bool, life: int, is_lost: bool
) -> AsyncGenerator[bytes, None]:
    """A project's events after `sent`, the first of them in `page`, in the `life` of the database that they are of.

    `is_lost`: the client's last event was told in another one.
    """
    told = set[str]()

    async def more(at: Position) -> ProjectPage:
        return await hub.read(lambda session: project_page(session, project, at, BATCH, PAGE_BYTES))

    def encode(page: ProjectPage) -> bytes:
        gone = [study for study in page.gone if study not in told]
        told.update(gone)
        reset = encode_project_reset(gone) if gone else b""
        return reset + b"".join(encode_project_event(e.position, e.type, e.data, life) for e in page.events)

    if is_lost:
        yield encode_project_reset(None)
    while page is not None and not hub.is_closing:
        chunk, is_complete = encode(page), page.is_complete
        sent = page.events[-1].position if page.events else sent
        page = None  # while the client takes the chunk, only that is held
        if chunk:
            yield chunk
        if is_complete:
            break
        page = await more(sent)
    if not follow:
        return
    with hub.join(("project", project), sent) as inbox:
        while sent < inbox.joined_at and (page := await more(sent)).events:
            chunk, sent, page = encode(page), page.events[-1].position, None
            yield chunk
        async for chunk in _from_inbox(inbox, sent, hub.ping_s):
            yield chunk


async def _from_inbox(inbox: Inbox, sent: Any, ping_s: float) -> AsyncIterator[bytes]:
    while True:
        batch = await inbox.get(ping_s)
        if batch is not None:
            chunk = batch.after(sent)
            sent = max(sent, batch.last)
            if chunk:
                yield chunk
        elif inbox.is_closed:
            return
        else:
            yield PING


def _of_page(page: LogPage, sent: int) -> tuple[bytes, int]:
    """The bytes of a page of a study's log after number `sent`, and the number of its last event."""
    reset = encode_reset(page.reset) if page.reset is not None else b""
    if not page.events:
        return reset, (page.last_seq if reset else sent)
    batch = Batch([Encoded(e.seq, encode_study_event(e.seq, e.type, e.data)) for e in page.events])
    return reset + batch.wire, batch.last


def wants_json(accept: str | None) -> bool:
    """Whether the client prefers a JSON page to a stream.

    Raises:
        NotAcceptable: it accepts neither.
    """
    if accept is None or not accept.strip():
        return False
    stream, page = _quality(accept, EVENT_STREAM), _quality(accept, "application/json")
    if max(stream, page) <= (0.0, 0):
        raise NotAcceptable(f"Expected Accept: text/event-stream or application/json. Received: {accept[:100]!r}")
    return page > stream


def _quality(accept: str, media_type: str) -> tuple[float, int]:
    """The weight that an Accept header gives a media type, and how specifically (RFC 9110, 12.5.1)."""
    best: tuple[int, float] | None = None
    for part in accept[:MAX_ACCEPT].lower().split(","):
        name, *parameters = (item.strip() for item in part.split(";"))
        if name not in {media_type, f"{media_type.partition('/')[0]}/*", "*/*"}:
            continue
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            found = (2 if name == media_type else 1 if name != "*/*" else 0, float(weight))
        except ValueError:
            continue
        best = found if best is None else max(best, found)
    return (0.0, 0) if best is None or not best[1] > 0 else (best[1], best[0])
