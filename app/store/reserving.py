"""Reserving trials of a locked study: those that wait come first, then new rows as far as the budget goes."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Row, bindparam, text, update
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from app.domain.json import dumps, loads
from app.domain.study import StudyState
from app.domain.trial import Reservation, TrialState
from app.store.locking import LockedStudy
from app.store.query import DIALECTS, lines
from app.store.quotas import room_for_trials
from app.store.tables import Trial, table_of

_t = table_of(Trial)

# Statements on a trial's way are built once: building one costs more than running it.
_QUEUED = {
    dialect: text(
        "SELECT id, number, attempt, ordinal, requested, hyperparameters, varied, sampled "  # noqa: S608 - all of it is constant
        f"FROM fettle_trials {by_index} WHERE study_id = :study AND state = 'WAITING' AND lease_token IS NULL "
        f"ORDER BY queue, number LIMIT :room {lock}"
    )
    for dialect, by_index, lock in (
        # SQLite would look for NULL in the index of lease tokens, where all finished trials are.
        ("sqlite", "INDEXED BY ix_fettle_trials_queue", ""),
        ("postgresql", "", "FOR UPDATE"),
    )
}
_TAKE = (
    update(_t)
    .where(_t.c.id == bindparam("key"), _t.c.state == TrialState.WAITING, _t.c.lease_token.is_(None))
    .values({name: bindparam(name) for name in ("lease_expires_at", "worker_id")} | {"lease_token": bindparam("token")})
)
_EACH_TOKEN = {
    "sqlite": "(SELECT key AS i, value AS token FROM json_each(:tokens)) AS added",
    "postgresql": "unnest(string_to_array(:tokens, E'\\n')) WITH ORDINALITY AS added (token, i)",
}
_FIRST = {"sqlite": 0, "postgresql": 1}
"""What the first token's `i` is."""
_UNTOUCHED = {c.name: c.default.arg for c in _t.c if isinstance(c.default, ScalarElementColumnDefault)}
"""The columns with a value that every new trial has."""
_GIVEN = {
    "study_id": ":study",
    "number": ":number + i",
    "ordinal": ":ordinal + i",
    "state": "'WAITING'",
    "lease_token": "token",
    **{name: f":{name}" for name in ("lease_expires_at", "worker_id", "created_at", *_UNTOUCHED)},
}
_ADD = {
    dialect: text(
        # All of it is constant.
        f"INSERT INTO fettle_trials ({', '.join(_GIVEN)}) SELECT {', '.join(_GIVEN.values())} "  # noqa: S608
        f"FROM {_EACH_TOKEN[dialect]} RETURNING id, number"
    )
    for dialect in DIALECTS
}


def reserve_locked(study: LockedStudy, worker_id: str, count: int, ttl_s: float) -> list[Reservation]:
    """Reserve trials of a locked study that was settled."""
    if study.state != StudyState.RUNNING or study.halt_reason is not None:
        return []
    unleased = study.waiting - (study.leased - study.running)
    room = count if study.max_parallel is None else min(count, study.max_parallel - study.leased)
    if study.generation is not None and room > 0 and not unleased:
        # A whole generation or nothing, however many were asked for.
        room = study.generation if study.leased == 0 else 0
    if room > 0 and study.running_quota is not None:
        room = _quota_room(study, room, whole=study.generation is not None and not unleased)
    if room <= 0:
        return []
    taken = _take_queued(study, room, worker_id, ttl_s) if unleased else []
    alone = study.generation is not None and unleased
    fresh = [] if alone else _new_trials(study, room - len(taken), worker_id, ttl_s)
    study.leased += len(taken) + len(fresh)
    return [*taken, *fresh]


def _quota_room(study: LockedStudy, room: int, *, whole: bool) -> int:
    """How many of `room` trials the project's quota lets run; `whole`: all of them or none."""
    free = room_for_trials(study.connection, study.project, study.id, study.leased)
    if free is None or free >= room:
        return room
    return 0 if whole else free


def generation_room(study: LockedStudy | Row[Any], otherwise: int) -> int:
    """How many new trials the study's generations leave room for: `otherwise` without generations.

    A generation begins once all trials of the one before have finished.
    """
    if study.generation_size is None:
        return otherwise
    begun = study.finished_count // study.generation_size + 1
    return int(begun * study.generation_size - study.sampled_count)


def _take_queued(study: LockedStudy, room: int, worker_id: str, ttl_s: float) -> list[Reservation]:
    """Lease rows that wait without a lease, in the order of claiming."""
    connection = study.connection
    found = connection.execute(_QUEUED[connection.dialect.name], {"study": study.id, "room": room})
    taken = [_reservation(row) for row in found]
    lease = {"lease_expires_at": study.at + ttl_s, "worker_id": worker_id}
    if taken:
        connection.execute(_TAKE, [{"key": r.trial_id, "token": r.token, **lease} for r in taken])
    return taken


def _reservation(row: Row[Any]) -> Reservation:
    def read(text: str | None) -> Any:
        return None if text is None else loads(text)

    return Reservation(
        trial_id=row.id,
        number=row.number,
        token=secrets.token_hex(16),
        attempt=row.attempt + 1,
        ordinal=row.ordinal,
        requested=read(row.requested),
        hyperparameters=read(row.hyperparameters or row.varied),
        sampled=read(row.sampled),
    )


def _new_trials(study: LockedStudy, room: int, worker_id: str, ttl_s: float) -> list[Reservation]:
    """Insert up to `room` new leased rows, as far as the budget and the search space go."""
    if study.trial_limit is not None:
        room = min(room, study.trial_limit - study.next_number)
    if study.sample_limit is not None:
        room = min(room, study.sample_limit - study.sampled_count)
    room = min(room, generation_room(study, room))
    if room <= 0:
        return []
    number, ordinal = study.next_number, study.sampled_count
    tokens = [secrets.token_hex(16) for _ in range(room)]
    dialect = study.connection.dialect.name
    first = _FIRST[dialect]
    values = {
        "study": study.id,
        "number": number - first,
        "ordinal": ordinal - first,
        "tokens": lines(tokens) if dialect == "postgresql" else dumps(tokens),
        "lease_expires_at": study.at + ttl_s,
        "worker_id": worker_id,
        "created_at": study.at,
        **_UNTOUCHED,
    }
    added = study.connection.execute(_ADD[dialect], values)
    ids = {row.number: row.id for row in added}
    study.next_number += room
    study.sampled_count += room
    study.waiting += room
    return [
        Reservation(trial_id=ids[number + i], number=number + i, token=token, attempt=1, ordinal=ordinal + i)
        for i, token in enumerate(tokens)
    ]
