"""The headers of every answer that tell browsers what not to do with it, and what is left of the caller's budget."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""What isn't a page of ours loads nothing, runs nothing and is framed by nobody, whatever a user wrote into it."""
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
DEFAULTS = {"Content-Security-Policy": API_POLICY, "Cache-Control": "no-store"}
"""Where an answer doesn't say something else. Its ETag is for `If-Match`: nothing is to be kept, by a proxy least."""


class SafeHeaders:
    """ASGI middleware that adds them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
                    headers[name] = value
                for name, value in DEFAULTS.items():
                    headers.setdefault(name, value)
                for name, value in scope.get("state", {}).get("rate_headers", ()):
                    headers[name] = value
            await send(message)

        await self.app(scope, receive, with_headers)
