"""What a study's owner should know that only those who train it find out, such as about the split of its data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.store.optuna import set_study_attribute, study_attributes

WARNINGS = "warning"
"""The scope of the attributes that hold them: Optuna sees those of users and systems alone."""
KEY_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class StudyWarning:
    """A warning: what kind it is, in words, and the place in the definition that it is about."""

    code: str
    message: str
    loc: tuple[str, ...]


def warn(session: Session, study_id: int, warnings: Sequence[StudyWarning]) -> None:
    """Keep warnings about a study; one that is there already stays as it is."""
    for warning in warnings:
        key = hashlib.sha256(f"{warning.code}\n{warning.message}".encode()).hexdigest()[:KEY_CHARACTERS]
        set_study_attribute(session, study_id, WARNINGS, f"{warning.code}:{key}", asdict(warning))


def warnings_of(session: Session, study_ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """The warnings about each study, as JSON values, in order."""
    return {
        study_id: list(found.values()) for study_id, found in study_attributes(session, study_ids, WARNINGS).items()
    }
