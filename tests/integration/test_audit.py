"""The audit log: every change that a request makes leaves an entry, in the change's own transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.api.access import declared
from app.domain.access import Scope
from app.store import leases, tables
from app.store.engine import Database
from app.store.workers import Offer, register_worker
from tests.integration.access import Locked, Made, locked, make_key, make_project
from tests.integration.conftest import RunningService, function_study, serving

CSV = b"x,y\n" + b"1,a\n2,b\n" * 50


@pytest.fixture
def guarded(database: Database, tmp_path: Path) -> Iterator[Locked]:
    with serving(database, tmp_path, webhook_allowed_networks="127.0.0.0/8") as service:
        yield locked(service)


def entries(guarded: Locked, query: str = "") -> list[dict[str, Any]]:
    found = guarded.call("GET", f"/v1/audit?project=*&limit=1000{query}", guarded.root)
    assert found.status_code == 200, found.text
    items: list[dict[str, Any]] = found.json()["items"]
    return items


def upload(guarded: Locked, name: str = "mine") -> httpx.Response:
    files = {"file": ("a.csv", CSV), "name": (None, name), "target": (None, "y")}
    return guarded.call("POST", "/v1/datasets", guarded.root, files=files)


def changes(guarded: Locked) -> dict[str, Callable[[], tuple[httpx.Response, str]]]:
    """By name a request that makes the change, and what it changes; to be made in this order."""

    def post(path: str, body: Any = None, method: str = "POST") -> httpx.Response:
        return guarded.call(method, path, guarded.root, json=body)

    made: dict[str, Any] = {}

    def create() -> tuple[httpx.Response, str]:
        response = post("/v1/studies", function_study())
        made["study"] = f"/v1/studies/{response.json()['id']}"
        return response, response.json()["id"]

    def study() -> str:
        return str(made["study"]).rpartition("/")[2]

    def act(verb: str) -> Callable[[], tuple[httpx.Response, str]]:
        return lambda: (post(f"{made['study']}:{verb}"), study())

    def stop() -> tuple[httpx.Response, str]:
        other = guarded.create(name="other")["id"]
        return post(f"/v1/studies/{other}:stop"), other

    def dataset() -> tuple[httpx.Response, str]:
        response = upload(guarded)
        made["dataset"] = response.json()["id"]
        return response, made["dataset"]

    def key() -> tuple[httpx.Response, str]:
        response = post("/v1/keys", {"name": "new"})
        made["key"] = response.json()["id"]
        return response, made["key"]

    def drain() -> tuple[httpx.Response, str]:
        with guarded.service.database.write() as session:
            register_worker(session, "w1", "here", 1, Offer("cpu", ["function"], {}))
        return post("/v1/workers/w1:drain"), "w1"

    def webhook() -> tuple[httpx.Response, str]:
        response = post("/v1/webhooks", {"url": "http://127.0.0.1:9/nobody-listens"})
        made["webhook"] = response.json().get("id")
        return response, made["webhook"]

    def of_webhook(rest: str, method: str = "POST") -> Callable[[], tuple[httpx.Response, str]]:
        return lambda: (post(f"/v1/webhooks/{made['webhook']}{rest}", method=method), made["webhook"])

    return {
        "study.create": create,
        "study.change": lambda: (post(made["study"], {"description": "secret plans"}, "PATCH"), study()),
        "trial.enqueue": lambda: (post(f"{made['study']}/trials", {"hyperparameters": {"x0": 0.125}}), study()),
        "trial.cancel": lambda: (post(f"{made['study']}/trials/0:cancel"), study()),
        "study.pause": act("pause"),
        "study.resume": act("resume"),
        "study.stop": stop,
        "study.cancel": act("cancel"),
        "study.delete": lambda: (post(made["study"], method="DELETE"), study()),
        "dataset.create": dataset,
        "dataset.delete": lambda: (post(f"/v1/datasets/{made['dataset']}", method="DELETE"), made["dataset"]),
        "key.create": key,
        "key.rotate": lambda: (post(f"/v1/keys/{made['key']}:rotate", {"grace_seconds": 5}), made["key"]),
        "key.revoke": lambda: (post(f"/v1/keys/{made['key']}", method="DELETE"), made["key"]),
        "project.create": lambda: (post("/v1/projects", {"name": "vision"}), "vision"),
        "project.change": lambda: (post("/v1/projects/vision", {"max_studies": 3}, "PATCH"), "vision"),
        "project.delete": lambda: (post("/v1/projects/vision", method="DELETE"), "vision"),
        "worker.drain": drain,
        "webhook.create": webhook,
        "webhook.pause": of_webhook(":pause"),
        "webhook.resume": of_webhook(":resume"),
        "webhook.delete": of_webhook("", "DELETE"),
    }


def test_every_change_leaves_an_entry_that_says_who_and_what(guarded: Locked) -> None:
    known = {a.change for a in declared(guarded.service.app.routes).values() if a.change}
    made = changes(guarded)
    assert set(made) == known
    seen = 0
    for action, make in made.items():
        response, subject = make()
        assert response.is_success, (action, response.text)
        found = entries(guarded)
        mine = [entry for entry in found if entry["action"] == action]
        assert len(mine) == 1, action
        entry = mine[0]
        assert entry["subject"] == subject
        assert (entry["key_id"], entry["actor"]) == (guarded.root.id, "root")
        assert entry["address"] == "127.0.0.1"
        assert entry["project"] == ("vision" if action.startswith("project.") else "default")
        assert len(found) - seen == (2 if action == "study.stop" else 1), action  # that one makes a study first
        seen = len(found)
    told = str(entries(guarded))
    assert not any(word in told for word in ("secret plans", "0.125", "sphere", "fettle_"))
    assert entries(guarded, "&action=study.change")[0]["details"] == {"fields": ["description"]}
    assert entries(guarded, "&action=project.change")[0]["details"] == {"max_studies": 3}


def test_what_was_refused_or_is_only_looked_at_leaves_none(guarded: Locked) -> None:
    study = guarded.create()["id"]
    before = entries(guarded)
    root = guarded.root
    refused = [
        guarded.call("POST", "/v1/studies", root, json=function_study()),
        guarded.call("DELETE", f"/v1/studies/{study}", root),
        guarded.call("POST", "/v1/studies/st_nothing:pause", root),
        guarded.call("PATCH", f"/v1/studies/{study}", root, json={"description": "x"}, headers={"If-Match": '"9"'}),
        guarded.call("POST", "/v1/studies", guarded.by_scope[Scope.READ], json=function_study(name="b")),
        guarded.call("POST", "/v1/keys", root, json={"name": "root"}),
        guarded.call("POST", "/v1/projects", root, json={"name": "default"}),
    ]
    assert [r.status_code for r in refused] == [409, 409, 404, 412, 403, 409, 409]
    assert guarded.call("POST", "/v1/studies:validate", root, json=function_study(name="c")).status_code == 200
    assert entries(guarded) == before


def test_the_same_request_again_is_one_change(guarded: Locked) -> None:
    once = {"Idempotency-Key": "k"}
    first, again = (
        guarded.call("POST", "/v1/studies", guarded.root, json=function_study(), headers=once) for _ in range(2)
    )
    assert first.json()["id"] == again.json()["id"]
    assert [e["action"] for e in entries(guarded)] == ["study.create"]


def test_work_on_trials_is_no_change_of_the_log(guarded: Locked) -> None:
    study = guarded.create(model={"family": "external"})["id"]
    before = entries(guarded)
    worker = guarded.by_scope[Scope.WORK]
    asked = guarded.call("POST", f"/v1/studies/{study}/trials:ask", worker, json={"worker": "me"})
    (trial,) = asked.json()["items"]
    path, token = f"/v1/studies/{study}/trials/{trial['number']}", trial["lease"]["token"]
    for verb, body in (
        ("heartbeat", {}),
        ("report", {"epoch": 0, "metrics": {"value": 1.0}}),
        ("tell", {"state": "COMPLETE", "values": {"value": 1.0}}),
    ):
        response = guarded.call("POST", f"{path}:{verb}", worker, json={"lease_token": token, **body})
        assert response.status_code == 200, response.text
    assert entries(guarded) == before


def test_entries_are_found_by_what_and_by_whom(guarded: Locked) -> None:
    study = guarded.create()["id"]
    submitter = guarded.by_scope[Scope.SUBMIT]
    other = guarded.create(submitter, name="other")
    assert [e["subject"] for e in entries(guarded, f"&key={submitter.id}")] == [other["id"]]
    assert [e["action"] for e in entries(guarded, f"&subject={study}")] == ["study.create"]
    assert entries(guarded, "&action=study.delete") == []


def test_an_open_service_notes_changes_of_anybody(service: RunningService) -> None:
    study = service.create()["id"]
    (entry,) = service.client.get("/v1/audit").json()["items"]
    assert (entry["subject"], entry["key_id"], entry["actor"]) == (study, None, None)


def test_the_drain_of_a_shared_worker_is_told_in_every_project_whose_trials_it_held(guarded: Locked) -> None:
    make_project(guarded.service, "idle")
    idle = make_key(guarded.service, "idle", list(Scope), project="idle")
    study = guarded.create(guarded.stranger)["id"]
    with guarded.service.database.write() as session:
        register_worker(session, "w1", "here", 1, Offer("cpu", ["function"], {}))
        key = session.scalars(select(tables.Study.id).where(tables.Study.public_id == study)).one()
        leases.reserve(session, key, "w1", 1, 30.0)
    assert guarded.call("POST", "/v1/workers/w1:drain", guarded.root).status_code == 200

    def told(key: Made) -> list[tuple[str, str]]:
        found = guarded.call("GET", "/v1/audit?action=worker.drain", key).json()["items"]
        return [(entry["project"], entry["subject"]) for entry in found]

    assert told(guarded.root) == [("default", "w1")]
    assert told(guarded.stranger) == [("elsewhere", "w1")]
    assert told(idle) == []
