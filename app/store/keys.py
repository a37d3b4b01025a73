"""API keys: made, listed, rotated, revoked, and looked up by their public part.

A key's row stays after it was revoked or has expired: a service that had keys never becomes open by itself. Who manages
keys has a *reach*: the project whose keys they are, those of all projects left out, or None, all there are. So an admin
of one project can't take over a key of all projects by rotating it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.orm import Session

from app.domain import keys
from app.domain.access import Caller, Scope
from app.errors import NameTaken, NotFound, StateConflict
from app.store.engine import now
from app.store.log import clock
from app.store.projects import hold_project
from app.store.query import add_named
from app.store.tables import ApiKey


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to make; `expires_in_s` is None for one that doesn't expire."""

    name: str
    project: str
    scopes: Collection[Scope]
    expires_in_s: float | None = None
    all_projects: bool = False
    created_by: str | None = None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What is needed to check a key: its hashes, and how long they are good, in seconds from when it was read."""

    caller: Caller
    secret_hash: str
    good_for_s: float | None
    old_hash: str | None
    old_good_for_s: float


def create_key(session: Session, new: NewKey, pepper: bytes) -> tuple[ApiKey, str]:
    """The row of a new key, and its text, which is not stored: nobody can tell it again.

    Raises:
        NotFound: there is no such project.
        NameTaken: another key of the project that is not revoked has the name.
    """
    hold_project(session, new.project)
    made, at = keys.new_key(), clock(session)
    row = ApiKey(
        public_id=made.key_id,
        project=new.project,
        all_projects=new.all_projects,
        name=new.name,
        scopes=" ".join(scope for scope in Scope if scope in new.scopes),
        secret_hash=keys.digest(pepper, made.text),
        secret_mark=keys.mark(pepper),
        created_by=new.created_by,
        created_at=at,
        expires_at=None if new.expires_in_s is None else at + new.expires_in_s,
    )
    add_named(
        session,
        row,
        NameTaken(f"Expected a name that no key of the project {new.project!r} has. Received: {new.name!r}"),
    )
    return row, made.text


def list_keys(
    session: Session, reach: str | None, *, project: str | None = None, after: int = 0, limit: int = 1000
) -> list[ApiKey]:
    """Up to `limit` keys within reach, of one project or of all, after a row's id: the oldest first."""
    query = _within(reach).where(ApiKey.id > after).order_by(ApiKey.id).limit(limit)
    if project is not None:
        query = query.where(ApiKey.project == project)
    return list(session.scalars(query))


def find_key(session: Session, reach: str | None, key_id: str) -> ApiKey:
    """The key of an id, within reach.

    Raises:
        NotFound: there is none.
    """
    return _found(session.scalars(_of_id(reach, key_id)).one_or_none(), key_id)


def revoke_key(session: Session, reach: str | None, key_id: str) -> ApiKey:
    """The key, good no more; one that was revoked before stays as it is.

    Raises:
        NotFound: there is none.
    """
    row = _locked(session, reach, key_id)
    if row.revoked_at is None:
        row.revoked_at, row.old_hash, row.old_expires_at = clock(session), None, None
        session.flush()
    return row


def rotate_key(session: Session, reach: str | None, key_id: str, grace_s: float, pepper: bytes) -> tuple[ApiKey, str]:
    """The key with another secret, and its text; the secret before stays good for `grace_s` seconds.

    Raises:
        NotFound: there is none.
        StateConflict: it is revoked or has expired.
    """
    row, at = _locked(session, reach, key_id), clock(session)
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= at):
        raise StateConflict("Expected a key that is in force. Received one that is revoked or has expired.")
    made = keys.new_key(row.public_id)
    row.old_hash, row.old_expires_at = (row.secret_hash, at + grace_s) if grace_s > 0 else (None, None)
    row.secret_hash, row.secret_mark = keys.digest(pepper, made.text), keys.mark(pepper)
    session.flush()
    return row, made.text


def stored_key(session: Session, key_id: str) -> StoredKey | None:
    """What is needed to check the key of an id; None where there is none, or it is revoked."""
    row = session.execute(select(ApiKey, now()).where(ApiKey.public_id == key_id)).one_or_none()
    if row is None or row[0].revoked_at is not None:
        return None
    key, at = row
    return StoredKey(
        Caller(key.project, scopes_of(key), key.public_id, key.name, all_projects=key.all_projects),
        key.secret_hash,
        None if key.expires_at is None else key.expires_at - at,
        key.old_hash,
        0.0 if key.old_expires_at is None else key.old_expires_at - at,
    )


def scopes_of(key: ApiKey) -> frozenset[Scope]:
    """What a key may do."""
    return frozenset(map(Scope, key.scopes.split()))


def any_key(session: Session) -> bool:
    """Whether there is a key, in force or not: then the service is closed to whoever has none."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def usable_keys(session: Session, project: str | None = None) -> dict[str, int]:
    """How many keys are in force, of a project or of all, by the mark of the secret that they were made with."""
    query = select(ApiKey.secret_mark, func.count()).where(
        ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now())
    )
    if project is not None:
        query = query.where(ApiKey.project == project)
    return {mark: int(count) for mark, count in session.execute(query.group_by(ApiKey.secret_mark))}


def note_used(session: Session, ages_s: Mapping[str, float]) -> None:
    """Note when keys were last used: so many seconds ago, by id. An earlier use than the one known changes nothing."""
    for key_id, age_s in sorted(ages_s.items()):
        at = now() - age_s
        session.execute(
            update(ApiKey)
            .where(ApiKey.public_id == key_id, or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at))
            .values(last_used_at=at)
        )


def _within(reach: str | None) -> Select[ApiKey]:
    query = select(ApiKey)
    return query if reach is None else query.where(ApiKey.project == reach, ApiKey.all_projects.is_(False))


def _of_id(reach: str | None, key_id: str) -> Select[ApiKey]:
    return _within(reach).where(ApiKey.public_id == key_id[:41])


def _locked(session: Session, reach: str | None, key_id: str) -> ApiKey:
    return _found(session.scalars(_of_id(reach, key_id).with_for_update()).one_or_none(), key_id)


def _found(row: ApiKey | None, key_id: str) -> ApiKey:
    if row is None:
        raise NotFound(f"Expected the id of a key. Received: {key_id[:100]!r}", code="KEY_NOT_FOUND")
    return row
