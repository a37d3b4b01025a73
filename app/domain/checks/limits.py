"""How much a definition weighs: what is stored once for the study, and again for every trial."""

from __future__ import annotations

from collections.abc import Iterator

from app.domain.families import Scalar
from app.domain.space import Categorical, Float, Int
from app.domain.study import StudyDefinition
from app.errors import FieldError

MAX_TEXT = 1_000
"""Characters of a fixed value or a choice: every trial repeats it."""
MAX_CONDITIONS = 32
"""Parents of one hyperparameter."""
MAX_CONDITION_VALUES = 1_000
"""Values of one of them: as many as it may have choices."""
MAX_WORKER_LABELS = 64
MAX_NAME = 128
"""Characters of a hyperparameter's name."""


def weight_problems(definition: StudyDefinition, max_bytes: int) -> list[FieldError]:
    """What is too large in a definition; `max_bytes` is for all of it as JSON."""
    found = list(_parts(definition))
    if not found:
        size = len(definition.model_dump_json().encode())
        if size > max_bytes:
            found.append(
                FieldError(
                    (),
                    f"Expected a definition of at most {max_bytes:,} bytes, this service's limit. Received: {size:,}",
                )
            )
    return found


def _parts(definition: StudyDefinition) -> Iterator[FieldError]:
    labels = definition.execution.worker_labels
    if len(labels) > MAX_WORKER_LABELS:
        yield FieldError(
            ("execution", "worker_labels"), f"Expected at most {MAX_WORKER_LABELS} labels. Received: {len(labels):,}"
        )
    for name, value in definition.hyperparameters.items():
        loc = ("hyperparameters", name)
        if len(name) > MAX_NAME:
            yield FieldError(loc, f"Expected a name of at most {MAX_NAME} characters. Received: {len(name):,}")
        if isinstance(value, Float | Int | Categorical):
            yield from _searched(loc, value)
        elif _is_long(value):
            yield FieldError(loc, f"Expected text of at most {MAX_TEXT:,} characters. Received: {len(str(value)):,}")


def _searched(loc: tuple[str, ...], parameter: Float | Int | Categorical) -> Iterator[FieldError]:
    if len(parameter.when) > MAX_CONDITIONS:
        yield FieldError(
            (*loc, "when"), f"Expected at most {MAX_CONDITIONS} parents. Received: {len(parameter.when):,}"
        )
    for parent, values in parameter.when.items():
        if len(values) > MAX_CONDITION_VALUES:
            yield FieldError(
                (*loc, "when", parent),
                f"Expected at most {MAX_CONDITION_VALUES:,} values. Received: {len(values):,}",
            )
    if isinstance(parameter, Categorical) and any(map(_is_long, parameter.choices)):
        yield FieldError((*loc, "choices"), f"Expected texts of at most {MAX_TEXT:,} characters. Received a longer one")


def _is_long(value: Scalar) -> bool:
    return isinstance(value, str) and len(value) > MAX_TEXT
