"""Which pooled trials make a stack, and that none reaches a trainer that can't train it yet."""

from __future__ import annotations

import pytest

from app.domain.study import DatasetSpec, Objective, StudyDefinition, TrainingSpec
from app.domain.trial import Proposal, Reservation
from worker.channel import ChannelBroken
from worker.device import CPU
from worker.pool import Pool, PooledTrial, StudyRef
from worker.protocol import Member, Ready, TrainStack
from worker.trainer import Trainer


def pooled(number: int, family: str = "function", attempt: int = 1, **values: object) -> PooledTrial:
    definition = StudyDefinition.model_validate(
        {"name": family, "model": {"family": family}, "objectives": [{"metric": "value"}], "budget": {"trials": 9}}
    )
    reservation = Reservation(number, number, f"token-{number}", attempt, number)
    study = StudyRef(1 if family == "function" else 2, family, definition)
    return PooledTrial(study, Proposal(reservation, dict(values), {}, {}))  # type: ignore[arg-type]


def numbers(trials: list[PooledTrial]) -> list[int]:
    return [t.proposal.reservation.number for t in trials]


def test_a_stack_takes_the_oldest_trial_and_others_of_its_signature() -> None:
    pool = Pool()
    pool.add([pooled(n, function="sphere" if n != 1 else "branin") for n in range(4)])
    assert numbers(pool.take(["function"])) == [0, 2, 3]
    assert numbers(pool.take(["function"])) == [1]
    assert pool.take(["function"]) == []


def test_a_retried_trial_runs_alone_and_joins_no_stack() -> None:
    pool = Pool()
    pool.add([pooled(0, attempt=2), pooled(1), pooled(2, attempt=2), pooled(3)])
    assert [numbers(pool.take(["function"])) for _ in range(3)] == [[0], [1, 3], [2]]


def test_keras_trials_run_one_at_a_time_and_wait_for_a_trainer_that_is_ready_for_them() -> None:
    pool = Pool()
    pool.add([pooled(0, "mlp"), pooled(1, "mlp"), pooled(2)])
    assert pool.take([]) == []
    assert numbers(pool.take(["function"])) == [2]
    assert pool.take(["function"]) == []
    assert numbers(pool.take(["function", "mlp"])) == [0]
    assert len(pool) == 1


@pytest.mark.tensorflow
def test_a_trainer_takes_no_stack_of_a_family_that_it_has_not_announced() -> None:
    trainer = Trainer(CPU, ["function", "mlp"])
    try:
        early = TrainStack(
            stack="early",
            family="mlp",
            dataset=DatasetSpec(name="wine"),
            training=TrainingSpec(epochs=1),
            objectives=[Objective(metric="val_loss")],
            members=[Member(member=0, number=0, hyperparameters={}, seed=0)],
        )
        first = trainer.receive(60)
        assert isinstance(first, Ready)
        assert first.families == ["function"]
        trainer.send(early)
        with pytest.raises(ChannelBroken):
            trainer.receive(60)
    finally:
        trainer.kill()
