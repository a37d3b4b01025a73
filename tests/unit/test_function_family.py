"""The family `function` reports the closed forms, and keeps to the conversation, without TensorFlow."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from app.domain.study import EarlyStopping, Objective, TrainingSpec
from app.domain.trial import FailureReason
from tests.unit.conversation_channel import Supervisor
from worker.trainer.function import FUNCTIONS, run_function
from worker.trainer.protocol import KeepModel, Member, Stop, TrainStack

HARTMANN_MINIMUM = (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573)


def stack(*points: dict[str, float | str], epochs: int = 4, **training: object) -> TrainStack:
    return TrainStack(
        stack="stack",
        family="function",
        dataset=None,
        training=TrainingSpec(epochs=epochs, **training),
        objectives=[Objective(metric="value")],
        members=[Member(member=i, number=i, hyperparameters=dict(p), seed=0) for i, p in enumerate(points)],
    )


@pytest.mark.parametrize(
    ("name", "x", "value"),
    [
        ("sphere", (1.0, 2.0, -3.0), 14.0),
        ("rastrigin", (0.0, 0.0), 0.0),
        ("rastrigin", (1.0, 0.5), 10 * 2 + (1 - 10) + (0.25 + 10)),
        ("rosenbrock", (1.0, 1.0, 1.0), 0.0),
        ("rosenbrock", (0.0, 0.0), 1.0),
        ("branin", (math.pi, 2.275), 0.397887),
        ("branin", (-math.pi, 12.275), 0.397887),
        ("hartmann6", HARTMANN_MINIMUM, -3.32237),
    ],
)
def test_functions_have_their_published_values(name: str, x: tuple[float, ...], value: float) -> None:
    assert FUNCTIONS[name](x) == pytest.approx(value, abs=1e-5)


def test_a_curve_falls_to_the_value_of_the_function_which_is_the_trials() -> None:
    supervisor = Supervisor()
    run_function(stack({"function": "sphere", "x0": 1.0, "x1": 2.0}), supervisor)
    assert [m["value"] for m in supervisor.reports[0]] == [5.75, 5.5, 5.25, 5.0]
    result = supervisor.results[0]
    assert (result.outcome, result.values, result.selected_epoch, result.epochs) == ("complete", [5.0], 3, 4)
    assert supervisor.said == ["epoch_done"] * 4 + ["members_done"]


def test_the_last_epoch_is_selected_even_where_an_earlier_one_was_better() -> None:
    supervisor = Supervisor()
    request = stack({"function": "sphere", "x0": 1.0})
    maximize = [Objective(metric="value", direction="maximize")]
    run_function(request.model_copy(update={"objectives": maximize}), supervisor)
    assert supervisor.results[0].values == [1.0]


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"function": "branin", "x0": 1.0}, "Expected 2 coordinates of branin: x0 … x1. Received: x0"),
        ({"function": "hartmann6"}, "Expected 6 coordinates of hartmann6: x0 … x5. Received: none"),
        ({"function": "sphere", "x0": 1.0, "x2": 1.0}, "Expected 2 coordinates of sphere: x0 … x1. Received: x0, x2"),
        ({"function": "sphere"}, "Expected 1 coordinates of sphere: x0. Received: none"),
        ({"function": "cube", "x0": 1.0}, "Expected one of sphere"),
        ({"x0": 1.0, "units": 3}, "units"),
    ],
)
def test_impossible_points_are_refused_in_words_and_their_neighbours_train(point: dict[str, float], words: str) -> None:
    supervisor = Supervisor()
    run_function(stack(point, {"function": "sphere", "x0": 1.0}), supervisor)
    assert supervisor.results[0].reason is FailureReason.REFUSED
    assert words in (supervisor.results[0].message or "")
    assert supervisor.results[1].values == [1.0]


def test_an_unknown_metric_refuses_the_stack() -> None:
    supervisor = Supervisor()
    request = stack({"x0": 1.0}, {"x0": 2.0})
    run_function(request.model_copy(update={"objectives": [Objective(metric="val_loss")]}), supervisor)
    assert {r.reason for r in supervisor.results.values()} == {FailureReason.REFUSED}
    assert supervisor.said == ["members_done"]


def test_a_verdict_ends_a_member_at_its_epoch_and_the_others_go_on() -> None:
    supervisor = Supervisor(
        stop=lambda reports: [Stop(member=r.member, reason="PRUNED") for r in reports if r.member == 1 and r.epoch == 1]
    )
    run_function(stack({"x0": 1.0}, {"x0": 2.0}), supervisor)
    assert (supervisor.results[1].outcome, supervisor.results[1].stop_reason) == ("stopped", "PRUNED")
    assert (supervisor.results[1].epochs, supervisor.results[1].values) == (2, [4.5])
    assert supervisor.results[0].values == [1.0]
    done = ["epoch_done", "epoch_done", "members_done", "epoch_done", "epoch_done", "members_done"]
    assert supervisor.said == done


def test_early_stopping_ends_a_member_that_no_longer_improves() -> None:
    supervisor = Supervisor()
    rule = EarlyStopping(metric="value", patience=2, min_delta=0.5)
    run_function(stack({"x0": 1.0}, epochs=10, early_stopping=rule), supervisor)
    # The curve falls by 0.1 an epoch: never by more than 0.5 within the patience.
    assert (supervisor.results[0].outcome, supervisor.results[0].epochs) == ("complete", 3)


def test_a_value_that_is_not_finite_fails_its_member_alone() -> None:
    supervisor = Supervisor()
    run_function(stack({"function": "rosenbrock", "x0": 1e12, "x1": 1e12}, {"x0": 1e12}), supervisor)
    assert supervisor.results[0].outcome == "complete"  # large is finite
    assert supervisor.results[1].values == [1e24]


def test_there_is_no_model_to_keep() -> None:
    supervisor = Supervisor(keep=lambda results: [KeepModel(member=0, path="nowhere")])
    run_function(stack({"x0": 1.0}), supervisor)
    assert supervisor.kept[0].error


def test_delays_of_a_stack_pass_side_by_side() -> None:
    supervisor = Supervisor()
    run_function(stack(*[{"x0": 1.0, "delay_seconds": 0.05}] * 4, epochs=2), supervisor)
    for result in supervisor.results.values():
        assert 0.1 <= result.metrics["train_seconds"] < 0.2 + 1.0
        assert result.device_seconds == pytest.approx(result.metrics["train_seconds"] / 4)


def test_tensorflow_and_numpy_are_not_imported() -> None:
    code = "import sys, worker.trainer.function; print(*{'tensorflow', 'keras', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
