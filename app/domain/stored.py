"""Definitions as they are stored: a newer version's may hold what this one doesn't know."""

from __future__ import annotations

from pydantic import ValidationError

from app.domain.study import StudyDefinition
from app.errors import DefinitionTooNew

SHOWN = 3
"""Places that are named."""


def read_definition(text: str) -> StudyDefinition:
    """The definition in a study's row.

    Raises:
        DefinitionTooNew: it can't be read here. Each was accepted when it was stored, so newer code did that.
    """
    try:
        return StudyDefinition.model_validate_json(text)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        words = "; ".join(told[:SHOWN])
        raise DefinitionTooNew(f"Expected a definition of this version. Received a newer one: {words}.") from None
