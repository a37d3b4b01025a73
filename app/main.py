"""The HTTP service: `create_app(settings)` wires its parts together and does nothing else."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from app import __version__, chores
from app.api import (
    access,
    audit,
    catalog,
    datasets,
    docs_page,
    events,
    export,
    external,
    health,
    insights,
    keys,
    lineage,
    openapi,
    problems,
    projects,
    recipes,
    report,
    results,
    shields,
    studies,
    trials,
    webhooks,
    workers,
)
from app.api.deps import Service
from app.api.exposure import check_exposure, pepper_of
from app.api.gate import Gate
from app.api.hub import Hub
from app.api.idempotency import InFlight
from app.api.keyring import Keyring
from app.api.parting import Parting
from app.api.readiness import Readiness, ReadinessGate
from app.api.request_log import RequestLog
from app.errors import Unready
from app.scratch import sweep
from app.settings import Settings
from app.store.engine import Database
from app.webhooks.deliveries import Deliveries

if TYPE_CHECKING:
    from app.tuning.external import ExternalStudies


log = structlog.get_logger("fettle.api")

NOTE_USE_INTERVAL_S = 60.0
"""Pause between two notes of when keys were last used."""


def create_app(settings: Settings | None = None, *, migrates: bool = False) -> FastAPI:
    """The service as an ASGI application. It waits for its database, and for somebody to migrate it or `migrates` it.

    Raises:
        OpenToStrangers: see `check_exposure`.
    """
    settings = settings or Settings()
    with suppress(Unready):  # then it is asked once the database is there, before anything is served
        check_exposure(settings)
    app = FastAPI(
        title="Fettle",
        version=__version__,
        summary="Hyperparameter tuning for TensorFlow and Keras, driven by Optuna.",
        lifespan=_lifespan,
        redirect_slashes=False,
        openapi_url=None,  # `app.api.openapi` serves the document, and `app.api.docs_page` a page of it
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings, app.state.migrates = settings, migrates
    app.state.gate = Gate(settings)
    problems.install(app)
    openapi.install(app)
    docs_page.install(app)
    for part in (studies, trials, external, lineage, results, export, insights, recipes, report):
        app.include_router(part.router)
    for part in (events, webhooks, datasets, catalog, workers, keys, projects, audit, health):
        app.include_router(part.router)
    # From the innermost to the outermost.
    shields.limit_bodies(app, settings)
    access.install(app, open_paths=["/metrics"] if settings.metrics_open else [])
    app.add_middleware(ReadinessGate)
    app.add_middleware(Parting)
    shields.answer_safely(app, settings)
    app.add_middleware(RequestLog)  # tells what the others answered
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    database = Database(settings.resolved_database_url)
    hub = Hub(database, poll_s=settings.stream_poll_s, ping_s=settings.stream_ping_s)
    keyring = Keyring(database, pepper_of(settings))
    app.state.database = database
    app.state.service = service = Service(
        settings=settings,
        database=database,
        hub=hub,
        in_flight=InFlight(),
        insights=insights.kept_answers(),
        keyring=keyring,
        external=cache(partial(_external_studies, database)),
    )
    noting_use = chores.Chore(
        NOTE_USE_INTERVAL_S, lambda database: partial(keyring.write_used, database), "noted the use of %d keys"
    )
    deliveries = Deliveries(database, settings)
    readiness = Readiness(
        database, settings.database_wait_s, migrates=app.state.migrates, allowed=partial(check_exposure, settings)
    )
    app.state.readiness = readiness
    background: list[asyncio.Task[None]] = []

    def begin() -> None:
        background.extend(asyncio.create_task(work) for work in (hub.run(), deliveries.run()))
        background.extend(chores.start(database, [*chores.chores_of(settings), noting_use]))

    background.append(asyncio.create_task(asyncio.to_thread(_sweep)))
    await readiness.start()
    background.append(asyncio.create_task(readiness.run(begin)))
    try:
        with _ending_streams(hub):
            yield
    finally:
        readiness.stop()
        hub.close()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        with suppress(SQLAlchemyError):
            await asyncio.to_thread(keyring.write_used, database)
        for turns in (service.turns, service.reading):
            await turns.close()
        database.dispose()


def _sweep() -> None:
    """Delete what processes of this machine that were killed had in work, such as uploads."""
    swept = sweep()
    if swept:
        log.info("scratch_swept", folders=swept)


def _external_studies(database: Database) -> ExternalStudies:
    from app.tuning.external import ExternalStudies

    return ExternalStudies(database)


@contextmanager
def _ending_streams(hub: Hub) -> Iterator[None]:
    """End open streams as soon as the process is asked to stop: the server waits for them before it shuts down."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: Any) -> None:
        loop.call_soon_threadsafe(hub.close)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif handler == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
