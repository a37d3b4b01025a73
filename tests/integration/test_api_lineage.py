"""Trials of a population over HTTP: who went on from whom."""

from __future__ import annotations

from typing import Any

from app.client import FettleClient
from app.domain.population import FIRST_EPOCH_KEY, PARENT_KEY
from app.domain.trial import Outcome, Proposal, TrialState
from app.store import leases, recording
from app.store.studies import find_study

POPULATION = {
    "sampler": {"name": "pbt", "options": {"population_size": 2, "interval_epochs": 2}},
    "training": {"epochs": 5},
    "budget": {"trials": 100},
}


class Hands:
    """A worker's writes, by hand: a generation at a time."""

    def __init__(self, service: Any, public_id: str) -> None:
        self.database = service.database
        with self.database.read() as session:
            self.study_id = find_study(session, "default", public_id).id

    def reserve(self, count: int = 10) -> list[Any]:
        with self.database.write() as session:
            return leases.reserve(session, self.study_id, "w1", count, 60)

    def run(self, reserved: list[Any], parents: list[int | None], first_epoch: int) -> None:
        attributes = [{} if p is None else {PARENT_KEY: p, FIRST_EPOCH_KEY: first_epoch} for p in parents]
        proposals = [
            Proposal(r, {"x0": float(r.number)}, {"x0": float(r.number)}, a, p, first_epoch)
            for r, p, a in zip(reserved, parents, attributes, strict=True)
        ]
        with self.database.write() as session:
            leases.start(session, self.study_id, proposals, "w1", "cpu", 60)
            ended = [Outcome(r.trial_id, r.token, TrialState.COMPLETE, (float(r.number),), epochs=2) for r in reserved]
            recording.finish(session, self.study_id, ended, [], 60)


def test_defaults_of_a_population_are_filled_in_and_its_trials_are_bounded(service: Any) -> None:
    body = {"sampler": {"name": "pbt"}, "training": {"epochs": 12}}
    study = service.create(**body)
    definition = study["definition"]
    assert definition["sampler"]["options"] == {
        "seed": 0, "population_size": 8, "interval_epochs": 5, "quantile": 0.25, "perturbation": [0.8, 1.2],
        "resample_probability": 0.25,
    }  # fmt: skip
    assert definition["training"]["select_epoch"] == "last"
    assert definition["execution"]["checkpoints"] == "auto"
    listed = {s["name"]: s for s in service.client.get("/v1/samplers").json()["items"]}
    assert listed["pbt"]["multi_objective"] is False


def test_a_generation_waits_for_the_one_before_and_a_line_can_be_followed(service: Any) -> None:
    study = service.create(**POPULATION)
    hands = Hands(service, study["id"])
    first = hands.reserve()
    assert [r.number for r in first] == [0, 1]
    hands.run(first[:1], [None], 0)
    assert hands.reserve() == []  # the other one still trains
    hands.run(first[1:], [None], 0)
    second = hands.reserve()
    assert [r.number for r in second] == [2, 3]
    hands.run(second, [0, 0], 2)
    hands.run(hands.reserve(), [3, 3], 4)
    assert hands.reserve() == []
    path = f"/v1/studies/{study['id']}"
    over = service.client.get(path).json()
    assert (over["state"], over["state_reason"]) == ("COMPLETED", "All 3 generations of 2 trials are done.")
    trials = service.client.get(f"{path}/trials").json()["items"]
    assert [(t["parent"], t["first_epoch"]) for t in trials] == [(None, 0), (None, 0), (0, 2), (0, 2), (3, 4), (3, 4)]
    line = service.client.get(f"{path}/trials/5/lineage").json()
    assert line == {"items": [trials[0], trials[3], trials[5]], "next_cursor": None}
    with FettleClient(service.url) as client:
        assert [t.number for t in client.lineage(study["id"], 4)] == [0, 3, 4]
        assert [t.parent for t in client.lineage(study["id"], 1)] == [None]
    events = service.client.get(f"{path}/events", headers={"Accept": "application/json"}).json()["items"]
    told = [(e["trial"], e.get("parent"), e.get("first_epoch")) for e in events if e["type"] == "trial.started"]
    assert told == [(0, None, None), (1, None, None), (2, 0, 2), (3, 0, 2), (4, 3, 4), (5, 3, 4)]


def test_trials_of_a_population_cannot_be_enqueued(service: Any) -> None:
    study = service.create(**POPULATION)
    response = service.client.post(f"/v1/studies/{study['id']}/trials", json={"hyperparameters": {"x0": 1.0}})
    assert (response.status_code, response.json()["code"]) == (409, "STATE_CONFLICT")
    assert "population" in response.json()["detail"]
