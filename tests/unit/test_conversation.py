"""A stack's conversation on the trainer's side: members join, are halted, fail alone; nothing waits that need not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.domain.study import Objective, TrainingSpec
from app.domain.trial import FailureReason
from tests.unit.conversation_channel import Supervisor
from worker.progress import MOST_CHARACTERS
from worker.trainer.conversation import converse, fail_all
from worker.trainer.function import EPOCH_METRICS, _Functions, run_function
from worker.trainer.protocol import EpochDone, Halt, Join, Member, Prepare, Stop, TrainStack


def member(number: int, **values: float) -> Member:
    return Member(member=number, number=number, hyperparameters={"x0": 1.0, **values}, seed=0)


def stack(*members: Member, epochs: int = 3, judged: bool = False) -> TrainStack:
    return TrainStack(
        stack="stack",
        family="function",
        dataset=None,
        training=TrainingSpec(epochs=epochs),
        objectives=[Objective(metric="value")],
        judged=judged,
        members=list(members),
    )


def at_epoch(number: int, *messages: Join | Halt | Prepare) -> Callable[[EpochDone], list[Join | Halt | Prepare]]:
    """Sends the messages after the stack's epoch of this number."""
    count = iter(range(1000))
    return lambda done: list(messages) if next(count) == number else []


def test_a_stack_without_a_pruner_waits_for_no_verdict() -> None:
    supervisor = Supervisor(judged=False)
    run_function(stack(member(0), member(1)), supervisor)
    assert supervisor.said == ["epoch_done"] * 3 + ["members_done"]
    assert supervisor.results.keys() == {0, 1}


def test_members_take_the_places_of_those_that_ended_and_train_all_their_epochs() -> None:
    waiting = [member(2), member(3), member(4)]
    supervisor = Supervisor(judged=False, join=lambda results: [waiting.pop(0) for _ in results if waiting])
    run_function(stack(member(0), member(1)), supervisor)
    assert supervisor.results.keys() == {0, 1, 2, 3, 4}
    assert {len(reports) for reports in supervisor.reports.values()} == {3}
    assert [[r.member for r in done.reports] for done in supervisor.epochs] == [[0, 1]] * 3 + [[2, 3]] * 3 + [[4]] * 3


@pytest.mark.parametrize("judged", [False, True])
def test_members_join_while_others_train_and_each_counts_its_own_epochs(judged: bool) -> None:
    joining = Join(stack="stack", members=[member(1), member(2, x1=3.0)])
    supervisor = Supervisor(judged=judged, unasked=at_epoch(1, joining))
    run_function(stack(member(0), judged=judged), supervisor)
    assert [[(r.member, r.epoch) for r in done.reports] for done in supervisor.epochs] == [
        [(0, 0)],
        [(0, 1)],
        [(0, 2), (1, 0), (2, 0)],
        [(1, 1), (2, 1)],
        [(1, 2), (2, 2)],
    ]
    assert supervisor.results[2].values == [10.0]


def test_a_member_that_cannot_be_trained_is_refused_when_it_joins_and_another_takes_its_place() -> None:
    spare = [member(2)]
    joining = Join(stack="stack", members=[member(1, x7=1.0)])
    supervisor = Supervisor(
        judged=False,
        unasked=at_epoch(0, joining),
        join=lambda results: [spare.pop() for r in results if r.reason is FailureReason.REFUSED],
    )
    run_function(stack(member(0)), supervisor)
    assert supervisor.results[1].reason is FailureReason.REFUSED
    assert supervisor.results[2].outcome == "complete"


def test_a_halted_member_ends_with_its_epoch_and_what_is_halted_too_late_is_passed_over() -> None:
    halt = Halt(stack="stack", stop=[Stop(member=0, reason="TIMEOUT"), Stop(member=9, reason="CANCELLED")])
    stale = Halt(stack="an earlier one", stop=[Stop(member=1, reason="CANCELLED")])
    supervisor = Supervisor(judged=False, unasked=at_epoch(1, halt, stale))
    run_function(stack(member(0), member(1), epochs=5), supervisor)
    assert (supervisor.results[0].stop_reason, supervisor.results[0].epochs) == ("TIMEOUT", 2)
    assert (supervisor.results[1].outcome, supervisor.results[1].epochs) == ("complete", 5)


def test_an_error_of_one_member_fails_it_alone() -> None:
    class Fragile(_Functions):
        def train_epoch(self, members: object) -> dict[int, dict[str, float] | Exception]:
            metrics: dict[int, dict[str, float] | Exception] = dict(super().train_epoch(members))  # type: ignore[arg-type]
            if 1 in metrics and self._done[1] == 2:
                metrics[1] = ZeroDivisionError("broken")
            return metrics

    supervisor = Supervisor(judged=False)
    converse(stack(member(0), member(1)), supervisor, Fragile(3), select_last=True)
    failed = supervisor.results[1]
    assert (failed.outcome, failed.reason, failed.epochs) == ("failed", FailureReason.EXCEPTION, 1)
    assert failed.error_code == "ZeroDivisionError"
    assert supervisor.results[0].outcome == "complete"
    assert EPOCH_METRICS[0] in supervisor.reports[1][0]


def test_an_error_of_many_screens_is_told_in_brief_and_is_whole_in_the_log() -> None:
    class Wordy(_Functions):
        def train_epoch(self, members: object) -> dict[int, dict[str, float]]:
            raise ValueError(
                "\x1b[1mA rank of 2\x1b[0m\n\n\n  was expected\n" + "\n".join(f"line {i}" for i in range(10_000))
            )

    supervisor = Supervisor(judged=False)
    request = stack(member(0))
    converse(request, supervisor, Wordy(3), select_last=True)
    result = supervisor.results[0]
    assert (result.error_code, str(result.message)[:25]) == ("ValueError", "A rank of 2\nwas expected\n")
    assert len(str(result.message)) == MOST_CHARACTERS + 1
    assert "line 9999" in str(result.traceback)


def test_a_stack_whose_program_cannot_be_built_fails_those_that_join_it_as_well() -> None:
    waiting = [member(1)]
    supervisor = Supervisor(join=lambda results: [waiting.pop() for _ in results if waiting])
    fail_all(stack(member(0)), supervisor, FailureReason.OUT_OF_MEMORY, MemoryError())
    assert {r.reason for r in supervisor.results.values()} == {FailureReason.OUT_OF_MEMORY}
    assert supervisor.results.keys() == {0, 1}
