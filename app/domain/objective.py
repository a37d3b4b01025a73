"""What a trial is judged by: how far its metrics break constraints, and which points no other one dominates."""

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


def pareto_front(losses: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """The distinct points that no other one dominates, ascending; smaller is better in every place.

    Points are visited in lexicographic order: a point can be dominated by earlier ones alone, by those no worse in all
    places but the first (Kung et al., 1975). Of those the best in these places are kept: with two objectives one.
    """
    front: list[tuple[float, ...]] = []
    lowest: list[tuple[float, ...]] = []
    for point in sorted(set(losses)):
        rest = point[1:]
        if not any(_no_worse(low, rest) for low in lowest):
            front.append(point)
            lowest = [*(low for low in lowest if not _no_worse(rest, low)), rest]
    return front


def _no_worse(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))
