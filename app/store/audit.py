"""The audit log: who changed what, and when. An entry is part of the change's own transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.domain.json import dumps
from app.domain.keys import masked
from app.store.engine import now
from app.store.tables import AuditEntry

LOCAL = "local"
"""The actor of changes that are made on the database itself, by a command."""
Detail = str | int | float | bool | None | list[str]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change: their project, the id and name of their key (None where the service is open), and whence."""

    project: str
    key_id: str | None = None
    name: str | None = None
    request_id: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What a list of entries is narrowed to."""

    action: str | None = None
    subject: str | None = None
    key_id: str | None = None


def note(
    session: Session,
    actor: Actor,
    action: str,
    subject: str,
    details: Mapping[str, Detail],
    *,
    project: str | None = None,
) -> None:
    """Write that a change was made to `subject`, an id or a name; in another `project` than the actor's where given.

    `details` are a few words of ours, such as the names of fields: never a secret, never what a user sent; a key that
    was sent in the place of an id is masked.
    """
    session.execute(
        insert(AuditEntry).values(
            at=now(),
            project=project or actor.project,
            action=action,
            subject=masked(subject)[:255],
            key_id=actor.key_id,
            actor=None if actor.name is None else masked(actor.name),
            request_id=actor.request_id,
            address=actor.address,
            details=masked(dumps(dict(details))),
        )
    )


def list_entries(
    session: Session, project: str | None, narrowed: AuditFilter, *, before: int | None, limit: int
) -> list[AuditEntry]:
    """Up to `limit` entries of a project, or of all of them, before a row's id: the newest first."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if project is not None:
        query = query.where(AuditEntry.project == project)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    for column, value in (
        (AuditEntry.action, narrowed.action),
        (AuditEntry.subject, narrowed.subject),
        (AuditEntry.key_id, narrowed.key_id),
    ):
        if value is not None:
            query = query.where(column == value)
    return list(session.scalars(query))
