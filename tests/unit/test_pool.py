"""Which pooled trials make a stack, and that none reaches a trainer that can't train it yet."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.domain.study import DatasetSpec, Objective, StudyDefinition, TrainingSpec
from app.domain.trial import Proposal, Reservation
from worker.device import CPU
from worker.pool import LONGEST_WAIT_S, Pool, PooledTrial, StudyRef
from worker.trainer.channel import ChannelBroken
from worker.trainer.process import Trainer
from worker.trainer.protocol import Member, Ready, TrainStack


def pooled(
    number: int, family: str = "function", attempt: int = 1, since: float = 0.0, priority: int = 0, **values: object
) -> PooledTrial:
    definition = StudyDefinition.model_validate(
        {
            "name": family,
            "model": {"family": family},
            "hyperparameters": {"batch_size": {"type": "categorical", "choices": [32, 64]}} if family == "mlp" else {},
            "objectives": [{"metric": "value"}],
            "budget": {"trials": 100},
            "execution": {"priority": priority},
        }
    )
    reservation = Reservation(number, number, f"token-{number}", attempt, number)
    study = StudyRef(1 if family == "function" else 2, family, definition)
    return PooledTrial(study, Proposal(reservation, dict(values), {}, {}), time.monotonic() - since)  # type: ignore[arg-type]


def numbers(trials: list[PooledTrial]) -> list[int]:
    return [t.proposal.reservation.number for t in trials]


def four(_: PooledTrial) -> int:
    return 4


def test_a_stack_takes_the_largest_group_of_one_signature_as_wide_as_it_may_be() -> None:
    pool = Pool()
    pool.add([pooled(n, function="branin" if n in (0, 2) else "sphere") for n in range(8)])
    assert numbers(pool.take(["function"], four)) == [1, 3, 4, 5]
    # Two of each are left: the oldest decides.
    assert numbers(pool.take(["function"], four)) == [0, 2]
    assert numbers(pool.take(["function"], four)) == [6, 7]
    assert pool.take(["function"], four) == []


def test_a_trial_that_waited_long_comes_before_a_larger_group_and_ends_refilling() -> None:
    pool = Pool()
    pool.add([pooled(0, function="branin", since=LONGEST_WAIT_S + 1), *(pooled(n, function="sphere") for n in (1, 2))])
    assert pool.take_more(pooled(9, function="sphere"), 2) == []
    assert numbers(pool.take(["function"], four)) == [0]
    assert numbers(pool.take_more(pooled(9, function="sphere"), 1)) == [1]
    assert numbers(pool.take_more(pooled(9, function="sphere"), 4)) == [2]


def test_a_study_of_higher_priority_comes_first_and_ends_refilling() -> None:
    pool = Pool()
    low = [pooled(n, function="sphere", since=LONGEST_WAIT_S + 1) for n in range(3)]
    pool.add([*low, pooled(9, function="branin", priority=1)])
    assert pool.take_more(low[0], 3) == []
    assert numbers(pool.take(["function"], four)) == [9]
    assert numbers(pool.take_more(low[0], 3)) == [0, 1, 2]


def test_a_retried_trial_runs_alone_and_joins_no_stack() -> None:
    pool = Pool()
    pool.add([pooled(0, attempt=2), pooled(1), pooled(2, attempt=2), pooled(3)])
    assert numbers(pool.take_more(pooled(9), 1)) == [1]
    assert [numbers(pool.take(["function"], four)) for _ in range(3)] == [[0], [2], [3]]


def test_trials_wait_for_a_trainer_that_is_ready_for_their_family() -> None:
    pool = Pool()
    pool.add([pooled(0, "mlp"), pooled(1, "mlp"), pooled(2)])
    assert pool.take([], four) == []
    assert numbers(pool.take(["function"], four)) == [2]
    assert pool.take(["function"], four) == []
    assert numbers(pool.take(["function", "mlp"], four)) == [0, 1]


def test_the_signatures_that_wait_are_told_once_each_the_largest_groups_first() -> None:
    pool = Pool()
    pool.add([pooled(n, "mlp", batch_size=32 if n == 0 else 64) for n in range(3)])
    assert [t.proposal.hyperparameters["batch_size"] for t in pool.by_signature()] == [64, 32]


def test_the_trials_likely_to_come_are_shared_by_the_signatures_of_the_space() -> None:
    study = pooled(0, "mlp").study
    assert study.structures == 2
    assert (study.expected(0), study.expected(90), study.expected(99)) == (50, 5, 1)


@pytest.mark.tensorflow
def test_a_trainer_takes_no_stack_of_a_family_that_it_has_not_announced(tmp_path: Path) -> None:
    trainer = Trainer(CPU, ["function", "mlp"], tmp_path / "timings.json", hang_timeout_s=60)
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
