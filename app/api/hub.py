"""One reader of the event log for all open streams of this process.

Each followed log has a channel; the reader asks once a tick which logs have grown, encodes new events once, and hands
the same bytes to every inbox of the channel. A client whose inbox overflows is closed, and where all clients hold too
much together those that have held theirs for longest: they resume by id. The reader takes one database connection for
the length of a tick; the streams take none.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.api.backlog import Backlog
from app.domain.json import dumps
from app.store.engine import Database
from app.store.events import Position, last_numbers, project_page, read_log, restores

log = logging.getLogger("fettle.stream")

BATCH = 500
"""Events that are read at once."""
PAGE_BYTES = 500_000
"""Bytes of events that are read of a log at once; a single event may be longer."""
TICK_BYTES = 8_000_000
"""Bytes that are read of all logs in a tick; what there is more comes in the next one, at once."""
MAX_INBOX_BYTES = 2**20
"""Bytes that a client may be behind before it is closed: some 2,500 events."""
READER_THREADS = 4
"""Threads that streams may read the database with: others serve the endpoints."""
QUIET_AFTER_S = 30.0
"""Without any event for this long the log is asked less often."""
QUIET_FACTOR = 4
RETRY_S = 1.0
"""Pause after a read that failed."""

Key = tuple[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Encoded:
    """An event as it goes over the wire, and where it stands in its log: a number, or a position."""

    at: Any
    wire: bytes


class Batch:
    """Events that are sent to all clients of a channel at once, in order."""

    def __init__(self, events: Sequence[Encoded]) -> None:
        self.last = events[-1].at
        self.wire = b"".join(event.wire for event in events)
        self._places = [event.at for event in events]
        self._ends = list(accumulate(len(event.wire) for event in events))

    def after(self, at: Any) -> bytes:
        """The bytes of the events beyond `at`."""
        seen = bisect_right(self._places, at)
        return self.wire[self._ends[seen - 1] :] if seen else self.wire


class Inbox:
    """What one client has still to be sent. Filled by the reader, emptied by the client's own task.

    What it holds is counted in `backlog`, which takes it away where clients hold too much together.
    """

    def __init__(self, joined_at: Any, backlog: Backlog) -> None:
        self.joined_at = joined_at
        self._backlog = backlog
        """The channel's place when the client joined: earlier events are not in the inbox."""
        self.is_closed = False
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def put(self, batch: Batch) -> None:
        """Add events; a client that is too far behind is closed instead."""
        if self._batches and self._bytes + len(batch.wire) > MAX_INBOX_BYTES:
            self.close()
        if not self.is_closed:
            self._bytes += len(batch.wire)
            self._batches.append(batch)
            self._backlog.hold(self, batch.wire)
        self._wake()

    def close(self) -> None:
        """Let the client go once it has what was put."""
        self.is_closed = True
        self._wake()

    def give_up(self) -> None:
        """Let the client go without what it has not taken yet: it comes back for it."""
        for batch in self._batches:
            self._backlog.release(self, batch.wire)
        self._batches.clear()
        self._bytes = 0
        self.close()

    async def get(self, timeout_s: float) -> Batch | None:
        """The next events; None after `timeout_s` without any, and where the inbox is closed and empty."""
        if not self._batches and not self.is_closed:
            await self._wait(timeout_s)
        if not self._batches:
            return None
        batch = self._batches.popleft()
        self._bytes -= len(batch.wire)
        self._backlog.release(self, batch.wire)
        return batch

    async def _wait(self, timeout_s: float) -> None:
        # A plain timer: with hundreds of clients a cancel scope for each wait takes a third of the process's time.
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Channel:
    def __init__(self, at: Any) -> None:
        self.at = at
        self.inboxes: set[Inbox] = set()

    def tell(self, events: Sequence[Encoded]) -> None:
        if events:
            batch = Batch(events)
            self.at = batch.last
            for inbox in list(self.inboxes):
                inbox.put(batch)

    def close(self) -> None:
        for inbox in self.inboxes:
            inbox.close()


@dataclass(frozen=True, slots=True)
class _Told:
    """What was read of a log after the place `since`."""

    since: Any
    events: list[Encoded]
    is_over: bool = False
    has_more: bool = False

    @property
    def size(self) -> int:
        """Bytes of the events."""
        return sum(len(event.wire) for event in self.events)


def encode_study_event(seq: int, kind: str, data: str) -> bytes:
    """An event of a study's stream."""
    return f"id: {seq}\nevent: {kind}\ndata: {data}\n\n".encode()


def encode_reset(first_seq: int) -> bytes:
    """Tells a study's stream that `first_seq` is next, whatever number was last."""
    return f'event: reset\ndata: {{"first_seq": {first_seq}}}\n\n'.encode()


def encode_position(at: Position, life: int) -> str:
    """The opaque id of an event of a project's stream. `life` counts how often the database was restored."""
    return "-".join(f"{part:x}" for part in (at if life == 0 else (*at, life)))


def encode_project_event(at: Position, kind: str, data: str, life: int) -> bytes:
    """An event of a project's stream."""
    return f"id: {encode_position(at, life)}\nevent: {kind}\ndata: {data}\n\n".encode()


def encode_project_reset(gone: Sequence[str] | None) -> bytes:
    """Tells a project's stream which studies lost events by the retention; None: the database was restored."""
    return f"event: reset\ndata: {project_reset(gone)}\n\n".encode()


def project_reset(gone: Sequence[str] | None) -> str:
    """What is told of events that are missing in a project's log, as JSON."""
    return dumps({"reason": "restore" if gone is None else "retention", "studies": list(gone or ())})


class Hub:
    """The channels of this process, and the reader that fills them. All methods belong to one event loop."""

    def __init__(self, database: Database, *, poll_s: float, ping_s: float) -> None:
        self.ping_s = ping_s
        self.is_closing = False
        self.backlog = Backlog()
        self._database = database
        self._poll_s = poll_s
        self._channels: dict[Key, _Channel] = {}
        self._wanted = asyncio.Event()
        self._limiter = CapacityLimiter(READER_THREADS)

    @property
    def open_streams(self) -> int:
        """How many clients follow now."""
        return sum(len(channel.inboxes) for channel in self._channels.values())

    async def read(self, work: Callable[[Session], T]) -> T:
        """The result of `work` in a short session of its own, in a thread."""

        def in_session() -> T:
            with self._database.read() as session:
                return work(session)

        return await to_thread.run_sync(in_session, limiter=self._limiter)

    @contextmanager
    def join(self, key: Key, at: Any) -> Iterator[Inbox]:
        """An inbox that gets what the log `key` tells from now on; a log that nobody follows yet is read from `at`."""
        channel = self._channels.setdefault(key, _Channel(at))
        inbox = Inbox(channel.at, self.backlog)
        channel.inboxes.add(inbox)
        self._wanted.set()
        if self.is_closing:
            inbox.close()
        try:
            yield inbox
        finally:
            channel.inboxes.discard(inbox)
            inbox.give_up()
            if not channel.inboxes and self._channels.get(key) is channel:
                del self._channels[key]

    def close(self) -> None:
        """End all streams, those opened later too."""
        self.is_closing = True
        for channel in self._channels.values():
            channel.close()
        self._wanted.set()

    async def run(self) -> None:
        """Read the logs that are followed, until `close`."""
        quiet_s = 0.0
        while not self.is_closing:
            if not self._channels:
                self._wanted.clear()
                await self._wanted.wait()
                quiet_s = 0.0
                continue
            try:
                told = await self.read(self._reading())
            except (SQLAlchemyError, OSError) as error:
                log.warning("the event log could not be read: %s", error)
                await anyio.sleep(RETRY_S)
                continue
            for key, news in told.items():
                self._hand_out(key, news)
            if any(news.has_more for news in told.values()):
                await anyio.lowlevel.checkpoint()
                continue
            quiet_s = 0.0 if told else quiet_s + self._poll_s
            await anyio.sleep(self._poll_s if quiet_s < QUIET_AFTER_S else self._poll_s * QUIET_FACTOR)

    def _hand_out(self, key: Key, news: _Told) -> None:
        channel = self._channels.get(key)
        if channel is None or channel.at < news.since:
            return  # left, and perhaps joined again further back, while the log was read: the next tick reads more
        channel.tell([event for event in news.events if event.at > channel.at])
        if news.is_over:
            channel.close()
            del self._channels[key]
        elif news.has_more:
            # The others come first in the next tick.
            self._channels[key] = self._channels.pop(key)

    def _reading(self) -> Callable[[Session], dict[Key, _Told]]:
        places = {key: channel.at for key, channel in self._channels.items()}
        studies = {key[1]: at for key, at in places.items() if key[0] == "study"}
        projects = {key[1]: at for key, at in places.items() if key[0] == "project"}

        def work(session: Session) -> dict[Key, _Told]:
            told: dict[Key, _Told] = {}
            room = TICK_BYTES
            last = last_numbers(session, list(studies))
            for study_id, at in studies.items():
                if study_id not in last:
                    told["study", study_id] = _Told(at, [], is_over=True)
                elif last[study_id] > at:
                    news = _study_news(session, study_id, at) if room > 0 else _Told(at, [], has_more=True)
                    told["study", study_id] = news
                    room -= news.size
            life = restores(session) if projects else 0
            for project, at in projects.items():
                if room <= 0:
                    told["project", project] = _Told(at, [], has_more=True)
                    continue
                page = project_page(session, project, at, BATCH, PAGE_BYTES)
                if page.events:
                    encoded = [
                        Encoded(e.position, encode_project_event(e.position, e.type, e.data, life)) for e in page.events
                    ]
                    if page.gone:
                        encoded.insert(0, Encoded(page.events[0].position, encode_project_reset(page.gone)))
                    told["project", project] = news = _Told(at, encoded, has_more=not page.is_complete)
                    room -= news.size
            return told

        return work


def _study_news(session: Session, study_id: int, at: int) -> _Told:
    page = read_log(session, study_id, at, BATCH, PAGE_BYTES)
    if page is None:
        return _Told(at, [], is_over=True)
    encoded = [Encoded(e.seq, encode_study_event(e.seq, e.type, e.data)) for e in page.events]
    if page.reset is not None:
        # At the place of the event that follows: clients beyond it have no use for either.
        encoded.insert(0, Encoded(page.events[0].seq if page.events else page.last_seq, encode_reset(page.reset)))
    return _Told(at, encoded, is_over=page.has_ended, has_more=not page.is_complete)
