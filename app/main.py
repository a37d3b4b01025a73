"""The HTTP service: `create_app(settings)` wires its parts together and does nothing else."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from app import __version__, chores
from app.api import (
    catalog,
    datasets,
    events,
    export,
    external,
    health,
    insights,
    lineage,
    openapi,
    problems,
    recipes,
    report,
    results,
    studies,
    trials,
    workers,
)
from app.api.deps import Service
from app.api.hub import Hub
from app.api.idempotency import InFlight
from app.api.limits import BodyLimit
from app.settings import Settings
from app.store.engine import Database

if TYPE_CHECKING:
    from app.tuning.external import ExternalStudies


class OpenToStrangers(RuntimeError):
    """The service would answer anybody who reaches this machine."""


def check_exposure(settings: Settings) -> None:
    """Return where only this machine reaches the service, or its operator said that others may.

    Raises:
        OpenToStrangers: neither is so.
    """
    if not settings.is_loopback and not settings.allow_open:
        raise OpenToStrangers(
            f"Expected API keys, or a loopback address such as 127.0.0.1. Received: host={settings.host!r} without "
            "keys. To serve everybody who reaches this address, set FETTLE_ALLOW_OPEN=true."
        )


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service as an ASGI application. The database must have been migrated before it answers `/readyz`.

    Raises:
        OpenToStrangers: see `check_exposure`.
    """
    settings = settings or Settings()
    check_exposure(settings)
    app = FastAPI(
        title="Fettle",
        version=__version__,
        summary="Hyperparameter tuning for TensorFlow and Keras, driven by Optuna.",
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.settings = settings
    problems.install(app)
    openapi.install(app)
    uploads = {"/v1/datasets": settings.max_upload_bytes + datasets.FORM_BYTES}
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, by_path=uploads)
    for part in (studies, trials, external, lineage, results, export, insights, recipes, report):
        app.include_router(part.router)
    for part in (events, datasets, catalog, workers, health):
        app.include_router(part.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    database = Database(settings.resolved_database_url)
    hub = Hub(database, poll_s=settings.stream_poll_s, ping_s=settings.stream_ping_s)
    app.state.database = database
    app.state.service = Service(
        settings=settings,
        database=database,
        hub=hub,
        in_flight=InFlight(),
        insights=insights.Insights(database),
        external=cache(partial(_external_studies, database)),
    )
    background = [asyncio.create_task(hub.run()), *chores.start(database, chores.chores_of(settings))]
    try:
        with _ending_streams(hub):
            yield
    finally:
        hub.close()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        database.dispose()


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
