"""Whether the heads of a transformer divide its width: in every trial, in some, or never."""

from __future__ import annotations

from collections.abc import Iterator

from app.domain.effort import Meter
from app.domain.families import Scalar
from app.domain.space import Categorical, Float, Int
from app.domain.study import StudyDefinition
from app.errors import FieldError


def head_problems(definition: StudyDefinition, meter: Meter) -> Iterator[FieldError]:
    """Heads that divide the width in no trial; `definition` has all defaults."""
    shares = _divides(definition, meter)
    if shares and not any(shares):
        heads, width = (definition.hyperparameters[name] for name in ("heads", "width"))
        yield FieldError(
            ("hyperparameters", "heads"),
            f"Expected heads that divide the width. Received: heads of {_told(heads)}, a width of {_told(width)}",
        )


def head_warnings(definition: StudyDefinition, meter: Meter) -> Iterator[str]:
    """Heads that divide the width in some trials alone: the others are refused before they train."""
    shares = _divides(definition, meter)
    if shares and any(shares) and not all(shares):
        yield (
            f"In {len(shares) - sum(shares)} of {len(shares)} combinations heads don't divide the width: such trials "
            "fail as REFUSED. Let every width be a multiple of every number of heads."
        )


def _divides(definition: StudyDefinition, meter: Meter) -> list[bool]:
    """Whether heads divide the width, for each combination; empty for families without heads."""
    found = [definition.hyperparameters.get(name) for name in ("heads", "width")]
    heads, widths = (sorted(_whole_numbers(value)) for value in found)
    meter.spend(len(heads) * len(widths), ("hyperparameters", "heads"))
    return [width % head == 0 for head in heads for width in widths]


def _whole_numbers(value: Float | Int | Categorical | Scalar | None) -> Iterator[int]:
    if isinstance(value, Int):
        yield from range(value.low, value.high + 1, value.step)
    elif isinstance(value, Categorical):
        yield from (int(choice) for choice in value.choices if not isinstance(choice, str))
    elif isinstance(value, int | float):
        yield int(value)


def _told(value: Float | Int | Categorical | Scalar) -> str:
    if isinstance(value, Float | Int):
        return f"{value.low:g} to {value.high:g}"
    if isinstance(value, Categorical):
        return " or ".join(map(str, value.choices))
    return str(value)
