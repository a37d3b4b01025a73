"""Brings every webhook what its log has told: in order, at least once, and by one process at a time.

Each API process looks for webhooks that are due and whose log has grown, takes a lease on some, and sends their events
batch by batch. Receivers are served side by side: one that is slow holds itself up alone. One that fails waits, twice
as long each time, and its events with it, since their order is kept.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.errors import LeaseLost
from app.settings import Settings
from app.store import delivering
from app.store.delivering import Batch, Due
from app.store.engine import Database
from app.store.events import START, Position
from app.webhooks.addresses import parse_networks
from app.webhooks.sending import GONE, Answered, Connections, Receiver, Sender

log = logging.getLogger("fettle.webhooks")

LOOK_S = 0.5
"""Pause between two looks for events to send."""
RETRY_S = 5.0
"""Pause after a look that failed: the database is away."""
SIDE_BY_SIDE = 64
"""Receivers that one process serves at once; each may take a whole timeout."""
THREADS = 4
"""Threads that deliveries may use the database with."""
LEASE_MARGIN_S = 5.0
"""A lease outlasts the longest request by this: whoever loses its process is taken over so much later."""
LONGEST_WAIT_S = 3600.0
"""Longest wait of a receiver that fails."""

_dice = random.SystemRandom()
"""Not the process's own generator: others seed that one, and processes must not wait alike."""
T = TypeVar("T")


class Deliveries:
    """The deliveries of one API process. For one event loop."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._lease_s = settings.webhook_timeout_s + LEASE_MARGIN_S
        self._sender = Sender(parse_networks(settings.webhook_allowed_networks), settings.webhook_timeout_s)
        self._limiter = CapacityLimiter(THREADS)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._in_threads: set[asyncio.Future[Any]] = set()
        self._quiet: dict[int, tuple[Position, Position]] = {}
        """By webhook: its cursor, and the place up to which there was nothing after that."""

    async def run(self) -> None:
        """Deliver until cancelled; what is being sent then is given back, and sent again by whoever comes next."""
        try:
            while True:
                try:
                    await self._look()
                    await asyncio.sleep(LOOK_S)
                except SQLAlchemyError as error:
                    log.warning("webhooks could not be looked at: %s", type(error).__name__)
                    await asyncio.sleep(RETRY_S)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)
            await asyncio.gather(*self._in_threads, return_exceptions=True)
            self._sender.close()

    async def _look(self) -> None:
        """Start to deliver to webhooks that are due."""
        for due, beyond in await self._in_thread(self._with_news):
            if len(self._running) < SIDE_BY_SIDE and due.id not in self._running:
                task = asyncio.create_task(self._deliver(due.id, beyond))
                self._running[due.id] = task
                task.add_done_callback(lambda _, key=due.id: self._running.pop(key, None))  # type: ignore[misc]

    def _with_news(self) -> list[tuple[Due, Position]]:
        """Webhooks that are due and have events to come, at random, each with a place before which there are none."""
        news: list[tuple[Due, Position]] = []
        quiet: dict[int, tuple[Position, Position]] = {}
        with self._database.read() as session:
            found = delivering.due_webhooks(session)
            end = delivering.end_of_log(session) if found else START
            for due in found:
                known = self._quiet.get(due.id)
                beyond = known[1] if known is not None and known[0] == due.cursor else due.cursor
                after = beyond if due.study_id is None else due.cursor
                if beyond >= end or not delivering.has_news(session, due, after):
                    quiet[due.id] = (due.cursor, max(end, beyond))
                else:
                    news.append((due, beyond))
        self._quiet = quiet
        _dice.shuffle(news)
        return news

    async def _deliver(self, webhook_id: int, beyond: Position) -> None:
        """Send what there is for one webhook, as long as its receiver takes it."""
        token: str | None = None
        try:
            token = await self._write(lambda session: delivering.take_lease(session, webhook_id, self._lease_s))
            if token is not None:
                async with self._sender.connections() as connections:
                    while await self._send_next(connections, webhook_id, token, beyond):
                        pass
        except LeaseLost as error:
            log.info("a delivery ends: %s", error)
        except SQLAlchemyError as error:
            log.warning("a delivery could not be recorded: %s", type(error).__name__)
        finally:
            if token is not None:
                await self._release(webhook_id, token)

    async def _send_next(self, connections: Connections, webhook_id: int, token: str, beyond: Position) -> bool:
        """Send one batch; whether there may be another one to send."""
        batch = await self._write(
            lambda session: delivering.next_batch(session, webhook_id, token, self._lease_s, beyond)
        )
        if batch is None or not batch.events:
            return batch is not None
        answered = await self._sender.send(connections, Receiver(batch.url, batch.secret), batch.message_id, batch.body)
        if answered.is_delivered:
            await self._write(
                lambda session: delivering.delivered(session, webhook_id, token, batch.end, answered.status)
            )
            return True
        await self._note_failure(webhook_id, token, batch, answered)
        return False

    async def _note_failure(self, webhook_id: int, token: str, batch: Batch, answered: Answered) -> None:
        def write(session: Session) -> str | None:
            return delivering.failed(
                session,
                webhook_id,
                token,
                status=answered.status,
                error=answered.error or "",
                wait_s=lambda failures: None if answered.status == GONE else self._wait_s(failures, answered),
                patience_s=self._settings.webhook_disable_after_s,
            )

        reason = await self._write(write)
        if reason is None:
            log.info("webhook %s failed: %s", batch.public_id, answered.error)
        else:
            log.warning("webhook %s is disabled: %s", batch.public_id, reason)

    def _wait_s(self, failures: int, answered: Answered) -> float:
        """Seconds before the next try after so many failures: doubling, spread at random, or what the receiver asks."""
        doubled = self._settings.webhook_retry_s * 2.0 ** min(failures, 30)
        spread = min(doubled, LONGEST_WAIT_S) * _dice.uniform(0.5, 1.0)
        return max(spread, min(answered.retry_after_s or 0.0, LONGEST_WAIT_S))

    async def _release(self, webhook_id: int, token: str) -> None:
        try:
            await self._write(lambda session: delivering.release(session, webhook_id, token))
        except SQLAlchemyError:
            log.info("a lease on a webhook ends by itself: the database is away")

    async def _write(self, work: Callable[[Session], T]) -> T:
        return await self._in_thread(lambda: self._database.run(work))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        # A thread can't be cancelled: whoever closes the database has to wait for it.
        work = asyncio.ensure_future(to_thread.run_sync(call, limiter=self._limiter))
        self._in_threads.add(work)
        work.add_done_callback(self._in_threads.discard)
        return await asyncio.shield(work)
