"""Studies that don't repeat themselves, by four workers."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from app.domain.combinations import combination_count, combinations
from app.domain.identity import identity
from app.domain.json import loads
from app.domain.trial import FailureReason
from app.store import lifecycle
from app.store.engine import Database
from app.store.tables import Event, Study
from app.store.trials import find_trial
from tests.conformance.fleet import Fleet, definition

SMALL: dict[str, Any] = {
    "a": {"type": "categorical", "choices": [True, False]},
    "b": {"type": "int", "low": 1, "high": 4, "when": {"a": [True]}},
    "c": {"type": "categorical", "choices": ["x", "y", "z"], "ordered": True, "when": {"b": [2, 3]}},
    "d": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.5, "when": {"a": [False]}},
}
SIZE = 1 + 3 + 3 + 1 + 3
"""b = 1; b = 2 and 3 with each c; b = 4; a = false with each d."""


def worth(values: dict[str, Any]) -> float:
    return float(len(values))


def identities(fleet: Fleet) -> list[str]:
    return [identity(values) for values in fleet.sampled()]


def test_all_combinations_are_counted() -> None:
    study = definition(space=SMALL)
    found = [identity(values) for values in combinations(study)]
    assert len(set(found)) == len(found) == SIZE == combination_count(study)
    assert combination_count(definition()) is None
    assert combination_count(definition(space={"x": {"type": "int", "low": 0, "high": 2**50}})) is None
    assert combination_count(definition(space={"x": {"type": "int", "low": 1, "high": 10_000}})) == 10_000


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsgaii", "qmc"])
def test_resampling_tries_a_small_space_once_in_full_and_ends(database: Database, sampler: str) -> None:
    options = {"nsgaii": {"population_size": 4}, "tpe": {"n_startup_trials": 3}}.get(sampler)
    study = definition(sampler, options=options, space=SMALL, trials=200, duplicates="resample")
    fleet = Fleet(database, study, judge=worth)  # type: ignore[arg-type]
    fleet.run()
    assert sorted(identities(fleet)) == sorted(identity(values) for values in combinations(study))
    with database.read() as session:
        row = session.get_one(Study, fleet.study_id)
    assert row.state == "COMPLETED"
    assert "exhausted" in (row.state_reason or "")


def test_resampling_passes_over_what_failed_and_comes_back_to_what_was_cancelled(sqlite_database: Database) -> None:
    def judge(values: dict[str, Any]) -> float | FailureReason:
        return FailureReason.NON_FINITE if values["a"] else worth(values)

    study = definition("random", space=SMALL, trials=200, duplicates="resample")
    fleet = Fleet(sqlite_database, study, judge=judge)  # type: ignore[arg-type]
    fleet.run()
    assert sorted(identities(fleet)) == sorted(identity(values) for values in combinations(study))


def test_resampling_finds_others_in_a_space_too_large_to_count(sqlite_database: Database) -> None:
    space = {"x": {"type": "int", "low": 1, "high": 20_000}, "kind": {"type": "categorical", "choices": ["a", "b"]}}
    study = definition("tpe", space=space, trials=60, options={"n_startup_trials": 5}, duplicates="resample")
    fleet = Fleet(sqlite_database, study, judge=lambda values: values["x"] / 1000)
    fleet.run()
    assert len(set(identities(fleet))) == 60


def test_a_trial_that_was_asked_for_is_trained_though_it_repeats(sqlite_database: Database) -> None:
    study = definition("random", space=SMALL, trials=6, duplicates="resample")
    fleet = Fleet(sqlite_database, study, judge=worth)  # type: ignore[arg-type]
    for _ in range(2):
        with sqlite_database.write() as session:
            lifecycle.enqueue(session, fleet.study_id, {"a": True, "b": 1})
    fleet.run()
    first, second, *others = identities(fleet)
    assert first == second
    assert len({first, *others}) == 5


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsgaii", "qmc"])
def test_reuse_trains_nothing_that_has_a_result(database: Database, sampler: str) -> None:
    study = definition(sampler, space=SMALL, trials=60, duplicates="reuse")
    fleet = Fleet(database, study, judge=worth)  # type: ignore[arg-type]
    fleet.run()
    assert len(fleet.proposals) + len(fleet.reused) == 60
    assert len(fleet.reused) >= 20
    with database.read() as session:
        for number, proposal in fleet.reused.items():
            trial = find_trial(session, fleet.study_id, number)
            assert trial.reused_from is not None
            source = find_trial(session, fleet.study_id, trial.reused_from)
            assert source.reused_from is None
            assert identity(proposal.sampled) == identity(loads(source.sampled or "{}"))
            assert (trial.value, trial.objective_values) == (source.value, source.objective_values)
        told = session.scalars(select(Event.data).where(Event.study_id == fleet.study_id).order_by(Event.seq))
        events = [loads(text) for text in told]
    done: set[str] = set()
    for event in events:
        if event["type"] == "trial.started" and event["trial"] in fleet.proposals:
            assert identity(fleet.proposals[event["trial"]].sampled) not in done
        elif event["type"] == "trial.finished" and event["trial"] in fleet.proposals:
            done.add(identity(fleet.proposals[event["trial"]].sampled))
