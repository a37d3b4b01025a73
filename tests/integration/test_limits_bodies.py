"""What a body may hold: whatever it is, it is answered in a second of computing, briefly, and changes nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.domain.checks.limits import MAX_CONDITIONS, MAX_NAME, MAX_TEXT, MAX_WORKER_LABELS
from app.store.engine import Database
from tests.integration.conftest import RunningService, function_study, serving

MOST_CPU_S = 1.5
"""Of this whole process, the client's share and the machine's moods included."""
FLOAT = {"type": "float", "low": 0.0, "high": 1.0}
CHOICES = list(range(1_000))


def definition(**changes: Any) -> bytes:
    return json.dumps(function_study(**changes)).encode()


def external(**changes: Any) -> dict[str, Any]:
    return function_study(model={"family": "external"}, objectives=[{"metric": "loss"}], **changes)


def join(items: list[bytes]) -> bytes:
    return b",".join(items)


BODIES: dict[str, bytes] = {
    "a key twice at the end of many": b"{" + join([b'"k%d":1' % i for i in range(90_000)]) + b',"k89999":1}',
    "a key twice at the end of as many as there may be": b"{%s}" % join([b'"%d":1' % i for i in range(9_998)] * 2),
    "every key twice": b"{" + join([b'"k%d":1,"k%d":1' % (i, i) for i in range(40_000)]) + b"}",
    "deep lists": b"[" * 490_000 + b"]" * 490_000,
    "deep objects": b'{"a":' * 160_000 + b"1" + b"}" * 160_000,
    "many empty lists": b"[" + join([b"[]"] * 330_000) + b"]",
    "many lists nearly too deep": b"[" + join([b"[" * 30 + b"]" * 30] * 16_000) + b"]",
    "a number of a million digits": b"[" + b"9" * 980_000 + b"]",
    "numbers of 4,000 digits": b"[" + join([b"9" * 4_000] * 245) + b"]",
    "numbers too large for a float": b"[" + join([b"1e400"] * 160_000) + b"]",
    "as many of them as there may be": b"[" + join([b"[%s]" % join([b"1e400"] * 9_000)] * 11) + b"]",
    "floats of 700 digits": b"[" + join([b"1." + b"3" * 700] * 1_400) + b"]",
    "keys that hash alike as numbers": json.dumps({str(i * (2**61 - 1)): 1 for i in range(30_000)}).encode(),
    "lone surrogates": b'["' + b"\\ud800" * 160_000 + b'"]',
    "many NULs": b"[" + join([b"[%s]" % join([b'"\\u0000"'] * 9_000)] * 9) + b"]",
    "unknown fields": definition(**{f"u{i}": 1 for i in range(9_900)}),
    "many hyperparameters": definition(hyperparameters={f"x{i}": 1 for i in range(9_900)}),
    "many conditions": definition(
        hyperparameters={"c": {"type": "categorical", "choices": CHOICES}}
        | {f"x{i}": FLOAT | {"when": {"c": CHOICES}} for i in range(90)}
    ),
    "many parents": definition(
        hyperparameters={f"c{i}": {"type": "categorical", "choices": [1, 2]} for i in range(100)}
        | {f"x{i}": FLOAT | {"when": {f"c{j}": [1] for j in range(100)}} for i in range(100)}
    ),
    "a long chain of conditions": definition(
        name="chain",
        hyperparameters={"x0": FLOAT}
        | {f"x{i}": FLOAT | {"when": {f"x{j}": [0.5] for j in range(max(0, i - 32), i)}} for i in range(1, 190)},
    ),
    "choices that hash alike": definition(
        hyperparameters={
            f"x{j}": {"type": "categorical", "choices": [(i + 1) * (2**61 - 1) % 2**63 for i in range(1_000)]}
            for j in range(40)
        }
    ),
    "bad choices": definition(
        hyperparameters={f"x{j}": {"type": "categorical", "choices": [[]] * 1_000} for j in range(90)}
    ),
    "bad labels": definition(labels={f"l{i}": 1 for i in range(9_900)}),
    "a long label": definition(labels={"a" * 900_000 + "!": "v"}),
    "a long name": definition(name="x" * 900_000),
    "a long family": definition(model={"family": "x" * 900_000}),
    "many objectives": definition(objectives=[{"metric": "value"}] * 9_900),
    "bad constraints": definition(constraints=[{"metric": 1}] * 9_900),
    "unknown options": definition(sampler={"name": "tpe", "options": {f"o{i}": [1] for i in range(9_900)}}),
    "an endless grid": definition(
        sampler={"name": "grid"},
        hyperparameters={f"x{i}": {"type": "int", "low": -(2**53), "high": 2**53} for i in range(190)},
    ),
    "combinations that are hard to count": json.dumps(
        external(
            name="combinations",
            execution={"duplicates": "resample"},
            hyperparameters={f"f{i}": i for i in range(700)}
            | {f"c{i}": {"type": "categorical", "choices": list(range(90))} for i in range(2)}
            | {f"x{i}": {"type": "categorical", "choices": [0, 1], "when": {"c0": [0]}} for i in range(190)},
        )
    ).encode(),
    "layers of a million units": json.dumps(
        function_study(
            model={"family": "keras-layers", "layers": [{"type": "Dense", "units": 1_000_000}] * 250},
            dataset={"name": "digits"},
            hyperparameters={},
            objectives=[{"metric": "val_loss"}],
        )
    ).encode(),
    "layers within layers": json.dumps(
        function_study(
            model={"family": "keras-layers", "layers": [{"type": "Dense", "units": [[[0] * 100] * 9] * 1}] * 100},
            dataset={"name": "digits"},
            hyperparameters={},
            objectives=[{"metric": "val_loss"}],
        )
    ).encode(),
}


@pytest.fixture(scope="module")
def running(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("bodies")
    (folder / "fettle.db").write_bytes(migrated_sqlite_file.read_bytes())
    database = Database(f"sqlite:///{folder / 'fettle.db'}")
    with serving(database, folder) as service:
        service.client.timeout = 60
        service.create(name="first")  # what is imported late is imported now
        yield service
    database.dispose()


@pytest.mark.parametrize("what", BODIES)
def test_a_body_that_is_costly_to_check_is_refused_cheaply(running: RunningService, what: str) -> None:
    body = BODIES[what]
    assert len(body) <= 1_000_000
    for path in ("/v1/studies:validate", "/v1/studies"):
        began = time.process_time()
        response = running.client.post(path, content=body, headers={"Content-Type": "application/json"})
        spent = time.process_time() - began
        assert response.status_code in ({400, 422} if what not in MAY_PASS else {200, 201}), response.text[:500]
        assert spent < MOST_CPU_S
        assert len(response.content) < 200_000


MAY_PASS = {"a long chain of conditions", "combinations that are hard to count"}


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("", {"hyperparameters": {f"x{i}": 1 for i in range(9_900)}}),
        ("", {"hyperparameters": {"x0": "a" * 900_000}}),
        ("", {"hyperparameters": {"x0": [1] * 9_900}}),
        (":ask", {"worker": "w" * 900_000}),
        ("/0:report", {"lease_token": "x", "epoch": 0, "metrics": {f"m{i}": 1.0 for i in range(9_900)}}),
        ("/0:tell", {"lease_token": "x", "state": "COMPLETE", "values": {f"m{i}": "NaN" for i in range(9_900)}}),
        ("/0:tell", {"lease_token": "x", "state": "FAIL", "error": {"code": "x", "message": "y" * 900_000}}),
        ("/0:tell", {"lease_token": "x" * 900_000, "state": "FAIL"}),
    ],
)
def test_what_is_told_of_trials_is_bounded_too(running: RunningService, action: str, body: dict[str, Any]) -> None:
    study = (
        next((s for s in running.client.get("/v1/studies?q=outside").json()["items"]), None)
        or running.client.post("/v1/studies", json=external(name="outside")).json()
    )
    began = time.process_time()
    response = running.client.post(f"/v1/studies/{study['id']}/trials{action}", json=body)
    assert response.status_code in (400, 404, 409, 422), response.text[:500]
    assert time.process_time() - began < MOST_CPU_S
    assert len(response.content) < 100_000


# -- definitions ------------------------------------------------------------------------------------------------------


def refused(service: RunningService, body: dict[str, Any]) -> list[list[str]]:
    """The places that a definition is refused at, the same when it is checked and when it is posted."""
    places = []
    for path in ("/v1/studies:validate", "/v1/studies"):
        response = service.client.post(path, json=body)
        assert (response.status_code, response.json()["code"]) == (422, "INVALID_STUDY"), response.text[:500]
        places.append([error["loc"] for error in response.json()["errors"]])
    assert places[0] == places[1]
    found: list[list[str]] = places[0]
    return found


def test_a_definition_has_a_size_with_all_its_defaults(sqlite_database: Database, tmp_path: Path) -> None:
    with serving(sqlite_database, tmp_path, max_definition_bytes=3_000) as service:
        stored = len(json.dumps(service.create()["definition"], separators=(",", ":")))
        room = 3_000 - stored
        assert 0 < room < 3_000
        fits = {"type": "categorical", "choices": ["sphere", "rastrigin"]}
        assert refused(service, function_study(name="large", description="x" * (room + 10))) == [[]]
        assert service.client.post(
            "/v1/studies", json=function_study(name="fits", description="x" * (room - 10))
        ).is_success
        assert service.client.post(
            "/v1/studies:validate", json=function_study(hyperparameters={"x0": 1.0, "function": fits})
        ).is_success


def test_each_part_of_a_definition_has_a_bound_and_names_its_place(running: RunningService) -> None:
    word = {"type": "categorical", "choices": ["a", "b" * (MAX_TEXT + 1)]}
    conditions = {f"p{i}": [1] for i in range(MAX_CONDITIONS + 1)}
    parents = {f"p{i}": 1 for i in range(MAX_CONDITIONS + 1)}
    labels = {f"l{i}": "v" for i in range(MAX_WORKER_LABELS + 1)}
    cases: list[tuple[dict[str, Any], list[str]]] = [
        (external(hyperparameters={"x": "a" * (MAX_TEXT + 1)}), ["hyperparameters", "x"]),
        (external(hyperparameters={"x": word}), ["hyperparameters", "x", "choices"]),
        (external(hyperparameters={"x" * (MAX_NAME + 1): 1}), ["hyperparameters", "x" * (MAX_NAME + 1)]),
        (external(hyperparameters=parents | {"x": FLOAT | {"when": conditions}}), ["hyperparameters", "x", "when"]),
        (
            external(hyperparameters={"p": 1, "x": FLOAT | {"when": {"p": [1] * 1_001}}}),
            ["hyperparameters", "x", "when", "p"],
        ),
        (external(execution={"worker_labels": labels}), ["execution", "worker_labels"]),
        (external(warm_start={"studies": ["x"] * 17}), ["warm_start", "studies"]),
        (external(labels={f"l{i}": "v" for i in range(65)}), ["labels"]),
        (external(labels={"l": "v" * 256}), ["labels", "l"]),
        (external(description="x" * 10_001), ["description"]),
        (
            external(hyperparameters={"x": {"type": "categorical", "choices": [*CHOICES, -1]}}),
            ["hyperparameters", "x", "choices"],
        ),
        (external(budget={"trials": 100_001}), ["budget", "trials"]),
        (external(training={"epochs": 10_001}, budget={"trials": 1}), ["training", "epochs"]),
        (external(execution={"parallel_trials": 1_001}), ["execution", "parallel_trials"]),
    ]
    for body, place in cases:
        assert place in refused(running, body), place


def test_the_values_of_conditions_are_still_those_of_their_parents(running: RunningService) -> None:
    def space(when: dict[str, Any], **parents: Any) -> dict[str, Any]:
        return external(hyperparameters=parents | {"x": FLOAT | {"when": when}})

    listed = {"type": "categorical", "choices": [1, True, "1", 2.5]}
    for value in (1, 1.0, True, "1", 2.5):
        assert running.client.post("/v1/studies:validate", json=space({"p": [value]}, p=listed)).is_success
    for value in (0, False, "2", 2):
        assert refused(running, space({"p": [value]}, p=listed)) == [["hyperparameters", "x", "when", "p"]]
    assert running.client.post("/v1/studies:validate", json=space({"p": [0.5]}, p=FLOAT)).is_success
    assert refused(running, space({"p": [2.0]}, p=FLOAT)) == [["hyperparameters", "x", "when", "p"]]
    assert running.client.post("/v1/studies:validate", json=space({"p": [1]}, p=1)).is_success
    assert refused(running, space({"p": [True]}, p=1)) == [["hyperparameters", "x", "when", "p"]]


def test_so_many_enqueued_trials_may_wait(database: Database, tmp_path: Path) -> None:
    with serving(database, tmp_path, max_waiting_trials=3) as service:
        study = service.create()
        path = f"/v1/studies/{study['id']}/trials"
        for _ in range(3):
            assert service.client.post(path, json={"hyperparameters": {"x0": 1.0}}).status_code == 201
        response = service.client.post(path, json={"hyperparameters": {"x0": 1.0}})
        assert (response.status_code, response.json()["code"]) == (409, "STATE_CONFLICT")
        assert service.client.post(f"{path}/0:cancel").status_code == 200
        assert service.client.post(path, json={"hyperparameters": {"x0": 1.0}}).status_code == 201


def test_others_are_answered_while_a_large_body_is_checked(running: RunningService) -> None:
    body = BODIES["bad choices"]
    done: list[int] = []

    def send() -> None:
        with httpx.Client(base_url=running.url, timeout=60) as client:
            for _ in range(2):
                headers = {"Content-Type": "application/json"}
                done.append(client.post("/v1/studies", content=body, headers=headers).status_code)

    thread = threading.Thread(target=send)
    thread.start()
    answers = 0
    while thread.is_alive():
        assert running.client.get("/healthz").status_code == 200
        answers += 1
    thread.join()
    assert done == [422] * 2
    assert answers > 5


def test_a_query_has_so_many_parameters(running: RunningService) -> None:
    assert running.client.get("/v1/studies?" + "&".join(["state=RUNNING"] * 200)).status_code == 200
    response = running.client.get("/v1/studies?" + "&".join(["state=RUNNING"] * 201))
    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["query"])
