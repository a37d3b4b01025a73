"""Warm starts: what samplers learn from earlier studies, whoever asks, and whatever becomes of those studies."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete

from app.api.warm_start import warm_started
from app.domain.study import StudyDefinition
from app.domain.trial import Proposal
from app.domain.warm_start import Drawable
from app.store import leases
from app.store.engine import Database
from app.store.tables import Study
from app.store.warm_start import earlier_texts, earlier_trials, keep_earlier
from app.tuning.storage import StudyStorage
from tests.conformance.fleet import GP, TTL_S, Fleet, definition

OPTIONS: dict[str, dict[str, Any]] = {"nsgaii": {"population_size": 10}, "nsgaiii": {"population_size": 10}}
SPACE: dict[str, Any] = {
    "fixed": 3,
    "x": {"type": "float", "low": 0.0, "high": 10.0},
    "kind": {"type": "categorical", "choices": ["a", "b"]},
    "y": {"type": "int", "low": 1, "high": 8, "when": {"kind": ["b"]}},
}


def distance(values: Any) -> float:
    return abs(values["x"] - 7.0) + (0.0 if values["kind"] == "b" else 2.0)


def warm(database: Database, study: StudyDefinition, source: Fleet, project: str = "default") -> Fleet:
    """Workers on a study that learns from another one."""
    study = study.model_copy(
        update={"name": "warm", "warm_start": study.warm_start.model_copy(update={"studies": [source.public_id]})}
    )
    with database.read() as session:
        found = warm_started(session, "default", study)
    fleet = Fleet(database, study, judge=distance, project=project)
    with database.write() as session:
        keep_earlier(session, fleet.study_id, earlier_texts(found.trials))
    return fleet


@pytest.fixture
def earlier(database: Database) -> Fleet:
    fleet = Fleet(database, definition("random", space=SPACE, trials=40), judge=distance)
    fleet.run()
    return fleet


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "nsgaiii", GP])
def test_a_sampler_starts_where_the_earlier_study_ended(database: Database, earlier: Fleet, sampler: str) -> None:
    study = definition(sampler, space=SPACE, trials=12, options=OPTIONS.get(sampler))
    cold = Fleet(database, study, judge=distance, project="cold")
    first, second = warm(database, study, earlier), warm(database, study, earlier, "again")
    for fleet in (cold, first, second):
        fleet.run()
    assert first.sampled() == second.sampled()
    mean = [sum(map(distance, fleet.sampled())) / 12 for fleet in (cold, first)]
    assert mean[1] < mean[0] * 0.8


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii"])
def test_proposals_are_the_same_whoever_asks_though_the_earlier_study_is_gone(
    database: Database, earlier: Fleet, sampler: str
) -> None:
    fleet = warm(database, definition(sampler, space=SPACE, options=OPTIONS.get(sampler)), earlier)

    def proposed(worker: int) -> Proposal:
        view = fleet.views[worker]
        view.sync()
        [proposal] = view.ask(reservations)
        view.forget(proposal.reservation.trial_id)
        return proposal

    with database.write() as session:
        reservations = leases.reserve(session, fleet.study_id, "w0", 1, TTL_S)
    before = proposed(0).sampled
    with database.write() as session:
        session.execute(delete(Study).where(Study.id == earlier.study_id))
    assert proposed(1).sampled == before


def test_earlier_trials_are_in_no_list(database: Database, earlier: Fleet) -> None:
    fleet = warm(database, definition("tpe", space=SPACE, trials=3), earlier)
    fleet.run()
    with database.read() as session:
        assert len(earlier_trials(session, fleet.study_id)) == 40
        study = session.get_one(Study, fleet.study_id)
    assert (study.complete, study.next_number, study.state) == (3, 3, "COMPLETED")
    storage = StudyStorage(database.url.render_as_string(hide_password=False))
    assert [trial.number for trial in storage.get_all_trials(fleet.study_id)] == [0, 1, 2]
    assert storage.get_study_system_attrs(fleet.study_id) == {}
    assert storage.get_study_user_attrs(fleet.study_id) == {}
    storage.close()


def test_a_trial_fits_where_the_new_study_could_have_drawn_it() -> None:
    study = definition(space=SPACE)
    drawable = Drawable(study)
    assert drawable.sampled({"fixed": 3, "x": 7, "kind": "a"}) == {"x": 7.0, "kind": "a"}
    assert drawable.sampled({"fixed": 3.0, "x": 7.5, "kind": "b", "y": 2.0}) == {"x": 7.5, "kind": "b", "y": 2}
    assert drawable.sampled({"fixed": 3, "x": 7.5, "kind": "a", "y": 99}) == {"x": 7.5, "kind": "a"}, "y is a default"
    for changed in (
        {"fixed": 4},
        {"fixed": None},
        {"x": 10.5},
        {"kind": "c"},
        {"kind": True},
        {"y": 9},
        {"y": 2.5},
        {"y": None},
        {"x": None},
        {"more": 1},
    ):
        trial = {"fixed": 3, "x": 7.5, "kind": "b", "y": 2} | changed
        assert drawable.sampled({name: value for name, value in trial.items() if value is not None}) is None, changed
