"""A study's row while it is locked: read into memory, changed there, and written back with the events that tell it.

Every change of a study goes this way: `lock_study`, then `lock_trials` where rows of trials are looked at, then writes,
and `tell` at the end. That is the one order of locks: study, trials by number, counter; where a project has quotas, its
row is locked on the way (see `app.store.quotas`). The rows are read without the ORM, whose unit of work cost more than
all statements of a trial together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.store.engine import now
from app.store.log import NewEvent, append_to
from app.store.query import DIALECTS, Along, one_of
from app.store.quotas import running_quota
from app.store.tables import Study, Trial, table_of


@dataclass(slots=True)
class LockedStudy:
    """A study whose row is locked by the transaction of `connection`, and the database's time when it was, `at`.

    `running_quota` is its project's, None where it has none. The other fields are columns; those from `state` on are
    written back by `tell`.
    """

    connection: Connection
    at: float
    running_quota: int | None
    id: int
    public_id: str
    project: str
    directions: str
    objective_metrics: str
    keep_models: str
    target_value: float | None
    max_parallel: int | None
    max_attempts: int
    trial_limit: int | None
    sample_limit: int | None
    generation_size: int | None
    seconds_limit: float | None
    device_seconds_limit: float | None
    no_improvement_limit: int | None
    generation: int | None

    state: str
    state_reason: str | None
    halt_reason: str | None
    started_at: float | None
    deadline_at: float | None
    finished_at: float | None
    next_number: int
    sampled_count: int
    leased: int
    waiting: int
    running: int
    complete: int
    pruned: int
    fail: int
    finished_count: int
    own_failures_in_row: int
    since_improvement: int
    device_seconds: float
    best_number: int | None
    best_value: float | None

    stored: tuple[Any, ...] = field(default=(), repr=False)
    """What the row has of the columns that are written back."""
    along: list[Along] = field(default_factory=list, repr=False)
    """What `tell` writes as well."""


_studies = table_of(Study)
_COLUMNS = tuple(f.name for f in fields(LockedStudy))[3:-2]
_WRITTEN = _COLUMNS[_COLUMNS.index("state") :]
_written = attrgetter(*_WRITTEN)

# Statements on a trial's way are built once: building one costs more than running it.
_LOCK = (
    select(now(), running_quota(), *(_studies.c[name] for name in _COLUMNS))
    .where(_studies.c.id == bindparam("locked_study"))
    .with_for_update(key_share=True)
)
_SAVE = (
    update(_studies)
    .where(_studies.c.id == bindparam("locked_study"))
    .values({name: bindparam(name) for name in _WRITTEN})
)
_SAVED = (
    f"saved AS (UPDATE fettle_studies SET {', '.join(f'{name} = %({name})s' for name in _WRITTEN)} "  # noqa: S608
    "WHERE id = %(study)s)"
)
"""PostgreSQL: the same, to go along with events; all of it is constant."""
_t = table_of(Trial)
_LOCK_TRIALS = {
    dialect: select(
        *(_t.c[name] for name in ("id", "number", "state", "attempt", "charged", "epochs", "started_at")),
        *(_t.c[name] for name in ("lease_token", "finish_token", "hyperparameters", "varied")),
    )
    .where(one_of(_t.c.id, "ids", dialect))
    .order_by(_t.c.number)
    .with_for_update()
    for dialect in DIALECTS
}


def lock_study(session: Session, study_id: int) -> LockedStudy:
    """The study, its row locked until the transaction ends.

    The lock leaves foreign keys alone (FOR NO KEY UPDATE), so that recording metrics doesn't wait for it.

    Raises:
        NotFound: there is no such study (any more).
    """
    connection = session.connection()
    row = connection.execute(_LOCK, {"locked_study": study_id}).one_or_none()
    if row is None:
        raise NotFound("Expected a study that exists. Received one that was deleted.", code="STUDY_NOT_FOUND")
    study = LockedStudy(connection, *row)
    study.stored = _written(study)
    return study


def lock_trials(study: LockedStudy, trial_ids: Collection[int]) -> dict[int, Row[Any]]:
    """The rows of trials of a study by id, locked in the order of their numbers."""
    if not trial_ids:
        return {}
    connection = study.connection
    found = connection.execute(_LOCK_TRIALS[connection.dialect.name], {"ids": sorted(trial_ids)})
    return {row.id: row for row in found}


def tell(study: LockedStudy, events: Sequence[NewEvent]) -> None:
    """Write back what was changed of a locked study, and append the events that tell it: the last act of a change."""
    connection, written = study.connection, _written(study)
    if written != study.stored:
        changes = dict(zip(_WRITTEN, written, strict=True))
        study.stored = written
        if events and connection.dialect.name == "postgresql":
            study.along.append(Along(_SAVED, changes))
        else:
            connection.execute(_SAVE, {"locked_study": study.id, **changes})
    along, study.along = study.along, []
    append_to(connection, study.id, study.public_id, events, at=study.at, along=along)
