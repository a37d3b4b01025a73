"""A service with something of everything: what fuzzing finds to read, to change and to delete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.domain.trial import ArtifactPointer, Outcome, Proposal, TrialState
from app.store import leases, recording
from app.store.engine import Database
from app.store.fleet import Offer, register_worker
from app.store.studies import find_study
from app.store.tables import Study
from tests.fuzz.campaign import Targets
from tests.fuzz.shaping import TABLE
from tests.integration.conftest import RunningService, serving

WORKER = "w-fuzzed"
KINDS = ("history", "intermediate", "parallel", "slice", "contour", "edf", "timeline", "importances", "pareto")
FILES = ("model.keras", "recipe.py")


@dataclass(frozen=True)
class Site:
    """A running service, what every request to it carries, and what there is to send requests to."""

    service: RunningService
    headers: dict[str, str]
    targets: Targets


@pytest.fixture
def headers() -> dict[str, str]:
    """What every request carries: nothing, to a service that is open because it is on a loopback address."""
    return {}


@pytest.fixture
def site(database: Database, tmp_path: Path, headers: dict[str, str]) -> Iterator[Site]:
    """A furnished service over each database in turn."""
    with serving(database, tmp_path) as service:
        service.client.headers.update(headers)
        yield furnished(service, headers)


def furnished(service: RunningService, headers: dict[str, str]) -> Site:
    """The service with a finished study and its files, studies under way, a data set and a worker."""
    kept = {"budget": {"trials": 4}, "execution": {"keep_models": "all"}}
    finished = [service.create(name=f"finished-{i}", **kept)["id"] for i in range(2)]
    for study_id in finished:
        _finish(service, study_id)
    outside = {"model": {"family": "external"}, "objectives": [{"metric": "loss"}], "budget": {"trials": 1000}}
    many = {**outside, "objectives": [{"metric": "loss"}, {"metric": "size"}]}
    running = [service.create(name="outside", **outside)["id"], service.create(name="outside-2", **many)["id"]]
    asked = service.client.post(f"/v1/studies/{running[0]}/trials:ask", json={"count": 60, "lease_seconds": 3600})
    assert asked.status_code == 200, asked.text
    held = [(running[0], item["number"], item["lease"]["token"]) for item in asked.json()["items"]]
    brought = service.client.post(
        "/v1/datasets", files={"file": ("t.csv", TABLE)}, data={"name": "brought", "target": "label"}
    )
    assert brought.status_code == 201, brought.text
    with service.database.write() as session:
        register_worker(session, WORKER, "here", 1, Offer("cpu", ["mlp"], {}, None, {}))
    return Site(
        service,
        headers,
        Targets(
            values={
                "path.study_id": [*finished, *running],
                "path.number": [0, 1, 2, 3],
                "path.name": list(FILES),
                "path.dataset_id": ["digits", "brought"],
                "path.worker_id": [WORKER],
                "path.kind": [
                    "history",
                    "intermediate",
                    "parallel",
                    "slice",
                    "contour",
                    "edf",
                    "timeline",
                    "importances",
                    "pareto",
                ],
                "query.metric": ["value", "loss"],
                "query.hyperparameter": ["x0"],
                "header.If-Match": ['"1"', "*"],
            },
            disposable=[_waiting(service, f"disposable-{i}") for i in range(30)],
            leases=held,
        ),
    )


def _waiting(service: RunningService, name: str) -> str:
    """The id of a new study with a trial that waits."""
    study_id = str(service.create(name=name)["id"])
    enqueued = service.client.post(f"/v1/studies/{study_id}/trials", json={"hyperparameters": {"x0": 1.0}})
    assert enqueued.status_code == 201, enqueued.text
    return study_id


def _finish(service: RunningService, public_id: str) -> None:
    """Run the study's trials as a worker does; the best one has files."""
    location = Path(service.settings.resolved_artifact_url.removeprefix("file://"))
    with service.database.read() as session:
        key = find_study(session, "default", public_id).id
    for number in range(4):
        with service.database.write() as session:
            [reservation] = leases.reserve(session, key, WORKER, 1, 60.0)
            x0 = float(4 - number)
            leases.start(session, key, [Proposal(reservation, {"x0": x0}, {"x0": x0}, {})], WORKER, "cpu", 60.0)
        files = []
        for name in FILES:
            path = f"{public_id}/{number}/{name}"
            (location / path).parent.mkdir(parents=True, exist_ok=True)
            (location / path).write_bytes(b"written")
            files.append(ArtifactPointer(name, path, "application/octet-stream", 7))
        report = recording.Report(reservation.trial_id, reservation.token, number, 1, 0, {"value": x0 * x0})
        outcome = Outcome(
            reservation.trial_id,
            reservation.token,
            TrialState.COMPLETE,
            values=(x0 * x0,),
            metrics={"value": x0 * x0},
            selected_epoch=0,
            epochs=1,
            curve=((0, x0 * x0),),
            log="done\n",
            artifacts=tuple(files),
        )
        with service.database.write() as session:
            assert recording.finish(session, key, [outcome], [report], 60.0).trial_ids == {reservation.trial_id}
    with service.database.read() as session:
        assert session.get_one(Study, key).state == "COMPLETED"
