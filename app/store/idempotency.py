"""Idempotency keys: the answer of a creation, recorded in the transaction that created."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from app.domain.json import dumps, loads
from app.errors import IdempotencyMismatch, RequestInFlight
from app.store.engine import now
from app.store.tables import IdempotencyKey

KEPT_S = 24 * 3600.0
"""A key is remembered for a day: longer than any client retries."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """The answer that a request got."""

    status: int
    headers: dict[str, str]
    body: str


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
    """Remember the answer of a key that this transaction claimed."""
    session.execute(
        update(IdempotencyKey)
        .where(IdempotencyKey.project == project, IdempotencyKey.key == key)
        .values(status=answer.status, headers=dumps(answer.headers), body=answer.body)
    )


def forget_old(session: Session) -> int:
    """Delete the keys that are older than a day; how many there were."""
    old = delete(IdempotencyKey).where(IdempotencyKey.created_at < now() - KEPT_S).returning(IdempotencyKey.key)
    return len(session.scalars(old).all())
