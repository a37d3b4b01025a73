"""Webhooks that can't be added, and actions on none."""

from __future__ import annotations

from typing import Any

from tests.integration.bad_input import RequestCase

PUBLIC = "https://93.184.215.14/hook"


def refused(what: str, loc: list[Any], **body: Any) -> RequestCase:
    return (what, "POST", "/v1/webhooks", {"url": PUBLIC} | body, {}, 422, "INVALID_REQUEST", loc)


REQUESTS: list[RequestCase] = [
    refused("a receiver on this machine", ["url"], url="http://127.0.0.1:8000/v1/studies"),
    refused("a cloud's metadata", ["url"], url="http://169.254.169.254/latest/meta-data/iam/security-credentials/"),
    refused("a number for an address", ["url"], url="http://2130706433/"),
    refused("an address wrapped in IPv6", ["url"], url="http://[::ffff:10.0.0.1]/"),
    refused("this machine by name", ["url"], url="http://localhost/"),
    refused("a user in a receiver's URL", ["url"], url="https://user:secret@93.184.215.14/"),
    refused("a file for a receiver", ["url"], url="file:///etc/passwd"),
    refused("no receiver", ["url"], url=""),
    refused("a long receiver", ["url"], url="https://example.com/" + "a" * 2_000),
    refused("a number for a receiver", ["url"], url=5),
    refused("an unknown event", ["events", 0], events=["study.exploded"]),
    refused("text for events", ["events"], events="study.finished"),
    refused("a secret that is too short", ["secret"], secret="whsec_AAAA"),
    refused("a secret without its prefix", ["secret"], secret="A" * 44),
    refused("an unknown field of a webhook", ["headers"], headers={"Authorization": "x"}),
    ("a webhook of no study", "POST", "/v1/webhooks", {"url": PUBLIC, "study_id": "st_0"}, {}, 404,
     "STUDY_NOT_FOUND", None),
    ("an unknown webhook", "GET", "/v1/webhooks/wh_0", None, {}, 404, "WEBHOOK_NOT_FOUND", None),
    ("an unknown webhook deleted", "DELETE", "/v1/webhooks/wh_0", None, {}, 404, "WEBHOOK_NOT_FOUND", None),
    ("an unknown webhook paused", "POST", "/v1/webhooks/wh_0:pause", None, {}, 404, "WEBHOOK_NOT_FOUND", None),
    ("an unknown webhook resumed", "POST", "/v1/webhooks/wh_0:resume", None, {}, 404, "WEBHOOK_NOT_FOUND", None),
    ("an unknown webhook tried", "POST", "/v1/webhooks/wh_0:test", None, {}, 404, "WEBHOOK_NOT_FOUND", None),
    ("fields for a pause", "POST", "/v1/webhooks/wh_0:pause", {"for": 5}, {}, 422, "INVALID_REQUEST", ["for"]),
]  # fmt: skip
