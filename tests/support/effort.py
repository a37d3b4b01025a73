"""How much tests do: few examples by default, the same each time; as many as one asks for, others each time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import hypothesis
import pytest

EXAMPLES = "FETTLE_TEST_EXAMPLES"
"""The environment variable that multiplies the examples of every searching test: 20 is a long run."""


def factor() -> int:
    """By how much more than usual tests search."""
    return max(1, int(os.environ.get(EXAMPLES, "1")))


def searching(examples: int, **changes: Any) -> hypothesis.settings:
    """Hypothesis' settings for a test that tries `examples` by default.

    A plain run repeats itself, so that a failure is the change's own; a longer one looks elsewhere each time.
    Hypothesis takes constants from those of our modules that are imported: to repeat a failure of a whole run, collect
    as much as it did.
    """
    chosen: dict[str, Any] = {
        "max_examples": examples * factor(),
        "derandomize": EXAMPLES not in os.environ,
        "database": None,
        "deadline": None,
        "print_blob": True,
        "suppress_health_check": list(hypothesis.HealthCheck),
    }
    return hypothesis.settings(**(chosen | changes))


def with_smoke(names: Iterable[str], *chosen: str) -> list[Any]:
    """Parameters of a test, of which `make test` runs those `chosen` and `make test-all` the others too."""
    all_names = list(names)
    assert set(chosen) <= set(all_names), f"Expected some of {all_names}. Received: {chosen}."
    return [pytest.param(name, marks=pytest.mark.smoke) if name in chosen else name for name in all_names]
