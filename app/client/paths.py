"""The addresses of resources."""

from __future__ import annotations

from urllib.parse import quote


def study_path(study: str) -> str:
    """Where a study is."""
    return f"/v1/studies/{quote(study, safe='')}"


def trial_path(study: str, number: int) -> str:
    """Where a trial is."""
    return f"{study_path(study)}/trials/{number:d}"
