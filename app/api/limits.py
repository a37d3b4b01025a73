"""The limits on bodies, counted while they arrive: nothing larger is ever held in memory, nothing is waited for long.

An answer that is given before the body has arrived ends the connection. What the client still sends is read and dropped
for a moment first: closed at once, the connection would be reset, and the answer lost with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import of_error
from app.errors import BodyTooLarge, FettleError, RequestTimeout, UnsupportedMediaType

LEAST_BYTES_PER_S = 10_000
"""A body that arrives faster than this may take as long as it needs."""
LINGER_S = 3.0
"""How long an answer to an unfinished body waits for the client to notice it."""
SMALL_BYTES = 65_536
"""The rest of a body up to this size is skipped by the server: the connection goes on."""


class BodyLimit:
    """ASGI middleware that refuses bodies over `max_bytes`, encoded ones and those slower than `timeout_s` allows.

    `by_path` gives other sizes to paths that begin so.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, by_path: Mapping[str, int] | None = None, timeout_s: float = 30.0
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.by_path = dict(by_path or {})
        self.timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if "content-length" not in headers and "transfer-encoding" not in headers:
            await self.app(scope, receive, send)
            return
        limit = next((n for path, n in self.by_path.items() if scope["path"].startswith(path)), self.max_bytes)
        body = _Body(receive, send, headers, limit, self.timeout_s)
        refusal = _refusal(headers, limit)
        if refusal is not None:
            await of_error(refusal)(scope, body.receive, body.send)
        else:
            await self.app(scope, body.receive, body.send)


def _refusal(headers: Headers, limit: int) -> FettleError | None:
    """What is wrong with a body by what is said of it."""
    announced = headers.get("content-length", "0")
    if announced.isdigit() and (len(announced) > 18 or int(announced) > limit):
        return _too_large(limit)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", ""}:
        return UnsupportedMediaType(f"Expected a body without Content-Encoding. Received: {encoding[:100]!r}")
    return None


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"Expected a body of at most {limit:,} bytes. Received a larger one.")


class _Body:
    """One request's body on its way in, and the answer on its way out."""

    def __init__(self, receive: Receive, send: Send, headers: Headers, limit: int, timeout_s: float) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._timeout_s = timeout_s
        self._began_at = asyncio.get_running_loop().time()
        self._arrived = 0
        length = headers.get("content-length", "")
        self._is_complete = length == "0"
        self._is_small = length.isdigit() and len(length) <= 18 and int(length) <= SMALL_BYTES
        self._cuts = self._is_late = False

    async def receive(self) -> Message:
        """The next part of the body.

        Raises:
            BodyTooLarge: it is over the limit.
            RequestTimeout: it does not arrive in time.
        """
        if self._is_complete:
            return await self._receive()
        loop = asyncio.get_running_loop()
        until = self._began_at + self._timeout_s + self._arrived / LEAST_BYTES_PER_S
        try:
            async with asyncio.timeout_at(max(until, loop.time() + 0.001)):
                message = await self._receive()
        except TimeoutError:
            self._is_late = True
            raise RequestTimeout(
                f"Expected the body within {self._timeout_s:g} s, and {LEAST_BYTES_PER_S:,} bytes of it a second "
                f"from then on. Received {self._arrived:,} bytes."
            ) from None
        self._arrived += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._arrived > self._limit:
            raise _too_large(self._limit)
        return message

    async def send(self, message: Message) -> None:
        """Pass the answer on; where the body has not arrived by then, wait a moment before the connection ends."""
        if message["type"] == "http.response.start" and not self._is_complete and not self._skippable():
            self._cuts = True
            MutableHeaders(scope=message)["Connection"] = "close"
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not (is_last and self._cuts) or self._is_complete or self._is_late:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        try:
            async with asyncio.timeout(LINGER_S):
                while (part := await self._receive())["type"] == "http.request" and part.get("more_body", False):
                    pass
        except TimeoutError:
            pass
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _skippable(self) -> bool:
        return self._is_small and not self._is_late
