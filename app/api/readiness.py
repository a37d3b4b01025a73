"""Whether this process may answer: the database is there, and its schema is one that this code may run on.

The process lives while it waits: `/healthz` answers 200, all else 503 in words. So it does later where the schema is
changed under it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import MOVED, of_error
from app.errors import FettleError, SchemaTooNew, Unready
from app.store.arrival import await_database
from app.store.engine import Database
from app.store.migrate import check_schema, migrate
from app.store.presence import is_moved

LOOK_S = 5.0
"""Seconds between looks at the schema's revision."""
FIRST_LOOK_S = 3.0
"""How long the process puts off listening while it looks whether the database is there already."""
ABSENT = "Expected a database that answers. Received: none so far; the service's log says more."
"""What requests are told: where the database lies is not for everybody."""
OPEN = frozenset({"/healthz", "/openapi.json", "/docs"})
"""Paths that need no database."""

log = structlog.get_logger("fettle.api")


class _Stopped(Exception):
    """The process ends while it waits."""


class Readiness:
    """Waits for the database, and watches its schema from then on.

    `allowed` raises where this process must not serve with what is in the database.
    """

    def __init__(
        self, database: Database, wait_s: float, *, migrates: bool, allowed: Callable[[], None] = lambda: None
    ) -> None:
        self._database = database
        self._allowed = allowed
        self._wait_s = wait_s
        self._migrates = migrates
        self._stopped = threading.Event()
        self._ended = asyncio.Event()
        self._looked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.reason: str | None = ABSENT
        """Why nothing is served now, in words; None where all is well."""
        self.arrived = False
        """Whether the database has been there."""
        self.failed: str | None = None
        """Why the database will not come: it refused, or there is no more time."""

    async def start(self) -> None:
        """Begin to wait; returns once the database is there, or is seen not to be."""
        self._loop = asyncio.get_running_loop()
        # Not a thread of the pool: the process must end while this one hangs in a connection.
        threading.Thread(target=self._await, name="fettle-arrival", daemon=True).start()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._looked.wait(), FIRST_LOOK_S)

    async def run(self, begin: Callable[[], None]) -> None:
        """Call `begin` once the database is there; then look after the schema for as long as the service runs."""
        await self._ended.wait()
        if self.arrived:
            begin()
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await asyncio.to_thread(check_schema, self._database)
            except Unready as error:
                if self.reason != error.detail:
                    log.error("schema_changed", error=error.detail)
                self.reason = error.detail
            except DBAPIError as error:
                if is_moved(error.orig) and self.reason != MOVED:
                    log.error("database_moved", error=str(error.orig))
                    self.reason = MOVED
                # Of other errors each request tells by itself.
            except SQLAlchemyError:
                continue
            else:
                self.reason = None
                if not self.arrived:
                    self.arrived = True
                    begin()

    def stop(self) -> None:
        """End the wait."""
        self._stopped.set()

    def _await(self) -> None:
        prepare = migrate if self._migrates else check_schema

        def use() -> None:
            prepare(self._database)
            self._allowed()

        failed, told = None, None
        try:
            await_database(self._database, use, self._wait_s, self._pause)
        except _Stopped:
            return
        except SchemaTooNew as error:
            failed = told = error.detail
        except FettleError as error:
            failed, told = error.detail, self.reason
        except Exception as error:
            log.exception("database_not_prepared")
            failed, told = f"The database could not be prepared: {type(error).__name__}: {error}", self.reason
        self._call(lambda: self._end(failed, told))

    def _call(self, work: Callable[[], None]) -> None:
        """Do this in the loop's thread; nothing where the loop has ended."""
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(work)

    def _end(self, failed: str | None, told: str | None) -> None:
        self.failed, self.reason = failed, told
        self.arrived = failed is None
        self._ended.set()
        self._looked.set()

    def _pause(self, seconds: float, because: Unready | DBAPIError) -> None:
        self.reason = because.detail if isinstance(because, Unready) else ABSENT
        self._call(self._looked.set)
        if self._stopped.wait(seconds):
            raise _Stopped


class ReadinessGate:
    """ASGI middleware: answers 503 in words while the application's `Readiness` has a reason to."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            readiness: Readiness | None = getattr(scope["app"].state, "readiness", None)
            if readiness is not None and readiness.reason is not None:
                await of_error(Unready(readiness.reason))(scope, receive, send)
                return
        await self.app(scope, receive, send)
