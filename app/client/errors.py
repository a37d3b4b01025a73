"""What the client raises.

ClientError
├── ServiceUnavailable   nothing answered, or what answered can't serve now
└── FettleProblem        the service answered with a problem (RFC 9457): status, code, detail, errors
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx


class ClientError(Exception):
    """Everything that the client raises on purpose."""


class ServiceUnavailable(ClientError):
    """No service answered at `url`; the message says what to do."""

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(
            f"Expected a Fettle service at {url}. Received no answer: {cause}. "
            "Start one with `fettle up`, or point --url or FETTLE_URL at one that runs."
        )
        self.url = url


class FettleProblem(ClientError):
    """The service refused: `status` (HTTP), `code` (stable), `detail` (words), `errors` (`loc` and `msg` each)."""

    def __init__(self, status: int, code: str, detail: str, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        lines = [f"{code} ({status}): {detail}"]
        lines += [f"  {'.'.join(map(str, error.get('loc', ())))}: {error.get('msg', '')}" for error in errors]
        super().__init__("\n".join(lines))
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)

    @classmethod
    def of(cls, response: httpx.Response) -> FettleProblem:
        """The problem in a response that has been read, also where something else than Fettle wrote it."""
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or "code" not in body:
            return cls(
                response.status_code,
                f"HTTP_{response.status_code}",
                f"Expected a Fettle service at {response.request.url}. Received an answer that is not one of its own: "
                f"{response.text[:200]!r}",
            )
        errors = body.get("errors") or ()
        detail = str(body.get("detail") or body.get("title") or "")
        return cls(response.status_code, str(body["code"]), detail, [e for e in errors if isinstance(e, dict)])
