"""What Optuna sees of the service's studies: everything, and nothing that it may change."""

from __future__ import annotations

import math
from collections.abc import Iterator

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from app.domain.trial import FailureReason, TrialState
from app.errors import StateConflict
from app.store import leases, recording
from app.store.engine import Database
from app.tuning.storage import StudyStorage
from tests.conformance.fleet import EPOCHS, TTL_S, Fleet, bowl, definition


@pytest.fixture
def storage(database: Database) -> Iterator[StudyStorage]:
    storage = StudyStorage(database.url.render_as_string(hide_password=False))
    yield storage
    storage.close()


@pytest.fixture
def fleet(database: Database) -> Fleet:
    fleet = Fleet(database, definition("random", "median", pruner_options={"n_startup_trials": 3}, trials=12))
    fleet.run()
    return fleet


def test_a_study_that_the_service_ran_loads_in_optuna(fleet: Fleet, storage: StudyStorage) -> None:
    study = optuna.load_study(study_name="fleet", storage=storage)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert [trial.number for trial in study.trials] == list(range(12))
    assert {trial.number: trial.state.name for trial in study.trials} == fleet.states
    assert [trial.params for trial in study.trials] == fleet.sampled()
    best = study.best_trial
    assert best.value == pytest.approx(min(bowl(trial.params) for trial in study.trials))
    assert list(best.intermediate_values) == list(range(EPOCHS))
    assert best.intermediate_values[EPOCHS - 1] == best.value
    assert best.distributions["x1"] == optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)
    assert best.datetime_start is not None
    assert best.datetime_complete is not None
    assert storage.get_n_trials(study._study_id, OptunaState.COMPLETE) == len(
        [state for state in fleet.states.values() if state is TrialState.COMPLETE]
    )


def test_its_trials_make_a_data_frame(fleet: Fleet, storage: StudyStorage) -> None:
    pytest.importorskip("pandas")
    frame = optuna.load_study(study_name="fleet", storage=storage).trials_dataframe()
    assert list(frame["number"]) == list(range(12))


def test_it_is_read_only(fleet: Fleet, storage: StudyStorage) -> None:
    study = optuna.load_study(study_name="fleet", storage=storage)
    for write in (
        study.ask,
        lambda: study.set_user_attr("key", 1),
        lambda: storage.set_trial_user_attr(study.trials[0]._trial_id, "key", 1),
        lambda: storage.set_trial_state_values(study.trials[0]._trial_id, OptunaState.FAIL),
        lambda: storage.delete_study(study._study_id),
    ):
        with pytest.raises(StateConflict, match="read-only through StudyStorage"):
            write()
    assert len(study.trials) == 12


def test_running_trials_show_the_reports_of_their_current_attempt_alone(
    database: Database, storage: StudyStorage
) -> None:
    fleet = Fleet(database, definition("random", trials=1))

    def report(epoch: int, value: float) -> None:
        [trial] = fleet.running[0].values()
        r = trial.proposal.reservation
        metrics = {"value0": value, "other": 7.0}
        with database.write() as session:
            told = [recording.Report(r.trial_id, r.token, r.number, r.attempt, epoch, metrics)]
            assert recording.record(session, fleet.study_id, fleet.public_id, told, TTL_S)

    [first] = fleet.ask(0, 1)
    report(0, 5.0)
    report(1, math.inf)
    [trial] = storage.get_all_trials(fleet.study_id)
    assert trial.state == OptunaState.RUNNING
    assert trial.intermediate_values == {0: 5.0, 1: math.inf}
    lease = (first.reservation.trial_id, first.reservation.token)
    with database.write() as session:
        leases.release(session, fleet.study_id, [lease], "drained")
    fleet.running[0].clear()
    fleet.views[0].forget(first.reservation.trial_id)
    assert storage.get_all_trials(fleet.study_id)[0].state == OptunaState.WAITING
    [again] = fleet.ask(1, 1)
    assert again.hyperparameters == first.hyperparameters
    fleet.running[0].update(fleet.running[1])
    report(0, 4.0)
    assert storage.get_trial(again.reservation.trial_id).intermediate_values == {0: 4.0}


def test_the_best_trial_keeps_all_constraints(database: Database, storage: StudyStorage) -> None:
    fleet = Fleet(database, definition("random", trials=3))
    for value, violation in ((1.0, 2.0), (3.0, -1.0), (2.0, -0.5)):
        [proposal] = fleet.ask(0, 1)
        fleet.finish(0, proposal.reservation.trial_id, TrialState.COMPLETE, values=(value,), violations=(violation,))
    assert optuna.load_study(study_name="fleet", storage=storage).best_trial.value == 2.0


def test_failed_trials_are_shown_as_failed(database: Database, storage: StudyStorage) -> None:
    fleet = Fleet(database, definition("random", trials=1), judge=lambda _: FailureReason.OUT_OF_MEMORY)
    fleet.run()
    assert [trial.state for trial in storage.get_all_trials(fleet.study_id)] == [OptunaState.FAIL]


@pytest.mark.parametrize("sampler", [optuna.samplers.TPESampler, optuna.samplers.RandomSampler])
def test_plain_optuna_runs_a_study_of_its_own(
    storage: StudyStorage, sampler: type[optuna.samplers.BaseSampler]
) -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", -1, 1)
        for step in range(3):
            trial.report(x**2 + step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x**2

    study = optuna.create_study(storage=storage, study_name="plain", sampler=sampler())
    study.enqueue_trial({"x": 0.25})
    study.optimize(objective, n_trials=12, n_jobs=3)
    again = optuna.load_study(study_name="plain", storage=storage)
    assert [trial.number for trial in again.trials] == list(range(12))
    assert again.trials[0].params == {"x": 0.25}
    assert all(trial.state.is_finished() for trial in again.trials)
    assert len(again.best_trial.intermediate_values) == 3


def test_counters_and_the_order_of_finishing_follow_plain_trials(database: Database, storage: StudyStorage) -> None:
    from sqlalchemy import select

    from app.store.tables import Study, Trial

    study = optuna.create_study(storage=storage, study_name="counted")
    trials = [study.ask() for _ in range(4)]
    study.tell(trials[2], 1.0)
    study.tell(trials[0], state=OptunaState.FAIL)
    study.tell(trials[3], state=OptunaState.PRUNED)
    with database.read() as session:
        row = session.scalars(select(Study)).one()
        order = dict(session.execute(select(Trial.finish_seq, Trial.number)).all())
    assert (row.waiting, row.running, row.complete, row.pruned, row.fail) == (0, 1, 1, 1, 1)
    assert not row.managed
    assert (row.next_number, row.finished_count) == (4, 3)
    assert order == {1: 2, 2: 0, 3: 3, None: 1}
