"""The limit on bodies, counted while they arrive: nothing larger is ever held in memory."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import of_error
from app.errors import BodyTooLarge


class BodyLimit:
    """ASGI middleware that refuses bodies over `max_bytes`; `by_path` gives other limits to paths that begin so."""

    def __init__(self, app: ASGIApp, max_bytes: int, by_path: Mapping[str, int] | None = None) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.by_path = dict(by_path or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = next((n for path, n in self.by_path.items() if scope["path"].startswith(path)), self.max_bytes)
        error = BodyTooLarge(f"Expected a body of at most {limit:,} bytes. Received a larger one.")
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and (len(announced) > 18 or int(announced) > limit):
            response = of_error(error)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > limit:
                raise error
            return message

        await self.app(scope, counted, send)
