"""A service with something of everything: what fuzzing finds to read, to change and to delete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.domain.access import Scope
from app.domain.trial import ArtifactPointer, Outcome, Proposal, TrialState
from app.store import leases, recording
from app.store.engine import Database
from app.store.studies import find_study
from app.store.tables import Study
from app.store.workers import Offer, register_worker
from tests.fuzz.campaign import Sender, Targets
from tests.fuzz.shaping import NOBODY, TABLE
from tests.integration.access import make_key
from tests.integration.conftest import RunningService, serving
from tests.support import effort

WORKER = "w-fuzzed"
KINDS = ("history", "intermediate", "parallel", "slice", "contour", "edf", "timeline", "importances", "pareto")
FILES = ("model.keras", "recipe.py")
UNBOUNDED: dict[str, Any] = {f"rate_{kind}_per_minute": 10**9 for kind in ("reads", "writes", "heavy")}
UNBOUNDED |= {"rate_failures_per_minute": 0}
"""Budgets that are told of in headers and never used up; strangers may try keys as often as they like."""


@dataclass(frozen=True)
class Site:
    """A running service, what every request to it carries, and what there is to send requests to."""

    service: RunningService
    sender: Sender
    targets: Targets


@pytest.fixture(params=["keyed", "open"])
def site(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[Site]:
    """A furnished service over each database in turn: one with keys, called with a key that may all, and an open one.

    By default PostgreSQL is seen with keys alone: that differs in what the service asks the database, not in who asks.
    """
    keyed = request.param == "keyed"
    if not keyed and _is_postgres(database) and effort.factor() == 1:
        pytest.skip("An open service does less with the database: a long run tries it on both.")
    with furnished(database, tmp_path, keyed=keyed) as found:
        yield found


@pytest.fixture(params=["keyed", "open"])
def judging_site(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[Site]:
    """The same for what is judged before the database is asked: by default SQLite and a service with keys alone."""
    keyed = request.param == "keyed"
    if (not keyed or _is_postgres(database)) and effort.factor() == 1:
        pytest.skip("What a request may be is judged alike whoever sends it to whichever: a long run tries all.")
    with furnished(database, tmp_path, keyed=keyed) as found:
        yield found


def _is_postgres(database: Database) -> bool:
    return database.url.get_backend_name() == "postgresql"


@pytest.fixture
def keyed_site(sqlite_database: Database, tmp_path: Path) -> Iterator[Site]:
    """A furnished service with keys."""
    with furnished(sqlite_database, tmp_path, keyed=True) as found:
        yield found


@contextmanager
def furnished(database: Database, folder: Path, *, keyed: bool) -> Iterator[Site]:
    """A service with something of everything; `keyed`: with keys, and budgets that no test can use up."""
    with serving(database, folder, webhook_allowed_networks="127.0.0.0/8", **UNBOUNDED) as service:
        sender, keys = Sender({}, None, service_has_keys=keyed), []
        if keyed:
            root = make_key(service, "root", [Scope.ADMIN], all_projects=True)
            sender = Sender(root.headers, root.id, service_has_keys=True)
            service.client.headers.update(root.headers)
            keys = [make_key(service, f"spare-{i}", [Scope.READ]).id for i in range(21)]
        yield Site(service, sender, _furnish(service, keys))


def _furnish(service: RunningService, keys: Sequence[str | int]) -> Targets:
    """Finished studies and their files, studies under way, a data set, a worker, projects and webhooks; `keys` are."""
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
    datasets: list[str | int] = [_brought(service, name) for name in ("brought", *(f"spare-{i}" for i in range(10)))]
    with service.database.write() as session:
        register_worker(session, WORKER, "here", 1, Offer("cpu", ["mlp"], {}, None, {}))
    webhooks: list[str | int] = [_made(service, "/v1/webhooks", url=NOBODY)["id"] for _ in range(12)]
    projects: list[str | int] = [_made(service, "/v1/projects", name=f"spare-{i}")["name"] for i in range(14)]
    return Targets(
        values={
            "path.study_id": [*finished, *running],
            "path.number": [0, 1, 2, 3],
            "path.name": list(FILES),
            "path.dataset_id": ["digits", "brought"],
            "path.worker_id": [WORKER],
            "path.kind": list(KINDS),
            "path.webhook_id": webhooks[:3],
            "path.key_id": list(keys[:3]) or ["key_none"],
            "query.metric": ["value", "loss"],
            "query.hyperparameter": ["x0"],
            "header.If-Match": ['"1"', "*"],
        },
        owned={
            "studies": [_waiting(service, f"disposable-{i}") for i in range(30)],
            "first": [0],
            "webhooks": webhooks[3:],
            "rotated": list(keys[3:9]) or ["key_none"],
            "revoked": list(keys[9:]) or ["key_none"],
            "datasets": datasets[1:],
            "projects": projects[:4],
            "empty": projects[4:],
        },
        leases=held,
    )


def _made(service: RunningService, path: str, **body: str) -> dict[str, Any]:
    """What a request to create something answers."""
    response = service.client.post(path, json=body)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


def _brought(service: RunningService, name: str) -> str:
    """The id of a new data set."""
    sent = {"name": name, "target": "label"}
    response = service.client.post("/v1/datasets", files={"file": ("t.csv", TABLE)}, data=sent)
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


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
