"""One study of a real database beside its model: what its steps draw, and what must hold after each of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant
from sqlalchemy import func, select

from app.domain.identity import identity
from app.domain.json import loads
from app.domain.study import StudyDefinition
from app.domain.trial import FailureReason, Outcome, Proposal, Reservation, TrialState
from app.errors import NotFound, StateConflict
from app.store import lifecycle, recording
from app.store.engine import Database
from app.store.tables import Event, Metric, Trial
from tests.store.conftest import Bench, definition
from tests.store.lease_model import OVER, Limits, ModelStudy, ModelTrial

NAMES = itertools.count()
"""A study that was found wrong stays where it is: the next one needs another name."""
REQUESTED = st.sampled_from([{}, {"x0": 0.25}, {"x0": 0.75}])
REASONS = st.sampled_from(list(FailureReason))
VALUES = st.sampled_from([0.0, 0.25, 0.5, 1.0])
LIMITS = st.builds(
    Limits,
    trials=st.sampled_from([14, 4, None, 14, 1]),
    seconds=st.sampled_from([None, None, 1000.0, 3000.0]),
    device_seconds=st.sampled_from([None, None, 30.0]),
    no_improvement=st.sampled_from([None, None, 1, 5]),
).map(lambda limits: limits if limits != Limits(None) else Limits(4))
COMPARED = (
    "number", "ordinal", "state", "reason", "queue", "attempt", "charged", "finish_token", "finish_seq", "identity",
    "value", "feasible", "epochs", "reused_from",
)  # fmt: skip


def budget(limits: Limits) -> dict[str, Any]:
    return {
        "trials": limits.trials,
        "seconds": limits.seconds,
        "device_seconds": limits.device_seconds,
        "no_improvement_trials": limits.no_improvement,
    }


class StudyBesideModel(RuleBasedStateMachine):
    """One study of a real database beside its model."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.given: list[Reservation] = []
        """Every lease that was ever given, the newest first."""
        self.ended: list[tuple[Reservation, Outcome]] = []
        self.seen = 0

    @initialize(
        data=st.data(),
        count=st.sampled_from([0, 1, 4, 11]),
        limits=LIMITS,
        attempts=st.integers(1, 3),
        parallel=st.sampled_from([None, None, 1, 3]),
        sample_limit=st.sampled_from([None, None, None, 3]),
        deterministic=st.sampled_from([False, False, False, True]),
        direction=st.sampled_from(["minimize", "maximize"]),
        goal=st.sampled_from([None, None, 0.0, 1.0]),
        on_duplicate=st.sampled_from(["train", "train", "reuse", "redraw"]),
    )
    def create(
        self,
        data: st.DataObject,
        count: int,
        limits: Limits,
        attempts: int,
        parallel: int | None,
        sample_limit: int | None,
        deterministic: bool,
        direction: str,
        goal: float | None,
        on_duplicate: str,
    ) -> None:
        self.definition: StudyDefinition = definition(
            name=f"model-{next(NAMES)}",
            budget=budget(limits),
            objectives=[{"metric": "value", "direction": direction, "target": goal}],
            execution={"max_attempts": attempts, "parallel_trials": parallel or "auto"},
            training={"deterministic": deterministic},
        )
        with self.database.write() as session:
            study = lifecycle.create_study(
                session, self.definition, project="default", created_by=None, sample_limit=sample_limit
            )
            self.bench = Bench(self.database, study.id, study.public_id)
        self.model = ModelStudy(
            limits,
            attempts,
            parallel,
            sample_limit,
            self.definition.generation,
            direction == "maximize",
            goal,
            on_duplicate,
        )

        for requested in data.draw(st.lists(REQUESTED, max_size=2)):
            assert self.allowed(lifecycle.enqueue, requested) == self.model.enqueue(requested)
        self.begin(data, count)

    def allowed(self, action: Callable[..., Any], *arguments: Any) -> bool:
        try:
            self.bench.act(action, *arguments)
        except StateConflict:
            return False
        return True

    def begin(self, data: st.DataObject, count: int) -> None:
        """Reserve and start `count` trials of the new study."""
        raise NotImplementedError

    # -- drawing ------------------------------------------------------------------------------------------------------

    def some(self, data: st.DataObject, *states: str) -> list[Reservation]:
        """Some of the leases: mostly those that stand, of trials in `states`."""
        standing = [r for r in self.given if self.model.holds(r.number, r.token, *states)]
        pool = standing if standing and data.draw(st.integers(0, 3)) else self.given
        chosen = st.lists(st.sampled_from(pool), min_size=1, max_size=12, unique_by=lambda r: r.token)
        return data.draw(chosen) if pool else []

    def proposals(self, data: st.DataObject, of: Sequence[Reservation] | None = None) -> list[Proposal]:
        made = []
        rule: Any = self.model.on_duplicate
        for r in self.some(data, "WAITING") if of is None else of:
            drawn = r.sampled or {"x0": data.draw(VALUES)} | (r.requested or {})
            known = None if rule == "train" else identity(drawn)
            made.append(Proposal(r, r.hyperparameters or drawn, drawn, {}, identity=known, on_duplicate=rule))
        return made

    def reports(self, data: st.DataObject) -> list[tuple[Reservation, int]]:
        return [(r, self.model.trials[r.number].epochs) for r in self.some(data, "RUNNING")]

    def outcomes(self, data: st.DataObject) -> list[tuple[Reservation, Outcome]]:
        found = self.some(data, "RUNNING")
        if self.ended and data.draw(st.booleans()):
            found_tokens = {r.token for r in found}
            repeated = data.draw(st.sampled_from(self.ended))
            again = [] if repeated[0].token in found_tokens else [repeated]
        else:
            again = []
        made = [(r, self.outcome(data, r)) for r in found]
        self.ended += made
        return made + again

    def outcome(self, data: st.DataObject, r: Reservation) -> Outcome:
        state = data.draw(st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]))
        seconds = data.draw(st.sampled_from([0.0, 10.0]))
        if state is TrialState.FAIL:
            reason = data.draw(REASONS)
            return Outcome(r.trial_id, r.token, state, reason=reason, log="boom\n", device_seconds=seconds)
        value = data.draw(VALUES)
        violations = (1.0,) if state is TrialState.COMPLETE and data.draw(st.integers(0, 3)) == 0 else ()
        values = {"values": (value,), "metrics": {"value": value}, "selected_epoch": 0, "epochs": 1}
        return Outcome(r.trial_id, r.token, state, violations=violations, device_seconds=seconds, **values)

    def as_reports(self, reports: Iterable[tuple[Reservation, int]]) -> list[recording.Report]:
        return [self.bench.report(r, epoch, 1.0) for r, epoch in reports]

    def numbers(self, trial_ids: Iterable[int]) -> set[int]:
        by_id = {r.trial_id: r.number for r in self.given}
        return {by_id[key] for key in trial_ids}

    def was_given(self, reservations: Sequence[Reservation], expected: Sequence[ModelTrial]) -> None:
        """The model's reservations are the store's; from now on both know their tokens."""
        fields = ("number", "ordinal", "requested", "hyperparameters", "sampled")
        assert [[getattr(r, name) for name in fields] for r in reservations] == [
            [getattr(t, name) for name in fields] for t in expected
        ]
        assert [r.attempt for r in reservations] == [t.attempt + 1 for t in expected]
        for r, trial in zip(reservations, expected, strict=True):
            trial.token = r.token
        self.given[:0] = reservations

    # -- after every step ---------------------------------------------------------------------------------------------

    @invariant()
    def they_agree(self) -> None:
        model, study, trials = self.model, self.bench.study(), self.bench.trials()
        assert [[getattr(t, name) for name in COMPARED] for t in trials] == [
            [getattr(t, name) for name in COMPARED] for t in model.trials
        ]
        assert [t.lease_token for t in trials] == [t.token for t in model.trials]
        for name in ("hyperparameters", "sampled", "requested"):
            texts = [getattr(t, name) for t in trials]
            assert [None if t is None else loads(t) for t in texts] == [getattr(t, name) for t in model.trials]
        assert (study.state, study.revision) == (model.state, model.revision)
        assert (study.halt_reason is not None) == model.halted
        assert (study.started_at is not None) == model.started
        assert (study.finished_at is not None) == (model.state in OVER)
        assert study.leased == model.leased
        assert (study.next_number, study.sampled_count) == (len(trials), model.sampled_count)
        counted = {name: getattr(study, name.lower()) for name in TrialState}
        assert counted == {name: model.count(name) for name in TrialState}
        assert (study.finished_count, study.own_failures_in_row) == (model.finished, model.failures)
        assert (study.since_improvement, study.device_seconds) == (model.since_improvement, model.device_seconds)
        assert study.best_number == (None if model.best is None else model.best.number)

    @invariant()
    def the_log_tells_it(self) -> None:
        with self.database.read() as session:
            query = select(Event.seq, Event.type, Event.data).where(Event.study_id == self.bench.study_id)
            rows = session.execute(query.where(Event.seq > self.seen).order_by(Event.seq)).all()
        expected = self.model.told[self.seen :]
        assert [row.seq for row in rows] == [self.seen + 1 + i for i in range(len(expected))]
        told = [loads(row.data) for row in rows]
        assert [{name: event.get(name) for name in e} for event, e in zip(told, expected, strict=True)] == expected
        assert [event["type"] for event in told] == [row.type for row in rows]
        self.seen += len(rows)

    @invariant()
    def each_trial_finishes_once(self) -> None:
        finished = [e["trial"] for e in self.model.told if e["type"] == "trial.finished"]
        over = [t.number for t in self.model.trials if t.finish_seq is not None]
        assert sorted(finished) == over

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        for trial, row in zip(self.model.trials, self.bench.trials(), strict=True):
            assert self.bench.metrics(row.id) == sorted(trial.metrics)
        self.bench.check()
        if self.model.state not in OVER:
            self.bench.act(lifecycle.cancel)
        self.bench.act(lifecycle.delete_study)
        with self.database.read() as session:
            for table in (Trial, Event):
                query = select(func.count()).select_from(table).where(table.study_id == self.bench.study_id)
                assert session.scalar(query) == 0
            ids = [r.trial_id for r in self.given]
            assert session.scalar(select(func.count()).select_from(Metric).where(Metric.trial_id.in_(ids))) == 0
        for reservation in self.given[:1]:
            for late in (self.bench.finish, self.bench.reserve):
                try:
                    late(*([reservation] if late == self.bench.finish else []))
                except NotFound:
                    continue
                raise AssertionError("Expected NotFound for a study that was deleted.")
