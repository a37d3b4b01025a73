"""What a worker's view reads of the database before and during asks, on both databases."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, text, update

from app.domain.trial import TrialState
from app.store import lifecycle
from app.store import optuna as store
from app.store.engine import Database
from app.store.tables import Study, Trial
from app.tuning.view import StudyView
from tests.conformance.fleet import SPACE, Fleet, definition

FINISHED, RUNNING = 3000, 40
BY_STATE = "ix_fettle_trials_(state|value)"
"""Either index that begins with study and state."""
Statement = tuple[str, Any]


@contextmanager
def statements(database: Database) -> Iterator[list[Statement]]:
    """The statements that the database is sent meanwhile, with their parameters."""
    sent: list[Statement] = []
    engines = {id(engine): engine for engine in (database._reader, database._writer)}.values()

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        sent.append((statement, parameters))

    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


def raw(connection: Connection, statement: Statement, before: str = "") -> list[Any]:
    """The rows of a statement as it was sent."""
    cursor = connection.connection.cursor()
    cursor.execute(before + statement[0], statement[1])
    return list(cursor.fetchall())


def fill(database: Database, name: str, finished: int, running: int) -> int:
    """A study with many trials, written at once; its id."""
    study = definition("tpe", trials=10**6).model_copy(update={"name": name})
    values = {"x0": 0.5, "x1": 0.01, "x2": 7, "kind": "a"}
    assert values.keys() <= SPACE.keys()
    rows = [
        {
            "number": number,
            "state": TrialState.COMPLETE if number < finished else TrialState.RUNNING,
            "ordinal": number,
            "attempt": 1,
            "hyperparameters": json.dumps(values),
            "sampled": json.dumps({**values, "x0": number / (finished + running)}),
            "objective_values": json.dumps([1.0 + number]) if number < finished else None,
            "finish_seq": number + 1 if number < finished else None,
            "created_at": 1.0,
            "started_at": 1.0,
            "finished_at": 2.0 if number < finished else None,
            "lease_token": None if number < finished else f"{name}-{number}",
            "lease_expires_at": None if number < finished else 9e12,
        }
        for number in range(finished + running)
    ]
    with database.write() as session:
        study_id = lifecycle.create_study(session, study, project="default", created_by=None, sample_limit=None).id
        session.execute(insert(Trial), [{**row, "study_id": study_id} for row in rows])
        counts = {"next_number": len(rows), "finished_count": finished, "complete": finished, "running": running}
        session.execute(update(Study).where(Study.id == study_id).values(**counts))
    return study_id


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_a_sampler_that_does_not_learn_reads_nothing(database: Database, sampler: str) -> None:
    fleet = Fleet(database, definition(sampler, trials=40), size=1)
    fleet.run(in_flight=8)
    view = StudyView(database, fleet.study_id, fleet.definition)
    asked = [proposal.reservation for proposal in fleet.proposals.values()]
    with statements(database) as sent:
        view.sync()
        again = view.ask(asked)
    assert sent == []
    assert [proposal.sampled for proposal in again] == [proposal.sampled for proposal in fleet.proposals.values()]


def test_a_sync_reads_what_finished_since_the_last_one_alone(database: Database) -> None:
    fleet = Fleet(database, definition("tpe", trials=100), size=2)
    for trial in (trial for _ in range(10) for trial in fleet.ask(0, 6)):
        fleet.finish(0, trial.reservation.trial_id, TrialState.COMPLETE, values=(0.5,))
    late = StudyView(database, fleet.study_id, fleet.definition)

    def read(view: StudyView) -> list[int]:
        with statements(database) as sent:
            view.sync()
        with database.engine.connect() as connection:
            return [len(raw(connection, statement)) for statement in sent if statement[0].startswith("SELECT")]

    assert read(late) == [0, 60]
    assert len(late._storage.lessons) == 60
    assert read(late) == [0, 0]
    first = fleet.ask(0, 5)
    assert read(late) == [5, 0]
    for proposal in first[:3]:
        fleet.finish(0, proposal.reservation.trial_id, TrialState.COMPLETE, values=(1.0,))
    assert read(late) == [2, 3]
    assert len(late._storage.lessons) == 63
    assert len(late._storage.elsewhere) == 2


def test_a_running_trial_of_another_worker_is_read_once(database: Database) -> None:
    fleet = Fleet(database, definition("tpe"), size=2)
    fleet.ask(0, 6)
    view = fleet.views[1]
    view.sync()
    before = dict(view._storage.elsewhere)
    assert len(before) == 6
    fleet.ask(0, 1)
    view.sync()
    assert len(view._storage.elsewhere) == 7
    assert all(view._storage.elsewhere[trial_id] is trial for trial_id, trial in before.items())


def test_workers_propose_the_same_from_what_has_finished_and_what_runs(database: Database) -> None:
    fleet = Fleet(database, definition("tpe", options={"n_startup_trials": 5}, trials=90), size=2)
    while len(fleet.proposals) < 30:
        for trial in fleet.ask(0, 6):
            while trial.reservation.trial_id in fleet.running[0]:
                fleet.advance(0, trial.reservation.trial_id)
    fleet.ask(0, 20)
    asked = fleet.ask(0, 4)
    for proposal in asked:
        fleet.views[0].forget(proposal.reservation.trial_id)
    other = fleet.views[1]
    other.sync()
    for proposal in asked:
        del other._storage.elsewhere[proposal.reservation.trial_id]
    # One worker holds the twenty that run, the other knows them from the database.
    assert len(fleet.views[0]._storage.held) == len(other._storage.elsewhere) == 20
    reservations = [proposal.reservation for proposal in asked]
    assert [p.sampled for p in other.ask(reservations)] == [p.sampled for p in asked]


def test_reads_of_a_view_follow_indexes_however_many_trials_have_finished(database: Database) -> None:
    studies = [fill(database, name, FINISHED, RUNNING) for name in ("one", "two")]
    with statements(database) as sent, database.read() as session:
        assert len(store.finished_after(session, studies[1], FINISHED - 4)) == 4
        assert len(store.running(session, studies[1])) == RUNNING
    after, running = [statement for statement in sent if statement[0].startswith("SELECT")]
    with database.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            plans = [[row[3] for row in raw(connection, s, "EXPLAIN QUERY PLAN ")] for s in (after, running)]
            assert [len(plan) for plan in plans] == [1, 1]  # no sorting step
            assert "ix_fettle_trials_finish_seq (study_id=? AND finish_seq>?)" in plans[0][0]
            assert re.search(BY_STATE + r" \(study_id=\? AND state=\?\)", plans[1][0])
            return
        connection.execute(text("ANALYZE fettle_trials"))
        for statement, index in ((after, "ix_fettle_trials_finish_seq"), (running, BY_STATE)):
            plan = "\n".join(row[0] for row in raw(connection, statement, "EXPLAIN "))
            assert re.search(index, plan), plan
            assert "Seq Scan" not in plan, plan
