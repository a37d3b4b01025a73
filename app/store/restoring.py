"""What a database needs that was brought back to an earlier state, before anybody works with it.

Whatever happened after that state was told to clients and is not in it. So leases are taken back, numbers of events
that were told then are not given again, and places in a project's log are known to be of another life.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from sqlalchemy import BigInteger, case, delete, func, insert, literal_column, select, tuple_, update
from sqlalchemy.orm import Session

from app.store import leases
from app.store.events import restores
from app.store.log import NewEvent, clock
from app.store.retention import OVER
from app.store.tables import Artifact, Checkpoint, Event, EventCounter, Pruning, Restore, Study, Trial, Webhook
from app.store.webhooks import ACTIVE, PAUSED

NUMBERS_LEFT_OUT = 10**9
"""After a restore a study's events go on with the next multiple of this, plus one: no study tells as many."""
BEYOND = 2**62
"""Higher than any study's row or number."""
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
    session.execute(update(Webhook).values(lease_token=None, lease_expires_at=None))
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

    PostgreSQL: their places are numbers of transactions, which begin anew in another server. There the events get as
    many places as webhooks have cursors, so that each still has behind it what it had. SQLite takes care itself.
    """
    if session.get_bind().dialect.name != "postgresql":
        return
    present = session.scalar(select(literal_column("pg_current_xact_id()::text::bigint", BigInteger))) or 0
    last = session.scalar(select(func.max(EventCounter.last_position))) or 0
    if max(last, session.scalar(select(func.max(Event.position))) or 0) < present:
        return
    columns = (Webhook.id, Webhook.cursor_position, Webhook.cursor_study, Webhook.cursor_seq)
    cursors = {row.id: tuple(row)[1:] for row in session.execute(select(*columns).where(Webhook.study_id.is_(None)))}
    places = sorted(set(cursors.values()))[: present - 1]
    key = tuple_(Event.position, Event.study_id, Event.seq)
    behind = [(key > tuple_(*cursor), place) for place, cursor in reversed(list(enumerate(places, 1)))]
    session.execute(update(Event).values(position=case(*behind, else_=0) if behind else 0))
    session.execute(update(EventCounter).values(last_position=0))
    session.execute(update(Pruning).where(Pruning.position.is_not(None)).values(position=-1))
    for key_of, cursor in cursors.items():
        place = bisect_right(places, cursor) - 1
        _move(session, key_of, place)


def _move(session: Session, webhook_id: int, place: int) -> None:
    """Put a webhook's cursor behind all events of a place. What was being sent is decided anew."""
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id)
        .values(
            cursor_position=place, cursor_study=BEYOND, cursor_seq=BEYOND,
            batch_position=None, batch_study=None, batch_seq=None,
        )
    )  # fmt: skip


def pause_webhooks(session: Session) -> int:
    """Pause all webhooks that are active; how many there were."""
    paused = update(Webhook).where(Webhook.state == ACTIVE).values(state=PAUSED).returning(Webhook.id)
    return len(session.scalars(paused).all())


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
