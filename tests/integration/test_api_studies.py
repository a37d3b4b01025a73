"""Studies over HTTP: created once, listed in order, changed under a revision, acted on again and again."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import update

from app.domain.study import StudyDefinition
from app.store import workers
from app.store.tables import Worker
from app.store.workers import Offer

FIELDS = {
    "id", "project", "name", "state", "state_reason", "pending_reason", "revision", "definition", "progress", "best",
    "created_by", "created_at", "started_at", "finished_at",
}  # fmt: skip
PROGRESS = {"waiting", "running", "complete", "pruned", "fail", "total_budget", "device_seconds"}


def test_a_study_is_created_with_its_defaults_and_found_again(service: Any, study: Any) -> None:
    response = service.client.post("/v1/studies", json=study())
    assert response.status_code == 201
    created = response.json()
    assert set(created) >= FIELDS
    assert set(created["progress"]) == PROGRESS
    assert created["state"] == "RUNNING"
    assert created["project"] == "default"
    assert created["created_at"].endswith("Z")
    assert created["definition"]["training"]["select_epoch"] == "last"
    assert StudyDefinition.model_validate(created["definition"]).model_dump(mode="json") == created["definition"]
    assert response.headers["location"] == f"/v1/studies/{created['id']}"
    found = service.client.get(response.headers["location"])
    assert found.json() == created
    assert found.headers["etag"] == '"1"'


def test_validation_stores_nothing(service: Any, study: Any) -> None:
    answer = service.client.post("/v1/studies:validate", json=study()).json()
    assert answer["structural"] == ["function"]
    assert sorted(answer["runtime"]) == ["delay_seconds", "x0"]
    assert answer["stackable"] is True
    assert answer["warnings"] == []
    assert answer["definition"]["sampler"]["options"]["seed"] == 0
    assert service.client.get("/v1/studies").json() == {"items": [], "next_cursor": None}
    assert service.client.post("/v1/studies", json=answer["definition"]).status_code == 201


def test_the_same_key_and_body_give_the_same_answer(service: Any, study: Any) -> None:
    key = {"Idempotency-Key": "7c1e"}
    first = service.client.post("/v1/studies", json=study(), headers=key)
    again = service.client.post("/v1/studies", json=dict(reversed(study().items())), headers=key)
    assert (again.status_code, again.text) == (first.status_code, first.text)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["etag"] == first.headers["etag"]
    other = service.client.post("/v1/studies", json=study(name="other"), headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_MISMATCH")
    path = f"{first.headers['location']}/trials"
    trial = service.client.post(path, json={}, headers=key)
    assert trial.json()["code"] == "IDEMPOTENCY_MISMATCH", "a key belongs to one request, not to one path"
    key = {"Idempotency-Key": "7c1f"}
    numbers = {service.client.post(path, json={}, headers=key).json()["number"] for _ in range(3)}
    assert numbers == {0}


def test_a_refused_creation_leaves_its_key_free(service: Any, study: Any) -> None:
    key = {"Idempotency-Key": "k"}
    taken = service.create()
    assert service.client.post("/v1/studies", json=study(), headers=key).status_code == 409
    service.client.post(f"/v1/studies/{taken['id']}:cancel")
    service.client.delete(f"/v1/studies/{taken['id']}")
    assert service.client.post("/v1/studies", json=study(), headers=key).status_code == 201


def test_concurrent_requests_with_one_key_create_one_study(service: Any, study: Any) -> None:
    barrier = threading.Barrier(8)

    def post() -> tuple[int, str]:
        barrier.wait()
        response = service.client.post("/v1/studies", json=study(), headers={"Idempotency-Key": "k"})
        return response.status_code, response.json().get("id") or response.json()["code"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(), range(8)))
    ids = {text for status, text in answers if status == 201}
    assert len(ids) == 1
    assert {answer for answer in answers if answer[0] != 201} <= {(409, "REQUEST_IN_FLIGHT")}
    assert len(service.client.get("/v1/studies").json()["items"]) == 1


@pytest.mark.parametrize("sort", ["name", "created_at", "-created_at"])
def test_pages_give_every_study_once_in_order(service: Any, sort: str) -> None:
    names = [f"s{i:02}" for i in (3, 1, 4, 0, 2, 6, 5)]
    for name in names:
        service.create(name=name)
    seen: list[str] = []
    query: dict[str, Any] = {"sort": sort, "limit": 2}
    while True:
        page = service.client.get("/v1/studies", params=query).json()
        seen += [item["name"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
        service.create(name=f"z{len(seen)}") if sort == "-created_at" else None
    expected = {"name": sorted(names), "created_at": names, "-created_at": names[::-1]}[sort]
    assert seen == expected
    query = {"sort": sort, "limit": 2, "q": "s", "cursor": query["cursor"]}
    assert service.client.get("/v1/studies", params=query).json()["code"] == "BAD_CURSOR"


def test_lists_are_narrowed_by_state_label_and_text(service: Any) -> None:
    red = service.create(name="red", labels={"team": "vision", "stage": "a:b"}, description="Über 100% of_it")
    service.create(name="blue", labels={"team": "vision"})
    service.create(name="green", labels={"team": "speech"})
    service.client.post(f"/v1/studies/{red['id']}:pause")

    def names(query: str) -> list[str]:
        return [item["name"] for item in service.client.get(f"/v1/studies?sort=name&{query}").json()["items"]]

    assert names("label=team:vision") == ["blue", "red"]
    assert names("label=team:vision&label=stage:a:b") == ["red"]
    assert names("label=team:vision&label=team:speech") == []
    assert names("state=PAUSED") == ["red"]
    assert names("state=PAUSED&state=RUNNING") == ["blue", "green", "red"]
    assert names("q=RE") == ["green", "red"]
    assert names("q=100%25") == ["red"]
    assert names("q=_") == ["red"], "wildcards of SQL mean themselves"


def test_actions_may_be_repeated(service: Any) -> None:
    study = service.create()
    path = f"/v1/studies/{study['id']}"
    for action, state in (("pause", "PAUSED"), ("resume", "RUNNING"), ("stop", "STOPPED")):
        for _ in range(2):
            response = service.client.post(f"{path}:{action}")
            assert (response.status_code, response.json()["state"]) == (200, state)
    other = service.create(name="other")
    for _ in range(2):
        assert service.client.post(f"/v1/studies/{other['id']}:cancel", json={}).json()["state"] == "CANCELLED"
    assert service.client.delete(path).status_code == 204
    assert service.client.get(path).json()["code"] == "STUDY_NOT_FOUND"
    assert service.client.get(f"{path}/events").status_code == 404


def test_a_merge_patch_changes_what_it_names(service: Any) -> None:
    study = service.create(labels={"a": "1", "b": "2"}, description="old", execution={"priority": 5})
    path = f"/v1/studies/{study['id']}"
    patch = {
        "description": None,
        "labels": {"a": None, "c": "3"},
        "budget": {"trials": 20, "seconds": 60.0},
        "execution": {"parallel_trials": 2},
    }
    headers = {"If-Match": '"1"', "Content-Type": "application/merge-patch+json"}
    response = service.client.patch(path, json=patch, headers=headers)
    assert response.status_code == 200, response.text
    changed = response.json()
    assert changed["definition"]["description"] == ""
    assert changed["definition"]["labels"] == {"b": "2", "c": "3"}
    assert changed["definition"]["budget"]["trials"] == 20
    assert changed["definition"]["execution"]["parallel_trials"] == 2
    assert changed["definition"]["execution"]["priority"] == 5
    assert changed["progress"]["total_budget"] == 20
    assert (changed["revision"], response.headers["etag"]) == (2, '"2"')
    assert service.client.patch(path, json=patch, headers=headers).status_code == 412
    assert service.client.patch(path, json={"labels": {"c": "3"}}).json()["revision"] == 2, "nothing changed"
    assert service.client.patch(path, json={"execution": None}).json()["definition"]["execution"]["priority"] == 0
    assert service.client.get("/v1/studies?label=c:3").json()["items"]
    assert not service.client.get("/v1/studies?label=a:1").json()["items"]


def test_why_nothing_runs_is_said_in_words(service: Any) -> None:
    study = service.create(execution={"device": "gpu", "worker_labels": {"zone": "a"}})

    def reason() -> Any:
        return service.client.get(f"/v1/studies/{study['id']}").json()["pending_reason"]

    def join(name: str, device: str, families: list[str], labels: dict[str, str]) -> None:
        with service.database.write() as session:
            workers.register_worker(session, name, "host", 1, Offer(device, families, labels))

    assert "No live worker" in reason()
    join("a", "cpu", ["mlp"], {})
    assert "family 'function'" in reason()
    join("b", "cpu", ["function"], {})
    assert "device 'gpu'" in reason()
    join("c", "gpu:0", ["function"], {})
    assert "labels zone=a" in reason()
    join("d", "gpu:0", ["function"], {"zone": "a"})
    assert reason() is None
    with service.database.write() as session:
        session.execute(update(Worker).values(heartbeat_at=time.time() - 60))
    assert reason() == "No live worker: start one with `fettle worker`."
    service.client.post(f"/v1/studies/{study['id']}:pause")
    assert reason() is None
