"""Webhooks: receivers that are told of a project's events. Only administrators of the project see and change them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Literal

from fastapi import Request, Response
from pydantic import BaseModel, Field, SecretStr
from sqlalchemy.orm import Session

from app.api.access import NOTHING, needs
from app.api.answers import answer, page
from app.api.deps import (
    DEFAULT_LIMIT,
    Api,
    Calling,
    Change,
    Changing,
    CursorText,
    IdempotencyKey,
    Limit,
    Project,
    Service,
)
from app.api.idempotency import once
from app.api.pagination import Cursors
from app.api.problems import invalid_request
from app.api.routing import router as make_router
from app.api.schemas import Time
from app.domain.access import Scope
from app.domain.json import dumps, loads
from app.errors import FieldError, NotFound
from app.settings import Settings
from app.store import tables, webhooks
from app.store.log import clock, rfc3339
from app.store.studies import find_study
from app.webhooks.addresses import Forbidden, check_name, check_url, parse_networks
from app.webhooks.sending import Receiver, send_once
from app.webhooks.signing import key_of, new_secret

router = make_router("webhooks")

EventType = Literal[
    "study.created", "study.started", "study.paused", "study.resumed", "study.stopping", "study.updated",
    "study.finished", "study.restored", "trial.enqueued", "trial.started", "trial.resumed", "trial.metrics",
    "trial.best", "trial.finished", "trial.retried", "trial.tested",
]  # fmt: skip
TEST = "webhook.test"


class NewWebhook(BaseModel):
    """A webhook to add: what is left out means all events of the whole project, and a secret of the service's."""

    model_config = {"extra": "forbid"}

    url: str = Field(max_length=2_000, description="https, or http, of a public address or an allowed network.")
    events: list[EventType] = Field(default=[], max_length=50, description="Their types; none for all.")
    study_id: str | None = Field(default=None, max_length=100, description="One study's events alone.")
    secret: SecretStr | None = Field(default=None, description="whsec_ and 24 to 64 bytes as base64.")


class Webhook(BaseModel):
    """A webhook, how far it has come, and how it goes."""

    id: str
    project: str
    url: str
    events: list[str]
    study_id: str | None
    state: Literal["ACTIVE", "PAUSED", "DISABLED"]
    state_reason: str | None = Field(description="Why it was disabled, in words.")
    failures: int = Field(description="Requests that failed since the last one that didn't.")
    failing_since: Time | None
    last_error: str | None = Field(description="Of the last request, null where it was taken.")
    last_status: int | None = Field(description="HTTP status of the last answer.")
    last_attempt_at: Time | None
    last_delivered_at: Time | None
    next_attempt_at: Time | None = Field(description="The next try, where the last one failed.")
    created_by: str | None
    created_at: Time
    secret: str | None = Field(
        default=None, exclude_if=lambda value: value is None, description="In the answer to its creation alone."
    )


class WebhookPage(BaseModel):
    """A page of webhooks."""

    items: list[Webhook]
    next_cursor: str | None


class TestResult(BaseModel):
    """How a test message went."""

    delivered: bool
    status: int | None
    error: str | None


@router.post("/v1/webhooks", status_code=201, response_model=Webhook)
@needs(Scope.ADMIN, change="webhook.create")
def create_webhook(
    new: NewWebhook,
    request: Request,
    api: Api,
    project: Project,
    caller: Calling,
    change: Changing,
    key: IdempotencyKey = None,
) -> Response:
    """Have events sent to a URL from now on. The answer, and no other, has the secret that they are signed with."""
    url, secret = _checked(new, api.settings)

    def work(session: Session) -> Response:
        study = None if new.study_id is None else find_study(session, project, new.study_id)
        row = webhooks.add_webhook(
            session,
            webhooks.NewWebhook(url, secret, tuple(dict.fromkeys(new.events)), study),
            project=project,
            created_by=caller.name,
        )
        change.note(session, row.public_id)
        # The secret is no part of what an Idempotency-Key remembers.
        return answer(_view(row, new.study_id), 201, location=f"/v1/webhooks/{row.public_id}")

    response = once(api, project, request, key, work)
    return _with_secret(api, project, response)


@router.get("/v1/webhooks", response_model=WebhookPage)
@needs(Scope.ADMIN)
def list_webhooks(api: Api, project: Project, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Response:
    """The project's webhooks, the oldest first, without their secrets."""
    cursors = Cursors(["webhooks", project], [int])
    after = cursors.decode(cursor)
    with api.database.read() as session:
        rows = webhooks.list_webhooks(session, project, after=0 if after is None else after[0], limit=limit + 1)
        names = webhooks.study_names(session, rows)
    shown = [_view(row, names.get(row.study_id or 0)) for row in rows[:limit]]
    return page(shown, cursors.encode((rows[limit - 1].id,)) if len(rows) > limit else None)


@router.get("/v1/webhooks/{webhook_id:id}", response_model=Webhook)
@needs(Scope.ADMIN)
def get_webhook(webhook_id: str, api: Api, project: Project) -> Response:
    """One webhook, without its secret."""
    with api.database.read() as session:
        return _now(session, webhooks.find_webhook(session, project, webhook_id))


@router.delete("/v1/webhooks/{webhook_id:id}", status_code=204, response_class=Response)
@needs(Scope.ADMIN, change="webhook.delete")
def delete_webhook(webhook_id: str, api: Api, project: Project, change: Changing) -> Response:
    """Forget a webhook; what was not delivered yet is not."""

    def work(session: Session) -> None:
        webhooks.delete_webhook(session, project, webhook_id)
        change.note(session, webhook_id)

    api.database.run(work)
    return Response(status_code=204)


@router.post("/v1/webhooks/{webhook_id:id}:pause", response_model=Webhook)
@needs(Scope.ADMIN, change="webhook.pause")
def pause_webhook(webhook_id: str, api: Api, project: Project, change: Changing) -> Response:
    """Send nothing until it is resumed; what happens meanwhile is sent then."""
    return _act(api, project, webhook_id, change, webhooks.pause_webhook)


@router.post("/v1/webhooks/{webhook_id:id}:resume", response_model=Webhook)
@needs(Scope.ADMIN, change="webhook.resume")
def resume_webhook(webhook_id: str, api: Api, project: Project, change: Changing) -> Response:
    """Send again, from where it ended: after a pause, or after it was disabled."""
    return _act(api, project, webhook_id, change, webhooks.resume_webhook)


def _act(
    api: Service,
    project: str,
    webhook_id: str,
    change: Change,
    action: Callable[[Session, str, str], tables.Webhook],
) -> Response:
    def work(session: Session) -> Response:
        row = action(session, project, webhook_id)
        change.note(session, webhook_id)
        return _now(session, row)

    return api.database.run(work)


@router.post("/v1/webhooks/{webhook_id:id}:test", response_model=TestResult)
@needs(Scope.ADMIN, change=NOTHING)
def send_test(webhook_id: str, api: Api, project: Project) -> Response:
    """Send an event of the type `webhook.test` now, whatever the webhook's state; how that went."""
    with api.database.read() as session:
        row, at = webhooks.find_webhook(session, project, webhook_id), clock(session)
    event = dumps({"type": TEST, "at": rfc3339(at)})
    body = f'{{"webhook_id":"{row.public_id}","events":[{event}]}}'.encode()
    message_id = f"msg_{row.public_id.removeprefix('wh_')}_test_{secrets.token_hex(6)}"
    allowed = parse_networks(api.settings.webhook_allowed_networks)
    done = send_once(Receiver(row.url, row.secret), message_id, body, allowed, api.settings.webhook_timeout_s)
    return answer(TestResult(delivered=done.is_delivered, status=done.status, error=done.error))


def _checked(new: NewWebhook, settings: Settings) -> tuple[str, str]:
    """The URL and the secret of a webhook to add.

    Raises:
        Invalid: one of them is none, or the URL leads where webhooks may not go.
    """
    errors, secret = [], new_secret()
    try:
        allowed = parse_networks(settings.webhook_allowed_networks)
        check_name(check_url(new.url, allowed), allowed)
    except Forbidden as error:
        errors.append(FieldError(("url",), str(error)))
    if new.secret is not None:
        secret = new.secret.get_secret_value()
        try:
            key_of(secret)
        except ValueError as error:
            errors.append(FieldError(("secret",), str(error)))
    if errors:
        raise invalid_request(errors)
    return new.url, secret


def _with_secret(api: Service, project: str, response: Response) -> Response:
    """The answer to a creation with the webhook's secret, unless the webhook was deleted since."""
    created = Webhook.model_validate_json(bytes(response.body))
    try:
        with api.database.read() as session:
            created.secret = webhooks.find_webhook(session, project, created.id).secret
    except NotFound:
        return response
    return answer(created, response.status_code, location=f"/v1/webhooks/{created.id}")


def _now(session: Session, row: tables.Webhook) -> Response:
    return answer(_view(row, webhooks.study_names(session, [row]).get(row.study_id or 0)))


def _view(row: tables.Webhook, study_id: str | None) -> Webhook:
    """A webhook without its secret."""
    waits = row.state == webhooks.ACTIVE and row.failures > 0
    return Webhook(
        id=row.public_id,
        project=row.project,
        url=row.url,
        events=loads(row.events),
        study_id=study_id,
        state=row.state,
        state_reason=row.state_reason,
        failures=row.failures,
        failing_since=_time(row.failing_since),
        last_error=row.last_error,
        last_status=row.last_status,
        last_attempt_at=_time(row.last_attempt_at),
        last_delivered_at=_time(row.last_delivered_at),
        next_attempt_at=rfc3339(row.next_attempt_at) if waits else None,
        created_by=row.created_by,
        created_at=rfc3339(row.created_at),
    )


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)
