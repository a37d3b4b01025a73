"""Which of several points no other one beats."""

from __future__ import annotations

from collections.abc import Sequence


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
