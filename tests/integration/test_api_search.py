"""Search through HTTP: what a definition may say, warm starts by id and name, and trials that reuse others' results."""

from __future__ import annotations

from typing import Any

import pytest

from app.client import FettleClient
from app.domain.study import StudyDefinition
from app.domain.trial import Outcome, TrialState
from app.store import leases, recording
from app.store.studies import find_study
from app.tuning.view import StudyView

TTL_S = 60.0


def run(service: Any, study: dict[str, Any]) -> None:
    """Be the study's only worker, to its end."""
    definition = StudyDefinition.model_validate(study["definition"])
    with service.database.read() as session:
        study_id = find_study(session, "default", study["id"]).id
    view = StudyView(service.database, study_id, definition)
    while True:
        view.sync()
        with service.database.write() as session:
            reservations = leases.reserve(session, study_id, "hand", 1, TTL_S)
        if not reservations:
            return
        proposals = view.ask(reservations)
        with service.database.write() as session:
            started = leases.start(session, study_id, proposals, "hand", "cpu", TTL_S)
        for proposal in proposals:
            reservation = proposal.reservation
            if reservation.trial_id in started:
                value = float(sum(v for v in proposal.sampled.values() if isinstance(v, int | float)))
                outcome = Outcome(
                    reservation.trial_id, reservation.token, TrialState.COMPLETE, (value,), {"value": value}, 0, 1
                )
                with service.database.write() as session:
                    recording.finish(session, study_id, [outcome], [], TTL_S)
            view.forget(reservation.trial_id)


AXIS: dict[str, Any] = {"type": "float", "low": 0.0, "high": 1.0}


def test_a_study_learns_from_others_by_id_or_name(service: Any) -> None:
    earlier = service.create(name="earlier", hyperparameters={"x0": AXIS})
    run(service, earlier)
    narrow = {"x0": AXIS | {"high": 0.5}}
    fitting = sum(
        trial["sampled"]["x0"] <= 0.5
        for trial in service.client.get(f"/v1/studies/{earlier['id']}/trials").json()["items"]
    )
    assert 0 < fitting < 10
    for reference in (earlier["id"], "earlier"):
        body = {**earlier["definition"], "name": f"later-{reference}", "hyperparameters": narrow}
        body |= {"warm_start": {"studies": [reference]}}
        answer = service.client.post("/v1/studies:validate", json=body).json()
        assert f"{fitting} of 10 complete trials of 'earlier' fit" in answer["warnings"][-1]
        created = service.client.post("/v1/studies", json=body)
        assert created.status_code == 201, created.text
        assert created.json()["definition"]["warm_start"] == {"studies": [earlier["id"]]}
        assert created.json()["progress"]["complete"] == 0
    assert service.client.delete(f"/v1/studies/{earlier['id']}").status_code == 204
    run(service, created.json())
    over = service.client.get(f"/v1/studies/{created.json()['id']}").json()
    assert over["progress"]["complete"] == 10


def test_a_study_that_fits_none_of_its_trials_is_said_so(service: Any) -> None:
    earlier = service.create(name="earlier")
    run(service, earlier)
    body = {**earlier["definition"], "name": "later", "training": {"epochs": 3}, "warm_start": {"studies": ["earlier"]}}
    body["hyperparameters"] = {"x0": {"type": "float", "low": 50.0, "high": 60.0}}
    [*_, warning] = service.client.post("/v1/studies:validate", json=body).json()["warnings"]
    assert warning.startswith("warm_start: 0 of 10 complete trials of 'earlier' fit")
    assert "it trains 10 epochs" in warning


@pytest.mark.parametrize(
    ("studies", "loc", "words"),
    [
        (["nobody"], ["warm_start", "studies", 0], "Expected the id or the name of a study"),
        (["same", "same"], ["warm_start", "studies", 1], "Expected studies that differ"),
        (["same", "maximized"], ["warm_start", "studies", 1], "the same objectives, value (minimize)"),
    ],
)
def test_earlier_studies_that_do_not_fit_are_refused(
    service: Any, studies: list[str], loc: list[Any], words: str
) -> None:
    service.create(name="same")
    body = service.create(name="maximized", objectives=[{"metric": "value", "direction": "maximize"}])["definition"]
    body |= {"name": "new", "objectives": [{"metric": "value"}], "warm_start": {"studies": studies}}
    for path in ("/v1/studies", "/v1/studies:validate"):
        answer = service.client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_STUDY")
        [error] = answer.json()["errors"]
        assert error["loc"] == loc
        assert words in error["msg"]


def test_a_reused_result_says_where_it_is_from(service: Any) -> None:
    space = {"x0": {"type": "categorical", "choices": [1, 2, 4], "ordered": True}}
    study = service.create(
        hyperparameters=space, sampler={"name": "random"}, execution={"duplicates": "reuse"}, budget={"trials": 12}
    )
    run(service, study)
    with FettleClient(service.url) as client:
        assert client.study(study["id"]).state == "COMPLETED"
        trials = list(client.trials(study["id"]))
        reused = [trial for trial in trials if trial.reused_from is not None]
        assert len(reused) == 12 - len({trial.sampled["x0"] for trial in trials})
        for trial in reused:
            source = trials[trial.reused_from or 0]
            assert (trial.values, trial.metrics, trial.sampled) == (source.values, source.metrics, source.sampled)
            assert (trial.state, trial.epochs, trial.duration_seconds) == ("COMPLETE", 0, 0.0)
        told = [e for e in client.events(study["id"], follow=False) if e.type == "trial.finished"]
        assert {e.trial: e.reused_from for e in told} == {t.number: t.reused_from for t in trials}  # type: ignore[attr-defined]


def test_an_exhausted_space_ends_the_study(service: Any) -> None:
    space = {"x0": {"type": "categorical", "choices": [1, 2, 4], "ordered": True}}
    study = service.create(hyperparameters=space, execution={"duplicates": "resample"}, budget={"trials": 12})
    run(service, study)
    over = service.client.get(f"/v1/studies/{study['id']}").json()
    assert (over["state"], over["progress"]["complete"]) == ("COMPLETED", 3)
    assert over["state_reason"] == "The search space is exhausted: all 3 combinations were tried."


def test_samplers_and_pruners_say_that_they_take_several_objectives(service: Any) -> None:
    for kind, some in (
        ("samplers", {"tpe", "gp", "nsgaii", "nsgaiii"}),
        ("pruners", {"pareto", "median", "hyperband"}),
    ):
        items = {item["name"]: item for item in service.client.get(f"/v1/{kind}").json()["items"]}
        assert some <= items.keys()
        assert all(items[name]["multi_objective"] for name in some)
