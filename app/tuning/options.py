"""Options of samplers and pruners: strict pydantic models, and their errors as fields of the study definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from app.errors import FieldError

Loc = tuple[str | int, ...]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Startup = Annotated[StrictInt, Field(ge=0, le=10**6)]
Positive = Annotated[StrictInt, Field(ge=1, le=10**6)]


class Options(BaseModel):
    """The options of one sampler or pruner: immutable, without conversions, unknown ones refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OptionsError(Exception):
    """A sampler or pruner that can't be used as named; `errors` carry their places in the study definition."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(error.msg for error in errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Choice:
    """A sampler or pruner as the API lists it; `options` is the JSON Schema of its options."""

    name: str
    description: str
    multi_objective: bool
    options: dict[str, Any]


M = TypeVar("M", bound=Options)


def read_options(model: type[M], options: Mapping[str, Any], loc: Loc) -> M:
    """`options` as the model, all defaults filled in. `loc` is their path in the definition.

    Raises:
        OptionsError: an option that is unknown, of the wrong type or out of range.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        known = ", ".join(sorted(model.model_fields)) or "none"
        raise OptionsError(
            [
                FieldError(
                    (*loc, *problem["loc"]),
                    f"Expected one of the options: {known}. Received: {problem['loc'][-1]!r}"
                    if problem["type"] == "extra_forbidden"
                    else problem["msg"],
                )
                for problem in error.errors(include_url=False, include_context=False)
            ]
        ) from None


def unknown_name(kind: str, name: str, known: Mapping[str, Any], loc: Loc) -> OptionsError:
    """The error of a sampler or pruner name that isn't offered."""
    return OptionsError([FieldError(loc, f"Expected a {kind} among: {', '.join(known)}. Received: {name!r}")])
