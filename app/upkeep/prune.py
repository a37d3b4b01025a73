"""Retention at work: what the settings let go of studies that ended long ago, in many short transactions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from app.settings import Settings
from app.store import retention
from app.store.engine import Database
from app.store.retention import DAY_S, What
from app.upkeep.files import Location

ROWS_AT_ONCE = 1_000
"""Rows that a transaction deletes: some ten milliseconds, in which SQLite's other writers wait."""
STUDIES_AT_ONCE = 100
REST = 1.0
"""Pause after a transaction, as a multiple of what it took: others have half of the database's time, or more."""
SHORTEST_REST_S = 0.005


@dataclass(frozen=True, slots=True)
class Prunable:
    """What of a study may go: how many rows or files."""

    study_id: int
    what: What
    count: int


def ages(settings: Settings) -> dict[What, float]:
    """For how many seconds after a study's end each thing is kept; what is kept for ever is not in it."""
    days = {
        What.EVENTS: settings.event_retention_days,
        What.METRICS: settings.metric_retention_days,
        What.LOGS: settings.log_retention_days,
        What.FILES: settings.artifact_retention_days,
    }
    return {what: kept * DAY_S for what, kept in days.items() if kept is not None}


def prunable(database: Database, settings: Settings) -> Iterator[Prunable]:
    """What `prune` would delete now; nothing is written."""
    for what, age_s in ages(settings).items():
        with database.read() as session:
            studies = retention.due(session, what, age_s, limit=1_000_000)
        for study_id in studies:
            with database.read() as session:
                count = retention.extent(session, study_id, what)
            if count:
                yield Prunable(study_id, what, count)


def prune(database: Database, settings: Settings, *, most_s: float = float("inf")) -> dict[What, int]:
    """Delete what the settings don't keep; how many rows and files of each kind. It stops after about `most_s` seconds.

    Several processes may do it at once.
    """
    end = time.monotonic() + most_s
    done = dict.fromkeys(ages(settings), 0)
    for what, age_s in ages(settings).items():
        location = Location(settings.resolved_artifact_url) if what is What.FILES else None
        for study_id in _due(database, what, age_s):
            done[what] += _prune_study(database, study_id, what, age_s, location, end)
            if time.monotonic() > end:
                return done
    return done


def _due(database: Database, what: What, age_s: float) -> Iterator[int]:
    """The studies that have something of `what` to lose, some at a time; each is done once the next is asked for."""
    while True:
        with database.read() as session:
            studies = retention.due(session, what, age_s, STUDIES_AT_ONCE)
        if not studies:
            return
        yield from studies


def _prune_study(
    database: Database, study_id: int, what: What, age_s: float, location: Location | None, end: float
) -> int:
    """Delete what a study has of `what`, one step at least, until `end`; how much it was."""
    after: int | None = 0
    count = 0
    while after is not None:
        began = time.monotonic()
        step = database.run(
            partial(retention.prune, study_id=study_id, what=what, age_s=age_s, after=after, most=ROWS_AT_ONCE)
        )
        took_s = time.monotonic() - began
        count, after = count + step.count, step.after
        if location is not None and step.paths:
            location.remove_folders(step.paths, emptied=True)
        if time.monotonic() > end:
            break
        time.sleep(max(SHORTEST_REST_S, REST * took_s))
    return count


def forget_workers(database: Database, settings: Settings) -> int:
    """Delete the rows of workers that were not heard of for as long as the settings say; how many there were."""
    days = settings.worker_retention_days
    if days is None:
        return 0
    return database.run(lambda session: retention.forget_workers(session, days * DAY_S))
