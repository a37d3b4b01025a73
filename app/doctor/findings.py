"""What a check says: how things are, how they should be, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Status(StrEnum):
    """How bad it is: only what failed makes the exit code 1."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice` is empty where all is well."""

    check: str
    status: Status
    expected: str
    found: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        """Its fields, for programs."""
        return {name: str(value) for name, value in asdict(self).items()}


def ok(check: str, expected: str, found: str) -> Finding:
    """A finding that all is well."""
    return Finding(check, Status.OK, expected, found)


def warning(check: str, expected: str, found: str, advice: str) -> Finding:
    """A finding that something deserves a look."""
    return Finding(check, Status.WARNING, expected, found, advice)


def failed(check: str, expected: str, found: str, advice: str) -> Finding:
    """A finding that something doesn't work."""
    return Finding(check, Status.FAILED, expected, found, advice)
