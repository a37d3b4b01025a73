"""Checkpoints: where a trial's state lies, and what the attempt that goes on from it takes over.

A checkpoint's row is written behind the fence of `app.store.leases`, together with the metrics of the epochs that it
has behind it. It outlives its attempt; `forget_obsolete` deletes those that nobody can go on from any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, or_, select, text, update
from sqlalchemy.orm import Session

from app.domain.json import decode_number, loads
from app.domain.study import StudyState
from app.domain.trial import LIVE_STATES, CheckpointPointer, TrialState
from app.store.fence import stands
from app.store.locking import lock_study, lock_trials, tell
from app.store.log import NewEvent
from app.store.query import DIALECTS, one_of
from app.store.settling import write_logs
from app.store.tables import Checkpoint, Metric, Study, Trial, table_of

SWEPT_AT_ONCE = 100
"""Checkpoints that one sweep deletes at most."""

_c, _t, _s, _m = table_of(Checkpoint), table_of(Trial), table_of(Study), table_of(Metric)
_PATHS = {
    dialect: select(_c.c.path).where(one_of(_c.c.trial_id, "ids", dialect)).order_by(_c.c.trial_id)
    for dialect in DIALECTS
}
_PUT = text(
    "INSERT INTO fettle_checkpoints (trial_id, attempt, epochs, path, size_bytes, created_at) "
    "VALUES (:trial_id, :attempt, :epochs, :path, :size_bytes, :created_at) ON CONFLICT (trial_id) DO UPDATE SET "
    "attempt = excluded.attempt, epochs = excluded.epochs, path = excluded.path, size_bytes = excluded.size_bytes, "
    "created_at = excluded.created_at"
)
_TAKE_OVER = text(
    "INSERT INTO fettle_metrics (trial_id, attempt, epoch, metrics, at) "
    "SELECT trial_id, :attempt, epoch, metrics, at FROM fettle_metrics "
    "WHERE trial_id = :trial AND attempt = :earlier AND epoch < :epochs ON CONFLICT DO NOTHING"
)
_COUNT_EPOCHS = update(_t).where(_t.c.id == bindparam("trial")).values(epochs=bindparam("epochs_now"))
_STORED = select(_c.c.trial_id, _t.c.number, _c.c.attempt, _c.c.epochs, _c.c.path).join(_t, _t.c.id == _c.c.trial_id)


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint as it is stored; `attempt` wrote it."""

    trial_id: int
    number: int
    attempt: int
    epochs: int
    path: str


@dataclass(frozen=True, slots=True)
class New:
    """A checkpoint that the holder of `token` wrote."""

    trial_id: int
    token: str
    attempt: int
    pointer: CheckpointPointer


def put(connection: Connection, checkpoints: Sequence[New], *, at: float) -> list[str]:
    """Point to checkpoints of trials whose rows are locked and whose leases stand; the paths that they supersede.

    Never one of the new ones, where it is repeated after a commit whose answer was lost.
    """
    if not checkpoints:
        return []
    found = connection.execute(_PATHS[connection.dialect.name], {"ids": [c.trial_id for c in checkpoints]})
    kept = {c.pointer.path for c in checkpoints}
    superseded = [path for path in found.scalars() if path not in kept]
    connection.execute(
        _PUT,
        [
            {
                "trial_id": c.trial_id,
                "attempt": c.attempt,
                "epochs": c.pointer.epochs,
                "path": c.pointer.path,
                "size_bytes": c.pointer.size_bytes,
                "created_at": at,
            }
            for c in checkpoints
        ],
    )
    return superseded


def of_numbers(session: Session, study_id: int, numbers: Collection[int]) -> dict[int, Stored]:
    """The checkpoints of a study's trials, by number."""
    query = _STORED.where(_t.c.study_id == study_id, _t.c.number.in_(sorted(numbers)))
    return {row.number: Stored(*row) for row in session.execute(query)}


def take_over(
    session: Session, study_id: int, trial_id: int, token: str, checkpoint: Stored
) -> list[tuple[int, dict[str, Any]]]:
    """Give a running attempt the metrics of the epochs that it has behind it, and tell that it goes on from there.

    Those metrics, by epoch; none where the lease is lost.

    Raises:
        NotFound: the study was deleted.
    """
    study = lock_study(session, study_id)
    row = lock_trials(study, [trial_id]).get(trial_id)
    if not stands(row, token, TrialState.RUNNING):
        return []
    connection, epochs = study.connection, checkpoint.epochs
    values = {"trial": trial_id, "attempt": row.attempt, "earlier": checkpoint.attempt, "epochs": epochs}
    if row.epochs < epochs:  # else it was done before, in a commit whose answer was lost
        connection.execute(_TAKE_OVER, values)
        connection.execute(_COUNT_EPOCHS, {"trial": trial_id, "epochs_now": epochs})
        tell(study, [NewEvent("trial.resumed", {"attempt": row.attempt, "epoch": epochs}, trial=row.number)])
    query = select(_m.c.epoch, _m.c.metrics).where(_m.c.trial_id == trial_id, _m.c.attempt == row.attempt)
    found = connection.execute(query.where(_m.c.epoch < epochs).order_by(_m.c.epoch))
    return [(m.epoch, {name: decode_number(value) for name, value in loads(m.metrics).items()}) for m in found]


def note(session: Session, study_id: int, trial_id: int, token: str, words: str) -> None:
    """Add a line to the log of a trial's running attempt, where its lease still stands.

    Raises:
        NotFound: the study was deleted.
    """
    study = lock_study(session, study_id)
    row = lock_trials(study, [trial_id]).get(trial_id)
    if stands(row, token) and row.attempt:
        write_logs(study, [{"trial_id": trial_id, "attempt": row.attempt, "text": f"{words}\n", "at": study.at}])


def obsolete(session: Session, limit: int) -> list[int]:
    """The ids of trials with a checkpoint that nobody can go on from.

    A finished trial's; in a study with generations one of a generation whose children have all finished, or where the
    study ended in a way that no budget reopens.
    """
    over = (StudyState.STOPPED, StudyState.CANCELLED, StudyState.FAILED)
    used_up = (_t.c.number // _s.c.generation_size + 2) * _s.c.generation_size <= _s.c.finished_count
    query = (
        select(_c.c.trial_id)
        .join(_t, _t.c.id == _c.c.trial_id)
        .join(_s, _s.c.id == _t.c.study_id)
        .where(_t.c.state.not_in(LIVE_STATES), or_(_s.c.generation_size.is_(None), _s.c.state.in_(over), used_up))
        .order_by(_c.c.trial_id)
        .limit(limit)
    )
    return list(session.execute(query).scalars())


def forget_obsolete(session: Session) -> list[str]:
    """Delete checkpoints that nobody can go on from; their paths."""
    ids = obsolete(session, SWEPT_AT_ONCE)
    if not ids:
        return []
    return list(session.execute(delete(_c).where(_c.c.trial_id.in_(ids)).returning(_c.c.path)).scalars())
