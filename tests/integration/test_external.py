"""Outside programs take trials over HTTP, report on them and tell how they went, under leases."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.store.reaper import Reaper

AXIS = {"type": "float", "low": -1.0, "high": 1.0}


def external(**changes: Any) -> dict[str, Any]:
    """A study that outside programs train; `depth` is fixed, `units` searched where `kind` is deep."""
    definition = {
        "name": "outside",
        "model": {"family": "external"},
        "hyperparameters": {
            "x": AXIS,
            "kind": {"type": "categorical", "choices": ["deep", "wide"]},
            "units": {"type": "int", "low": 1, "high": 9, "when": {"kind": ["deep"]}},
            "depth": 3,
        },
        "objectives": [{"metric": "loss"}],
        "budget": {"trials": 6},
    }
    return definition | changes


class Outside:
    """A program that trains trials of one study."""

    def __init__(self, client: httpx.Client, study: dict[str, Any]) -> None:
        self.client = client
        self.path = f"/v1/studies/{study['id']}"

    def post(self, path: str, status: int = 200, headers: dict[str, str] | None = None, **body: Any) -> Any:
        response = self.client.post(f"{self.path}{path}", json=body, headers=headers or {})
        assert response.status_code == status, response.text
        return response.json()

    def ask(self, **body: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.post("/trials:ask", **body)["items"]
        return items

    def report(self, trial: dict[str, Any], epoch: int, status: int = 200, **metrics: Any) -> Any:
        body = {"lease_token": trial["lease"]["token"], "epoch": epoch, "metrics": metrics}
        return self.post(f"/trials/{trial['number']}:report", status, **body)

    def heartbeat(self, trial: dict[str, Any], status: int = 200) -> Any:
        return self.post(f"/trials/{trial['number']}:heartbeat", status, lease_token=trial["lease"]["token"])

    def tell(self, trial: dict[str, Any], status: int = 200, **body: Any) -> Any:
        token = {"lease_token": trial["lease"]["token"]}
        return self.post(f"/trials/{trial['number']}:tell", status, **{"state": "COMPLETE"} | token | body)

    def get(self, path: str = "") -> Any:
        return self.client.get(f"{self.path}{path}").raise_for_status().json()


@pytest.fixture
def outside(service: Any) -> Any:
    """`outside(**changes)`: a program on a new study."""

    def make(**changes: Any) -> Outside:
        response = service.client.post("/v1/studies", json=external(**changes))
        assert response.status_code == 201, response.text
        return Outside(service.client, response.json())

    return make


def test_a_study_is_trained_from_outside_to_its_end(outside: Any) -> None:
    program = outside()
    assert "ask" in program.get()["pending_reason"]
    seen = set()
    while items := program.ask(count=2, worker="me"):
        for trial in items:
            values = trial["hyperparameters"]
            assert values["depth"] == 3
            assert ("units" in values) == (values["kind"] == "deep")
            assert program.report(trial, 0, loss=2.0) == {"should_prune": False, "should_stop": False}
            told = program.tell(trial, values={"loss": values["x"] ** 2})
            assert (told["state"], told["values"], told["worker_id"]) == ("COMPLETE", {"loss": values["x"] ** 2}, "me")
            seen.add(trial["number"])
    assert seen == set(range(6))
    study = program.get()
    assert study["state"] == "COMPLETED"
    assert study["progress"]["complete"] == 6
    best = min(program.get("/trials")["items"], key=lambda t: t["values"]["loss"])
    assert study["best"] == {"number": best["number"], "values": best["values"]}
    last = program.post("/trials:ask")
    assert last == {"items": [], "study_state": "COMPLETED", "retry_after_seconds": None}
    response = program.client.get(
        f"{program.path}/events", params={"limit": 100}, headers={"Accept": "application/json"}
    )
    kinds = [event["type"] for event in response.json()["items"]]
    assert [kinds.count(f"trial.{kind}") for kind in ("started", "metrics", "finished")] == [6, 6, 6]
    assert kinds[-1] == "study.finished"


def test_values_that_are_not_told_are_those_of_the_selected_epoch(outside: Any) -> None:
    program = outside(constraints=[{"metric": "size", "max": 10}])
    (trial,) = program.ask()
    for epoch, (loss, size) in enumerate([(3.0, 8), (1.0, 12), (2.0, 8)]):
        program.report(trial, epoch, loss=loss, size=size)
    told = program.tell(trial)
    assert (told["values"], told["selected_epoch"], told["epochs"]) == ({"loss": 1.0}, 1, 3)
    assert told["feasible"] is False
    (trial,) = program.ask()
    assert program.tell(trial, values={"loss": 5.0, "size": 3})["feasible"] is True
    (trial,) = program.ask()
    problem = program.tell(trial, 422, values={"size": 3})
    assert problem["errors"][0]["loc"] == ["values", "loss"]


def test_nobody_else_writes_on_a_held_trial(outside: Any) -> None:
    program = outside()
    (trial,) = program.ask()
    other = trial | {"lease": {"token": "0" * 32}}
    for refused in (
        program.report(other, 0, 409, loss=1.0),
        program.heartbeat(other, 409),
        program.tell(other, 409, values={"loss": 0.0}),
    ):
        assert refused["code"] == "LEASE_LOST"
    assert program.get(f"/trials/{trial['number']}")["state"] == "RUNNING"
    assert program.get(f"/trials/{trial['number']}/metrics")["items"] == []


def test_an_expired_lease_goes_to_the_next_who_asks(outside: Any, service: Any) -> None:
    program = outside(budget={"trials": 1}, execution={"max_attempts": 2})
    (first,) = program.ask(lease_seconds=1)
    program.report(first, 0, loss=3.0)
    reaper = Reaper(service.database)
    _until(lambda: reaper.look() > 0)
    (second,) = program.ask(lease_seconds=60)
    assert (second["number"], second["attempt"]) == (first["number"], 2)
    assert second["hyperparameters"] == first["hyperparameters"]
    assert program.tell(first, 409, values={"loss": 0.0})["code"] == "LEASE_LOST"
    told = program.tell(second, values={"loss": 1.0})
    assert (told["values"], told["attempt"]) == ({"loss": 1.0}, 2)
    assert program.get(f"/trials/{second['number']}/metrics?attempt=1")["items"][0]["metrics"] == {"loss": 3.0}


def test_a_heartbeat_renews_a_lease_for_as_long_as_was_asked(outside: Any) -> None:
    program = outside()
    (trial,) = program.ask(lease_seconds=500)
    renewed = program.heartbeat(trial)
    assert renewed["should_stop"] is False
    assert trial["lease"]["expires_at"] < renewed["expires_at"]
    assert _seconds(renewed["expires_at"]) - _seconds(trial["lease"]["expires_at"]) < 60


def test_what_is_told_twice_is_recorded_once(outside: Any) -> None:
    program = outside()
    (trial,) = program.ask()
    again = [program.report(trial, 0, loss=3.0) for _ in range(2)]
    assert again[0] == again[1]
    assert program.report(trial, 0, 409, loss=4.0)["code"] == "STATE_CONFLICT"
    program.report(trial, 5, loss=2.0)
    assert program.report(trial, 3, 409, loss=4.0)["code"] == "STATE_CONFLICT"
    assert [m["epoch"] for m in program.get(f"/trials/{trial['number']}/metrics")["items"]] == [0, 5]
    told = [program.tell(trial, values={"loss": 1.5}) for _ in range(2)]
    assert told[0] == told[1]
    assert program.tell(trial, 409, values={"loss": 9.0})["code"] == "STATE_CONFLICT"
    assert program.tell(trial, 409, state="FAIL")["code"] == "LEASE_LOST"
    assert program.get()["progress"]["complete"] == 1


def test_the_same_key_gives_the_same_trials(outside: Any) -> None:
    program = outside()
    key = {"Idempotency-Key": "one"}
    first = program.post("/trials:ask", count=2, headers=key)
    assert program.post("/trials:ask", count=2, headers=key) == first
    assert program.post("/trials:ask", 422, count=1, headers=key)["code"] == "IDEMPOTENCY_MISMATCH"
    assert program.get()["progress"]["running"] == 2
    assert [t["number"] for t in program.ask(count=10)] == [2, 3, 4, 5]
    assert program.post("/trials:ask")["retry_after_seconds"] > 0


def test_failures_are_told_with_their_reasons(outside: Any) -> None:
    program = outside()
    one, two, three, four = program.ask(count=4)
    told = program.tell(one, state="FAIL", error={"code": "OUT_OF_MEMORY", "message": "2 GiB short"})
    assert (told["state"], told["reason"]) == ("FAIL", "OUT_OF_MEMORY")
    assert told["error"] == {"code": "OUT_OF_MEMORY", "message": "2 GiB short"}
    told = program.tell(two, state="FAIL", error={"code": "ValueError", "message": "bad"})
    assert (told["reason"], told["error"]["code"]) == ("EXCEPTION", "ValueError")
    told = program.tell(three, values={"loss": "NaN"})
    assert (told["state"], told["reason"]) == ("FAIL", "NON_FINITE")
    program.report(four, 0, loss="Infinity")
    assert program.tell(four, state="PRUNED")["state"] == "PRUNED"
    assert program.get()["progress"]["fail"] == 3


def test_the_pruner_judges_reports(outside: Any, service: Any) -> None:
    program = outside(
        budget={"trials": 20},
        pruner={"name": "median", "options": {"n_startup_trials": 2}},
        sampler={"name": "random", "options": {}},
    )
    for loss in (1.0, 2.0, 3.0):
        (trial,) = program.ask()
        for epoch in range(3):
            program.report(trial, epoch, loss=loss)
        program.tell(trial)
    bad, worse, good = program.ask(count=3)
    assert program.report(good, 0, loss=0.5)["should_prune"] is False
    assert program.report(bad, 0, loss=9.0)["should_prune"] is True
    assert program.report(bad, 0, loss=9.0)["should_prune"] is True
    assert program.tell(bad, state="PRUNED")["values"] == {"loss": 9.0}
    service.app.state.service.external.cache_clear()  # another process, which never saw these trials
    assert program.report(good, 1, loss=9.0)["should_prune"] is False  # its best so far counts
    assert program.report(worse, 0, loss=9.0)["should_prune"] is True


def test_early_stopping_and_met_targets_say_stop(outside: Any) -> None:
    program = outside(
        objectives=[{"metric": "loss", "target": 0.1}],
        training={"early_stopping": {"patience": 2}},
    )
    one, two = program.ask(count=2)
    stops = [program.report(one, epoch, loss=loss)["should_stop"] for epoch, loss in enumerate([2.0, 1.0, 1.5, 1.2])]
    assert stops == [False, False, False, True]
    assert program.tell(one)["values"] == {"loss": 1.0}
    three, four = program.ask(count=2)
    program.tell(three, values={"loss": 0.05})
    assert program.report(two, 0, loss=2.0)["should_stop"] is True
    assert program.heartbeat(four)["should_stop"] is True
    for trial in (two, four):
        program.tell(trial, values={"loss": 2.0})
    study = program.get()
    assert (study["state"], study["best"]["number"]) == ("COMPLETED", three["number"])


def test_a_trial_past_its_time_limit_has_failed(outside: Any) -> None:
    program = outside(execution={"trial_timeout_seconds": 0.3})
    one, two = program.ask(count=2)
    _until(lambda: program.heartbeat(one)["should_stop"])
    trial = program.get(f"/trials/{one['number']}")
    assert (trial["state"], trial["reason"]) == ("FAIL", "TIMEOUT")
    assert program.report(one, 0, 409, loss=1.0)["code"] == "LEASE_LOST"
    told = program.tell(two, values={"loss": 1.0})
    assert (told["state"], told["reason"]) == ("FAIL", "TIMEOUT")


def test_a_cancelled_trial_is_no_longer_held(outside: Any) -> None:
    program = outside()
    (trial,) = program.ask()
    program.post(f"/trials/{trial['number']}:cancel")
    assert program.heartbeat(trial, 409)["code"] == "LEASE_LOST"
    (other,) = program.ask()
    program.post(":cancel")
    assert program.tell(other, 409, values={"loss": 1.0})["code"] == "LEASE_LOST"


def test_a_paused_study_gives_nothing_and_takes_what_runs(outside: Any) -> None:
    program = outside()
    (trial,) = program.ask()
    program.post(":pause")
    assert program.post("/trials:ask")["study_state"] == "PAUSED"
    assert program.tell(trial, values={"loss": 1.0})["state"] == "COMPLETE"
    program.post(":resume")
    assert len(program.ask()) == 1


def test_enqueued_trials_come_first(outside: Any) -> None:
    program = outside()
    queued = program.post("/trials", 201, hyperparameters={"x": 0.25, "kind": "wide"})
    (trial,) = program.ask()
    assert trial["number"] == queued["number"]
    assert trial["hyperparameters"] == {"x": 0.25, "kind": "wide", "depth": 3}


def test_many_programs_at_once_share_the_budget_exactly(outside: Any, service: Any) -> None:
    program = outside(budget={"trials": 40}, execution={"parallel_trials": 8})

    def work(worker: int) -> int:
        done = 0
        with httpx.Client(base_url=service.url, timeout=20) as client:
            mine = Outside(client, {"id": program.path.rpartition("/")[2]})
            while (answer := mine.post("/trials:ask", worker=f"w{worker}"))["retry_after_seconds"] or answer["items"]:
                for trial in answer["items"]:
                    mine.tell(trial, values={"loss": trial["hyperparameters"]["x"] ** 2})
                    done += 1
        return done

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) == 40
    study = program.get()
    assert (study["state"], study["progress"]["complete"]) == ("COMPLETED", 40)
    assert len({str(t["hyperparameters"]) for t in program.get("/trials")["items"]}) == 40


def test_studies_that_train_here_are_not_given_away(service: Any) -> None:
    program = Outside(service.client, service.create())
    assert program.post("/trials:ask", 409)["code"] == "STATE_CONFLICT"


def _seconds(time_text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(time_text).timestamp()


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_python_example_trains_a_study_to_its_end(service: Any, tmp_path: Path) -> None:
    definition = json.loads((EXAMPLES / "external.json").read_text())
    study = service.client.post("/v1/studies", json=definition).json()
    command = [sys.executable, str(EXAMPLES / "external.py"), study["name"], service.url]
    running = [subprocess.Popen(command, cwd=EXAMPLES.parent, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        assert process.wait(120) == 0, process.stderr.read() if process.stderr else ""
        assert process.stderr is not None
        process.stderr.close()
    over = service.client.get(f"/v1/studies/{study['id']}").json()
    assert over["state"] == "COMPLETED"
    assert over["progress"]["pruned"] > 0
    assert over["progress"]["complete"] + over["progress"]["pruned"] == 40
    assert over["best"]["values"]["val_loss"] < 0.1


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="curl and jq are not installed")
def test_the_curl_example_trains_a_study_to_its_end(service: Any) -> None:
    done = subprocess.run([EXAMPLES / "external.sh", service.url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["number"] for line in lines[:-1]] == [0, 1, 2, 3, 4]
    losses = [line["values"]["loss"] for line in lines[:-1]]
    assert lines[-1] == {
        "state": "COMPLETED",
        "best": {"number": losses.index(min(losses)), "values": {"loss": min(losses)}},
    }


def test_commands_ask_report_and_tell(outside: Any, service: Any) -> None:
    program = outside(budget={"trials": 2})

    def fettle(*words: str) -> Any:
        command = [sys.executable, "-m", "app", *words, "--url", service.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (trial,) = json.loads(fettle("ask", "outside", "--worker", "shell"))["items"]
    held = ("outside", str(trial["number"]), "--token", trial["lease"]["token"])
    assert json.loads(fettle("heartbeat", *held))["should_stop"] is False
    assert json.loads(fettle("report-metrics", *held, "--epoch", "0", "loss=0.5"))["should_prune"] is False
    assert fettle("tell", *held, "loss=0.25") == f"Trial {trial['number']} is COMPLETE.\n"
    (trial,) = json.loads(fettle("ask", "outside"))["items"]
    held = ("outside", str(trial["number"]), "--token", trial["lease"]["token"])
    fettle("tell", *held, "--state", "FAIL", "--code", "OUT_OF_MEMORY", "--error", "too large")
    first, second = program.get("/trials")["items"]
    assert (first["values"], first["worker_id"], second["reason"]) == ({"loss": 0.25}, "shell", "OUT_OF_MEMORY")
