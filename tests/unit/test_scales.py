"""Where values stand on the axes of figures: themselves where plotly.js can draw them, else positions."""

from __future__ import annotations

import math

import pytest

from app.tuning.scales import Range

BELOW, ABOVE = math.nextafter(1e-300, 0), math.nextafter(1e300, math.inf)


@pytest.mark.parametrize(
    ("scale", "can_be_drawn"),
    [
        (Range(0.0, 1e-300), True),
        (Range(0.0, BELOW), False),
        (Range(1e-300, 1.0, log=True), True),
        (Range(BELOW, 1.0, log=True), False),
        (Range(BELOW, BELOW, log=True), False),
        (Range(0.0, 1e300), True),
        (Range(0.0, ABOVE), False),
        (Range(1.0, ABOVE, log=True), False),
        (Range(1.0, 1.0 + 1e-11), True),
        (Range(1.0, 1.0 + 1e-13), False),
        (Range(1e16, 1e16), False),
    ],
)
def test_an_axis_holds_numbers_up_to_its_limits_and_positions_beyond(scale: Range, can_be_drawn: bool) -> None:
    assert scale.can_be_drawn is can_be_drawn
    assert scale.position(scale.low) == (0.5 if scale.low == scale.high else 0.0)
    assert scale.position(scale.high) == (0.5 if scale.low == scale.high else 1.0)
