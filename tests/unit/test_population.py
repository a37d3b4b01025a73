"""Population-based training without a trainer: ranks, copies, perturbation, and what follows from seed and number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from app.domain.population import HANDED_ON_KEY, Population
from app.domain.space import Categorical, Float, Int
from app.domain.study import StudyDefinition
from app.domain.trial import FailureReason, Outcome, Proposal, TrialState
from app.store import leases, lifecycle, recording
from app.store.engine import Database
from app.store.migrate import migrate
from app.tuning.pbt import perturbed
from app.tuning.samplers import most_trials
from app.tuning.view import StudyView

SIZE = 8
SPACE: dict[str, Any] = {
    "rate": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "width": {"type": "int", "low": 1, "high": 64},
    "kind": {"type": "categorical", "choices": ["a", "b"]},
    "extra": {"type": "float", "low": 0.0, "high": 1.0, "when": {"kind": ["b"]}},
}
Judge = Callable[[Mapping[str, Any]], float | FailureReason]


@pytest.fixture
def database(sqlite_url: str) -> Any:
    database = Database(sqlite_url)
    migrate(database)
    yield database
    database.dispose()


def definition(name: str = "population", direction: str = "minimize", **options: Any) -> StudyDefinition:
    return StudyDefinition.model_validate(
        {
            "name": name,
            "model": {"family": "anything"},
            "hyperparameters": SPACE,
            "training": {"epochs": 12, "select_epoch": "last"},
            "objectives": [{"metric": "value", "direction": direction}],
            "constraints": [{"metric": "value", "max": 1e9}],
            "sampler": {"name": "pbt", "options": {"population_size": SIZE, "interval_epochs": 3} | options},
            "budget": {"trials": 1000},
        }
    )


class Generations:
    """A study whose generations are drawn by one view each, in any order."""

    def __init__(self, database: Database, made: StudyDefinition) -> None:
        self.database, self.definition = database, made
        with database.write() as session:
            study = lifecycle.create_study(
                session, made, project="default", created_by=None, sample_limit=most_trials(made)
            )
            self.study_id = study.id
        self.proposals: list[Proposal] = []
        self.values: dict[int, float] = {}

    def run(self, judge: Judge, *, backwards: bool = False, infeasible: tuple[int, ...] = ()) -> list[Proposal]:
        """Draw, train and finish a generation."""
        with self.database.write() as session:
            reserved = leases.reserve(session, self.study_id, "w1", 100, 60)
        view = StudyView(self.database, self.study_id, self.definition)
        drawn = [view.ask([r])[0] for r in (reversed(reserved) if backwards else reserved)]
        drawn.sort(key=lambda p: p.reservation.number)
        with self.database.write() as session:
            leases.start(session, self.study_id, drawn, "w1", "cpu", 60)
            outcomes = [self._outcome(p, judge, infeasible) for p in drawn]
            recording.finish(session, self.study_id, outcomes[::-1] if backwards else outcomes, [], 60)
        self.proposals += drawn
        return drawn

    def _outcome(self, proposal: Proposal, judge: Judge, infeasible: tuple[int, ...]) -> Outcome:
        r, value = proposal.reservation, judge(proposal.sampled)
        if isinstance(value, FailureReason):
            attributes = proposal.system_attributes
            return Outcome(r.trial_id, r.token, TrialState.FAIL, reason=value, system_attributes=attributes)
        self.values[r.number] = value
        broken = (1.0,) if r.number in infeasible else (-1.0,)
        attributes = {**proposal.system_attributes, HANDED_ON_KEY: True}
        return Outcome(
            r.trial_id, r.token, TrialState.COMPLETE, (value,), violations=broken, system_attributes=attributes
        )


def by_rate(values: Mapping[str, Any]) -> float:
    return float(values["rate"])


def test_generations_cover_the_epochs() -> None:
    population = Population(size=4, interval=5, epochs=12)
    assert (population.generations, population.trials) == (3, 12)
    assert [population.segment(e) for e in (0, 5, 10)] == [5, 5, 2]
    assert [population.generation(n) for n in (0, 3, 4, 11)] == [0, 0, 1, 2]
    assert [population.is_last(n) for n in (7, 8)] == [False, True]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_worst_copy_the_best_and_the_others_keep_their_values(database: Database, direction: str) -> None:
    study = Generations(database, definition(direction=direction))
    first = study.run(by_rate)
    second = study.run(by_rate)
    ranked = sorted(range(SIZE), key=lambda n: study.values[n], reverse=direction == "maximize")
    for proposal in second:
        own = proposal.reservation.number - SIZE
        assert proposal.first_epoch == 3
        if own in ranked[-2:]:
            assert proposal.parent in ranked[:2]
            assert proposal.sampled != first[proposal.parent].sampled
        else:
            assert (proposal.parent, proposal.sampled) == (own, first[own].sampled)
    for proposal in (*first, *second):
        assert ("extra" in proposal.sampled) == (proposal.sampled["kind"] == "b")


def test_proposals_follow_from_seed_number_and_results_alone(database: Database) -> None:
    one, other = (Generations(database, definition(name)) for name in ("one", "other"))
    for generation in range(4):
        ahead = one.run(by_rate)
        behind = other.run(by_rate, backwards=True)
        assert [(p.sampled, p.parent, p.first_epoch) for p in ahead] == [
            (p.sampled, p.parent, p.first_epoch) for p in behind
        ], generation
    reseeded = Generations(database, definition("reseeded", seed=1))
    assert [p.sampled for p in reseeded.run(by_rate)] != [p.sampled for p in one.proposals[:SIZE]]


def test_failures_and_infeasible_members_rank_last(database: Database) -> None:
    study = Generations(database, definition())
    first = study.run(by_rate)
    best = min(range(SIZE), key=lambda n: study.values[n])
    second = study.run(
        lambda values: FailureReason.NON_FINITE if values == first[best].sampled else by_rate(values),
        infeasible=tuple(n + SIZE for n in range(SIZE) if n != 4),
    )
    assert best + SIZE not in study.values
    third = study.run(by_rate)
    # The one feasible member comes first; who failed left nothing to go on from.
    copies = Counter(p.parent for p in third if p.parent != p.reservation.number - SIZE)
    assert best + SIZE not in {p.parent for p in third}
    assert third[best].parent is not None
    assert {p.first_epoch for p in third} == {6}
    assert sum(copies.values()) == 2
    assert second[4].reservation.number not in {p.parent for p in third} or third[4].parent == 4 + SIZE


def test_a_generation_that_left_nothing_begins_anew(database: Database) -> None:
    study = Generations(database, definition())
    study.run(lambda values: FailureReason.OUT_OF_MEMORY)
    again = study.run(by_rate)
    assert {(p.parent, p.first_epoch) for p in again} == {(None, 0)}
    assert {p.first_epoch for p in study.run(by_rate)} == {3}


def test_a_retried_trial_keeps_its_parent(database: Database) -> None:
    study = Generations(database, definition())
    study.run(by_rate)
    with database.write() as session:
        reserved = leases.reserve(session, study.study_id, "w1", 100, 60)
    view = StudyView(database, study.study_id, study.definition)
    drawn = view.ask(reserved)
    with database.write() as session:
        leases.start(session, study.study_id, drawn, "w1", "cpu", 60)
        leases.release(session, study.study_id, [(r.trial_id, r.token) for r in reserved], "RELEASED")
        again = leases.reserve(session, study.study_id, "w2", 100, 60)
    retried = StudyView(database, study.study_id, study.definition).ask(again)
    assert [(p.parent, p.first_epoch, p.sampled) for p in retried] == [
        (p.parent, p.first_epoch, p.sampled) for p in drawn
    ]
    assert {p.reservation.attempt for p in retried} == {2}


@pytest.mark.parametrize(
    ("parameter", "value", "factor", "expected"),
    [
        (Float(low=0.0, high=1.0), 0.5, 1.2, 0.6),
        (Float(low=0.0, high=1.0), 0.9, 1.2, 1.0),
        (Float(low=0.45, high=1.0), 0.5, 0.8, 0.45),
        (Float(low=-4.0, high=4.0), -2.0, 1.2, -2.4),
        (Float(low=0.0, high=1.0, step=0.25), 0.5, 1.2, 0.75),
        (Float(low=0.0, high=1.0, step=0.25), 0.0, 1.2, 0.25),
        (Int(low=-9, high=9), -2, 1.2, -3),
        (Float(low=0.0, high=1.0, step=0.25), 0.75, 0.8, 0.5),
        (Int(low=1, high=64), 10, 1.2, 12),
        (Int(low=1, high=64), 2, 1.2, 3),  # rounding would leave it where it is
        (Int(low=1, high=64), 1, 0.8, 1),
        (Int(low=16, high=64, step=16), 32, 1.2, 48),
        (Int(low=16, high=64, step=16), 64, 1.2, 64),
        (Int(low=1, high=64, log=True), 40, 0.8, 32),
        (Categorical(choices=["a", "b"]), "a", 1.2, "a"),
        (Categorical(choices=[True, False]), True, 0.8, True),
    ],
)
def test_perturbed_values_stay_in_the_space(parameter: Any, value: Any, factor: float, expected: Any) -> None:
    moved = perturbed(parameter, value, factor)
    assert moved == pytest.approx(expected) if isinstance(expected, float) else moved == expected
    assert parameter.contains(moved)
    assert type(moved) is type(expected)


def test_a_value_that_is_always_drawn_anew_or_never(database: Database) -> None:
    for name, probability in (("never", 0.0), ("always", 1.0)):
        study = Generations(database, definition(name, resample_probability=probability))
        first, second = study.run(by_rate), study.run(by_rate)
        for proposal in second:
            if proposal.parent == proposal.reservation.number - SIZE:
                continue
            assert proposal.parent is not None
            before = first[proposal.parent].sampled
            factors = proposal.sampled["rate"] / before["rate"]
            is_factor = factors in (pytest.approx(0.8), pytest.approx(1.2))
            assert is_factor == (probability == 0.0)
            if probability == 0.0:
                assert proposal.sampled["kind"] == before["kind"]


def test_a_snapshot_file_is_plain_and_whole_or_not_at_all(tmp_path: Path) -> None:
    import numpy as np

    from worker.trainer.snapshots import (
        Shelf,
        Snapshot,
        UnreadableSnapshot,
        read_snapshot,
        snapshot_key,
        write_snapshot,
    )

    path = tmp_path / "deep" / "state.npz"
    snapshot = Snapshot(
        {"weights": np.arange(4, dtype=np.float32)}, {"identity": "a", "progress": {"_best": float("inf")}}
    )
    size = write_snapshot(str(path), snapshot)
    assert size == path.stat().st_size
    assert [p.name for p in path.parent.iterdir()] == ["state.npz"]
    back = read_snapshot(str(path))
    assert back.details == snapshot.details
    np.testing.assert_array_equal(back.arrays["weights"], snapshot.arrays["weights"])
    with pytest.raises(ValueError, match="allow_pickle"):
        write_snapshot(str(path), Snapshot({"object": np.array([{}], dtype=object)}, {}))
    assert read_snapshot(str(path)).details == snapshot.details
    np.savez(path, details=np.frombuffer(b'{"format": 0}', np.uint8))
    with pytest.raises(UnreadableSnapshot, match="format 1"):
        read_snapshot(str(path))
    shelf = Shelf(most_bytes=40)
    for number in range(4):
        shelf.put(snapshot_key("x", number), snapshot)
    shelf.put(snapshot_key("x", 3), snapshot)
    assert [shelf.get(f"x-epoch-{n}") is not None for n in range(4)] == [False, False, True, True]
