"""The fenced writes of webhooks' deliveries.

A process that delivers holds a lease on the webhook's row, by the database's clock, and every write names its token. A
batch is decided in one transaction and its end recorded before it is sent, so that whoever sends it again sends the
same events under the same id; the cursor moves once the receiver has them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.domain.json import loads
from app.errors import LeaseLost
from app.store.engine import now
from app.store.events import START, Position, events_after, project_events_after
from app.store.log import clock, settled_position
from app.store.tables import Event, Webhook
from app.store.webhooks import ACTIVE, DISABLED

PAGE = 500
"""Events that are looked at for one batch."""
BATCH = 100
BATCH_BYTES = 500_000
"""What a batch holds at most; a single event may be longer."""
LAST = 2**62
"""Beyond all ids and numbers."""
Changes = Mapping[InstrumentedAttribute[Any], Any]


@dataclass(frozen=True, slots=True)
class Due:
    """A webhook that may be delivered to, and where its events end so far."""

    id: int
    project: str
    study_id: int | None
    cursor: Position


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to send, as JSON texts, to whom, and the place of the last one."""

    public_id: str
    url: str
    secret: str
    events: tuple[str, ...]
    end: Position

    @property
    def message_id(self) -> str:
        """The same whenever and by whomever the batch is sent."""
        return f"msg_{self.public_id.removeprefix('wh_')}_{'_'.join(f'{part:x}' for part in self.end)}"

    @property
    def body(self) -> bytes:
        """What the receiver gets."""
        return f'{{"webhook_id":"{self.public_id}","events":[{",".join(self.events)}]}}'.encode()


def due_webhooks(session: Session) -> list[Due]:
    """Webhooks that nobody delivers to now and that may be tried."""
    query = select(
        *(Webhook.id, Webhook.project, Webhook.study_id),
        *(Webhook.cursor_position, Webhook.cursor_study, Webhook.cursor_seq),
    ).where(Webhook.state == ACTIVE, Webhook.next_attempt_at <= now(), _is_free())
    return [Due(*row[:3], (row[3], row[4], row[5])) for row in session.execute(query)]


def end_of_log(session: Session) -> Position:
    """Where the log of all projects ends now."""
    query = (
        select(Event.position, Event.study_id, Event.seq)
        .where(settled_position(session))
        .order_by(Event.position.desc(), Event.study_id.desc(), Event.seq.desc())
        .limit(1)
    )
    row = session.execute(query).one_or_none()
    return START if row is None else (row.position, row.study_id, row.seq)


def has_news(session: Session, due: Due, after: Position) -> bool:
    """Whether there is any event after a place, of a kind that the webhook wants or not."""
    return bool(_events_after(session, due.project, due.study_id, after, 1))


def take_lease(session: Session, webhook_id: int, ttl_s: float) -> str | None:
    """The token of a lease on a webhook for `ttl_s` seconds; None where somebody else has it, or it isn't active."""
    token = secrets.token_hex(8)
    taken = session.scalar(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.state == ACTIVE, Webhook.next_attempt_at <= now(), _is_free())
        .values(lease_token=token, lease_expires_at=now() + ttl_s)
        .returning(Webhook.id)
    )
    return None if taken is None else token


def next_batch(session: Session, webhook_id: int, token: str, ttl_s: float, beyond: Position) -> Batch | None:
    """The events to send next, their end recorded, and the lease renewed; None where there are none.

    A batch without events is one to ask beyond: what was looked at is not wanted, or was deleted with its study.
    `beyond` is a place before which there is nothing more for the webhook, its cursor's own where that is later.

    Raises:
        LeaseLost: the lease has ended, or the webhook was paused or deleted.
    """
    row = _held(session, webhook_id, token)
    cursor, started = _cursor(row), _batch_end(row)
    if started is None and row.study_id is None:
        cursor = max(cursor, beyond)
    events = _events_after(session, row.project, row.study_id, cursor, PAGE)
    wanted = set(loads(row.events))
    chosen: list[tuple[Position, str, str]] = []
    size = 0
    for event in events:
        if started is not None and event[0] > started:
            break
        if wanted and event[1] not in wanted:
            continue
        if started is None and (len(chosen) == BATCH or (chosen and size + len(event[2]) > BATCH_BYTES)):
            break
        chosen.append(event)
        size += len(event[2])
    if chosen:
        end = started or chosen[-1][0]
        changes = _place("batch", end)
    elif started is not None or events:
        end = started or events[-1][0]
        changes = {**_place("cursor", end), **_place("batch", None)}
    else:
        return None
    _write(session, row, token, {**changes, Webhook.lease_expires_at: now() + ttl_s})
    return Batch(row.public_id, row.url, row.secret, tuple(text for *_, text in chosen), end)


def delivered(session: Session, webhook_id: int, token: str, end: Position, status: int | None) -> None:
    """Move the cursor: the receiver has the batch that ends there.

    Raises:
        LeaseLost: the lease has ended, or the webhook was deleted.
    """
    row = _held(session, webhook_id, token, active=False)
    told: dict[InstrumentedAttribute[Any], Any] = {
        Webhook.failures: 0, Webhook.failing_since: None, Webhook.last_error: None, Webhook.last_status: status,
        Webhook.last_attempt_at: now(), Webhook.last_delivered_at: now(),
    }  # fmt: skip
    _write(session, row, token, {**_place("cursor", end), **_place("batch", None), **told})


def failed(
    session: Session,
    webhook_id: int,
    token: str,
    *,
    status: int | None,
    error: str,
    wait_s: Callable[[int], float | None],
    patience_s: float,
) -> str | None:
    """Note a failure and let the webhook go; the reason where it is disabled.

    `wait_s` gives the seconds until the next try by how many failures came before in a row, None where there is to be
    none. A webhook that has failed for `patience_s` seconds is disabled.

    Raises:
        LeaseLost: the lease has ended, or the webhook was deleted.
    """
    row = _held(session, webhook_id, token, active=False)
    at = clock(session)
    since = at if row.failing_since is None else row.failing_since
    wait, reason = wait_s(row.failures), None
    if wait is None:
        reason = error
    elif at - since >= patience_s:
        reason = f"It has failed for {at - since:,.0f} seconds. {error}"
    told: dict[InstrumentedAttribute[Any], Any] = {
        Webhook.failures: row.failures + 1, Webhook.failing_since: since, Webhook.last_error: error,
        Webhook.last_status: status, Webhook.last_attempt_at: at, Webhook.lease_token: None,
        Webhook.lease_expires_at: None, Webhook.next_attempt_at: at + (wait or 0.0),
    }  # fmt: skip
    if reason is not None and row.state == ACTIVE:
        told |= {Webhook.state: DISABLED, Webhook.state_reason: reason}
    _write(session, row, token, told)
    return reason


def release(session: Session, webhook_id: int, token: str) -> None:
    """Let a webhook go, where the lease still stands: others may deliver."""
    session.execute(update(Webhook).where(_fenced(webhook_id, token)).values(lease_token=None, lease_expires_at=None))


def _fenced(webhook_id: int, token: str) -> ColumnElement[bool]:
    """The condition that a webhook is delivered by whoever drew this token: a fence as that of trials."""
    return and_(Webhook.id == webhook_id, Webhook.lease_token == token)


def _is_free() -> ColumnElement[bool]:
    return or_(Webhook.lease_token.is_(None), Webhook.lease_expires_at < now())


def _held(session: Session, webhook_id: int, token: str, *, active: bool = True) -> Webhook:
    """The row, locked, where the token still holds it."""
    query = select(Webhook).where(_fenced(webhook_id, token))
    if active:
        query = query.where(Webhook.state == ACTIVE)
    row = session.scalars(
        query.with_for_update(key_share=True), execution_options={"populate_existing": True}
    ).one_or_none()
    if row is None:
        raise LeaseLost("Expected the lease on a webhook. It has ended, or the webhook was paused or deleted.")
    return row


def _write(session: Session, row: Webhook, token: str, values: Changes) -> None:
    changed = session.scalar(
        update(Webhook)
        .where(_fenced(row.id, token))
        .values({column.key: value for column, value in values.items()})
        .returning(Webhook.id)
        .execution_options(synchronize_session=False)
    )
    if changed is None:
        raise LeaseLost("Expected the lease on a webhook. Another process has it.")


def _cursor(row: Webhook) -> Position:
    return row.cursor_position, row.cursor_study, row.cursor_seq


def _batch_end(row: Webhook) -> Position | None:
    if row.batch_position is None or row.batch_study is None or row.batch_seq is None:
        return None
    return row.batch_position, row.batch_study, row.batch_seq


def _place(what: str, at: Position | None) -> dict[InstrumentedAttribute[Any], Any]:
    parts = (None, None, None) if at is None else at
    return {
        getattr(Webhook, f"{what}_{name}"): part for name, part in zip(("position", "study", "seq"), parts, strict=True)
    }


def _events_after(
    session: Session, project: str, study_id: int | None, after: Position, limit: int
) -> list[tuple[Position, str, str]]:
    """Events after a place as place, type and JSON text: of a study by number alone, of a project by position."""
    if study_id is None:
        return [(e.position, e.type, e.data) for e in project_events_after(session, project, after, limit)]
    return [((0, study_id, e.seq), e.type, e.data) for e in events_after(session, study_id, after[2], limit)]
