"""How far a trial's metrics break a study's constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.domain.study import Constraint


def violations(constraints: Sequence[Constraint], metrics: Mapping[str, float]) -> tuple[float, ...]:
    """How far each constraint is broken, positive where it is; a metric that wasn't reported breaks its constraint."""
    found = []
    for constraint in constraints:
        value = metrics.get(constraint.metric)
        if value is None:
            found.append(1.0)
            continue
        over = value - constraint.max if constraint.max is not None else float("-inf")
        under = constraint.min - value if constraint.min is not None else float("-inf")
        found.append(max(over, under))
    return tuple(found)
