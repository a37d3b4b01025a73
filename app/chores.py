"""What an API process does beside answering: chores at intervals, each repeated for as long as the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from app.settings import Settings
from app.store.engine import Database
from app.store.idempotency import forget_old
from app.store.reaper import Reaper
from app.upkeep.orphans import collect_old
from app.upkeep.prune import ages, forget_workers, prune

log = logging.getLogger("fettle.api")

REAP_INTERVAL_S = 3.0
"""Pause between two looks for expired leases: a lost worker's trials wait at most twice this much longer."""
FORGET_INTERVAL_S = 3600.0
"""Pause between two sweeps of old idempotency keys, and of workers that are long gone."""
PRUNE_INTERVAL_S = 60.0
PRUNE_S = 2.0
"""The retention works this long in every interval: a process that is told to stop waits for it."""
ORPHANS_INTERVAL_S = 6 * 3600.0
"""Pause between two looks for orphaned files: each lists the whole location."""


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


def chores_of(settings: Settings) -> tuple[Chore, ...]:
    """All chores of a service with these settings."""
    found = [
        Chore(FORGET_INTERVAL_S, lambda database: partial(forget_workers, database, settings), "forgot %d old workers")
    ]
    if ages(settings):
        found.append(
            Chore(PRUNE_INTERVAL_S, lambda database: partial(_pruned, database, settings), "the retention deleted %d")
        )
    if settings.orphan_retention_days is not None:
        found.append(
            Chore(
                ORPHANS_INTERVAL_S,
                lambda database: partial(collect_old, database, settings),
                "deleted %d orphaned files",
            )
        )
    return (*CHORES, *found)


def _pruned(database: Database, settings: Settings) -> int:
    return sum(prune(database, settings, most_s=PRUNE_S).values())


def start(database: Database, chores: Sequence[Chore] = CHORES) -> list[asyncio.Task[None]]:
    """Start all chores as tasks of the running loop; the caller cancels them."""
    return [asyncio.create_task(_repeat(chore, chore.begin(database))) for chore in chores]


async def _repeat(chore: Chore, work: Callable[[], int]) -> None:
    while True:
        await asyncio.sleep(chore.interval_s)
        try:
            count = await asyncio.to_thread(work)
        except (SQLAlchemyError, OSError) as error:
            log.warning("a chore could not be done (%s): %s", chore.done, error)
        else:
            if count:
                log.info(chore.done, count)
