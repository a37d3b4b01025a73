"""The XLA twin of a program: compiled beside it, the same numbers, and taken only where it was measured faster."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from app.domain.families import FAMILIES
from app.domain.study import DatasetSpec
from tests.acceptance.training_reference import stack_of
from tests.processes import wait_for
from worker.training import acceleration
from worker.training.acceleration import Accelerator, Twin
from worker.training.program import Program
from worker.training.signature import filled, structural_signature

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

VALUES = {"units": 16, "batch_size": 32, "learning_rate": 1e-3, "dropout": 0.2, "l2": 1e-4, "activation": "tanh"}


def _program() -> tuple[Program, dict[str, object]]:
    request = stack_of("mlp", DatasetSpec(name="wine"), [VALUES])
    return Program(structural_signature(request), 1), filled(FAMILIES["mlp"], VALUES)


def _train(program: Program, values: dict[str, object], epochs: int = 3) -> tuple[list[float], np.ndarray]:
    program.reset(0, values, seed=7, epochs=epochs)  # type: ignore[arg-type]
    losses = [program.run_epoch([0])[0].val_loss for _ in range(epochs)]
    return losses, program.weights[0].numpy()


def test_a_twin_gives_the_programs_numbers_and_leaves_it_alone() -> None:
    program, values = _program()
    losses, weights = _train(program, values)
    twin = Twin(program.signature, 1)
    twin.start()
    twin.join(120)
    assert twin.program is not None
    np.testing.assert_array_equal(program.weights[0].numpy(), weights)
    twin_losses, twin_weights = _train(twin.program, values)
    np.testing.assert_allclose(twin_losses, losses, rtol=1e-4)
    np.testing.assert_allclose(twin_weights, weights, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("faster", [True, False])
def test_a_hot_program_is_replaced_exactly_where_its_twin_is_faster(
    faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, values = _program()
    accelerator = Accelerator()
    _train(program, values)
    monkeypatch.setattr(acceleration, "HOT_S", 1e9)
    assert accelerator.considered(program) is program
    assert not accelerator._is_busy()
    monkeypatch.setattr(acceleration, "HOT_S", 0.0)
    assert accelerator.considered(program) is program
    assert accelerator._is_busy()
    wait_for(lambda: not accelerator._is_busy(), 120, "the twin")
    # What it measured is replaced, so that the decision alone is tested, whatever this machine's speed.
    accelerator._twins[program].epoch_s = program.epoch_s * (0.5 if faster else 2.0)
    chosen = accelerator.considered(program)
    assert (chosen is not program) == faster
    assert accelerator.considered(chosen) is chosen
    assert not accelerator._is_busy()
