"""What a definition may cost: bounded steps, before the transaction, and none once its client has left."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from app.api import validation
from app.api.schemas import StudyChanges
from app.api.validation import accepted, changed, sample_limit
from app.domain.checks.layers import CORNERS, extremes
from app.domain.effort import MOST_STEPS, Abandoned, Meter
from app.domain.layers import read
from app.domain.registry import BUILT_IN
from app.domain.space import Categorical, Int
from app.domain.study import StudyDefinition
from app.errors import FieldError, InvalidStudy, TooExpensive
from app.settings import Settings
from app.store.engine import Database
from tests.hostile import definitions
from tests.hostile.definitions import MOST_BYTES, WORST, choices, definition, dense, layered, size_of
from tests.integration.conftest import RunningService, serving
from tests.support.processes import wait_for

MOST_CALLS = 3 * MOST_STEPS
"""Python functions that are called to check a definition: reading it takes some as well."""
SETTINGS = Settings()


class Calls:
    """Counts the functions that are called on this thread within the block."""

    count = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _seen(self, _frame: FrameType, what: str, _value: Any) -> None:
        self.count += what == "call"


def check(made: dict[str, Any], meter: Meter) -> StudyDefinition:
    """All that happens to a new definition before it is stored."""
    filled = accepted(StudyDefinition.model_validate(made), SETTINGS, meter=meter, families=BUILT_IN).definition
    sample_limit(filled, meter)
    return filled


# -- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORST)
def test_the_worst_definitions_are_told_about_within_bounds(name: str) -> None:
    made, meter = WORST[name](), Meter()
    assert size_of(made) <= MOST_BYTES
    told: list[FieldError] = []
    with Calls() as calls:
        try:
            check(made, meter)
        except (InvalidStudy, TooExpensive) as refusal:
            told += refusal.errors
    assert sum(len(error.msg) for error in told) < 10_000_000
    assert meter.spent <= MOST_STEPS + 100_000
    assert calls.count <= MOST_CALLS


@pytest.mark.parametrize("name", WORST)
def test_a_change_of_words_does_not_look_at_the_space_again(name: str) -> None:
    given = StudyDefinition.model_validate(WORST[name]())
    meter = Meter()
    with Calls() as calls:
        changed(given, StudyChanges(description="other words"), SETTINGS, meter=meter, families=BUILT_IN)
    assert meter.spent == 0
    assert calls.count <= MOST_CALLS


def test_what_is_too_expensive_is_refused_in_words_at_its_place() -> None:
    with pytest.raises(TooExpensive, match="too expensive to check") as refusal:
        check(WORST["combinations_that_never_come"](), Meter())
    assert refusal.value.errors[0].loc == ("hyperparameters",)
    with pytest.raises(TooExpensive) as refusal:
        check(WORST["many_choices_of_many_axes"](), Meter(100))
    assert refusal.value.errors[0].loc[:2] == ("model", "layers")


def test_the_same_definition_takes_the_same_steps() -> None:
    spent = []
    for _ in range(2):
        meter = Meter()
        check(WORST["layers_with_many_conditions"](), meter)
        spent.append(meter.spent)
    assert spent[0] == spent[1] > 0


def test_abandoned_work_ends_at_its_next_step() -> None:
    meter = Meter()
    meter.abandon()
    with pytest.raises(Abandoned):
        check(WORST["a_long_list_with_two_hundred_axes"](), meter)
    assert meter.spent == 0


def test_no_more_corners_than_those_are_outlined_and_the_largest_is_among_them() -> None:
    """Of 300 choices of each of 50 hyperparameters."""
    names = [f"u{i}" for i in range(50)]
    seen = read([dense(name) for name in names]).nodes
    space: dict[str, Any] = {name: Categorical(choices=[*range(300, 0, -1)]) for name in names}
    meter = Meter()
    found = extremes(seen, space, (8,), 1, meter)
    assert found.parameters == (8 + 1) * 300 + 49 * 301 * 300 + 301
    assert meter.spent <= CORNERS * (50 + 50 + 50)


def test_a_large_list_is_outlined_at_fewer_corners_the_largest_first() -> None:
    names = [f"u{i}" for i in range(200)]
    nodes = read([dense(names[i % 200]) for i in range(256)]).nodes
    meter = Meter()
    found = extremes(nodes, {name: Int(low=1, high=9) for name in names}, (8,), 1, meter)
    assert found.parameters == (8 + 1) * 9 + 255 * 10 * 9 + 10
    assert meter.spent < MOST_STEPS / 2


def test_what_only_one_of_many_choices_allows_is_found() -> None:
    """The second of 40 choices alone makes the layers fit, and another axis has a thousand."""
    layers = [dense("u"), dense("v"), {"layer": "Reshape", "target_shape": [2, 1]}, {"layer": "Flatten"}]
    check(layered(layers, {"u": choices(1_000), "v": choices(40)}), Meter())


# -- the service ------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(sqlite_database: Database, tmp_path: Path) -> Iterator[RunningService]:
    with serving(sqlite_database, tmp_path) as service:
        yield service


def heavy(name: str) -> dict[str, Any]:
    """A definition that takes about a second to check, and is accepted."""
    return definitions.layers_with_many_conditions() | {"name": name}


class Gate:
    """Holds the checks of a service: each stops at a turn of its own until it is let go."""

    def __init__(self, service: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = threading.Event()
        self.begun = 0
        spend = Meter.spend

        def held(meter: Meter, steps: int, loc: Any = ()) -> None:
            if meter.spent == 0:
                self.begun += 1
                while not self._open.wait(0.01):
                    spend(meter, 0)
            spend(meter, steps, loc)

        monkeypatch.setattr(Meter, "spend", held)

    def let_go(self) -> None:
        self._open.set()


def posted(service: RunningService, path: str, body: dict[str, Any], method: str = "POST") -> socket.socket:
    """A connection that has sent a request, and waits."""
    host, port = service.url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    connection = socket.create_connection((host, int(port)))
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def test_forty_five_abandoned_requests_leave_the_service_free(
    running: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(running, monkeypatch)
    waiting = [posted(running, "/v1/studies:validate", heavy(f"left{i}")) for i in range(45)]
    wait_for(lambda: gate.begun >= 2, 60, "checks that have begun")
    assert running.client.get("/v1/studies").status_code == 200, "simple calls find a thread"
    checks = running.app.state.service.checks
    for connection in waiting:
        connection.close()
    # Those that run end at their next step, those that wait never begin: nothing is let go of here.
    wait_for(lambda: not checks._abandoned and not checks._free.locked(), 60, "turns that are free again")
    assert gate.begun < 10
    gate.let_go()
    assert running.client.post("/v1/studies:validate", json=definition()).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_the_database_is_not_held_while_a_definition_is_checked(
    running: RunningService, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    study = running.client.post("/v1/studies", json=heavy("patched")).raise_for_status().json()
    held = threading.Event()
    begun = threading.Event()
    check_definition = validation.check_definition

    def slowly(*arguments: Any, **named: Any) -> Any:
        begun.set()
        assert held.wait(60)
        return check_definition(*arguments, **named)

    monkeypatch.setattr(validation, "check_definition", slowly)
    path, body = (
        ("/v1/studies", heavy("new")) if method == "POST" else (f"/v1/studies/{study['id']}", {"description": "d"})
    )
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(running.client.request, method, path, json=body)
        assert begun.wait(60)
        with running.database.write() as session:  # SQLite's only writer
            session.connection().exec_driver_sql("UPDATE fettle_studies SET priority = priority")
        assert running.client.post(f"/v1/studies/{study['id']}:pause").status_code == 200
        assert not answer.done()
        held.set()
        assert answer.result().status_code == (201 if method == "POST" else 200)


def test_a_change_is_checked_again_where_another_came_first(
    running: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = running.client.post("/v1/studies", json=definition()).raise_for_status().json()
    path = f"/v1/studies/{study['id']}"
    with ThreadPoolExecutor(12) as pool:
        labels = [f"l{i}" for i in range(12)]
        sent = [pool.submit(running.client.patch, path, json={"labels": {label: "x"}}) for label in labels]
        assert [answer.result().status_code for answer in sent] == [200] * 12
    found = running.client.get(path).json()
    assert found["definition"]["labels"] == dict.fromkeys(labels, "x")
    assert found["revision"] == study["revision"] + 12


def test_a_change_meant_for_another_revision_is_refused(running: RunningService) -> None:
    study = running.client.post("/v1/studies", json=definition()).raise_for_status().json()
    path, first = f"/v1/studies/{study['id']}", f'"{study["revision"]}"'
    assert running.client.patch(path, json={"description": "a"}, headers={"If-Match": first}).status_code == 200
    refused = running.client.patch(path, json={"description": "b"}, headers={"If-Match": first})
    assert (refused.status_code, refused.json()["code"]) == (412, "REVISION_MISMATCH")


def test_names_that_a_study_does_not_search_are_told_in_a_few_words(running: RunningService) -> None:
    """10,000 of them, in a study with 200 long names: each would be told beside all that are known."""
    space = {f"{'n' * 120}{i}": choices(2) for i in range(200)}
    study = running.client.post("/v1/studies", json=definition(hyperparameters=space)).raise_for_status().json()
    unknown = {f"{'u' * 60}{i}": 1 for i in range(9_000)}
    refused = running.client.post(f"/v1/studies/{study['id']}/trials", json={"hyperparameters": unknown})
    assert refused.status_code == 422
    assert len(refused.content) < 1_000_000


# -- earlier studies --------------------------------------------------------------------------------------------------


def test_of_large_trials_a_warm_start_reads_as_many_as_fit(running: RunningService, monkeypatch: Any) -> None:
    searched = {f"searched{i}": {"type": "categorical", "choices": ["f" * 250, "g" * 250]} for i in range(200)}
    space = definition(hyperparameters=searched, budget={"trials": 40}, name="source")
    study = running.client.post("/v1/studies", json=space).raise_for_status().json()
    path = f"/v1/studies/{study['id']}/trials"
    for trial in running.client.post(f"{path}:ask", json={"count": 40}).raise_for_status().json()["items"]:
        told = {"lease_token": trial["lease"]["token"], "state": "COMPLETE", "values": {"loss": float(trial["number"])}}
        running.client.post(f"{path}/{trial['number']}:tell", json=told).raise_for_status()
    one = len(json.dumps(dict.fromkeys(searched, "f" * 250)))
    monkeypatch.setattr("app.api.warm_start.MOST_BYTES", 10 * one)
    new = space | {"name": "warm", "warm_start": {"studies": ["source"]}}
    (warning,) = running.client.post("/v1/studies:validate", json=new).raise_for_status().json()["warnings"]
    learned = re.match(r"warm_start: (\d+) of (\d+) complete trials", warning)
    assert learned is not None
    assert 5 <= int(learned[1]) == int(learned[2]) <= 10
    running.client.post("/v1/studies", json=new).raise_for_status()


# -- samplers ---------------------------------------------------------------------------------------------------------


RANGE = {"type": "float", "low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    ("space", "candidates", "trials", "words"),
    [
        ({f"x{i}": RANGE for i in range(200)}, 10_000, 10, "at most 5,000 candidates"),
        ({f"x{i}": choices(1_000) for i in range(100)}, 24, 10, "at most 10 candidates"),
        ({f"x{i}": RANGE for i in range(20)}, 10_000, 100_000, "100,000 trials"),
        ({f"x{i}": RANGE for i in range(20)}, 10_000, None, "100,000 trials"),
    ],
)
def test_candidates_times_what_they_are_drawn_from_and_compared_with_are_bounded(
    space: dict[str, Any], candidates: int, trials: int | None, words: str
) -> None:
    sampler = {"name": "tpe", "options": {"n_ei_candidates": candidates}}
    budget = {"trials": trials} if trials else {"seconds": 9.0}
    with pytest.raises(InvalidStudy, match=words) as refusal:
        check(definition(hyperparameters=space, sampler=sampler, budget=budget), Meter())
    assert [error.loc for error in refusal.value.errors] == [("sampler", "options", "n_ei_candidates")]


def test_the_default_candidates_suit_the_largest_study() -> None:
    check(definition(hyperparameters={f"x{i}": RANGE for i in range(200)}, budget={"trials": 100_000}), Meter())


def test_a_budget_that_makes_proposals_too_expensive_is_refused_later_too() -> None:
    sampler = {"name": "tpe", "options": {"n_ei_candidates": 10_000}}
    made = definition(hyperparameters={f"x{i}": RANGE for i in range(20)}, sampler=sampler, budget={"trials": 100})
    given = check(made, Meter())
    with pytest.raises(InvalidStudy) as refusal:
        changed(given, StudyChanges(budget={"trials": 100_000}), SETTINGS, families=BUILT_IN)
    assert refusal.value.errors[0].loc == ("budget", "trials")


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["LSTM", "GRU", "Bidirectional"])
def test_a_recurrent_layer_over_too_many_steps_is_refused(layer: str) -> None:
    """Its output is a few numbers, and training keeps every step of it."""
    recurrent: dict[str, Any] = {"layer": layer, "units": 8_192}
    if layer == "Bidirectional":
        recurrent = {"layer": layer, "of": {"layer": "GRU", "units": 4_096}}
    made = layered(
        [{"layer": "RepeatVector", "n": 4_096}, {"layer": "Dense", "units": 4}, recurrent], {"learning_rate": 0.1}
    )
    with pytest.raises(InvalidStudy, match="numbers for a sample") as refusal:
        accepted(
            StudyDefinition.model_validate(made),
            SETTINGS.model_copy(update={"max_model_parameters": 10**10}),
            families=BUILT_IN,
        )
    assert refusal.value.errors[0].loc == ("model", "layers")
