"""Webhooks as their owners see them: added, listed, paused and resumed. What is sent is `app.store.delivering`'s."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.domain.json import dumps
from app.errors import Conflict, NotFound, StateConflict
from app.store.engine import now
from app.store.events import last_numbers, latest_position
from app.store.log import clock
from app.store.tables import Study, Webhook

ACTIVE, PAUSED, DISABLED = "ACTIVE", "PAUSED", "DISABLED"
MOST_WEBHOOKS = 100
"""Webhooks of a project."""


class TooManyWebhooks(Conflict):
    """The project has as many webhooks as it may."""

    code, title = "TOO_MANY_WEBHOOKS", "Too many webhooks"


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """A webhook to add; no `events` means all, no `study` the whole project."""

    url: str
    secret: str
    events: tuple[str, ...] = ()
    study: Study | None = None


def add_webhook(session: Session, new: NewWebhook, *, project: str, created_by: str | None) -> Webhook:
    """The row of a new webhook. It is told what happens from now on.

    Raises:
        TooManyWebhooks: the project has `MOST_WEBHOOKS`.
    """
    count = session.scalar(select(func.count()).select_from(Webhook).where(Webhook.project == project)) or 0
    if count >= MOST_WEBHOOKS:
        raise TooManyWebhooks(f"Expected fewer than {MOST_WEBHOOKS} webhooks in the project. Received one more.")
    at = clock(session)
    if new.study is None:
        cursor = latest_position(session, project)
    else:
        cursor = (0, new.study.id, last_numbers(session, [new.study.id]).get(new.study.id, 0))
    row = Webhook(
        public_id=f"wh_{secrets.token_hex(10)}",
        project=project,
        study_id=None if new.study is None else new.study.id,
        url=new.url,
        events=dumps(list(new.events)),
        secret=new.secret,
        state=ACTIVE,
        created_by=created_by,
        created_at=at,
        next_attempt_at=at,
        **dict(zip(("cursor_position", "cursor_study", "cursor_seq"), cursor, strict=True)),
    )
    session.add(row)
    session.flush()
    return row


def find_webhook(session: Session, project: str, public_id: str) -> Webhook:
    """The webhook of that id.

    Raises:
        NotFound: the project has none.
    """
    query = select(Webhook).where(Webhook.public_id == public_id, Webhook.project == project)
    row = session.scalars(query, execution_options={"populate_existing": True}).one_or_none()
    if row is None:
        raise NotFound(f"Expected the id of a webhook. Received: {public_id[:100]!r}", code="WEBHOOK_NOT_FOUND")
    return row


def list_webhooks(session: Session, project: str, *, after: int, limit: int) -> list[Webhook]:
    """Up to `limit` webhooks of the project after a row's id, the oldest first."""
    query = select(Webhook).where(Webhook.project == project, Webhook.id > after)
    return list(session.scalars(query.order_by(Webhook.id).limit(limit)))


def study_names(session: Session, rows: Sequence[Webhook]) -> dict[int, str]:
    """The public ids of the studies that webhooks are about, by the rows' ids."""
    ids = [row.study_id for row in rows if row.study_id is not None]
    query = select(Study.id, Study.public_id).where(Study.id.in_(ids))
    return {row.id: row.public_id for row in session.execute(query)}


def delete_webhook(session: Session, project: str, public_id: str) -> None:
    """Forget a webhook; what was not delivered yet is not.

    Raises:
        NotFound: the project has none of that id.
    """
    session.delete(find_webhook(session, project, public_id))
    session.flush()


def pause_webhook(session: Session, project: str, public_id: str) -> Webhook:
    """Deliver nothing until it is resumed: what happens meanwhile comes then.

    Raises:
        NotFound: the project has none of that id.
        StateConflict: it was disabled.
    """
    row = find_webhook(session, project, public_id)
    if row.state == DISABLED:
        raise StateConflict("Expected a webhook that delivers. Received one that was disabled: resume or delete it.")
    return _set_state(session, row, PAUSED, None)


def resume_webhook(session: Session, project: str, public_id: str) -> Webhook:
    """Deliver again, from where it ended; one that was disabled has as long as a new one.

    Raises:
        NotFound: the project has none of that id.
    """
    row = find_webhook(session, project, public_id)
    if row.state == ACTIVE:
        return row
    session.execute(
        update(Webhook)
        .where(Webhook.id == row.id)
        .values(failures=0, failing_since=None, next_attempt_at=now(), lease_token=None, lease_expires_at=None)
    )
    return _set_state(session, row, ACTIVE, None)


def _set_state(session: Session, row: Webhook, state: str, reason: str | None) -> Webhook:
    session.execute(update(Webhook).where(Webhook.id == row.id).values(state=state, state_reason=reason))
    return find_webhook(session, row.project, row.public_id)
