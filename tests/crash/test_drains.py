"""Workers that are drained over HTTP: another takes the place of one, for as long as the service is to have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from app.store.engine import Database
from tests.support.processes import Fleet, wait_for
from tests.support.services import ServiceProcess, service_on


def _active(service: ServiceProcess) -> list[dict[str, Any]]:
    with service.client() as client:
        items: list[dict[str, Any]] = client.get("/v1/workers").json()["items"]
    return [worker for worker in items if worker["state"] == "ACTIVE" and worker["live"]]


def test_a_worker_of_the_service_that_was_drained_is_replaced_and_one_on_its_own_is_not(
    database: Database, tmp_path: Path, fleet: Fleet
) -> None:
    with service_on(database, tmp_path, workers=1, drain_grace_s=1) as service, service.client() as client:
        (first,) = wait_for(lambda: _active(service), 60.0, "the first worker")
        assert client.post(f"/v1/workers/{first['id']}:drain").status_code == 200
        (second,) = wait_for(
            lambda: [w for w in _active(service) if w["id"] != first["id"]], 60.0, "another in its place"
        )
        assert "a worker was drained; starting another in its place" in service.log()
        alone = fleet.start()
        third = wait_for(lambda: [w for w in _active(service) if w["id"] != second["id"]], 60.0, "one on its own")
        assert client.post(f"/v1/workers/{third[0]['id']}:drain").status_code == 200
        assert alone.wait() == 0
        assert [w["id"] for w in _active(service)] == [second["id"]]
        assert service.process is not None
        below = psutil.Process(service.process.pid).children(recursive=True)
        assert service.terminate() == 0
        assert not any(child.is_running() for child in below)
