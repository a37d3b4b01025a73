"""What a request is told that the process can't wait for any longer: the server cancels it when it has to stop."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import of_error
from app.errors import Unready


class Parting:
    """ASGI middleware: a request that is cancelled before it was answered is told to come again, as a problem.

    Without it the server answers a plain 500, and logs the cancellation as a bug.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except asyncio.CancelledError:
            if has_begun:
                raise
            # Cancelled once, it ends here: the server waits for nothing else of it.
            error = Unready("Expected to be done before this process stops. It stops now: try again in a moment.")
            await of_error(error)(scope, receive, send)
