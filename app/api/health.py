"""Liveness, readiness, and numbers for Prometheus."""

from __future__ import annotations

from fastapi import Response

from app.api import schemas
from app.api.access import needs, public
from app.api.answers import answer
from app.api.deps import Api
from app.api.routing import router as make_router
from app.domain.access import Scope
from app.store.migrate import check_schema
from app.store.studies import counts

router = make_router("health")


@router.get("/healthz", response_model=schemas.Health)
@public
async def healthz() -> Response:
    """The process answers."""
    return answer(schemas.Health(status="ok"))


@router.get("/readyz", response_model=schemas.Health)
@public
def readyz(api: Api) -> Response:
    """The database is reached and has this code's schema."""
    check_schema(api.database)
    return answer(schemas.Health(status="ready"))


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
@needs(Scope.READ)
def metrics(api: Api) -> Response:
    """Studies, trials, workers and open streams, as Prometheus reads them."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_LATEST

    with api.database.read() as session:
        studies, trials, workers = counts(session)
    registry = CollectorRegistry()
    for name, text, numbers in (
        ("fettle_studies", "Studies by state", studies),
        ("fettle_trials", "Trials by state", trials),
        ("fettle_workers", "Workers by state", workers),
    ):
        gauge = Gauge(name, text, ["state"], registry=registry)
        for state, number in numbers.items():
            gauge.labels(state=state).set(number)
    Gauge("fettle_open_streams", "Event streams open in this process", registry=registry).set(api.hub.open_streams)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
