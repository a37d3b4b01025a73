"""Which of two values is better, and values as losses."""

from __future__ import annotations

import math

import pytest

from app.domain.direction import is_better, losses, maximizes, sign
from app.domain.study import Objective


@pytest.mark.parametrize(
    ("value", "than", "minimized", "maximized"),
    [(1.0, 2.0, True, False), (2.0, 1.0, False, True), (1.0, 1.0, False, False), (math.nan, 1.0, False, False),
     (1.0, math.nan, False, False), (-math.inf, 0.0, True, False), (0.0, -0.0, False, False)],
)  # fmt: skip
def test_a_value_is_better_in_its_direction_alone(value: float, than: float, minimized: bool, maximized: bool) -> None:
    for direction, better in (("minimize", minimized), ("maximize", maximized)):
        objective = Objective(metric="m", direction=direction)
        assert is_better(value, than, direction) is better
        assert objective.is_better(value, than) is better
        assert (objective.loss(value) < objective.loss(than)) is better
        assert objective.maximizes is maximizes(direction) is (sign(direction) < 0)


def test_losses_are_ascending_whatever_the_directions() -> None:
    assert losses([0.5, 3, -1.0], ["maximize", "minimize", "maximize"]) == (-0.5, 3, 1.0)
    with pytest.raises(ValueError, match="longer"):
        losses([1.0], ["minimize", "maximize"])
