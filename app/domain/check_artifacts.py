"""Rules about the files that a study asks for."""

from __future__ import annotations

from app.domain.families import Family
from app.domain.study import StudyDefinition
from app.errors import FieldError


def check_artifacts(definition: StudyDefinition, family: Family) -> list[FieldError]:
    """What is wrong with `execution.artifacts`: files beside a model need a model that is kept."""
    execution = definition.execution
    if execution.artifacts and execution.keep_models == "none":
        message = "Expected keep_models best or all: these files are written beside a kept model. Received: none"
        return [FieldError(("execution", "artifacts"), message)]
    if execution.artifacts and not family.needs_dataset:
        message = f"Expected none: they are written beside a Keras model, and the family {family.name} has none"
        return [FieldError(("execution", "artifacts"), message)]
    return []
