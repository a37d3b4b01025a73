"""What an API process does beside answering: chores at intervals, each repeated for as long as the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from app.settings import Settings
from app.store.engine import Database
from app.store.idempotency import forget_old
from app.store.reaper import reap_expired
from app.upkeep.orphans import collect_old
from app.upkeep.prune import ages, forget_workers, prune

log = logging.getLogger("fettle.api")

REAP_INTERVAL_S = 3.0
"""Pause between two looks for expired leases: a lost worker's trials wait at most this much longer."""
FORGET_INTERVAL_S = 3600.0
"""Pause between two sweeps of old idempotency keys, and of workers that are long gone."""
PRUNE_INTERVAL_S = 60.0
PRUNE_S = 2.0
"""The retention works this long in every interval: a process that is told to stop waits for it."""
ORPHANS_INTERVAL_S = 6 * 3600.0
"""Pause between two looks for orphaned files: each lists the whole location."""


@dataclass(frozen=True, slots=True)
class Chore:
    """Work on the database that is done every `interval_s` seconds, by as many processes as there are.

    `work` gives how many things it has done; `done` is what the log says of them.
    """

    interval_s: float
    work: Callable[[Database], int]
    done: str


CHORES = (
    Chore(REAP_INTERVAL_S, reap_expired, "took back %d expired leases"),
    Chore(FORGET_INTERVAL_S, lambda database: database.run(forget_old), "forgot %d old idempotency keys"),
)


def chores_of(settings: Settings) -> tuple[Chore, ...]:
    """All chores of a service with these settings."""
    found = [Chore(FORGET_INTERVAL_S, lambda database: forget_workers(database, settings), "forgot %d old workers")]
    if ages(settings):
        found.append(Chore(PRUNE_INTERVAL_S, lambda database: _pruned(database, settings), "the retention deleted %d"))
    if settings.orphan_retention_days is not None:
        found.append(
            Chore(ORPHANS_INTERVAL_S, lambda database: collect_old(database, settings), "deleted %d orphaned files")
        )
    return (*CHORES, *found)


def _pruned(database: Database, settings: Settings) -> int:
    return sum(prune(database, settings, most_s=PRUNE_S).values())


def start(database: Database, chores: Sequence[Chore] = CHORES) -> list[asyncio.Task[None]]:
    """Start all chores as tasks of the running loop; the caller cancels them."""
    return [asyncio.create_task(_repeat(chore, database)) for chore in chores]


async def _repeat(chore: Chore, database: Database) -> None:
    while True:
        await asyncio.sleep(chore.interval_s)
        try:
            count = await asyncio.to_thread(chore.work, database)
        except (SQLAlchemyError, OSError) as error:
            log.warning("a chore could not be done (%s): %s", chore.done, error)
        else:
            if count:
                log.info(chore.done, count)
