"""What a database needs that was brought back to an earlier state, before anybody works with it.

Whatever happened after that state was told to clients and is not in it. So leases are taken back, numbers of events
that were told then are not given again, and places in a project's log are known to be of another life.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, delete, func, insert, literal_column, select, update
from sqlalchemy.orm import Session

from app.store import leases
from app.store.events import restores
from app.store.log import NewEvent, clock
from app.store.retention import OVER
from app.store.tables import Artifact, Checkpoint, Event, EventCounter, Restore, Study, Trial

NUMBERS_LEFT_OUT = 10**9
"""After a restore a study's events go on with the next multiple of this, plus one: no study tells as many."""
MANY = 500


@dataclass(frozen=True, slots=True)
class Renewed:
    """What was done to a restored database: its life's number, studies that go on, leases that were taken back."""

    number: int
    studies: int
    leases: int


def renew(session: Session, taken_at: float | None) -> Renewed:
    """Begin another life of a database that holds the state of `taken_at`. No other process may use it meanwhile.

    Studies that are over keep their logs as they are.
    """
    at, number = clock(session), restores(session) + 1
    session.execute(insert(Restore).values(number=number, restored_at=at, taken_at=taken_at))
    _place_old_events(session)
    open_studies = select(Study.id, Study.state, Study.state_reason).where(Study.managed, Study.state.not_in(OVER))
    taken = studies = 0
    for study in session.execute(open_studies.order_by(Study.id)).all():
        counter = EventCounter.study_id == study.id
        last = session.scalar(select(EventCounter.last_seq).where(counter)) or 0
        begun = (last // NUMBERS_LEFT_OUT + 1) * NUMBERS_LEFT_OUT
        session.execute(update(EventCounter).where(counter).values(last_seq=begun))
        told = NewEvent("study.restored", {"state": study.state, "state_reason": study.state_reason})
        taken += leases.take_all(session, study.id, "RELEASED", told)
        studies += 1
    return Renewed(number, studies, taken)


def _place_old_events(session: Session) -> None:
    """Have all events stand before those that come.

    PostgreSQL: their places are numbers of transactions, which begin anew in another server. SQLite takes care itself.
    """
    if session.get_bind().dialect.name != "postgresql":
        return
    present = literal_column("pg_current_xact_id()::text::bigint", BigInteger)
    last = session.scalar(select(func.max(Event.position)))
    if last is not None and last >= (session.scalar(select(present)) or 0):
        session.execute(update(Event).values(position=0))


def pointers(session: Session) -> list[str]:
    """The paths of all files of trials that are published, below the artifact location."""
    published = list(session.scalars(select(Artifact.path).order_by(Artifact.trial_id, Artifact.name)))
    return published + list(session.scalars(select(Checkpoint.path).order_by(Checkpoint.trial_id)))


def newest_pointers(session: Session, limit: int) -> list[str]:
    """The paths of the files that the newest trials have, `limit` at most."""
    return list(session.scalars(select(Artifact.path).order_by(Artifact.trial_id.desc(), Artifact.name).limit(limit)))


def forget_files(session: Session, paths: list[str]) -> None:
    """Delete the pointers to files that are not there."""
    for i in range(0, len(paths), MANY):
        some = paths[i : i + MANY]
        session.execute(delete(Artifact).where(Artifact.path.in_(some)))
        session.execute(delete(Checkpoint).where(Checkpoint.path.in_(some)))


def sums(session: Session) -> dict[str, int]:
    """How many studies, trials and events there are, for a look at a backup."""
    counted = {"studies": Study, "trials": Trial, "events": Event}
    return {name: session.scalar(select(func.count()).select_from(table)) or 0 for name, table in counted.items()}
