"""Idempotency keys: the answer of a creation, recorded in the transaction that created.

A request that came without a key has one of its own, for the case that the answer to its COMMIT is lost: the
transaction, tried again, then finds that it has happened. No client can send such a key: it has a space in it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.domain.json import dumps, loads
from app.errors import IdempotencyMismatch, RequestInFlight
from app.store.engine import now
from app.store.quotas import admit_answer
from app.store.tables import IdempotencyKey

KEPT_S = 24 * 3600.0
"""A key is remembered for a day: longer than any client retries."""
OWN_KEPT_S = 3600.0
"""A request's own key is remembered for an hour: longer than any transaction is tried again."""
OWN = "request "
UNCOUNTED_BYTES = 4_096
"""Answers up to here count nothing in a project's quota of bytes: not worth locking it at every request."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """The answer that a request got, and the row of the study that it is about."""

    status: int
    headers: dict[str, str]
    body: str
    study_id: int | None = None

    @property
    def size_bytes(self) -> int:
        """What it counts in the quota of the project: a small answer counts nothing, and one about no study is."""
        size = len(self.body.encode())
        return 0 if self.study_id is None or size <= UNCOUNTED_BYTES else size


def claim(session: Session, project: str, key: str, fingerprint: str) -> RecordedAnswer | None:
    """The answer that the key's request got, or None where it is new: then `record` follows in this transaction.

    Raises:
        IdempotencyMismatch: the key was used with another request.
        RequestInFlight: another process serves the same key now.
    """
    if session.get_bind().dialect.name == "postgresql":
        lock = func.hashtextextended(f"{project}\n{key}", 0)
        if not session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
            raise RequestInFlight(f"Expected the first request with Idempotency-Key {key!r} to end before the next.")
    found = session.get(IdempotencyKey, (project, key))
    if found is None:
        # Nobody else can: SQLite has one writer at a time, and the lock is held in PostgreSQL.
        values = {"project": project, "key": key, "fingerprint": fingerprint, "headers": "{}", "created_at": now()}
        session.execute(insert(IdempotencyKey).values(values))
        return None
    if found.fingerprint != fingerprint:
        raise IdempotencyMismatch(f"Expected the first request of Idempotency-Key {key!r}. Received another one.")
    if found.status is None:
        raise RequestInFlight(f"Expected the first request with Idempotency-Key {key!r} to end before the next.")
    return RecordedAnswer(found.status, loads(found.headers), found.body or "")


def recorded(session: Session, project: str, key: str, fingerprint: str) -> RecordedAnswer | None:
    """The answer that the key's request got, or None where there is none yet.

    Raises:
        IdempotencyMismatch: the key was used with another request.
    """
    found = session.get(IdempotencyKey, (project, key))
    if found is None or found.status is None:
        return None
    if found.fingerprint != fingerprint:
        raise IdempotencyMismatch(f"Expected the first request of Idempotency-Key {key!r}. Received another one.")
    return RecordedAnswer(found.status, loads(found.headers), found.body or "")


def record(session: Session, project: str, key: str, answer: RecordedAnswer) -> None:
    """Remember the answer of a key that this transaction claimed.

    Raises:
        QuotaExceeded: the project has no room for it.
    """
    admit_answer(session, project, answer.size_bytes)
    session.execute(
        update(IdempotencyKey)
        .where(IdempotencyKey.project == project, IdempotencyKey.key == key)
        .values(
            status=answer.status,
            headers=dumps(answer.headers),
            body=answer.body,
            study_id=answer.study_id,
            size_bytes=answer.size_bytes,
        )
    )


def own_key() -> str:
    """A new key for a request that came without one."""
    return f"{OWN}{uuid.uuid4().hex}"


def record_own(session: Session, project: str, key: str, answer: RecordedAnswer) -> None:
    """Remember the answer of a request under its own key, at the end of the transaction's first try.

    Raises:
        QuotaExceeded: the project has no room for it.
    """
    admit_answer(session, project, answer.size_bytes)
    values = {"project": project, "key": key, "fingerprint": "", "status": answer.status, "created_at": now()}
    values |= {"study_id": answer.study_id, "size_bytes": answer.size_bytes}
    session.execute(insert(IdempotencyKey).values(**values, headers=dumps(answer.headers), body=answer.body))


def claim_own(session: Session, project: str, key: str) -> RecordedAnswer | None:
    """The answer that an earlier try of this transaction has committed; None where none has: then `record` follows.

    A COMMIT that is still under way is waited for: the row of its key is in the way of this one.
    """
    values = {"project": project, "key": key, "fingerprint": "", "headers": "{}", "created_at": now()}
    try:
        with session.begin_nested():
            session.execute(insert(IdempotencyKey).values(values))
    except IntegrityError:
        found = session.get_one(IdempotencyKey, (project, key))
        return RecordedAnswer(found.status or 0, loads(found.headers), found.body or "")
    return None


def forget_study(session: Session, study_id: int) -> None:
    """Delete the answers that are kept for a study."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.study_id == study_id))


def forget_old(session: Session) -> int:
    """Delete the keys that are older than a day, and requests' own older than an hour; how many there were."""
    old = or_(
        IdempotencyKey.created_at < now() - KEPT_S,
        and_(IdempotencyKey.created_at < now() - OWN_KEPT_S, IdempotencyKey.key.startswith(OWN)),
    )
    return len(session.scalars(delete(IdempotencyKey).where(old).returning(IdempotencyKey.key)).all())
