"""What an API process does beside answering: chores at intervals, each repeated for as long as the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from app.store.engine import Database
from app.store.idempotency import forget_old
from app.store.reaper import Reaper

log = logging.getLogger("fettle.api")

REAP_INTERVAL_S = 3.0
"""Pause between two looks for expired leases: a lost worker's trials wait at most twice this much longer."""
FORGET_INTERVAL_S = 3600.0
"""Pause between two sweeps of old idempotency keys."""


@dataclass(frozen=True, slots=True)
class Chore:
    """Work that is done every `interval_s` seconds, by as many processes as there are.

    `begin` gives the work on a database, which gives how many things it has done; `done` is what the log says of them.
    """

    interval_s: float
    begin: Callable[[Database], Callable[[], int]]
    done: str


CHORES = (
    Chore(REAP_INTERVAL_S, lambda database: Reaper(database).look, "took back %d expired leases"),
    Chore(FORGET_INTERVAL_S, lambda database: partial(database.run, forget_old), "forgot %d old idempotency keys"),
)


def start(database: Database, chores: Sequence[Chore] = CHORES) -> list[asyncio.Task[None]]:
    """Start all chores as tasks of the running loop; the caller cancels them."""
    return [asyncio.create_task(_repeat(chore, chore.begin(database))) for chore in chores]


async def _repeat(chore: Chore, work: Callable[[], int]) -> None:
    while True:
        await asyncio.sleep(chore.interval_s)
        try:
            count = await asyncio.to_thread(work)
        except SQLAlchemyError as error:
            log.warning("a chore could not be done (%s): %s", chore.done, error)
        else:
            if count:
                log.info(chore.done, count)
