"""The client's calls about webhooks."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from urllib.parse import quote

from app.client.models import Answer
from app.client.transport import PAGE, Transport

TEST_TIMEOUT_S = 90.0
"""Seconds that a test message may take: the service waits for the receiver."""


class Webhook(Answer):
    """A receiver of events, and how it goes. `secret` is there in the answer to its creation alone."""

    id: str
    url: str
    events: list[str] = []
    study_id: str | None = None
    state: str
    state_reason: str | None = None
    failures: int = 0
    last_error: str | None = None
    last_status: int | None = None
    last_delivered_at: datetime | None = None
    next_attempt_at: datetime | None = None
    created_at: datetime | None = None
    secret: str | None = None


class WebhookTest(Answer):
    """How a test message went."""

    delivered: bool
    status: int | None = None
    error: str | None = None


class WebhookCalls:
    """A part of `FettleClient`."""

    _transport: Transport

    def create_webhook(
        self, url: str, *, events: Sequence[str] = (), study_id: str | None = None, secret: str | None = None
    ) -> Webhook:
        """Have events sent to `url` from now on: those of these types, all where none is named.

        The answer has the secret that messages are signed with; no other one does.
        """
        body = {"url": url, "events": list(events), "study_id": study_id, "secret": secret}
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        given = {name: value for name, value in body.items() if value is not None}
        return Webhook.model_validate_json(
            self._transport.call("POST", "/v1/webhooks", json=given, headers=headers).content
        )

    def webhooks(self) -> Iterator[Webhook]:
        """All webhooks of the project, the oldest first."""
        return self._transport.pages(Webhook, "/v1/webhooks", {"limit": PAGE})

    def webhook(self, webhook_id: str) -> Webhook:
        """One webhook."""
        return Webhook.model_validate_json(self._transport.call("GET", _path(webhook_id)).content)

    def pause_webhook(self, webhook_id: str) -> Webhook:
        """Send nothing until it is resumed."""
        return Webhook.model_validate_json(self._transport.call("POST", f"{_path(webhook_id)}:pause").content)

    def resume_webhook(self, webhook_id: str) -> Webhook:
        """Send again, from where it ended."""
        return Webhook.model_validate_json(self._transport.call("POST", f"{_path(webhook_id)}:resume").content)

    def send_test(self, webhook_id: str) -> WebhookTest:
        """Send a test message now; how that went."""
        answer = self._transport.call("POST", f"{_path(webhook_id)}:test", repeatable=False, timeout_s=TEST_TIMEOUT_S)
        return WebhookTest.model_validate_json(answer.content)

    def delete_webhook(self, webhook_id: str) -> None:
        """Forget a webhook."""
        self._transport.call("DELETE", _path(webhook_id), repeatable=False)


def _path(webhook_id: str) -> str:
    return f"/v1/webhooks/{quote(webhook_id, safe='')}"
